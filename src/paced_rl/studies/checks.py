"""What can be known to be wrong with a study before its first experiment runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paced_rl.loop import Study, open_study
from paced_rl.preflight import PreflightError
from paced_rl.studies.study_file import StudyFileError, StudyPlan
from paced_rl.types import Split


def open_arms(plan: StudyPlan, project: Path) -> dict[str, Study]:
    """Reads the parameters of every arm, as its experiment of the first seed would.

    Args:
        plan: the study.
        project: the project's root.

    Returns:
        Arm's name → its experiment of the first seed; the other seeds differ by their seed alone.

    Raises:
        StudyFileError: an arm has an unknown parameter, one out of range, or a combination that cannot work; or nothing
            of it could be read by the report. All arms that break a check are told, one check after the other.
    """
    environment = project / "conf" / (plan.env or "base")
    if not environment.is_dir():
        known = sorted(folder.name for folder in (project / "conf").iterdir() if any(folder.glob("parameters*")))
        raise StudyFileError(f"study '{plan.name}': there is no environment env: {plan.env}; there are {known}")
    opened: dict[str, Study] = {}
    problems: dict[str, list[str]] = {}
    for arm in plan.arms:
        try:
            study = open_study(project, env=plan.env, params=plan.runtime_params(arm, plan.seeds[0]))
        except PreflightError as error:
            problems.setdefault(error.format_message(), []).append(arm.name)
            continue
        for problem in _unreportable(study.parameters, plan.rounds):
            problems.setdefault(problem, []).append(arm.name)
        opened[arm.name] = study
    if problems:
        lines = [_indented(names, message) for message, names in problems.items()]
        raise StudyFileError(f"study '{plan.name}' cannot be run:\n" + "\n".join(lines))
    return opened


def _unreportable(parameters: Any, rounds: int) -> Iterator[str]:
    """Why the report would have nothing to show."""
    data, evaluation = parameters["data_preparation"], parameters["evaluation"]
    if Split.TEST not in evaluation.splits:
        yield (
            f"evaluation.splits = {list(evaluation.splits)} leaves out test, the split whose accuracy is reported: add "
            "it, or leave evaluation.splits out of the study file, which takes validation, audit and test"
        )
    if data.is_generated and data.num_test == 0:
        yield "data_preparation.num_test = 0: the report needs test prompts; about 300 are a good number"
    if evaluation.every > rounds:
        yield (
            f"evaluation.every = {evaluation.every} is more than the {rounds} rounds of the study, so nothing would be "
            "evaluated after the start; lower it"
        )


def _indented(arms: list[str], message: str) -> str:
    return f"  - arm{'s' if len(arms) > 1 else ''} {', '.join(arms)}: " + message.replace("\n", "\n      ")
