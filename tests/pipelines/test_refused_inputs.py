"""Inputs that a round refuses: one message that says what to do, no traceback, nothing written."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from project_folders import environment, make_project

from paced_rl.parameters import DataPreparationParameters, PolicyParameters
from paced_rl.pipelines.data_preparation.nodes import prepare_prompts
from paced_rl.policies import file_digests
from paced_rl.types import Checkpoint


def prompts_of(texts: list[str], folder: Path, policy: Path) -> Any:
    """The prompts table of a file with these prompts, ids 0, 1, … ."""
    file = folder / "prompts.jsonl"
    rows = [
        {"prompt": text, "reference_answer": "", "verifier_arguments": {"numbers": [i], "target": 1}, "id": i}
        for i, text in enumerate(texts)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return prepare_prompts(
        Checkpoint(folder=policy, files=file_digests(policy), metadata={"policy_version": 0}),
        DataPreparationParameters(source=str(file), num_audit=0, num_validation=1, num_test=0),
        PolicyParameters(source=str(policy)),
        seed=1,
    )


def test_prompts_that_the_tokenizer_knows_are_read_whole(tmp_path: Path, tiny_policy_folder: Path) -> None:
    table = prompts_of(["1 2>3:", "4  5>9:", " 6 7>13: "], tmp_path, tiny_policy_folder)
    assert [len(ids) for ids in table["token_ids"]] == [len(text) for text in table["text"]]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            ["1 2=3:", "4 5>9:", "é6=7:"],
            r"^2 of 3 prompts have 2 characters .*: '=' \(U\+003D\) in 2 prompts, .*'é' \(U\+00E9\) in 1 .*'é6=7:'",
        ),
        (["1 2>3:", "4\n5>9:"], r"^1 of 2 prompts have 1 characters .*'\\n' \(U\+000A\).*set policy\.source"),
    ],
)
def test_characters_that_the_tokenizer_would_drop_are_named(
    texts: list[str], message: str, tmp_path: Path, tiny_policy_folder: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        prompts_of(texts, tmp_path, tiny_policy_folder)


def test_an_unknown_token_is_a_lost_character(tmp_path: Path, tiny_policy_folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    policy = Path(shutil.copytree(tiny_policy_folder, tmp_path / "policy"))
    vocabulary = {"[UNK]": 0, "one": 1, "two": 2}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(policy)
    (policy / "config.json").write_text(json.dumps({"model_type": "gpt2"}))  # any whose tokenizer class is generic
    assert len(prompts_of(["one two", "two one"], tmp_path, policy)) == 2
    with pytest.raises(ValueError, match=r"1 of 2 prompts have 2 characters .*'K' .*'x' "):
        prompts_of(["one two", "one Kx"], tmp_path, policy)


def test_a_command_ends_with_the_message_alone(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    (project / "data/01_raw/starter_policy/tokenizer.json").unlink()
    kedro = Path(sys.executable).with_name("kedro")
    command = [str(kedro), "run", "--env", "test"]
    result = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("Error: PolicyFolderError: policy folder ")
    assert "Traceback" not in result.stdout + result.stderr
    assert not list((project / "data" / "03_primary").rglob("*.parquet"))
