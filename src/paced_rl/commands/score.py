"""`kedro paced score`: scores a file of completions."""

from pathlib import Path

import click


@click.command()
@click.option("--verifier", required=True, metavar="NAME", help="Verifier to score with, e.g. arithmetic.")
@click.option(
    "--input",
    "input_path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSONL: one object per line with `completion` and the verifier's arguments (arithmetic: `numbers`, `target`).",
)
@click.option(
    "--output",
    "output_path",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSONL to write: the input's lines with status, reward, extracted_answer and seconds added.",
)
@click.option("--timeout-seconds", type=float, help="Wall-clock limit of one answer in the sandbox.")
@click.option("--memory-bytes", type=int, help="Address-space limit of the sandbox.")
def score(
    *, verifier: str, input_path: Path, output_path: Path, timeout_seconds: float | None, memory_bytes: int | None
) -> None:
    """Score a file of completions with one verifier, outside any experiment."""
    # Imported here, so that listing the commands stays fast.
    from paced_rl.parameters import VerificationParameters
    from paced_rl.verifiers.sandbox import WorkerStartError
    from paced_rl.verifiers.score_file import score_file

    given = {"timeout_seconds": timeout_seconds, "memory_bytes": memory_bytes}
    try:
        limits = VerificationParameters.model_validate({k: v for k, v in given.items() if v is not None})
        counts = score_file(
            verifier,
            input_path,
            output_path,
            timeout_seconds=limits.timeout_seconds,
            memory_bytes=limits.memory_bytes,
        )
    except (ValueError, OSError, WorkerStartError) as error:
        raise click.ClickException(str(error)) from error
    summary = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    click.echo(f"{output_path}: {sum(counts.values())} completions scored: {summary}")
