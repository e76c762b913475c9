"""`kedro paced verify`: whether rounds come out again."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from kedro.framework.cli.utils import env_option

from paced_rl.commands.experiments import TroubleError, open_or_fail

if TYPE_CHECKING:
    from paced_rl.inspection.reexecution import Verification


@click.command()
@click.option("--experiment", help="Experiment to verify; default is that of the configuration.")
@click.option(
    "--round",
    "round_number",
    type=click.IntRange(min=0),
    help="Round to verify, 0 for what is done once before the first; default is all.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="Floats a and b are taken as equal when |a − b| ≤ tolerance · max(1, |a|); default 1e-4.",
)
@env_option
def verify(*, experiment: str | None, round_number: int | None, tolerance: float | None, env: str | None) -> None:
    """Execute rounds again in a temporary folder, from the inputs and parameters they had, and compare.

    Exit status 0 if everything comes out the same within the tolerance, 1 if something differs, 2 if nothing could be
    executed. Nothing of the experiment is written to; TMPDIR says where the temporary folder is.
    """
    from paced_rl.inspection.experiment import ExperimentError
    from paced_rl.inspection.reexecution import DEFAULT_TOLERANCE, verify_round
    from paced_rl.preflight import PreflightError

    opened = open_or_fail(experiment, env=env)
    tolerance = DEFAULT_TOLERANCE if tolerance is None else tolerance
    numbers = [0, *opened.rounds()] if round_number is None else [round_number]
    results = []
    for number in numbers:
        try:
            with _without_announcements():
                results.append(verify_round(opened, number, env=env, tolerance=tolerance))
        except (ExperimentError, PreflightError) as error:
            raise TroubleError(str(error)) from error
        _show(results[-1], tolerance)
    if all(result.obstacle for result in results):
        raise TroubleError("nothing could be verified")
    if any(result.is_different for result in results):
        raise click.exceptions.Exit(1)


@contextmanager
def _without_announcements() -> Iterator[None]:
    """Nodes and datasets are announced when they run, which nobody asked about here."""
    loggers = [logging.getLogger(name) for name in ("kedro", "paced_rl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _show(result: "Verification", tolerance: float) -> None:
    from paced_rl.inspection.compare import CLOSE, DIFFERENT, IDENTICAL

    where = f"round {result.round_number}" if result.round_number else "before the first round"
    if result.obstacle:
        click.echo(f"{where}: not verified: {result.obstacle}")
        return
    counts = {
        verdict: [x for x in result.comparisons if x.verdict == verdict] for verdict in (IDENTICAL, CLOSE, DIFFERENT)
    }
    texts = {IDENTICAL: "identical", CLOSE: f"equal within {tolerance:g}", DIFFERENT: "different"}
    said = ", ".join(f"{len(found)} {texts[verdict]}" for verdict, found in counts.items() if found)
    click.echo(f"{where}: {len(result.comparisons)} tables and checkpoints: {said}")
    for comparison in (*counts[DIFFERENT], *counts[CLOSE]):
        click.echo(f"  {texts[comparison.verdict]}: {comparison.name}: {comparison.detail}")
    for cause in result.causes:
        click.echo(f"  not as then: {cause}")
