import sys
from typing import Any

import click
import pytest
from fake_vllm_server import FakeVllmServer

from paced_rl import preflight
from paced_rl.hooks import preflight_rounds
from paced_rl.parameters import GROUPS, RolloutParameters
from paced_rl.preflight import PreflightError
from paced_rl.runner.content_fingerprints import canonical_json


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


def test_an_experiment_without_a_name_is_refused() -> None:
    message = message_of(preflight.check_experiment_name, None)
    assert message == "experiment has no name: give it one, e.g. --params experiment=paced"


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize(("group", "name"), [("training", "learning_rate"), ("verification", "timeout_seconds")])
def test_a_number_that_is_not_finite_is_refused(group: str, name: str, value: float) -> None:
    (problem,) = problems_of(**{group: {name: value}})
    assert problem.startswith(f"{group}.{name} = {value}")


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
    every["rollout"]["vllm_server"] = RolloutParameters().vllm_server.model_dump()  # left out of what results depend on
    every |= {"experiment": "a", "round": 1, "seed": 0, "tracking": {"enabled": False, "run_tags": {}}}
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


def test_an_engine_that_is_not_installed_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # Python's own way to say that a module is not there
    shown = message_of(preflight.check_backend, "vllm")
    assert shown.startswith("rollout.backend = vllm, and vLLM is not installed: `pip install 'paced-rl[vllm]'`")
    assert "\n" not in shown
    assert not is_refused(preflight.check_backend, "transformers")


def test_defaults_are_valid_and_built_groups_are_taken() -> None:
    rollout = RolloutParameters(group_size=3)
    groups = preflight.check_groups({"rollout": rollout, "training": None, "experiment": "x"})
    assert groups["rollout"] is rollout
    assert {name: type(group) for name, group in groups.items()} == GROUPS


def test_every_bad_value_is_one_line() -> None:
    assert problems_of(
        rollout={"group_size": 0, "temperture": 1.0},
        training={"objective": "ppo"},
        evaluation={"splits": ["train"]},
        policy=3,  # type: ignore[arg-type]
    ) == [
        "policy = 3: input should be a valid dictionary or instance of PolicyParameters",
        "rollout.group_size = 0: input should be greater than or equal to 1",
        "Unknown parameter 'rollout.temperture': did you mean rollout.sampling_temperature?",
        "training.objective = 'ppo': input should be 'paced', 'vargrad', 'flowrl', 'gflowrl', 'grpo', 'dr_grpo', "
        "'dapo' or 'rloo'",
        "evaluation.splits.0 = 'train': input should be 'validation', 'audit' or 'test'",
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
            {"scheduling": {"selector": "dynamic_sampling"}, "rollout": {"group_size": 1}},
            "scheduling.selector = dynamic_sampling with rollout.group_size = 1: ",
        ),
        (
            {"training": {"objective": "gflowrl", "replay_max_added": 0}, "rollout": {"group_size": 1}},
            "training.objective = gflowrl with rollout.group_size = 1: ",
        ),
        (
            {"training": {"objective": "flowrl", "replay_max_added": 0}},
            "training.objective = flowrl with scheduling.estimator = learned: the log Z of this objective is in nats",
        ),
        (
            {
                "training": {"objective": "flowrl", "replay_max_added": 0},
                "scheduling": {"selector": "uniform", "estimator": "beta_posterior"},
            },
            "training.objective = flowrl with scheduling.estimator = beta_posterior: ",
        ),
        (
            {"rollout": {"top_p": 0.9}, "training": {"replay_behaviour": "stored"}},
            "training.replay_behaviour = stored with rollout.top_p or rollout.top_k: ",
        ),
        (
            {"rollout": {"backend": "vllm", "vllm": {"release": "sleep"}}},
            "rollout.vllm.release = sleep with policy.device = cpu: ",
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
        {"training": {"objective": "flowrl", "replay_max_added": 0}, "scheduling": {"estimator": "group_mean"}},
        {"training": {"objective": "gflowrl", "replay_max_added": 0}, "scheduling": {"estimator": "learned"}},
        {"training": {"objective": "grpo", "replay_max_added": 0, "kl_coefficient": 0.1}},
        {"training": {"objective": "paced"}, "rollout": {"group_size": 1}},
    ],
)
def test_the_edges_of_the_rules_pass(groups: dict[str, Any]) -> None:
    checked = preflight.check_groups(groups)
    assert {name: checked[name].model_dump(include=set(group)) for name, group in groups.items()} == groups


def test_a_missing_previous_round_names_the_command_that_makes_it() -> None:
    missing = ["previous_policy@round", "previous_log_z_head@round"]
    assert message_of(preflight_rounds.check_previous_round, missing=missing, round_number=3, experiment="paced") == (
        "round 3 of experiment 'paced' needs round 2, which is missing or damaged (log_z_head, policy): run "
        "`kedro run --pipeline=paced_round --params round=2,experiment=paced`"
    )


