"""What a round did, as one row, one point of a curve, and three figures.

The nodes that draw are annotated with `object`: matplotlib is imported when one of them runs, and Kedro, which reads
every annotation, warns of a name that only type checkers see.
"""

import numpy as np
import pandas as pd

from paced_rl.datasets.parquet_table import TableReader
from paced_rl.parameters import EvaluationParameters, ReportingParameters, TrainingParameters
from paced_rl.pipelines.columns import from_rows
from paced_rl.pipelines.reporting.summary import evaluation_part, outcome_part, replay_part, training_part, verdict_part
from paced_rl.schemas import LEARNING_CURVE, ROUND_SUMMARY
from paced_rl.seeds import derive_generator
from paced_rl.types import Checkpoint, Split


def summarise_round(
    rollouts: pd.DataFrame,
    verdicts: pd.DataFrame,
    training_batch: pd.DataFrame,
    training_metrics: pd.DataFrame,
    replay_audit: pd.DataFrame,
    outcome_history: pd.DataFrame,
    evaluation_table: pd.DataFrame,
    evaluation: EvaluationParameters,
    reporting: ReportingParameters,
    round_number: int,
    measured_accuracies: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """One row: counts, tokens, accuracies, calibration on the uniformly drawn prompts, replay, training.

    Tokens that told the selector `oracle` of its candidates are a column apart.
    """
    row = {
        "policy_version": round_number,
        "num_prompts": int(rollouts["prompt_id"].nunique()),
        "num_completions": len(rollouts),
        "tokens_sampled": int(rollouts["num_tokens"].sum()),
        "tokens_measured": None if measured_accuracies is None else int(measured_accuracies["num_tokens"].sum()),
        **verdict_part(verdicts),
        **outcome_part(outcome_history, round_number=round_number, num_rounds=reporting.calibration_window),
        **replay_part(training_batch, replay_audit),
        **training_part(training_metrics),
        **evaluation_part(evaluation_table, k=evaluation.num_samples),
    }
    finite = {
        name: None if isinstance(value, float) and not np.isfinite(value) else value for name, value in row.items()
    }
    return from_rows([finite], ROUND_SUMMARY)


def start_learning_curve(start_evaluation: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The curve's point before any RL."""
    return from_rows([_curve_point(start_evaluation, curve_round=0, tokens=0, train=None, seed=seed)], LEARNING_CURVE)


def extend_learning_curve(
    previous_learning_curve: pd.DataFrame,
    round_summary: pd.DataFrame,
    evaluation_table: pd.DataFrame,
    round_number: int,
    seed: int,
) -> pd.DataFrame:
    """The curve up to this round; tokens are those sampled for training, summed over all rounds."""
    summary = round_summary.iloc[0]
    tokens = int(previous_learning_curve["tokens_sampled"].iloc[-1]) + int(summary["tokens_sampled"])
    point = _curve_point(
        evaluation_table, curve_round=round_number, tokens=tokens, train=summary["accuracy"], seed=seed
    )
    earlier = previous_learning_curve[LEARNING_CURVE.names].to_dict("records")
    return from_rows([*earlier, point], LEARNING_CURVE)


def _curve_point(
    evaluation_table: pd.DataFrame, *, curve_round: int, tokens: int, train: float | None, seed: int
) -> dict[str, float | int | None]:
    from paced_rl.metrics.bootstrap import bootstrap_mean

    point: dict[str, float | int | None] = {
        "curve_round": curve_round,
        "tokens_sampled": tokens,
        "train_accuracy": train,
        "validation_accuracy": None,
        "validation_accuracy_low": None,
        "validation_accuracy_high": None,
    }
    rows = evaluation_table[(evaluation_table["split"] == Split.VALIDATION) & (evaluation_table["num_scored"] > 0)]
    if len(rows):
        accuracy = (rows["num_correct"] / rows["num_scored"]).to_numpy(dtype=np.float64)
        interval = bootstrap_mean(accuracy, generator=derive_generator(seed, "bootstrap", curve_round))
        point |= {
            "validation_accuracy": float(accuracy.mean()),
            "validation_accuracy_low": interval.low,
            "validation_accuracy_high": interval.high,
        }
    return point


def draw_calibration(outcome_history: pd.DataFrame, reporting: ReportingParameters, round_number: int) -> object:
    """Reliability diagram over the uniformly drawn prompts of the last rounds."""
    from paced_rl.pipelines.reporting.figures import calibration_figure
    from paced_rl.pipelines.reporting.summary import last_rounds, uniform_outcomes

    window = last_rounds(outcome_history, round_number=round_number, num_rounds=reporting.calibration_window)
    return calibration_figure(uniform_outcomes(window), round_number=round_number)


def draw_estimates(
    accuracy_estimates: pd.DataFrame,
    log_z_head: Checkpoint,
    prompt_embeddings: TableReader,
    schedule: pd.DataFrame,
    training: TrainingParameters,
    reporting: ReportingParameters,
    round_number: int,
) -> object:
    """The head's estimates of the train prompts before and after this round, over at most `max_histogram_prompts`."""
    from paced_rl.objectives.estimate import estimate_in_batches
    from paced_rl.pipelines.columns import accuracies_of_head, embeddings_of
    from paced_rl.pipelines.reporting.figures import estimates_figure
    from paced_rl.training.head_state import load_head

    train = accuracy_estimates[accuracy_estimates["split"] == Split.TRAIN]
    train = train.iloc[:: -(-len(train) // reporting.max_histogram_prompts)]
    ids = train["prompt_id"].to_list()
    embeddings = embeddings_of(prompt_embeddings, ids)
    head = load_head(log_z_head, reward_temperature=training.reward_temperature)
    log_z = estimate_in_batches(head, [(ids, np.stack([embeddings[prompt_id] for prompt_id in ids]))])
    before, after, scheduled = (
        accuracies_of_head(values, training) if training.is_log_z_accuracy else values
        for values in (train["log_z"].to_numpy(), log_z, schedule["log_z"].to_numpy())
    )
    return estimates_figure(
        before=before,
        after=after,
        scheduled=scheduled,
        round_number=round_number,
        is_accuracy=training.is_log_z_accuracy,
    )


def draw_learning_curve(learning_curve: pd.DataFrame) -> object:
    """Accuracy against rounds, with the tokens sampled until then."""
    from paced_rl.pipelines.reporting.figures import learning_curve_figure

    return learning_curve_figure(learning_curve)
