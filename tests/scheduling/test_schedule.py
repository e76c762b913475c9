"""A round's schedule: sizes, order, reasons, and an audit slice that nothing can bend."""

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling_examples import outcome_rows, outcomes_from

from paced_rl.scheduling import (
    Schedule,
    Selector,
    SelectorSettings,
    build_schedule,
    candidates_to_measure,
    fit_prior_strength,
    nearest,
    posterior,
    posterior_beliefs,
)
from paced_rl.seeds import derive_generator

DEFAULTS: dict[str, Any] = {
    "round_number": 4,
    "experiment_seed": 0,
    "selector": "nearest",
    "target_accuracy": 0.5,
    "num_prompts": 32,
    "candidate_pool_size": 0,
    "audit_fraction": 0.125,
    "warm_up_rounds": 3,
    "settings": SelectorSettings(softening=0.1, outcome_half_life=10.0, retest_share=0.25, retest_after=10),
}
SELECTORS = get_args(Selector)


def schedule(estimates: np.ndarray, **changes: Any) -> Schedule:
    """With the estimates for what `oracle` measures."""
    return build_schedule(estimates, **{**DEFAULTS, "measured_accuracies": estimates, **changes})


def random_estimates(size: int, seed: int = 0) -> np.ndarray:
    return derive_generator(seed, "estimates").random(size)


def part(result: Schedule, reason: str) -> list[int]:
    return result.indices[result.reasons == reason].tolist()


def test_default_round_by_reference() -> None:
    estimates = random_estimates(500)
    result = schedule(estimates)
    audit = part(result, "audit")
    expected = [i for i in nearest(estimates, target_accuracy=0.5, num_prompts=500).tolist() if i not in audit][:28]
    assert part(result, "selected") == expected
    assert result.reasons.tolist() == ["selected"] * 28 + ["audit"] * 4


@pytest.mark.parametrize(
    ("selector", "round_number", "reason"),
    [("nearest", 3, "warm_up"), ("nearest", 4, "selected"), ("uniform", 3, "selected"), ("uniform", 4, "selected")],
)
def test_reason_of_all_but_the_audit_slice(selector: str, round_number: int, reason: str) -> None:
    result = schedule(random_estimates(200), selector=selector, round_number=round_number)
    assert set(result.reasons[:28].tolist()) == {reason}


@settings(deadline=None)
@given(st.data())
def test_every_schedule_is_whole(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 60))
    num_prompts = data.draw(st.integers(1, total))
    changes = {
        "num_prompts": num_prompts,
        "candidate_pool_size": data.draw(st.one_of(st.just(0), st.integers(num_prompts, 80))),
        "audit_fraction": data.draw(st.floats(0, 1)),
        "round_number": data.draw(st.integers(1, 40)),
        "selector": data.draw(st.sampled_from(SELECTORS)),
        "warm_up_rounds": data.draw(st.integers(0, 5)),
        "outcomes": outcomes_from(data.draw(outcome_rows(total))),
    }
    estimates = np.array(data.draw(st.lists(st.floats(0, 1), min_size=total, max_size=total)))
    result = schedule(estimates, **changes)
    num_audit = round(num_prompts * changes["audit_fraction"])
    size = len(result.indices)
    assert size == len(result.reasons) == len(set(result.indices.tolist()))
    most = 3 * num_prompts if changes["selector"] == "dynamic_sampling" else num_prompts
    assert num_prompts <= size <= min(most, total)
    assert set(result.indices.tolist()) <= set(range(total))
    assert result.reasons.tolist()[size - num_audit :] == ["audit"] * num_audit
    assert "audit" not in result.reasons.tolist()[: size - num_audit]
    distances = np.abs(estimates[part(result, "selected")] - 0.5)
    if changes["selector"] == "nearest":
        assert (np.diff(distances) >= 0).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 50), st.sampled_from(SELECTORS), st.sampled_from([0, 100]))
