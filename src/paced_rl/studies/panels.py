"""Experiments of several arms side by side: the same seeds, rounds and test prompts in each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from paced_rl.metrics.pass_at_k import pass_at_k
from paced_rl.metrics.seeds_and_prompts import Ratio
from paced_rl.studies.results import ROUND_STAGES, Evaluations, ExperimentResults, read_experiment
from paced_rl.studies.study_file import StudyPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResults:
    """All that is on disk of a study."""

    plan: StudyPlan
    experiments: Mapping[tuple[str, int], ExperimentResults]
    """(arm, seed) → results; without those that have not been evaluated yet."""
    horizon: int
    """The round up to which experiments are compared: the study's last evaluated one, or as long as no experiment has
    come that far, the last that all begun ones have."""

    def finished(self, arm: str) -> list[ExperimentResults]:
        """Its experiments that have come to the horizon, in the order of the seeds."""
        found = (self.experiments.get((arm, seed)) for seed in self.plan.seeds)
        return [results for results in found if results is not None and self.horizon in results.evaluations.rounds]

    @property
    def arms(self) -> list[str]:
        """The arms with a finished experiment, in the order of the file."""
        return [arm.name for arm in self.plan.arms if self.finished(arm.name)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A arms under S seeds, at E rounds."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    rounds: Int[np.ndarray, "E"]
    evaluations: Sequence[Sequence[Evaluations]]
    """[arm][seed]; the same prompts within a seed."""
    chosen: Int[np.ndarray, "A S"]
    """Place among the rounds of the checkpoint that validation accuracy chooses."""
    tokens: Float[np.ndarray, "A S E"]
    """Sampled for training up to each round."""
    seconds: Float[np.ndarray, "A S E"]
    """Of `ROUND_STAGES`."""

    @property
    def max_k(self) -> int:
        """The largest k of pass@k that every prompt has enough samples for, failed verifications apart."""
        return min(int(seed.num_scored.max()) for arm in self.evaluations for seed in arm)

    def figures(self) -> dict[str, list[Ratio]]:
        """Accuracy, pass@max_k and distinct correct answers per solved prompt; one ratio per seed each."""
        return {
            "accuracy": self._ratios(_accuracy),
            "pass_at_k": self._ratios(lambda e: _pass_at_k(e, self.max_k)),
            "distinct": self._ratios(lambda e: (e.num_distinct_correct, e.num_correct > 0)),
        }

    def headline(self) -> list[Ratio]:
        """Per seed the accuracy of the chosen checkpoint, of the last one, and the mean over all evaluations."""
        ratios = []
        for seed, of_seed in enumerate(self._ratios(_accuracy)):
            arms = np.arange(len(self.arms))
            parts = [
                np.stack([part[arms, self.chosen[:, seed]], part[:, -1], part.mean(axis=1)], axis=1)
                for part in (of_seed.above, of_seed.below)
            ]
            ratios.append(Ratio(above=parts[0], below=parts[1]))
        return ratios

    def pass_curves(self) -> list[Ratio]:
        """Per seed pass@k of the chosen checkpoint, with k = 1 … max_k in place of the rounds."""
        ratios = []
        for seed in range(len(self.seeds)):
            rows = [
                [_pass_at_k(_row(of_arm[seed], self.chosen[arm, seed]), k) for k in range(1, self.max_k + 1)]
                for arm, of_arm in enumerate(self.evaluations)
            ]
            above, below = (np.array([[pair[part][0] for pair in of_arm] for of_arm in rows]) for part in (0, 1))
            ratios.append(Ratio(above=above.astype(np.float64), below=below.astype(np.float64)))
        return ratios

    def _ratios(self, parts: Callable[[Evaluations], tuple[np.ndarray, np.ndarray]]) -> list[Ratio]:
        ratios = []
        for seed in range(len(self.seeds)):
            pairs = [parts(of_arm[seed]) for of_arm in self.evaluations]
            above, below = (np.array([pair[part] for pair in pairs], dtype=np.float64) for part in (0, 1))
            ratios.append(Ratio(above=above, below=below))
        return ratios


HEADLINE = ("chosen", "last", "mean")
"""What the places of `Panel.headline` are."""


def read_study_results(plan: StudyPlan, project: Path) -> StudyResults:
    """Reads every experiment of a study, as far as it has come."""
    experiments = {}
    for arm in plan.arms:
        for seed in plan.seeds:
            name = plan.experiment(arm.name, seed)
            results = read_experiment(project, name=name, arm=arm.name, seed=seed)
            if results is not None:
                experiments[arm.name, seed] = results
    return StudyResults(plan=plan, experiments=experiments, horizon=_horizon(plan, list(experiments.values())))


def _horizon(plan: StudyPlan, experiments: Sequence[ExperimentResults]) -> int:
    last = [int(results.evaluations.rounds[results.evaluations.rounds <= plan.rounds].max()) for results in experiments]
    is_done = [results.last_round >= plan.rounds for results in experiments]
    if any(is_done):
        return max(number for number, done in zip(last, is_done, strict=True) if done)
    return min(last, default=0)


def panel(results: StudyResults, arms: Sequence[str]) -> Panel | None:
    """These arms under the seeds that have finished in all of them; None where there is none, or no common prompt."""
    by_seed = [{experiment.seed: experiment for experiment in results.finished(arm)} for arm in arms]
    seeds = [seed for seed in results.plan.seeds if all(seed in of_arm for of_arm in by_seed)]
    columns = [[of_arm[seed] for of_arm in by_seed] for seed in seeds]
    if not columns:
        return None
    rounds = [
        int(number)
        for number in columns[0][0].evaluations.rounds
        if number <= results.horizon and all(number in e.evaluations.rounds for column in columns for e in column)
    ]
    prompts = [_common([set(e.evaluations.prompt_ids) for e in column]) for column in columns]
    if not all(prompts):
        return None
    rows = list(zip(*columns, strict=True))
    return Panel(
        arms=tuple(arms),
        seeds=tuple(seeds),
        rounds=np.array(rounds),
        evaluations=[[e.evaluations.at(rounds, ids) for e, ids in zip(row, prompts, strict=True)] for row in rows],
        chosen=np.array([[_chosen(e, rounds) for e in row] for row in rows]),
        tokens=np.array([[e.cumulative("tokens_sampled", rounds) for e in row] for row in rows]),
        seconds=np.array([[sum(e.cumulative(stage, rounds) for stage in ROUND_STAGES) for e in row] for row in rows]),
    )


def _common(ids: Sequence[set[str]]) -> list[str]:
    return sorted(set.intersection(*ids))


def _chosen(experiment: ExperimentResults, rounds: Sequence[int]) -> int:
    """Of equally good rounds the first, as in retention; the last one where nothing has been validated."""
    validation = experiment.validation
    known = [(place, validation[number]) for place, number in enumerate(rounds) if number in validation]
    return max(known, key=lambda item: item[1])[0] if known else len(rounds) - 1


def _row(evaluations: Evaluations, place: int) -> Evaluations:
    return evaluations.at([int(evaluations.rounds[place])], evaluations.prompt_ids)


def _accuracy(evaluations: Evaluations) -> tuple[Float[np.ndarray, "E P"], Float[np.ndarray, "E P"]]:
    """Accuracy of each prompt, and 1 where it has one."""
    scored = evaluations.num_scored
    return evaluations.num_correct / np.maximum(scored, 1), (scored > 0).astype(np.float64)


def _pass_at_k(evaluations: Evaluations, k: int) -> tuple[Float[np.ndarray, "E P"], Float[np.ndarray, "E P"]]:
    """pass@k of each prompt, and 1 where it has k samples."""
    is_enough = evaluations.num_scored >= k
    samples = np.where(is_enough, evaluations.num_scored, k)
    correct = np.where(is_enough, evaluations.num_correct, 0)
    values = pass_at_k(samples.ravel(), correct.ravel(), k).reshape(samples.shape)
    return values, is_enough.astype(np.float64)
