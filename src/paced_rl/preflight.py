"""What can be known to be wrong before the first node runs, said in one readable message.

Kedro accepts any `--params` name, and reports a bad value or a missing previous round from deep inside; these checks
come first.
"""

import difflib
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click
from pydantic import BaseModel, ValidationError

from paced_rl.parameters import GROUPS

TOP_LEVEL_PARAMETERS = ("experiment", "round", "seed", "tracking.enabled", "tracking.run_tags")
"""Parameters outside the groups."""

_EXPERIMENT_NAME = re.compile(r"[A-Za-z0-9._-]+")


class PreflightError(click.ClickException):
    """The run cannot start. `kedro run` shows the message alone, without a traceback; a session raises it."""


def known_parameters() -> dict[str, Any]:
    """Every parameter the package reads: nested, with None in place of a value."""
    known: dict[str, Any] = {name: _fields(model) for name, model in GROUPS.items()}
    for name in TOP_LEVEL_PARAMETERS:
        head, _, tail = name.partition(".")
        known[head] = {**known.get(head, {}), tail: None} if tail else None
    return known


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        is_group = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        fields[name] = _fields(field.annotation) if is_group else None  # type: ignore[arg-type]
    return fields


def check_parameter_names(runtime_params: Mapping[str, Any], known_params: Mapping[str, Any]) -> None:
    """Refuses a `--params` name that nothing reads; Kedro itself would ignore it in silence.

    Args:
        runtime_params: as given on the command line, nested.
        known_params: nested in the same way; below anything that is not a mapping every name is allowed.

    Raises:
        PreflightError: naming each unknown parameter and the nearest known ones.
    """
    unknown = list(_unknown_names(runtime_params, known_params))
    if unknown:
        raise PreflightError("\n".join(_unknown_name(name, _all_names(known_params)) for name in unknown))


