"""The second task at tiny sizes, whole: its starter made, then a round on it, and the shipped starter untouched."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro.framework.startup import bootstrap_project
from project_folders import ROOT, inside, make_project, run
from transformers import AutoTokenizer

from paced_rl.parameters import DataPreparationParameters, StarterPolicyParameters
from paced_rl.pipelines.starter_policy.nodes import CHARACTERS, make_starter_corpus, train_starter_policy
from paced_rl.policies import file_digests

SHIPPED = Path("data/01_raw/starter_policy")
TINY: dict[str, Any] = {
    "data_preparation": {"num_train": 40, "num_audit": 8, "num_validation": 8, "num_test": 8},
    "scheduling": {"num_prompts": 8},
    "rollout": {"group_size": 4},
    "evaluation": {"every": 1, "num_samples": 2},
    "starter_policy": {"hidden_size": 32, "num_layers": 1, "intermediate_size": 32, "num_lines": 480, "batch_size": 8},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter is made and round 1 has run here, in this process."""
    from paced_rl.session import PacedSession

    folder = make_project(tmp_path_factory.mktemp("second") / "project")
    shutil.copytree(ROOT / "conf" / "sums", folder / "conf" / "sums")
    with inside(folder):
        bootstrap_project(folder)
        with PacedSession.create(folder, env="sums", runtime_params=TINY) as session:
            session.run(pipeline_names=["starter_policy"])
    assert run(folder, range(1, 2), env="sums", params=TINY) == [1]
    return folder


def test_the_starter_is_written_beside_the_shipped_one(project: Path) -> None:
    assert file_digests(project / SHIPPED) == file_digests(ROOT / SHIPPED)
    tokenizer = AutoTokenizer.from_pretrained(project / "data/06_models/starter_policy/sums", local_files_only=True)
    corpus = pd.read_parquet(project / "data/02_intermediate/starter_corpus/sums/starter_corpus.parquet")
    lines = corpus["prompt"] + corpus["completion"]
    assert tokenizer.batch_decode(tokenizer(lines.to_list())["input_ids"]) == lines.to_list()
    prompts = pd.read_parquet(project / "data/03_primary/prompts/experiment=sums/prompts.parquet")
    held_out = set(prompts.loc[prompts["split"] != "train", "text"])
    assert len(held_out) == 24
    assert not held_out & set(corpus["prompt"])


def test_a_round_judges_completions_by_the_right_answer(project: Path) -> None:
    prompts = pd.read_parquet(project / "data/03_primary/prompts/experiment=sums/prompts.parquet").set_index(
        "prompt_id"
    )
    folder = "experiment=sums/round=0001"
    rollouts = pd.read_parquet(project / f"data/07_model_output/rollouts/{folder}/rollouts.parquet")
    verdicts = pd.read_parquet(project / f"data/07_model_output/verdicts/{folder}/verdicts.parquet")
    assert set(verdicts["verifier"]) == {"exact_match"}
    assert set(verdicts["status"]) <= {"right", "wrong", "unparseable", "truncated"}
    assert len(verdicts) == 32
    answers = rollouts["prompt_id"].map(prompts["reference_answer"])
    is_right = verdicts["status"] == "right"
    is_truncated = verdicts["status"] == "truncated"
    assert ((rollouts["completion"].str.strip() == answers) & ~is_truncated).equals(is_right)
    assert json.loads(prompts["verifier_arguments"].iloc[0]) == {"answer": prompts["reference_answer"].iloc[0]}


def test_countdown_s_starter_is_the_same_as_ever() -> None:
    data = DataPreparationParameters(num_train=40, num_audit=8, num_validation=8, num_test=8)
    starter = StarterPolicyParameters(num_lines=400, batch_size=200, hidden_size=32, num_layers=1, intermediate_size=32)
    corpus = make_starter_corpus(data, starter, 0)
    digest = hashlib.sha256(corpus.to_json(orient="records").encode()).hexdigest()
    assert digest == "aa87d6017e36fee2ccfaf511be893b6bdcd223a8dfdc31804cd64bc645db67c0"
    files, losses = train_starter_policy(corpus, starter, 0)
    assert len(losses) == 2
    assert files.files["tokenizer.json"] == (ROOT / SHIPPED / "tokenizer.json").read_bytes()


def test_characters_that_countdown_lacks_come_after_its_own() -> None:
    corpus = pd.DataFrame({"prompt": ["1 + 2=", "a="], "completion": ["3", "Z"], "kind": "solution"})
    starter = StarterPolicyParameters(
        num_lines=2, batch_size=2, hidden_size=16, num_heads=2, num_layers=1, intermediate_size=16
    )
    files, _ = train_starter_policy(corpus, starter, 0)
    vocabulary = json.loads(files.files["tokenizer.json"])["model"]["vocab"]
    in_order = sorted(vocabulary, key=vocabulary.__getitem__)
    assert in_order == ["<pad>", "<eos>", *CHARACTERS.replace(" ", "Ġ"), "=", "Z", "a"]


def test_no_starter_is_made_for_a_file() -> None:
    data = DataPreparationParameters(source="my.jsonl")
    with pytest.raises(ValueError, match=r"source = 'my\.jsonl'.*Set countdown or reasoning_gym"):
        make_starter_corpus(data, StarterPolicyParameters(num_lines=2), 0)
