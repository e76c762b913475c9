"""Study files: which arms a grid makes, and what is refused before anything runs."""

from pathlib import Path

import pytest

from paced_rl.studies.study_file import StudyFileError, StudyPlan, read_study

ROOT = Path(__file__).parents[2]
BASE = "name: s\nrounds: 2\nseeds: [0, 1]\n"
TEST_SPLITS = {"splits": ["validation", "audit", "test"]}


def read(folder: Path, text: str) -> StudyPlan:
    file = folder / "study.yml"
    file.write_text(text)
    return read_study(file)


def refusal(folder: Path, text: str) -> list[str]:
    """The problems that are told, one per line."""
    with pytest.raises(StudyFileError) as caught:
        read(folder, text)
    first, *problems = str(caught.value).splitlines()
    assert str(folder / "study.yml") in first
    return [problem.removeprefix("  - ") for problem in problems]


def test_a_grid_is_every_combination_but_the_skipped_ones_and_arms_come_beside_it(tmp_path: Path) -> None:
    plan = read(
        tmp_path,
        BASE
        + """
params: {rollout: {group_size: 4}, rollout.batch_size: 64}
grid:
  selector: [uniform, nearest]
  training.learning_rate: [1e-4, 0.001]
  replay:
    with: {}
    without: {training.replay_max_added: 0, rollout.group_size: 2}
skip:
  - {selector: nearest, replay: without}
  - {training.learning_rate: 0.001, replay: with}
arms:
  plain: {training.objective: grpo}
""",
    )
    assert [arm.name for arm in plan.arms] == [
        "uniform-learning_rate_0.0001-with",
        "uniform-learning_rate_0.0001-without",
        "uniform-learning_rate_0.001-without",
        "nearest-learning_rate_0.0001-with",
        "plain",
    ]
    assert plan.arms[1].params == {
        "evaluation": TEST_SPLITS,
        "rollout": {"group_size": 2, "batch_size": 64},
        "scheduling": {"selector": "uniform"},
        "training": {"learning_rate": 1e-4, "replay_max_added": 0},
    }
    assert plan.arms[-1].params["rollout"] == {"group_size": 4, "batch_size": 64}, "one arm leaves another alone"


def test_an_experiment_has_its_name_its_seed_and_tags_for_mlflow(tmp_path: Path) -> None:
    plan = read(
        tmp_path, BASE + "params: {tracking: {enabled: false, run_tags: {who: me}}}\narms: {a: {}, b: {seed_: 1}}"
    )
    assert plan.experiment("a", 1) == "s-a-s1"
    assert plan.runtime_params(plan.arms[0], 1) == {
        "experiment": "s-a-s1",
        "seed": 1,
        "evaluation": TEST_SPLITS,
        "tracking": {"enabled": False, "run_tags": {"who": "me", "study": "s", "arm": "a"}},
    }
    assert "study" not in plan.arms[0].params["tracking"]["run_tags"], "the plan itself stays as it was"


def test_the_file_may_say_itself_what_is_evaluated(tmp_path: Path) -> None:
    plan = read(tmp_path, BASE + "params: {evaluation.splits: [test], evaluation.every: 1}\narms: {a: {}}")
    assert plan.arms[0].params["evaluation"] == {"splits": ["test"], "every": 1}


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("seeds: [0]\narms: {a: {}}", ["'name' is missing: a study needs name, rounds, seeds, and grid or arms"] * 2),
        (BASE + "grids: {}\narms: {a: {}}", ["unknown key 'grids': did you mean grid?"]),
        (BASE + "arms: {a: {}}\nreport: {basline: a}", ["unknown key 'report.basline': did you mean baseline?"]),
        (
            "name: s\nrounds: 0\nseeds: []\narms: {a: {}}",
            [
                "rounds = 0: input should be greater than or equal to 1",
                "seeds = []: tuple should have at least 1 item after validation, not 0",
            ],
        ),
        (BASE, ["neither grid nor arms: there is nothing to compare; name at least one arm"]),
        (
            "name: a/b\nrounds: 2\nseeds: [3, 3]\narms: {'x y': {}}",
            [
                "name 'a/b' cannot be part of a folder's name: letters, digits, '.', '_' and '-' are allowed",
                "arm 'x y' cannot be part of a folder's name: letters, digits, '.', '_' and '-' are allowed",
                "seeds = [3, 3]: one is listed twice, and would be the same experiment",
            ],
        ),
        (
            BASE + "grid: {temperature: [1, 2], selector: [nearest, nearest], estimator: []}",
            [
                "grid.temperature lists values of no parameter: an axis is called objective, selector, estimator or by "
                "a full name such as training.learning_rate; under a name of your own give a mapping of labels to "
                "parameters",
                "grid.selector = ['nearest', 'nearest']: one of them is there twice",
                "grid.estimator is empty: give at least one value, or leave the axis out",
            ],
        ),
        (
            BASE + "grid: {selector: [nearest]}\nskip: [{rule: x}, {selector: uniform}]",
            [
                "skip names the axis 'rule', the grid has selector",
                "skip names selector: uniform, which is not on that axis",
            ],
        ),
        (
            BASE + "grid: {selector: [nearest]}\nskip: [{selector: nearest}]",
            ["skip leaves no arm of the grid: there is nothing to run"],
        ),
        (
            BASE + "arms: {a: {rollout.group_size: 4}, b: {rollout: {group_size: 4}}}",
            ["arms 'a' and 'b' have the same parameters, so they would be the same experiment twice"],
        ),
        (
            BASE + "arms: {a: {seed: 3, round: 1}}",
            [
                "arm 'a' sets round: leave it out, `rounds` says how many there are",
                "arm 'a' sets seed: leave it out, `seeds` lists them",
            ],
        ),
        (
            BASE + "arms: {a: {}}\nreport: {baseline: b, accuracies: [0.5, 40]}",
            ["report.accuracies holds 40.0: an accuracy to reach is above 0 and at most 1"],
        ),
        (
            BASE + "arms: {uniform: {}}\nreport: {baseline: unifrom}",
            ["report.baseline = 'unifrom' is no arm: did you mean uniform?"],
        ),
    ],
)
def test_what_cannot_be_run_is_refused_with_what_to_do(tmp_path: Path, text: str, problems: list[str]) -> None:
    told = refusal(tmp_path, text)
    if "is missing" in problems[0]:
        problems = [problems[0], problems[1].replace("'name'", "'rounds'")]
    assert told == problems


def test_an_arm_of_the_grid_and_a_named_one_may_not_share_a_name(tmp_path: Path) -> None:
    told = refusal(tmp_path, BASE + "grid: {selector: [nearest]}\narms: {nearest: {rollout.group_size: 2}}")
    assert set(told) == {"arm 'nearest' is there twice, from grid and arms: rename the one under arms"}


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="duplicate key"):
        read(tmp_path, BASE + "arms: {a: {}, a: {}}")


@pytest.mark.parametrize("text", ["[1, 2", "", "- a"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(StudyFileError, match=r"study\.yml cannot be"):
        read(tmp_path, text)


@pytest.mark.parametrize("file", sorted((ROOT / "conf" / "studies").glob("*.yml")), ids=lambda file: file.stem)
def test_the_studies_of_the_project_can_be_read(file: Path) -> None:
    assert len(read_study(file).arms) >= 2
