from typing import Any

import click
import pytest

from paced_rl import preflight
from paced_rl.parameters import GROUPS, RolloutParameters
from paced_rl.preflight import PreflightError


def message_of(function: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(PreflightError) as caught:
        function(*args, **kwargs)
    assert isinstance(caught.value, click.ClickException), "click shows it without a traceback"
    return str(caught.value)


def is_refused(function: Any, *args: Any) -> bool:
    try:
        function(*args)
    except PreflightError:
        return True
    return False


def names_of(nested: dict[str, Any], prefix: str = "") -> set[str]:
    """Dotted names of everything in nested mappings."""
    below = {name: value for name, value in nested.items() if isinstance(value, dict)}
    return {prefix + name for name in nested}.union(
        *(names_of(value, f"{prefix}{name}.") for name, value in below.items())
    )


def problems_of(**groups: dict[str, Any]) -> list[str]:
    title, *problems = message_of(preflight.check_groups, groups).splitlines()
    assert title == "Parameters that cannot be used:"
    assert all(problem.startswith("  - ") for problem in problems)
    return [problem[4:] for problem in problems]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"raund": 3}, "Unknown parameter 'raund': did you mean round?"),
        (
            {"rollout": {"temperture": 0.3}},
            "Unknown parameter 'rollout.temperture': did you mean rollout.sampling_temperature?",
        ),
        (
            {"rollout": {"num_prompts": 3}},
            "Unknown parameter 'rollout.num_prompts': did you mean scheduling.num_prompts?",
        ),
        (
            {"data_preparation": {"countdown": {"min_number": 3}}},
            "Unknown parameter 'data_preparation.countdown.min_number': did you mean "
            "data_preparation.countdown.min_numbers?",
        ),
        ({"rolout": {"group_size": 3}}, "Unknown parameter 'rolout': did you mean rollout?"),
        ({"tracking": {"on": False}}, "Unknown parameter 'tracking.on': did you mean tracking.enabled?"),
        (
            {"zzz": 1},
            "Unknown parameter 'zzz': allowed here are data_preparation, policy, scheduling, rollout, verification, "
            "training, evaluation, reporting, stopping, retention, starter_policy, experiment, round, seed, tracking.",
        ),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(params: dict[str, Any], message: str) -> None:
    shown = message_of(preflight.check_parameter_names, params, preflight.known_parameters())
    assert shown == message


def test_every_unknown_name_is_shown() -> None:
    shown = message_of(preflight.check_parameter_names, {"raund": 1, "sed": 2}, preflight.known_parameters())
    assert [line.split("'")[1] for line in shown.splitlines()] == ["raund", "sed"]


def test_every_field_of_every_group_is_known() -> None:
    every = {name: dict(model().model_dump()) for name, model in GROUPS.items()}
    every |= {"experiment": "a", "round": 1, "seed": 0, "tracking": {"enabled": False}}
    assert names_of(preflight.known_parameters()) == names_of(every)
    assert not is_refused(preflight.check_parameter_names, every, preflight.known_parameters())


def test_names_below_a_parameter_of_somebody_elses_are_free() -> None:
    assert not is_refused(preflight.check_parameter_names, {"mine": {"a": 1}}, {"mine": None})
    assert is_refused(preflight.check_parameter_names, {"mine": {"a": 1}}, {"mine": {"b": None}})
    assert is_refused(preflight.check_parameter_names, {"mine": {"a": 1}}, {"yours": None})


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True, None])
def test_a_round_is_a_positive_integer(value: Any) -> None:
    shown = message_of(preflight.check_round, value)
    assert shown == f"round must be an integer of 1 or more, got {value!r}: e.g. --params round=1"


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (preflight.check_round, 1, 0),
        (preflight.check_seed, 0, 0.0),
        (preflight.check_seed, -1, None),
        (preflight.check_experiment_name, "paced", "paced!"),
        (preflight.check_experiment_name, "2026-01-01_run.3", "2026-01-01 run.3"),
        (preflight.check_experiment_name, "A", ""),
    ],
)
def test_good_values_pass_and_their_neighbours_do_not(check: Any, good: Any, bad: Any) -> None:
    assert (is_refused(check, good), is_refused(check, bad)) == (False, True)


def test_a_seed_is_an_integer() -> None:
    assert message_of(preflight.check_seed, "a") == "seed must be an integer, got 'a': e.g. --params seed=0"


@pytest.mark.parametrize("name", ["a/b", "", "a b", "ä", "a\n", "x=1", "../up"])
def test_an_experiment_name_can_be_a_folder(name: str) -> None:
    assert message_of(preflight.check_experiment_name, name).startswith(
        f"experiment '{name}' cannot be a folder's name"
    )


def test_an_experiment_name_that_is_read_as_a_number_is_explained() -> None:
    assert message_of(preflight.check_experiment_name, 2026) == (
        "experiment must be a text, got 2026: a name of digits only is read as a number, so begin it with a letter, "
        "e.g. --params experiment=run-2026"
    )


