"""`kedro paced counterfactual` on real rounds of tiny size."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from project_folders import inside, make_project, run

from paced_rl.commands.counterfactual import counterfactual
from paced_rl.counterfactual.replay import SCHEMA
from paced_rl.metrics.choices import MEASURES
from paced_rl.scheduling.counterfactual import RULES

FOLDER = Path("data/08_reporting/counterfactual/experiment=test")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six rounds of eight prompts, all drawn uniformly, the first of which is the warm-up."""
    folder = make_project(tmp_path_factory.mktemp("counterfactual") / "project")
    run(folder, range(1, 7), params={"scheduling": {"selector": "uniform"}, "evaluation": {"every": 10}})
    return folder


def call(project: Path, *arguments: str) -> Result:
    with inside(project):
        return CliRunner().invoke(counterfactual, [*arguments, "--env", "test"], catch_exceptions=False)


def test_every_rule_is_told_with_what_it_does_not_say(project: Path) -> None:
    files = {path for path in project.rglob("*") if path.is_file()}
    result = call(project, "--blocks", "2")
    assert result.exit_code == 0, result.output
    assert "5 rounds, 2 to 6, with 8 uniformly drawn prompts each, of which every rule takes 25%." in result.output
    assert "The policy would have moved differently." in result.output
    assert "±" in result.output
    written = {path.relative_to(project) for path in project.rglob("*") if path.is_file() and path not in files}
    names = ("counterfactual.parquet", "counterfactual.png", "report.md", "calibration.parquet")
    assert written == {FOLDER / name for name in names}
    report = (project / FOLDER / "report.md").read_text()
    for selector, _ in RULES:
        assert f"| `{selector}` |" in report
    assert "## What cannot be concluded" in report
    assert "| regret, rounds | uniform | nearest learned | nearest group_mean | posterior learned | oracle |" in report
    num_measures, num_estimators = 4, 5
    assert report.count("\n| 2 to 3 | ") == report.count("\n| 4 to 6 | ") == num_measures + num_estimators
    assert "| 2 to 6 | learned | 40 |" in report
    assert "    kedro paced counterfactual --experiment test --share 0.25 --blocks 2 --env test" in report


def test_the_table_is_what_the_rounds_say(project: Path) -> None:
    """Against pandas on the rounds' own summaries: uniform takes all of a round, so its rates are the round's."""
    assert call(project, "--blocks", "6").exit_code == 0
    path = project / FOLDER / "counterfactual.parquet"
    assert pq.read_schema(path).equals(SCHEMA)
    table = pd.read_parquet(path, partitioning=None)
    assert len(table) == (1 + 5) * len(RULES) * len(MEASURES)
    summaries = pd.read_parquet(project / "data/08_reporting/round_summary/experiment=test").query("policy_version > 1")
    uniform = table[(table["selector"] == "uniform") & ~table["is_total"]]
    for name in ("hit_rate", "informative_fraction"):
        found = uniform[uniform["measure"] == name]
        assert found["first_round"].tolist() == found["last_round"].tolist() == [2, 3, 4, 5, 6]
        assert found["value"].tolist() == pytest.approx(summaries[name].tolist())
    honest = table.dropna(subset=["value", "low", "high"])
    assert (honest["low"] <= honest["high"]).all()
    assert table[table["selector"] == "hindsight"].set_index("measure").loc["regret", "value"].isna().all()
    assert table[table["selector"] == "oracle"].set_index("measure").loc["hit_rate", "value"].isna().all()


def test_it_comes_out_the_same_again(project: Path) -> None:
    def contents() -> dict[str, bytes]:
        assert call(project).exit_code == 0
        return {path.name: path.read_bytes() for path in (project / FOLDER).iterdir()}

    assert contents() == contents()


def test_refusals_say_what_to_do(project: Path) -> None:
    few = call(project, "--params", "scheduling.warm_up_rounds=2")
    assert few.exit_code == 2
    assert "has 4 rounds after the warm-up" in few.output
    assert "--params scheduling.selector=uniform" in few.output
    other = call(
        project, "--params", "training.objective=flowrl,training.replay_max_added=0,scheduling.estimator=group_mean"
    )
    assert other.exit_code == 2
    assert "log Z is no accuracy" in other.output
    assert call(project, "--share", "1").exit_code == 2
