from pathlib import Path

import pytest
from matplotlib.figure import Figure
from round_runs import round_catalog, round_pipeline, run_with_hooks

from paced_rl.datasets.figure import FigureDataset
from paced_rl.hooks import SummaryHook, TimingsHook
from paced_rl.hooks.summary import summary_lines


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


def test_a_round_ends_with_what_happened_and_where_to_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runtime_params = {"round": 3, "rollout": {"group_size": 6, "note": "a b"}, "policy": {"revision": None}}
    catalog = round_catalog(tmp_path, experiment="mine", round=3)
    hooks = [SummaryHook(), TimingsHook()]
    for executed in (None, ["train", "report"]):
        run_with_hooks(
            hooks,
            project=tmp_path,
            catalog=catalog,
            pipeline=round_pipeline(),
            executed=executed,
            run_params={"env": "test", "runtime_params": runtime_params},
        )
    panel = capsys.readouterr().err.split("experiment mine, round 3")[-1]
    assert "0.500 of all" in panel
    assert "validation –" in panel
    assert "rollout cached, verification cached, training 0." in panel
    assert "2 executed, 2 cached" in panel
    assert "data/figures/experiment=mine/round=0003 " in panel
    assert "mlflow ui" in panel
    assert "kedro run --env=test --params 'round=4,rollout.group_size=6,rollout.note=a b,policy.revision=null'" in panel


def test_figures_of_one_round_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = round_catalog(tmp_path)
    for name in ("calibration_figure", "learning_curve_figure"):
        catalog[name] = FigureDataset(filepath=str(tmp_path / "data" / name / "round=0001" / f"{name}.png"))
        catalog.save(name, Figure(figsize=(0.5, 0.5)))
    run_with_hooks(
        [SummaryHook(), TimingsHook()], project=tmp_path, catalog=catalog, pipeline=round_pipeline(), run_params={}
    )
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "figure" in line]
    assert line.split()[1:3] == ["figures", "data/*_figure/round=0001"]


def test_no_replay_is_said_in_a_word() -> None:
    assert summary_lines({"num_replayed": 0})["replay"] == "none"
    shown = summary_lines({"num_replayed": 5, "replay_mean_age": 1.75, "replay_mean_reuse_count": 0.0})["replay"]
    assert shown == "5 completions, mean age 1.8 rounds, used 0.0 times before"


def test_what_measuring_cost_is_said_where_it_was_done() -> None:
    assert summary_lines({"tokens_sampled": 900})["tokens"] == "900 sampled, – trained, – evaluated"
    shown = summary_lines({"tokens_sampled": 900, "tokens_measured": 4000})["tokens"]
    assert shown == "900 sampled, – trained, – evaluated, 4,000 to measure candidates"


def test_a_single_stage_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = round_pipeline().filter(tags=["rollout"])
    run_with_hooks([SummaryHook()], project=tmp_path, catalog=round_catalog(tmp_path), pipeline=stage)
    assert "accuracy" not in capsys.readouterr().err


def test_statuses_that_did_not_occur_are_left_out() -> None:
    lines = summary_lines({"num_completions": 256, "num_right": 100, "num_wrong": 150, "num_truncated": 6})
    assert (
        lines["completions"] == "256: 100 right, 150 wrong, – unparseable, – timed out, 6 truncated, – verifier errors"
    )
    zeros = dict.fromkeys(("num_unparseable", "num_timed_out", "num_verifier_errors"), 0)
    lines = summary_lines({"num_completions": 256, "num_right": 100, "num_wrong": 150, "num_truncated": 6, **zeros})
    assert lines["completions"] == "256: 100 right, 150 wrong, 6 truncated"