def test_oracle_and_its_pipeline_go_together() -> None:
    preflight_rounds.check_selector_fits("oracle", is_measuring=True)
    preflight_rounds.check_selector_fits("nearest", is_measuring=False)
    params = {"round": 2, "scheduling": {"selector": "oracle"}}
    shown = message_of(preflight_rounds.check_selector_fits, "oracle", is_measuring=False, env="test", params=params)
    command = "kedro run --pipeline=oracle_round --env=test --params round=2,scheduling.selector=oracle"
    assert f"run `{command}`, or `kedro paced train`" in shown
    shown = message_of(preflight_rounds.check_selector_fits, "softened", is_measuring=True)
    assert (
        "scheduling.selector = softened would pay for and not look at: run `kedro run --pipeline=paced_round`" in shown
    )


def test_the_command_keeps_the_parameters() -> None:
    params = {"round": 3, "experiment": "x", "training": {"learning_rate": 0.1, "objective": "grpo"}}
    shown = message_of(
        preflight_rounds.check_previous_round,
        missing=["previous_policy"],
        round_number=3,
        experiment="x",
        params=params,
    )
    assert shown.endswith("--params round=2,experiment=x,training.learning_rate=0.1,training.objective=grpo`")


def test_the_command_keeps_the_environment_and_round_1_needs_a_start() -> None:
    shown = message_of(
        preflight_rounds.check_previous_round,
        missing=["previous_policy@round"],
        round_number=1,
        experiment="x",
        env="gpu",
    )
    assert shown == (
        "round 1 of experiment 'x' needs the state it starts from, which is missing or damaged (policy): run "
        "`kedro run --pipeline=start --env=gpu --params experiment=x`"
    )
    preflight_rounds.check_previous_round(missing=[], round_number=3, experiment="x")


def test_servers_are_listed_as_texts_or_in_one_with_spaces_and_are_no_part_of_a_result() -> None:
    urls = ["http://a:8000", "https://10.0.0.5:8001/"]
    listed, text = (
        preflight.check_groups({"rollout": {"backend": "vllm_server", "vllm_server": {"urls": value}}})["rollout"]
        for value in (urls, " ".join(urls))
    )
    assert listed == text
    assert listed.vllm_server.urls == tuple(urls)  # type: ignore[attr-defined]
    assert canonical_json(listed) == canonical_json(
        RolloutParameters(backend="vllm_server", vllm_server={"urls": "http://b:1"})
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["a:8000", "ftp://a", "http://a:8000/v1", "http://", "http://a/ b"])
def test_a_server_is_named_by_scheme_host_and_port(url: str) -> None:
    (problem,) = problems_of(rollout={"backend": "vllm_server", "vllm_server": {"urls": [url]}})
    assert problem.startswith(f"rollout.vllm_server.urls: {url!r} must be scheme, host and port alone")


def test_the_backend_vllm_server_needs_servers() -> None:
    (problem,) = problems_of(rollout={"backend": "vllm_server"})
    assert problem.startswith("rollout: backend = vllm_server samples by servers that run already; set rollout.vllm_s")


def test_servers_that_cannot_be_used_are_listed_with_what_to_do() -> None:
    with FakeVllmServer() as good, FakeVllmServer(dtype="bfloat16") as other:
        gone = FakeVllmServer()
        gone.close()
        shown = message_of(preflight.check_servers, [good.url, other.url, gone.url], dtype="float32").splitlines()
        assert [line[:25] for line in shown[1:-1]] == [f"  - {other.url}"[:25], f"  - {gone.url}"[:25]]
        assert shown[1] == f"  - {other.url}: it must be started with --dtype float32 (it has torch.bfloat16)"
        assert "Connection refused" in shown[2]
        assert "README" in shown[3]
        asked = len(good.control)
        preflight.check_servers([good.url], dtype="float32")
        assert len(good.control) == asked == 1
    # A run of many rounds goes on when one of its servers fails.
    preflight.check_servers([good.url], dtype="float32")


def test_an_adapter_needs_peft_and_all_weights_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with_adapter, without = (preflight.check_groups({"policy": {"lora_rank": rank}})["policy"] for rank in (4, 0))
    assert not is_refused(preflight.check_lora, with_adapter)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not is_refused(preflight.check_lora, without)
    assert message_of(preflight.check_lora, with_adapter) == (
        "policy.lora_rank = 4 needs peft, which is not installed: run `pip install 'paced-rl[lora]'`, or give "
        "--params policy.lora_rank=0 to train all weights"
    )
