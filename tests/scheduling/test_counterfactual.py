"""What rules would have chosen: as they do in the loop, from the past alone, and on known accuracies."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from paced_rl.metrics.choices import ReferenceRows, choice_measures, group_values, resampled_sums
from paced_rl.scheduling import Outcomes, Selector, SelectorSettings, estimate_by
from paced_rl.scheduling.counterfactual import HINDSIGHT, ORACLE, RULES, UNIFORM, Choices, PastRound, ReplaySettings
from paced_rl.scheduling.counterfactual import replay as replay_all
from paced_rl.scheduling.schedule import choose_among
from paced_rl.scheduling.simulator import SimulatedExperiment, simulate
from paced_rl.seeds import derive_generator

SELECTORS = SelectorSettings(softening=0.1, outcome_half_life=4.0, retest_share=0.25, retest_after=3)
SETTINGS = ReplaySettings(share=0.25, target_accuracy=0.5, experiment_seed=3, selectors=SELECTORS)
EXPERIMENT = SimulatedExperiment(
    num_rounds=20,
    experiment_seed=3,
    selector="uniform",
    estimator="learned",
    target_accuracy=0.5,
    num_prompts=24,
    candidate_pool_size=0,
    audit_fraction=0.25,
    warm_up_rounds=0,
    settings=SELECTORS,
    group_size=8,
    head_error=0.2,
    learning=0.0,
)
NUM_PROMPTS = 60


def accuracies(size: int = NUM_PROMPTS) -> np.ndarray:
    return derive_generator(1, "accuracies").beta(0.4, 0.8, size=size)


def past_rounds(truth: np.ndarray, experiment: SimulatedExperiment = EXPERIMENT) -> list[PastRound]:
    """Rounds of a uniform experiment of the toy, every group in the pool."""
    return [
        PastRound(
            round_number=number,
            prompts=simulated.indices,
            learned=simulated.learned,
            num_correct=simulated.num_correct,
            num_scored=np.full(len(simulated.indices), experiment.group_size),
            num_tokens=np.full(len(simulated.indices), 10),
            reasons=simulated.reasons,
            is_pool=np.ones(len(simulated.indices), dtype=bool),
        )
        for number, simulated in enumerate(simulate(truth, experiment), start=1)
    ]


def replay(rounds: Sequence[PastRound], settings: ReplaySettings = SETTINGS) -> list[Choices]:
    found = [choices for _, choices in replay_all(rounds, settings)]
    assert all(choices is not None for choices in found)
    return found  # type: ignore[return-value]


def outcomes_in_full(rounds: Sequence[PastRound], round_number: int, priors: Sequence[np.ndarray]) -> Outcomes:
    """As the loop has them: aligned with all prompts, of the three half-lives before the round."""
    past = [
        (earlier, prior)
        for earlier, prior in zip(rounds, priors, strict=True)
        if round_number - 12 <= earlier.round_number
    ]
    return Outcomes(
        prompt_indices=np.concatenate([earlier.prompts for earlier, _ in past]),
        ages=np.concatenate([np.full(24, round_number - earlier.round_number) for earlier, _ in past]),
        num_correct=np.concatenate([earlier.num_correct for earlier, _ in past]),
        num_scored=np.concatenate([earlier.num_scored for earlier, _ in past]),
        reasons=np.concatenate([earlier.reasons for earlier, _ in past]),
        prior_estimates=np.concatenate([prior for _, prior in past]),
    )


def estimates_in_full(rounds: Sequence[PastRound], number: int, estimator: str, head: np.ndarray) -> np.ndarray:
    """Of all prompts, before round `number`."""
    earlier = rounds[: number - 1]
    outcomes = outcomes_in_full(earlier, number, [past.learned for past in earlier])
    return estimate_by(
        estimator,  # type: ignore[arg-type]
        head,
        outcomes=outcomes,
        target_accuracy=0.5,
        half_life=4.0,
        experiment_seed=3,
        round_number=number,
    )


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES if rule not in (UNIFORM, ORACLE, HINDSIGHT) and "random" not in rule]
)
def test_rules_choose_as_they_do_in_the_loop(rule: tuple[str, str]) -> None:
    """The stage `scheduling`, written out with all prompts and fitting its prior, on the same candidates.

    Without `random`, whose draws are by position among all prompts there.
    """
    selector, estimator = rule
    truth = accuracies()
    rounds = past_rounds(truth)
    errors = derive_generator(3, "simulated_head").normal(0.0, 0.2, size=NUM_PROMPTS)
    head = np.clip(truth + errors, 0.0, 1.0)
    for number in (9, 20):
        prior = "learned" if estimator in ("", "beta_posterior") else estimator
        recorded = [
            estimates_in_full(rounds, past.round_number, prior, head)[past.prompts]
            if past.round_number > 1
            else past.learned
            for past in rounds[: number - 1]
        ]
        current = rounds[number - 1]
        if prior in ("constant", "group_mean"):
            recorded[0] = np.full(24, 0.5)  # before the first round nothing has been measured
        taken = choose_among(
            selector,  # type: ignore[arg-type]
            current.prompts,
            estimates_in_full(rounds, number, estimator or "learned", head),
            num_prompts=6,
            target_accuracy=0.5,
            settings=SELECTORS,
            outcomes=outcomes_in_full(rounds[: number - 1], number, recorded),
            prior_estimates=estimates_in_full(rounds, number, prior, head),
            measured_accuracies=None,
            generator=derive_generator(3, "selector", number),
        )
        shares = replay(rounds)[number - 1].shares[RULES.index(rule)]
        assert sorted(taken.tolist()) == np.flatnonzero(shares).tolist()


def test_every_selector_of_the_loop_is_replayed() -> None:
    assert {selector for selector, _ in RULES} == {*get_args(Selector), "hindsight"} - {"dynamic_sampling"}
    assert len(set(RULES)) == len(RULES)


def test_every_rule_takes_its_share() -> None:
    for choices in replay(past_rounds(accuracies())):
        np.testing.assert_allclose(choices.shares.sum(axis=1), 1.0)
        taken = (choices.shares > 0).sum(axis=1)
        assert taken[RULES.index(UNIFORM)] == 24
        assert set(np.delete(taken, [RULES.index(UNIFORM), RULES.index(ORACLE)])) == {6}


def test_a_rounds_own_outcomes_are_seen_by_oracle_and_hindsight_alone() -> None:
    rounds = past_rounds(accuracies())
    changed = [*rounds[:-1], replace(rounds[-1], num_correct=8 - rounds[-1].num_correct)]
    before, after = replay(rounds)[-1].shares, replay(changed)[-1].shares
    seeing = [RULES.index(ORACLE), RULES.index(HINDSIGHT)]
    assert (np.delete(before, seeing, axis=0) == np.delete(after, seeing, axis=0)).all()


def test_no_more_is_looked_back_at_than_three_half_lives() -> None:
    rounds = past_rounds(accuracies())
    assert (replay(rounds)[-1].shares == replay(rounds[7:])[-1].shares).all()  # rounds 8 to 19 are twelve
    assert (replay(rounds)[-1].shares != replay(rounds[8:])[-1].shares).any()
    none = replace(SETTINGS, selectors=replace(SELECTORS, outcome_half_life=0.0))
    assert (replay(rounds, none)[-1].shares == replay(rounds[-1:], none)[-1].shares).all()


def test_a_round_without_a_pool_is_remembered_and_not_chosen_in() -> None:
    rounds = past_rounds(accuracies())
    rounds[10] = replace(rounds[10], is_pool=np.zeros(24, dtype=bool))
    found = [choices for _, choices in replay_all(rounds, SETTINGS)]
    assert found[10] is None
    assert found[11] is not None
    assert (found[11].shares == replay(past_rounds(accuracies()))[11].shares).all()


def measures(rounds: Sequence[PastRound], *, share: float = 0.25) -> dict[str, dict[tuple[str, str], float]]:
    """Measure → rule → value over all rounds."""
    rows = ReferenceRows(uniform=RULES.index(UNIFORM), oracle=RULES.index(ORACLE), hindsight=RULES.index(HINDSIGHT))
    sums = sum(
        resampled_sums(
            choices.shares,
            group_values(past.num_correct, past.num_scored, past.num_tokens, choices.left_out_differ),
            num_resamples=0,
            generator=derive_generator(0, "unused"),
        )
        for past, choices in zip(rounds, replay(rounds, replace(SETTINGS, share=share)), strict=True)
    )
    assert isinstance(sums, np.ndarray)
    return {name: dict(zip(RULES, values[0], strict=True)) for name, values in choice_measures(sums, rows).items()}


def test_a_perfect_head_leaves_nothing_to_the_oracle() -> None:
    """`nearest` by the truth is the best there is; an oracle that knows six completions of eight comes near it."""
    experiment = replace(EXPERIMENT, num_rounds=150, num_prompts=64, head_error=0.0)
    found = measures(past_rounds(accuracies(2000), experiment))
    assert found["regret"]["nearest", "learned"] < 0.002
    assert found["captured_headroom"]["nearest", "learned"] > 1.0
    assert found["captured_headroom"]["nearest", "random"] == pytest.approx(0.0, abs=0.1)
    assert found["hit_rate"]["nearest", "learned"] < found["hit_rate"][HINDSIGHT]


def test_a_worse_head_captures_less() -> None:
    captured = []
    for head_error in (0.1, 0.3, 0.6):
        experiment = replace(EXPERIMENT, num_rounds=80, num_prompts=64, head_error=head_error)
        captured.append(measures(past_rounds(accuracies(2000), experiment))["captured_headroom"]["nearest", "learned"])
    assert captured[0] > captured[1] > captured[2]


def test_judging_the_oracle_by_what_it_did_not_see_is_fair() -> None:
    """Where all prompts are alike there is nothing to know: it must come out as uniform does, at p(1 − p)."""
    experiment = replace(EXPERIMENT, num_rounds=300, num_prompts=64)
    found = measures(past_rounds(np.full(2000, 0.2), experiment))["reward_variance"]
    assert found[ORACLE] == pytest.approx(0.16, abs=0.006)
    assert found[UNIFORM] == pytest.approx(0.16, abs=0.003)


def test_known_prompts_are_those_measured_within_the_window() -> None:
    rounds = past_rounds(accuracies())
    for number, choices in enumerate(replay(rounds), start=1):
        window = rounds[max(0, number - 13) : number - 1]
        seen = {prompt for past in window for prompt in past.prompts.tolist()}
        assert choices.is_known.tolist() == [prompt in seen for prompt in rounds[number - 1].prompts.tolist()]
