"""The project's configuration loader gives what Kedro's gives, whatever was read before, and sees every edit."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from kedro.config import OmegaConfigLoader

from paced_rl.configuration import RoundConfigLoader
from paced_rl.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

CONF = Path(__file__).parents[1] / "conf"
PARAMS: list[dict[str, Any]] = [
    {},
    {"round": 3, "experiment": "mine"},
    {"round": 12, "training": {"learning_rate": 0.5}},
]


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf" / "local").mkdir(exist_ok=True)
    return tmp_path / "conf"


def _loader(
    kind: type[OmegaConfigLoader], conf: Path, params: dict[str, Any], env: str | None = None
) -> OmegaConfigLoader:
    return kind(str(conf), env=env, runtime_params=params, **CONFIG_LOADER_ARGS)


def test_the_project_uses_it() -> None:
    assert CONFIG_LOADER_CLASS is RoundConfigLoader


@pytest.mark.parametrize("env", [None, "test", "gpu", "grpo"])
def test_it_gives_what_kedros_loader_gives(conf: Path, env: str | None) -> None:
    for params in PARAMS:  # from the second on from what was kept
        loaders = [_loader(kind, conf, params, env) for kind in (OmegaConfigLoader, RoundConfigLoader)]
        for key in ("globals", "parameters", "catalog"):
            theirs, ours = (loader[key] for loader in loaders)
            assert ours == theirs
            assert list(ours) == list(theirs)


def test_what_a_caller_changes_is_not_kept(conf: Path) -> None:
    expected = _loader(OmegaConfigLoader, conf, {})
    for key in ("parameters", "catalog"):
        _loader(RoundConfigLoader, conf, {})[key].clear()
        assert _loader(RoundConfigLoader, conf, {})[key] == expected[key]


def test_every_edit_counts(conf: Path) -> None:
    def read(name: str) -> Any:
        return _loader(RoundConfigLoader, conf, {})["parameters"].get(name)

    assert read("seed") != 7
    (conf / "local" / "parameters.yml").write_text("seed: 7\n")
    assert read("seed") == 7
    (conf / "local" / "parameters.yml").write_text("seed: 8\n")
    assert read("seed") == 8
    (conf / "local" / "parameters_more.yml").write_text("another: 1\n")
    assert read("another") == 1
    (conf / "local" / "parameters.yml").unlink()
    assert read("seed") not in (7, 8)


def test_credentials_follow_the_environment(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (conf / "local" / "credentials.yml").write_text("server:\n  token: ${oc.env:SOME_TOKEN}\n")
    for token in ("first", "second"):
        monkeypatch.setenv("SOME_TOKEN", token)
        assert _loader(RoundConfigLoader, conf, {})["credentials"] == {"server": {"token": token}}


def test_a_template_is_the_same_wherever_it_is_mentioned(conf: Path) -> None:
    (conf / "local" / "catalog.yml").write_text(
        "_folder: ${runtime_params:folder,here}\n"
        "_both: {first: '${_folder}/1', second: '${_folder}/2'}\n"
        "one: {type: pandas.CSVDataset, filepath: '${_folder}/one.csv'}\n"
        "two: {type: pandas.CSVDataset, filepath: '${_both.second}/two.csv'}\n"
    )
    for folder in ("here", "there"):
        catalog = _loader(RoundConfigLoader, conf, {} if folder == "here" else {"folder": folder})["catalog"]
        assert catalog["one"]["filepath"] == f"{folder}/one.csv"
        assert catalog["two"]["filepath"] == f"{folder}/2/two.csv"
        assert not any(name.startswith("_") for name in catalog)
