"""`kedro paced study`: a grid of experiments, and the report that compares them."""

from pathlib import Path

import click

from paced_rl.commands.clear_errors import clear_errors


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--processes", type=click.IntRange(min=1), default=1, show_default=True, help="Experiments to run at once."
)
@click.option("--report-only", is_flag=True, help="Run nothing; draw the report of what is on disk.")
def study(*, file: Path, processes: int, report_only: bool) -> None:
    """Run the experiments of a study FILE, such as conf/studies/smoke.yml, and report on them.

    Every arm under every seed is an ordinary experiment, <study>-<arm>-s<seed>: what is up to date is skipped, and one
    that fails does not stop the others. Ctrl-C ends them all after the nodes that run, a second Ctrl-C at once; the
    same command goes on.
    """
    # Imported here, so that listing the commands stays fast.
    from paced_rl.interrupts import EXIT_STATUS
    from paced_rl.studies.report import write_report
    from paced_rl.studies.running import StudyResult, run_study
    from paced_rl.studies.study_file import read_study

    project = Path.cwd()
    result = StudyResult(outcomes=())
    with clear_errors():
        plan = read_study(file)
        if not report_only:
            try:
                result = run_study(plan, project, num_processes=processes)
            except KeyboardInterrupt as interrupt:
                click.echo("Stopped at once. The nodes that ran will run again; the same command goes on.", err=True)
                raise click.exceptions.Exit(EXIT_STATUS) from interrupt
        if result.is_stopped:
            click.echo("Stopped as asked for. What has finished is kept; the same command goes on.", err=True)
            raise click.exceptions.Exit(EXIT_STATUS)
        click.echo(f"report: {write_report(plan, project)}")
    if result.failed:
        lines = [f"  - {outcome.name}: {outcome.message}" for outcome in result.failed]
        raise click.ClickException(
            f"{len(lines)} of {len(result.outcomes)} experiments failed; the same command tries them again:\n"
            + "\n".join(lines)
        )