def test_audit_slice_never_sees_the_estimates(seed: int, round_number: int, selector: str, pool: int) -> None:
    audits = {
        tuple(
            part(
                schedule(estimates, round_number=round_number, selector=selector, candidate_pool_size=pool),
                "audit",
            )
        )
        for estimates in (random_estimates(300, seed), np.zeros(300), np.linspace(1, 0, 300))
    }
    assert len(audits) == 1


def test_audit_slice_is_uniform() -> None:
    """χ² of 400 rounds over 40 prompts of which nearest always prefers the same; exactly equal after whole epochs."""
    estimates = np.linspace(0, 1, 40)
    counts = np.zeros(40)
    for round_number in range(1, 401):
        result = schedule(estimates, num_prompts=16, round_number=round_number, warm_up_rounds=0)
        counts[part(result, "audit")] += 1
    assert counts.tolist() == [20.0] * 40  # 400 rounds × 2 prompts, by epochs


def test_audit_slice_of_one_round_is_uniform_over_seeds() -> None:
    counts = np.zeros(10)
    for seed in range(3000):
        counts[part(schedule(np.linspace(0, 1, 10), num_prompts=8, experiment_seed=seed), "audit")] += 1
    assert ((counts - 300) ** 2 / 300).sum() < 27.88  # 99.9 % quantile at 9 degrees of freedom; the seeds are fixed


def test_prompts_that_nearest_never_picks_stay_reachable() -> None:
    estimates = np.concatenate([np.full(50, 0.5), np.full(150, 0.0)])
    seen: set[int] = set()
    for round_number in range(1, 51):  # 200 prompts at 4 a round
        seen |= set(schedule(estimates, round_number=round_number, warm_up_rounds=0).indices.tolist())
    assert seen == set(range(200))


def test_uniform_reaches_every_prompt_in_every_epoch() -> None:
    """Three epochs of the uniform part: a prompt is drawn by its own position, or is that round's audit already."""
    total, num_others = 84, 28
    for epoch in range(3):
        seen: list[int] = []
        for position in range(3):
            result = schedule(np.full(total, 0.5), selector="uniform", round_number=1 + epoch * 3 + position)
            assert len(part(result, "selected")) == num_others
            seen += result.indices.tolist()
        assert set(seen) == set(range(total))


def test_a_round_can_be_computed_alone() -> None:
    estimates = random_estimates(100)
    for selector in SELECTORS:
        in_order = [
            schedule(estimates, selector=selector, round_number=r, candidate_pool_size=60) for r in range(1, 21)
        ]
        alone = schedule(estimates, selector=selector, round_number=20, candidate_pool_size=60)
        assert alone.indices.tolist() == in_order[-1].indices.tolist()
        assert alone.reasons.tolist() == in_order[-1].reasons.tolist()


@pytest.mark.parametrize("selector", [name for name in SELECTORS if name not in ("uniform", "dynamic_sampling")])
def test_warm_up_is_the_uniform_experiment(selector: str) -> None:
    estimates = random_estimates(100)
    warm_up = schedule(estimates, round_number=2, selector=selector)
    assert part(warm_up, "warm_up") == warm_up.indices[:28].tolist()
    uniform = schedule(estimates, round_number=2, selector="uniform")
    assert warm_up.indices.tolist() == uniform.indices.tolist()


def test_candidate_pool_limits_what_nearest_sees() -> None:
    estimates = np.abs(np.linspace(-1, 1, 1000))
    everything = schedule(estimates, audit_fraction=0.0)
    pooled = [schedule(estimates, audit_fraction=0.0, candidate_pool_size=100, round_number=r) for r in range(4, 60)]
    best = set(everything.indices.tolist())
    assert all(set(result.indices.tolist()) != best for result in pooled)
    # 32 of 100 candidates are about the nearest 32 % of all, and each pool is a fresh one, so that together the
    # rounds reach about 320 prompts; one pool for all rounds would give 32.
    assert len({index for result in pooled for index in result.indices.tolist()}) > 250