def _unknown_names(params: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in params.items():
        if name not in known:
            yield prefix + str(name)
        elif isinstance(value, Mapping) and isinstance(known[name], Mapping):
            yield from _unknown_names(value, known[name], f"{prefix}{name}.")


def _all_names(known: Mapping[str, Any], prefix: str = "") -> list[str]:
    names = []
    for name, value in known.items():
        names.append(prefix + name)
        if isinstance(value, Mapping):
            names += _all_names(value, f"{prefix}{name}.")
    return names


def _unknown_name(name: str, known: list[str]) -> str:
    group, _, last = name.rpartition(".")
    siblings = {x.rpartition(".")[2]: x for x in known if x.rpartition(".")[0] == group}
    near = (
        # Right, but in another group; misspelt, in the right group; misspelt anyhow.
        [x for x in known if x.rpartition(".")[2] == last]
        or [siblings[x] for x in difflib.get_close_matches(last, siblings, n=1)]
        or difflib.get_close_matches(name, [x for x in known if group == "" or "." in x], n=1)
    )
    if near:
        return f"Unknown parameter '{name}': did you mean {' or '.join(near)}?"
    return f"Unknown parameter '{name}': allowed here are {', '.join(siblings.values() or known)}."


def check_round(round_number: Any) -> None:
    """Raises PreflightError unless the round is an integer of 1 or more."""
    if isinstance(round_number, bool) or not isinstance(round_number, int) or round_number < 1:
        raise PreflightError(f"round must be an integer of 1 or more, got {round_number!r}: e.g. --params round=1")


def check_seed(seed: Any) -> None:
    """Raises PreflightError unless the seed is an integer."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise PreflightError(f"seed must be an integer, got {seed!r}: e.g. --params seed=0")


def check_experiment_name(experiment: Any) -> None:
    """Raises PreflightError unless the name is a text that can be a folder's name everywhere."""
    if experiment is None:
        raise PreflightError("experiment has no name: give it one, e.g. --params experiment=paced")
    if not isinstance(experiment, str):
        raise PreflightError(
            f"experiment must be a text, got {experiment!r}: a name of digits only is read as a number, "
            f"so begin it with a letter, e.g. --params experiment=run-{experiment}"
        )
    if not _EXPERIMENT_NAME.fullmatch(experiment):
        raise PreflightError(
            f"experiment '{experiment}' cannot be a folder's name: letters A-Z and a-z, digits, '.', '_' and '-' "
            "are allowed"
        )


def check_device(device: str) -> None:
    """Raises PreflightError unless PyTorch can use the device here and now."""
    if device == "cpu":
        return
    import torch

    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # not built for it, no such device, no such name
        raise PreflightError(
            f"policy.device = '{device}' cannot be used on this machine, PyTorch {torch.__version__} says: "
            f"{str(error).splitlines()[0]}. Run where there is such a device, or give --params policy.device=cpu"
        ) from error


def check_backend(backend: str) -> None:
    """Raises PreflightError unless what samples is installed."""
    if backend == "vllm" and importlib.util.find_spec("vllm") is None:
        raise PreflightError(
            "rollout.backend = vllm, and vLLM is not installed: `pip install 'paced-rl[vllm]'` on a machine with a "
            "GPU, `make vllm` on one without, or give --params rollout.backend=transformers"
        )


def check_servers(urls: Iterable[str], *, dtype: str) -> None:
    """Raises PreflightError unless every vLLM server can be reached and was started with the right options.

    One that was found good is not asked again in this process: a long run goes on when a server fails, and a round
    itself sees whether any is left.
    """
    from paced_rl.generation.vllm_replica import ReplicaError, find_server

    problems = []
    for url in urls:
        try:
            find_server(url, dtype=dtype)
        except ReplicaError as error:
            problems.append(f"  - {url}: {error}")
    if problems:
        raise PreflightError(
            "vLLM servers of rollout.vllm_server.urls that cannot be used:\n"
            + "\n".join(problems)
            + "\nStart them (README, vLLM servers), or take them off the list"
        )


def check_groups(parameters: Mapping[str, Any]) -> dict[str, BaseModel]:
    """Builds every group of parameters and checks the rules that span two of them.

    Args:
        parameters: group name → mapping, or an already built group; an absent group takes its defaults.

    Returns:
        Group name → group.

    Raises:
        PreflightError: one line per problem.
    """
    groups: dict[str, BaseModel] = {}
    problems: list[str] = []
    for name, model in GROUPS.items():
        raw = parameters.get(name, {})
        try:
            groups[name] = raw if isinstance(raw, model) else model.model_validate({} if raw is None else raw)
        except ValidationError as error:
            problems += _group_problems(name, model, error)
    if not problems:
        problems = list(_cross_group_problems(groups))
    if problems:
        raise PreflightError("Parameters that cannot be used:\n" + "\n".join(f"  - {x}" for x in problems))
    return groups


def _group_problems(group: str, model: type[BaseModel], error: ValidationError) -> Iterator[str]:
    for detail in error.errors(include_url=False):
        name = ".".join([group, *(str(part) for part in detail["loc"])])
        if detail["type"] == "extra_forbidden":
            yield _unknown_name(name, _all_names({group: _fields(model)}))
        elif detail["type"] == "value_error" and not detail["loc"]:  # a rule of ours over a whole group
            yield f"{group}: {detail['ctx']['error']}"
        elif detail["type"] == "value_error":
            yield f"{name}: {detail['ctx']['error']}"
        else:
            yield f"{name} = {detail['input']!r}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"


def _cross_group_problems(groups: Mapping[str, Any]) -> Iterator[str]:
    data, policy, scheduling, rollout, training = (
        groups[name] for name in ("data_preparation", "policy", "scheduling", "rollout", "training")
    )
    if training.needs_groups and rollout.group_size == 1:
        yield (
            f"training.objective = {training.objective} with rollout.group_size = 1: a completion is compared with its "
            "siblings, and without any nothing would be learned; set rollout.group_size to 2 or more"
        )
    if scheduling.selector == "dynamic_sampling" and rollout.group_size == 1:
        yield (
            "scheduling.selector = dynamic_sampling with rollout.group_size = 1: no group could hold both right and "
            "wrong completions, so every round would roll out all it may; set rollout.group_size to 2 or more"
        )
    if not training.is_log_z_accuracy and scheduling.estimator in ("learned", "beta_posterior"):
        yield (
            f"training.objective = {training.objective} with scheduling.estimator = {scheduling.estimator}: the log Z "
            "of this objective is in nats per token and no accuracy, so nothing can be estimated from it; set "
            "scheduling.estimator to group_mean, constant or random"
        )
    if rollout.is_truncated and training.replay_behaviour == "stored" and training.replay_max_added > 0:
        yield (
            "training.replay_behaviour = stored with rollout.top_p or rollout.top_k: what was stored are probabilities "
            "among the tokens that were drawn from, and the policy is trained on all of them; set "
            "training.replay_behaviour=recomputed"
        )
    if rollout.backend == "vllm" and rollout.vllm.release == "sleep" and policy.device == "cpu":
        yield "rollout.vllm.release = sleep with policy.device = cpu: only a GPU can be freed; set keep or restart"
    # How many prompts a file holds is known only when it is read.
    if data.is_generated and scheduling.num_prompts > data.num_train:
        yield (
            f"scheduling.num_prompts = {scheduling.num_prompts} is more than the "
            f"data_preparation.num_train = {data.num_train} prompts there are; lower the first or raise the second"
        )
    if 0 < scheduling.candidate_pool_size < scheduling.num_prompts:
        yield (
            f"scheduling.candidate_pool_size = {scheduling.candidate_pool_size} is less than "
            f"scheduling.num_prompts = {scheduling.num_prompts}; raise it, or set 0 for all prompts"
        )
    if scheduling.audit_fraction > 0 and round(scheduling.audit_fraction * scheduling.num_prompts) == 0:
        yield (
            f"scheduling.audit_fraction = {scheduling.audit_fraction} of {scheduling.num_prompts} prompts rounds to "
            "an empty audit slice, and calibration would go unmeasured without a word; raise it above "
            f"{0.5 / scheduling.num_prompts:.3g}, or set 0 to do without"
        )
    num_completions = scheduling.num_prompts * rollout.group_size
    if training.num_minibatches > num_completions:
        yield (
            f"training.num_minibatches = {training.num_minibatches} is more than the {num_completions} completions "
            "of a round; lower it"
        )


def check_determinism(policy: Any, environment: Mapping[str, str]) -> None:
    """Refuses a promise of equal bits that cuBLAS has been told not to keep.

    Args:
        policy: the group of parameters of that name.
        environment: of the process.

    Raises:
        PreflightError: CUBLAS_WORKSPACE_CONFIG is set to something else than a fixed workspace.
    """
    from paced_rl.policies import CUBLAS_CONFIGS, CUBLAS_VARIABLE

    workspace = environment.get(CUBLAS_VARIABLE, CUBLAS_CONFIGS[0])
    if policy.is_deterministic and policy.device.startswith("cuda") and workspace not in CUBLAS_CONFIGS:
        raise PreflightError(
            f"policy.deterministic = true on {policy.device} with {CUBLAS_VARIABLE}={workspace!r} in the environment: "
            f"it must be one of {', '.join(CUBLAS_CONFIGS)}; unset it, which takes the first, or set "
            "policy.deterministic=false"
        )


def check_lora(policy: Any) -> None:
    """Raises PreflightError where a low-rank adapter is wanted and the library that trains it is not installed."""
    if policy.lora_rank and importlib.util.find_spec("peft") is None:
        raise PreflightError(
            f"policy.lora_rank = {policy.lora_rank} needs peft, which is not installed: run `pip install "
            "'paced-rl[lora]'`, or give --params policy.lora_rank=0 to train all weights"
        )
