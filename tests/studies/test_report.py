"""The report of a study against tables that were computed by hand, on whole, half-finished and missing studies."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import study_tables
from study_tables import plan, write_study

from paced_rl.studies import comparisons, ledgers, savings
from paced_rl.studies.panels import StudyResults, read_study_results
from paced_rl.studies.report import write_report
from paced_rl.studies.verdicts import BETTER, TIE, UNKNOWN, WORSE, accuracy_sentences, cost_sentences, judge


@pytest.fixture
def results(tmp_path: Path) -> StudyResults:
    write_study(tmp_path)
    return read_study_results(plan(tmp_path), tmp_path)


def row(table: pd.DataFrame, **values: object) -> pd.Series:
    for name, value in values.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_learning_curves_are_means_over_seeds_of_the_test_split_alone(results: StudyResults) -> None:
    curves = comparisons.learning_curves(results)
    base = curves[curves["arm"] == "base"]
    assert base["accuracy"].tolist() == pytest.approx([0.25, 0.375, 0.625])
    assert base["tokens_sampled"].tolist() == [0, 100, 200]
    assert base["seconds"].tolist() == [0, 5.5, 11.0], "without reporting, the start, and what is inside a node"
    assert base["num_seeds"].tolist() == [2, 2, 2]
    # Round 1: seed 0 solves both prompts in one way each, seed 1 solves one of two.
    assert base["distinct_correct_per_solved_prompt"].tolist() == pytest.approx([1, 1, 1])
    assert base["pass_at_k"].tolist() == pytest.approx([0.5, 0.75, 1.0])
    assert (base["low"] <= base["accuracy"]).all()
    assert (base["accuracy"] <= base["high"]).all()


def test_checkpoints_are_chosen_on_validation_and_differences_are_paired_by_seed(results: StudyResults) -> None:
    table = comparisons.headline(results)
    expected = {
        # Base: rounds 1 and 2; other: round 1 (the first of equally good ones) and 1.
        "chosen": ((0.5 + 0.75) / 2, (0.75 + 0.5) / 2, [0.25, -0.25]),
        "last": ((0.5 + 0.75) / 2, (0.5 + 1.0) / 2, [0.0, 0.25]),
        "mean": (1.25 / 3, (0.5 + 1.75 / 3) / 2, [0.25 / 3, 0.5 / 3]),
    }
    for measure, (base, other, by_seed) in expected.items():
        assert row(table, arm="base", measure=measure)["accuracy"] == pytest.approx(base)
        found = row(table, arm="other", measure=measure)
        assert found["accuracy"] == pytest.approx(other)
        assert found["difference_by_seed"] == pytest.approx(by_seed)
        assert found["difference"] == pytest.approx(np.mean(by_seed))
        half = 12.706 * abs(by_seed[0] - by_seed[1]) / 2  # t(1) · s / √2, and s = |a − b| / √2
        assert found["difference_high_over_seeds"] == pytest.approx(found["difference"] + half, rel=1e-3)
    assert math.isnan(row(table, arm="base", measure="last")["difference"])


def test_tokens_to_reach_an_accuracy_and_what_they_save(results: StudyResults) -> None:
    """Curves: base 0.25, 0.375, 0.625 at 0, 100, 200 tokens; other 0.25, 0.625, 0.75 at 0, 80, 160."""
    table = savings.costs_to_reach(results)
    base, other = (row(table, arm=arm, accuracy=0.5) for arm in ("base", "other"))
    assert (base["tokens"], base["rounds"]) == pytest.approx((150, 1.5))
    assert (other["tokens"], other["rounds"]) == pytest.approx((160 / 3, 2 / 3))
    assert other["saving"] == pytest.approx(1 - 160 / 3 / 150)
    # Seed 0: 100 against 160/3, since the fit of 0.25, 0.75, 0.5 ends at 0.625; seed 1: 150 against 80.
    assert other["saving_by_seed"] == pytest.approx([1 - 160 / 300, 1 - 80 / 150])
    assert not other["is_baseline_censored"]
    assert other["saving_low"] <= other["saving"] <= other["saving_high"]


def test_an_accuracy_that_is_never_reached_costs_more_than_all(results: StudyResults) -> None:
    table = savings.costs_to_reach(results)
    base, other = (row(table, arm=arm, accuracy=0.7) for arm in ("base", "other"))
    assert base["tokens"] == math.inf
    # In seed 1 alone it is reached, at 0.75.
    assert base["num_seeds_reached"] == 1
    assert other["tokens"] == pytest.approx(80 * 1.6)
    assert other["is_baseline_censored"]
    assert other["saving"] == pytest.approx(1 - 128 / 200), "at least"
    sentences = " ".join(cost_sentences(results, table))
    assert "To reach accuracy 0.7, **other** takes at least 36% fewer tokens than base" in sentences


def test_the_share_of_the_oracle_is_a_ratio_of_savings(tmp_path: Path) -> None:
    write_study(tmp_path)
    text = study_tables.STUDY.replace("report: {", "report: {oracle: other, ")
    for seed in (0, 1):
        for table in (tmp_path / "data").glob(f"*/*/experiment=s-other-s{seed}"):
            table.with_name(f"experiment=s-same-s{seed}").symlink_to(table)
    study = plan(tmp_path, text.replace("arms:", "arms:\n  same: {scheduling.selector: softened}"))
    table = savings.costs_to_reach(read_study_results(study, tmp_path))
    same = row(table, arm="same", accuracy=0.5)
    assert same["oracle_share"] == pytest.approx(1)
    assert same["oracle_share_low"] in (pytest.approx(1), -np.inf)
    assert math.isnan(row(table, arm="other", accuracy=0.5)["oracle_share"]), "the oracle has no share of itself"


def test_pass_at_k_of_the_chosen_checkpoint(results: StudyResults) -> None:
    table = comparisons.pass_curves(results)
    base = table[table["arm"] == "base"]
    assert base["pass_at_k"].tolist() == pytest.approx([0.625, 1.0])
    assert base["slope"].iloc[0] == pytest.approx(0.375 / math.log(2))


def test_calibration_is_measured_on_uniform_prompts_each_round_once(results: StudyResults) -> None:
    table = ledgers.calibration(results)
    found = row(table, arm="base", first_round=2)
    assert found["num_groups"] == 4, "two seeds, a warm-up and an audit prompt each"
    assert found["mean_absolute_error"] == pytest.approx(0.25)
    # E|X/4 − 1/2| of Binomial(4, 1/2): 2 · (1/16 · 1/2 + 4/16 · 1/4)
    assert found["binomial_floor"] == pytest.approx(0.1875)
    assert found["brier_score"] == pytest.approx(0.25)
    assert len(table) == 4


def test_the_ledger_adds_up_and_keeps_what_the_oracle_measures_apart(results: StudyResults) -> None:
    table = ledgers.costs(results)
    other = row(table, arm="other")
    tokens = [other[f"tokens_{name}"] for name in ("sampled", "trained", "evaluated", "measured")]
    assert tokens == [160, 20, 10, 14]
    assert row(table, arm="base")["tokens_measured"] == 0
    assert (other["seconds_rollout"], other["seconds_training"], other["seconds_reporting"]) == (5, 6, 8)
    assert "seconds_start" not in table


def test_a_report_has_its_text_its_figures_and_the_tables_behind_them(tmp_path: Path, results: StudyResults) -> None:
    report = write_report(results.plan, tmp_path)
    text = report.read_text()
    assert report == tmp_path / "data/08_reporting/studies/s/report.md"
    assert "All 4 experiments have been evaluated up to round 2." in text
    figures = ("learning_curves", "differences", "costs_to_reach", "pass_at_k", "diversity", "calibration")
    for name in figures:
        assert f"({name}.png)" in text
        assert report.with_name(f"{name}.png").stat().st_size > 5000
    costs = pd.read_parquet(report.with_name("costs_to_reach.parquet"))
    assert row(costs, arm="base", accuracy=0.5)["tokens"] == pytest.approx(150)
    before = {path: path.read_bytes() for path in report.parent.iterdir()}
    write_report(results.plan, tmp_path)
    assert before == {path: path.read_bytes() for path in report.parent.iterdir()}, "nothing of it is left to chance"


def test_a_half_finished_study_is_reported_with_what_is_missing(tmp_path: Path) -> None:
    write_study(tmp_path, last_rounds={("other", 1): 1, ("base", 1): -1})
    study = plan(tmp_path)
    text = write_report(study, tmp_path).read_text()
    assert "**Not all there: 2 of 4 experiments have not come to round 2**" in text
    assert "- s-base-s1: nothing yet" in text
    assert "- s-other-s1: at round 1" in text
    assert "**other** against base: one seed in common, which cannot tell them apart, at the checkpoint chosen" in text
    assert "different numbers of finished seeds" not in text
    curves = comparisons.learning_curves(read_study_results(study, tmp_path))
    assert curves[curves["arm"] == "other"]["accuracy"].tolist() == pytest.approx([0.25, 0.75, 0.5]), "seed 0 alone"


def test_arms_with_fewer_seeds_are_compared_by_their_differences_alone(tmp_path: Path) -> None:
    write_study(tmp_path, last_rounds={("other", 1): -1})
    results = read_study_results(plan(tmp_path), tmp_path)
    text = write_report(results.plan, tmp_path).read_text()
    assert "different numbers of finished seeds (base 2, other 1)" in text
    assert "The highest accuracy" not in text
    found = row(comparisons.headline(results), arm="other", measure="last")
    assert found["difference_by_seed"] == pytest.approx([0.0]), "seed 0 against seed 0"


def test_before_any_experiment_is_through_all_are_compared_as_far_as_all_are(tmp_path: Path) -> None:
    write_study(tmp_path, last_rounds=dict.fromkeys(study_tables.CORRECT, 1) | {("other", 1): 0})
    results = read_study_results(plan(tmp_path), tmp_path)
    assert results.horizon == 0
    write_study_of = {("base", 0): 1, ("base", 1): 1, ("other", 0): 1, ("other", 1): 1}
    other = tmp_path / "later"
    other.mkdir()
    write_study(other, last_rounds=write_study_of)
    later = read_study_results(plan(other), other)
    assert later.horizon == 1
    assert [len(later.finished(arm)) for arm in ("base", "other")] == [2, 2]


def test_a_study_of_which_nothing_is_there_says_so(tmp_path: Path) -> None:
    text = write_report(plan(tmp_path), tmp_path).read_text()
    assert text.count("nothing yet") == 4
    assert "What it shows" not in text


def test_an_evaluation_whose_round_is_not_summarised_waits(tmp_path: Path) -> None:
    write_study(tmp_path)
    (tmp_path / "data/08_reporting/round_summary/experiment=s-base-s0/round=0002/round_summary.parquet").unlink()
    results = read_study_results(plan(tmp_path), tmp_path)
    assert results.experiments["base", 0].evaluations.rounds.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("bootstrap", "student", "num_seeds", "verdict"),
    [
        ((0.01, 0.03), (0.005, 0.04), 3, BETTER),
        ((-0.03, -0.01), (-0.04, -0.001), 3, WORSE),
        ((0.01, 0.03), (-0.02, 0.06), 3, TIE),
        ((-0.01, 0.03), (0.001, 0.02), 3, TIE),
        ((0.01, 0.03), (math.nan, math.nan), 1, UNKNOWN),
    ],
)
def test_a_winner_needs_both_intervals_and_two_seeds(
    bootstrap: tuple[float, float], student: tuple[float, float], num_seeds: int, verdict: str
) -> None:
    difference = {
        "difference_low": bootstrap[0],
        "difference_high": bootstrap[1],
        "difference_low_over_seeds": student[0],
        "difference_high_over_seeds": student[1],
        "num_paired_seeds": num_seeds,
    }
    assert judge(difference) == verdict


def test_ties_are_called_ties(results: StudyResults) -> None:
    sentences = list(accuracy_sentences(results, comparisons.headline(results)))
    assert sentences[0].startswith(
        "**other** against base: no difference is shown at the checkpoint chosen on validation, +0.000 ("
    )
    assert "by seed +0.250, -0.250); no difference is shown on average over all evaluations, +0.125" in sentences[0]
    assert "it is not told apart from" in sentences[1]