@pytest.mark.parametrize("device", ["cuda:99", "gpu", ""])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    shown = message_of(preflight.check_device, device)
    assert shown.startswith(f"policy.device = '{device}' cannot be used on this machine, PyTorch ")
    assert shown.endswith("Run where there is such a device, or give --params policy.device=cpu")
    assert "\n" not in shown
    assert not is_refused(preflight.check_device, "cpu")


def test_defaults_are_valid_and_built_groups_are_taken() -> None:
    rollout = RolloutParameters(group_size=3)
    groups = preflight.check_groups({"rollout": rollout, "training": None, "experiment": "x"})
    assert groups["rollout"] is rollout
    assert {name: type(group) for name, group in groups.items()} == GROUPS


def test_every_bad_value_is_one_line() -> None:
    assert problems_of(
        rollout={"group_size": 0, "temperture": 1.0},
        training={"objective": "ppo"},
        evaluation={"splits": ["test"]},
        policy=3,  # type: ignore[arg-type]
    ) == [
        "policy = 3: input should be a valid dictionary or instance of PolicyParameters",
        "rollout.group_size = 0: input should be greater than or equal to 1",
        "Unknown parameter 'rollout.temperture': did you mean rollout.sampling_temperature?",
        "training.objective = 'ppo': input should be 'paced', 'vargrad', 'grpo', 'dr_grpo', 'dapo' or 'rloo'",
        "evaluation.splits.0 = 'test': input should be 'validation' or 'audit'",
    ]


def test_rules_inside_a_group_keep_their_own_words() -> None:
    (problem,) = problems_of(training={"objective": "grpo", "replay_max_added": 64})
    assert problem.startswith("training: objective grpo needs every completion's whole group")
    (problem,) = problems_of(data_preparation={"countdown": {"min_numbers": 4, "max_numbers": 2}})
    assert problem == "data_preparation.countdown: min_numbers = 4 is above max_numbers = 2"


@pytest.mark.parametrize(
    ("groups", "beginning"),
    [
        (
            {"training": {"objective": "grpo", "replay_max_added": 0}, "rollout": {"group_size": 1}},
            "training.objective = grpo with rollout.group_size = 1: ",
        ),
        (
            {"training": {"objective": "vargrad", "replay_max_added": 0}, "rollout": {"group_size": 1}},
            "training.objective = vargrad with rollout.group_size = 1: ",
        ),
        (
            {"data_preparation": {"num_train": 31}},
            "scheduling.num_prompts = 32 is more than the data_preparation.num_train = 31 prompts there are",
        ),
        (
            {"scheduling": {"candidate_pool_size": 31}},
            "scheduling.candidate_pool_size = 31 is less than scheduling.num_prompts = 32",
        ),
        (
            {"scheduling": {"num_prompts": 4}},
            "scheduling.audit_fraction = 0.125 of 4 prompts rounds to an empty audit slice",
        ),
        (
            {"training": {"num_minibatches": 257}},
            "training.num_minibatches = 257 is more than the 256 completions of a round",
        ),
    ],
)
def test_rules_between_groups(groups: dict[str, Any], beginning: str) -> None:
    (problem,) = problems_of(**groups)
    assert problem.startswith(beginning)


@pytest.mark.parametrize(
    "groups",
    [
        {"data_preparation": {"num_train": 32}},
        {"data_preparation": {"num_train": 1, "source": "prompts.jsonl"}},
        {"scheduling": {"candidate_pool_size": 32}},
        {"scheduling": {"num_prompts": 4, "audit_fraction": 0}},
        {"scheduling": {"num_prompts": 4, "audit_fraction": 0.13}},
        {"training": {"num_minibatches": 256}},
        {"training": {"objective": "paced"}, "rollout": {"group_size": 1}},
    ],
)
def test_the_edges_of_the_rules_pass(groups: dict[str, Any]) -> None:
    checked = preflight.check_groups(groups)
    assert {name: checked[name].model_dump(include=set(group)) for name, group in groups.items()} == groups


def test_a_missing_previous_round_names_the_command_that_makes_it() -> None:
    missing = ["previous_policy@round", "previous_log_z_head@round"]
    assert message_of(preflight.check_previous_round, missing=missing, round_number=3, experiment="paced") == (
        "round 3 of experiment 'paced' needs round 2, which is missing or damaged (log_z_head, policy): run "
        "`kedro run --pipeline=paced_round --params round=2,experiment=paced`"
    )


def test_the_command_keeps_the_parameters() -> None:
    params = {"round": 3, "experiment": "x", "training": {"learning_rate": 0.1, "objective": "grpo"}}
    shown = message_of(
        preflight.check_previous_round, missing=["previous_policy"], round_number=3, experiment="x", params=params
    )
    assert shown.endswith("--params round=2,experiment=x,training.learning_rate=0.1,training.objective=grpo`")


def test_the_command_keeps_the_environment_and_round_1_needs_a_start() -> None:
    shown = message_of(
        preflight.check_previous_round, missing=["previous_policy@round"], round_number=1, experiment="x", env="gpu"
    )
    assert shown == (
        "round 1 of experiment 'x' needs the state it starts from, which is missing or damaged (policy): run "
        "`kedro run --pipeline=start --env=gpu --params experiment=x`"
    )
    preflight.check_previous_round(missing=[], round_number=3, experiment="x")