def test_pool_of_all_or_more_is_no_pool() -> None:
    estimates = random_estimates(100)
    expected = schedule(estimates).indices.tolist()
    assert schedule(estimates, candidate_pool_size=100).indices.tolist() == expected
    assert schedule(estimates, candidate_pool_size=10_000).indices.tolist() == expected


def test_whole_and_empty_audit_slice() -> None:
    estimates = random_estimates(100)
    assert set(schedule(estimates, audit_fraction=1.0).reasons.tolist()) == {"audit"}
    paper = schedule(estimates, audit_fraction=0.0, warm_up_rounds=0, round_number=1)
    assert paper.indices.tolist() == nearest(estimates, target_accuracy=0.5, num_prompts=32).tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_prompts": 101}, "num_prompts = 101, and there are 100"),
        ({"num_prompts": 0}, "num_prompts = 0"),
        ({"candidate_pool_size": 31}, "candidate_pool_size = 31 is below scheduling.num_prompts = 32"),
        ({"candidate_pool_size": -1}, "candidate_pool_size = -1"),
        ({"round_number": 0}, "round_number = 0"),
        ({"audit_fraction": 1.5}, "audit_fraction = 1.5"),
        ({"selector": "greedy"}, "'greedy'.*'nearest', 'uniform'.* or 'oracle'"),
    ],
)
def test_refusals_name_both_numbers(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule(random_estimates(100), **changes)


@pytest.mark.parametrize("selector", SELECTORS)
def test_estimates_that_are_not_finite_are_refused(selector: str) -> None:
    estimates = random_estimates(100)
    estimates[17] = np.nan
    with pytest.raises(ValueError, match=r"1 of 100 .*\[17\]"):
        schedule(estimates, selector=selector)


def test_input_is_left_alone() -> None:
    estimates = random_estimates(100)
    before = estimates.copy()
    estimates.flags.writeable = False
    schedule(estimates)
    assert np.array_equal(estimates, before)


def test_posterior_takes_the_best_candidates_by_their_beliefs() -> None:
    estimates, rows = random_estimates(100), [(7, 1, 4, 8, "audit", 0.3), (8, 2, 0, 8, "selected", 0.5)]
    outcomes, prior = outcomes_from(rows), random_estimates(100, seed=1)
    result = schedule(estimates, selector="posterior", outcomes=outcomes, prior_estimates=prior)
    beliefs = posterior_beliefs(prior, outcomes, prior_strength=fit_prior_strength(outcomes), half_life=10.0)
    audit = part(result, "audit")
    expected = [index for index in posterior(beliefs, num_prompts=100).tolist() if index not in audit][:28]
    assert part(result, "selected") == expected


def test_posterior_thompson_draws_from_the_beliefs_of_posterior() -> None:
    estimates, rows = random_estimates(100), [(7, 1, 4, 8, "audit", 0.3), (8, 2, 0, 8, "selected", 0.5)]
    outcomes, prior = outcomes_from(rows), random_estimates(100, seed=1)
    result = schedule(estimates, selector="posterior_thompson", outcomes=outcomes, prior_estimates=prior)
    beliefs = posterior_beliefs(prior, outcomes, prior_strength=fit_prior_strength(outcomes), half_life=10.0)
    pool = np.array([index for index in range(100) if index not in part(result, "audit")])
    draws = derive_generator(0, "selector", 4).beta(beliefs.right[pool], beliefs.wrong[pool])
    assert part(result, "selected") == pool[np.argsort(np.abs(draws - 0.5))[:28]].tolist()


def test_outcomes_turn_thompson_and_pass_rate_variance_away_from_solved_prompts() -> None:
    solved = outcomes_from([(index, 1, 8, 8, "selected", 0.5) for index in range(50)])
    for selector in ("beta_thompson", "posterior_thompson", "pass_rate_variance"):
        taken = part(schedule(np.full(100, 0.5), selector=selector, outcomes=solved), "selected")
        assert sum(index < 50 for index in taken) < 4, selector


def test_random_selectors_draw_anew_in_every_round() -> None:
    for selector in ("softened", "beta_thompson", "posterior_thompson", "pass_rate_variance"):
        rounds = [schedule(np.full(100, 0.5), selector=selector, audit_fraction=0.0, round_number=r) for r in (4, 5)]
        assert set(rounds[0].indices.tolist()) != set(rounds[1].indices.tolist())


def test_a_selector_without_its_settings_is_refused() -> None:
    with pytest.raises(ValueError, match="'softened' needs settings"):
        schedule(random_estimates(100), selector="softened", settings=None)


def test_oracle_is_nearest_on_what_was_measured_whatever_the_estimates() -> None:
    measured = random_estimates(100, seed=1)
    result = schedule(random_estimates(100), selector="oracle", measured_accuracies=measured)
    assert part(result, "selected") == part(schedule(measured), "selected")
    with pytest.raises(ValueError, match="oracle_round"):
        schedule(measured, selector="oracle", measured_accuracies=None)


def test_oracle_chooses_among_the_candidates_that_are_measured_for_it() -> None:
    """Every candidate that is to be measured counts, and no other does."""
    sizes: dict[str, Any] = {"round_number": 4, "num_prompts": 32, "candidate_pool_size": 40, "audit_fraction": 0.125}
    pool = candidates_to_measure(100, experiment_seed=0, warm_up_rounds=3, **sizes)
    measured = np.full(100, np.nan)
    measured[pool] = random_estimates(len(pool))
    result = schedule(np.full(100, 0.5), selector="oracle", measured_accuracies=measured, **sizes)
    best = pool[np.argsort(np.abs(measured[pool] - 0.5))[:28]]
    assert part(result, "selected") == best.tolist()
    assert not set(part(result, "audit")) & set(pool.tolist())
    assert len(candidates_to_measure(100, experiment_seed=0, warm_up_rounds=4, **sizes)) == 0


def test_dynamic_sampling_begins_as_uniform_does_and_goes_on() -> None:
    """Of a round's 64 prompts half are guessed to be informative; the audit slice is among them."""
    estimates = random_estimates(200)
    for fraction in (0.0, 0.125):
        uniform = schedule(estimates, selector="uniform", round_number=1, audit_fraction=fraction)
        result = schedule(estimates, selector="dynamic_sampling", round_number=1, audit_fraction=fraction)
        assert len(result.indices) == 64
        assert part(result, "audit") == part(uniform, "audit")
        if not fraction:  # otherwise other prompts stand in for those of the audit slice
            assert part(result, "selected")[:32] == part(uniform, "selected")


def test_rounds_of_dynamic_sampling_share_no_prompt_within_an_epoch() -> None:
    """Whatever their sizes: 288 prompts are three rounds of the most, 96."""
    rows = [
        [(0, 1, correct, 8, "selected", 0.5) for correct in (4,) * informative + (0,) * (10 - informative)]
        for informative in (10, 5, 2)
    ]
    drawn: list[int] = []
    for round_number, groups in enumerate(rows, start=1):
        result = schedule(
            np.full(288, 0.5),
            selector="dynamic_sampling",
            audit_fraction=0.0,
            round_number=round_number,
            outcomes=outcomes_from(groups),
        )
        assert len(result.indices) == (32, 64, 96)[round_number - 1]
        drawn += result.indices.tolist()
    assert len(set(drawn)) == len(drawn)


def test_dynamic_sampling_stops_at_all_prompts() -> None:
    result = schedule(np.full(40, 0.5), selector="dynamic_sampling")
    assert sorted(result.indices.tolist()) == list(range(40))
