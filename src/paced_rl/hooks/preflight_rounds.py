"""Checks of a run against what it would continue: the selector's pipeline, and the round before."""

from collections.abc import Iterable, Mapping
from typing import Any

from paced_rl.command_lines import params_option
from paced_rl.preflight import PreflightError
from paced_rl.stages import ORACLE_PIPELINE, ROUND_PIPELINE, round_pipeline


def check_selector_fits(
    selector: str, *, is_measuring: bool, env: str | None = None, params: Mapping[str, Any] | None = None
) -> None:
    """Refuses the selector `oracle` where nothing is measured for it, and measuring where no selector asks for it.

    Args:
        selector: of the parameters.
        is_measuring: whether the pipeline hands measured accuracies on.
        env: Kedro environment, repeated in the suggested command.
        params: as `--params`, repeated there too.

    Raises:
        PreflightError: with the command that fits.
    """
    if is_measuring == (selector == "oracle"):
        return
    flags = " ".join([*([f"--env={env}"] if env else []), *([f"--params {params_option(params)}"] if params else [])])
    command = f"`kedro run --pipeline={round_pipeline(selector)}{' ' if flags else ''}{flags}`"
    if is_measuring:
        raise PreflightError(
            f"the pipeline {ORACLE_PIPELINE} rolls candidates out to measure them, which scheduling.selector = "
            f"{selector} would pay for and not look at: run {command}, or give --params scheduling.selector=oracle"
        )
    raise PreflightError(
        "scheduling.selector = oracle chooses by accuracies that are measured in the round, and this pipeline does not "
        f"measure them: run {command}, or `kedro paced train`, which takes that pipeline by itself"
    )


def check_previous_round(
    *,
    missing: Iterable[str],
    round_number: int,
    experiment: str,
    pipeline: str = ROUND_PIPELINE,
    env: str | None = None,
    params: Mapping[str, Any] | None = None,
) -> None:
    """Refuses a round whose predecessor has not been run, or whose files are not what it wrote.

    Args:
        missing: catalog names of the previous round's state that are not on disk, or damaged there.
        round_number: the round that is about to run, 1 or more.
        experiment: its experiment.
        pipeline: that runs a round.
        env: Kedro environment, repeated in the suggested command.
        params: as `--params`, repeated there too: without them the previous round would be made with other ones.

    Raises:
        PreflightError: when anything is missing.
    """
    names = sorted({name.partition("@")[0].removeprefix("previous_") for name in missing})
    if not names:
        return
    before = round_number - 1
    what = f"round {before}" if before else "the state it starts from"
    name, number = (pipeline, {"round": before}) if before else ("start", {})
    others = {name: value for name, value in (params or {}).items() if name not in ("round", "experiment")}
    flags = f"{f'--env={env} ' if env else ''}--params {params_option({**number, 'experiment': experiment, **others})}"
    raise PreflightError(
        f"round {round_number} of experiment '{experiment}' needs {what}, which is missing or damaged "
        f"({', '.join(names)}): run `kedro run --pipeline={name} {flags}`"
    )
