"""Selection on known accuracies: the oracle's hit rate, the winner's curse at its computed size, what softens it."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from scipy import stats

from paced_rl.scheduling import Estimator, Selector, SelectorSettings
from paced_rl.scheduling.simulator import SimulatedExperiment, SimulatedRound, simulate, trained_accuracies
from paced_rl.seeds import derive_generator

PLAIN = SimulatedExperiment(
    num_rounds=1,
    experiment_seed=0,
    selector="nearest",
    estimator="learned",
    target_accuracy=0.5,
    num_prompts=32,
    candidate_pool_size=0,
    audit_fraction=0.0,
    warm_up_rounds=0,
    settings=SelectorSettings(softening=0.1, outcome_half_life=10.0, retest_share=0.25, retest_after=10),
    group_size=8,
    head_error=0.0,
    learning=0.0,
)
LOOP = replace(PLAIN, num_rounds=40, audit_fraction=0.125, warm_up_rounds=3, head_error=0.2, learning=0.1)


def hard_pool(size: int = 1400) -> np.ndarray:
    """Accuracies of which most are low, as in a pool that is mostly too hard; the mean is 1/3."""
    return derive_generator(1, "accuracies").beta(0.4, 0.8, size=size)


def selected(rounds: list[SimulatedRound], name: str) -> np.ndarray:
    """A column over all selected prompts of all rounds."""
    return np.concatenate([getattr(simulated, name)[simulated.reasons == "selected"] for simulated in rounds])


def hit_rate(rounds: list[SimulatedRound]) -> float:
    accuracies = selected(rounds, "accuracies")
    return float(((accuracies >= 0.25) & (accuracies <= 0.75)).mean())


def test_nearest_with_a_perfect_head_is_the_oracle_in_every_round() -> None:
    accuracies = hard_pool(200)
    experiment = replace(PLAIN, num_rounds=30, learning=0.3)
    truth = accuracies.copy()
    for simulated in simulate(accuracies, experiment):
        best = np.sort(np.abs(truth - 0.5))[:32]
        np.testing.assert_allclose(np.sort(np.abs(simulated.accuracies - 0.5)), best, rtol=1e-12)
        num_hits = ((simulated.accuracies >= 0.25) & (simulated.accuracies <= 0.75)).sum()
        assert num_hits == min(32, ((truth >= 0.25) & (truth <= 0.75)).sum())
        truth[simulated.indices] = trained_accuracies(truth[simulated.indices], 0.3)


ESTIMATES = np.linspace(0.0005, 0.9995, 1000)


def expected_when_selected(weights: np.ndarray, spread: float) -> tuple[float, float]:
    """E[estimate | selected] and E[truth | selected] by quadrature.

    truth ~ Beta(0.4, 0.8), estimate ~ N(truth, spread²), selected in proportion to the weight of the estimate.
    """
    # Quantile midpoints: equally likely accuracies, so that the density's poles at 0 and 1 need no care.
    truth = stats.beta(0.4, 0.8).ppf((np.arange(2000) + 0.5) / 2000)
    joint = weights[:, None] * stats.norm.pdf(ESTIMATES[:, None], loc=truth, scale=spread)
    return tuple((value * joint).sum() / joint.sum() for value in (ESTIMATES[:, None], truth))  # type: ignore[return-value]


def softened_weights(softening: float) -> np.ndarray:
    return np.exp(-((ESTIMATES - 0.5) ** 2) / (2 * softening**2))


def test_winners_curse_has_its_computed_size() -> None:
    """A noisy head calls 0.5 what is 0.41 on average: the hard prompts whose estimate errs upwards."""
    rounds = simulate(hard_pool(200_000), replace(PLAIN, num_prompts=4000, head_error=0.25))
    estimates, accuracies = selected(rounds, "estimates"), selected(rounds, "accuracies")
    _, expected = expected_when_selected((np.abs(ESTIMATES - 0.5) < 0.02).astype(float), 0.25)
    assert np.abs(estimates - 0.5).max() < 0.02
    assert accuracies.mean() == pytest.approx(expected, abs=4 * accuracies.std() / np.sqrt(len(accuracies)))
    assert estimates.mean() - accuracies.mean() > 0.07


def test_softened_reduces_the_curse_to_its_computed_size() -> None:
    """Few draws from a large pool are independent draws with the weight, so the same integral holds."""
    experiment = replace(PLAIN, selector="softened", num_prompts=4000, head_error=0.25)
    experiment = replace(experiment, settings=replace(PLAIN.settings, softening=0.2))
    rounds = simulate(hard_pool(400_000), experiment)
    errors = selected(rounds, "estimates") - selected(rounds, "accuracies")
    estimate, truth = expected_when_selected(softened_weights(0.2), 0.25)
    nearest_estimate, nearest_truth = expected_when_selected((np.abs(ESTIMATES - 0.5) < 0.02).astype(float), 0.25)
    assert estimate - truth < 0.9 * (nearest_estimate - nearest_truth)
    # The grid leaves out estimates cut to 0 and 1, whose weight is e^(−3) of the largest.
    assert errors.mean() == pytest.approx(estimate - truth, abs=4 * errors.std() / np.sqrt(len(errors)) + 0.005)


def mean_error(selector: Selector, estimator: Estimator, seed: int) -> float:
    """Mean |estimate − accuracy| of what was selected, over a whole experiment."""
    experiment = replace(LOOP, selector=selector, estimator=estimator, experiment_seed=seed)
    rounds = simulate(hard_pool(), experiment)
    return float(np.abs(selected(rounds, "estimates") - selected(rounds, "accuracies")).mean())


@pytest.mark.parametrize("seed", range(3))
def test_a_head_that_errs_on_the_same_prompts_misleads_nearest_round_after_round(seed: int) -> None:
    plain = mean_error("nearest", "learned", seed)
    assert plain > 1.2 * mean_error("uniform", "learned", seed)
    assert mean_error("softened", "learned", seed) < 0.8 * plain
    assert mean_error("nearest", "beta_posterior", seed) < 0.6 * plain


def test_every_rule_that_knows_something_beats_uniform() -> None:
    """`dynamic_sampling` chooses none: it drops what uniform rollouts show to be uninformative."""
    names = [name for name in get_args(Selector) if name != "dynamic_sampling"]
    rates = {name: hit_rate(simulate(hard_pool(), replace(LOOP, selector=name))) for name in names}
    assert all(rate > rates["uniform"] + 0.05 for name, rate in rates.items() if name != "uniform"), rates
    assert rates["posterior"] > rates["nearest"] + 0.1


def test_drawing_from_the_posterior_meets_more_prompts_than_taking_its_best() -> None:
    chosen = {}
    for name in ("posterior", "posterior_thompson"):
        rounds = simulate(hard_pool(), replace(LOOP, selector=name, head_error=0.3))
        chosen[name] = (len(set(selected(rounds, "indices"))), hit_rate(rounds))
    assert chosen["posterior_thompson"][0] > 1.3 * chosen["posterior"][0], chosen
    assert chosen["posterior_thompson"][1] > chosen["posterior"][1] - 0.05, chosen


def test_a_random_estimate_makes_nearest_uniform() -> None:
    random = hit_rate(simulate(hard_pool(), replace(LOOP, estimator="random", learning=0.0)))
    pool = hard_pool()
    share = ((pool >= 0.25) & (pool <= 0.75)).mean()
    num_selected = 28 * 37
    assert random == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / num_selected))


@pytest.mark.parametrize("selector", get_args(Selector))
def test_a_shorter_experiment_is_the_beginning_of_a_longer_one(selector: Selector) -> None:
    experiment = replace(LOOP, num_rounds=12, selector=selector, estimator="beta_posterior")
    longer, shorter = simulate(hard_pool(300), experiment), simulate(hard_pool(300), replace(experiment, num_rounds=7))
    assert [simulated.indices.tolist() for simulated in longer[:7]] == [
        simulated.indices.tolist() for simulated in shorter
    ]


def test_training_grows_log_odds() -> None:
    p = np.array([0.0, 0.2, 0.5, 1.0])
    grown = trained_accuracies(p, 0.5)
    assert grown[[0, 3]].tolist() == [0.0, 1.0]
    log_odds = np.log(grown[1:3] / (1 - grown[1:3])) - np.log(p[1:3] / (1 - p[1:3]))
    np.testing.assert_allclose(log_odds, [0.5 * 4 * 0.16, 0.5])
    assert trained_accuracies(p, 0.0).tolist() == p.tolist()


def test_input_is_left_alone_and_checked() -> None:
    accuracies = hard_pool(100)
    accuracies.flags.writeable = False
    simulate(accuracies, replace(LOOP, num_rounds=2))
    with pytest.raises(ValueError, match=r"\[0, 1\].*2.0"):
        simulate(np.full(40, 2.0), PLAIN)


def test_oracle_is_as_good_as_its_measurements() -> None:
    """A wrong head does not matter to it; with ever more completions it becomes `nearest` with a perfect head."""
    best = hit_rate(simulate(hard_pool(), replace(LOOP, head_error=0.0)))
    rates = [
        hit_rate(simulate(hard_pool(), replace(LOOP, selector="oracle", head_error=0.5, oracle_samples=samples)))
        for samples in (1, 8, 1000)
    ]
    assert rates[0] < rates[1] < rates[2]
    assert rates[2] == pytest.approx(best, abs=0.01)


def test_dynamic_sampling_fills_its_rounds_and_trains_no_uniform_group() -> None:
    rounds = simulate(hard_pool(), replace(LOOP, selector="dynamic_sampling", learning=0.0))
    for simulated in rounds:
        correct = simulated.num_correct[simulated.is_trained]
        assert ((correct > 0) & (correct < 8)).all()
        assert len(correct) <= 32 <= len(simulated.indices) <= 96
    p = hard_pool()
    informative = (1 - p**8 - (1 - p) ** 8).mean()
    later = rounds[10:]  # the share is known by then
    assert np.mean([len(simulated.indices) for simulated in later]) == pytest.approx(32 / informative, rel=0.05)
    assert np.mean([simulated.is_trained.sum() for simulated in later]) > 28
