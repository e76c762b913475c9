"""From this round's rollouts and the replay buffer to the next policy, head, optimiser state and replay buffer."""

import numpy as np
import pandas as pd

from paced_rl.datasets.parquet_table import TableReader
from paced_rl.parameters import PolicyParameters, RolloutParameters, SchedulingParameters, TrainingParameters
from paced_rl.pipelines.columns import embeddings_of
from paced_rl.pipelines.training.canary import check_sampler, gap_of_round, gaps_of_rollouts
from paced_rl.pipelines.training.dropped_groups import without_dropped_groups
from paced_rl.pipelines.training.replay_tables import entries_of
from paced_rl.progress import progress_bar
from paced_rl.schemas import BEHAVIOUR_LOG_PROBS, REPLAY_BUFFER, TRAINING_BATCH, TRAINING_METRICS
from paced_rl.seeds import derive_seed
from paced_rl.types import Checkpoint, CheckpointFiles, FinishReason, Origin, ScheduleReason


def assemble_training_batch(
    rollouts: pd.DataFrame,
    verdicts: pd.DataFrame,
    schedule: pd.DataFrame,
    prompts: pd.DataFrame,
    previous_replay_buffer: pd.DataFrame,
    training: TrainingParameters,
    scheduling: SchedulingParameters,
    round_number: int,
) -> pd.DataFrame:
    """This round's scored rollouts, then the replayed ones; a rollout whose verifier failed is left out."""
    from paced_rl.scheduling.replay import priority, select_for_replay

    # Looked up by index: a merge of pandas takes ten times as long on tables of this size.
    rewards = verdicts.set_index("rollout_id")["reward"]
    fresh = rollouts.assign(reward=rewards.reindex(rollouts["rollout_id"]).to_numpy())
    fresh = fresh[fresh["reward"].notna()]
    if fresh.empty:
        raise ValueError(
            f"round {round_number} has no rollout with a reward: every one of {len(verdicts)} verdicts is a "
            f"verifier_error. Look at the verdicts table, mend the verifier and run the round again"
        )
    fresh = without_dropped_groups(fresh, schedule, scheduling)
    observed = fresh.groupby("prompt_id")["reward"].transform("mean").to_numpy()
    scheduled = schedule.set_index("prompt_id").loc[fresh["prompt_id"]]
    token_ids = prompts.set_index("prompt_id")["token_ids"]
    fresh = fresh.assign(
        origin=str(Origin.FRESH),
        reason=scheduled["reason"].to_numpy(),
        sampled_round=round_number,
        staleness=0,
        reuse_count=0,
        prompt_token_ids=token_ids.loc[fresh["prompt_id"]].to_numpy(),
        observed_accuracy=observed,
        estimated_accuracy=scheduled["estimated_accuracy"].to_numpy(),
        priority=priority(observed, scheduled["estimated_accuracy"].to_numpy()),
    )[TRAINING_BATCH.names]
    chosen = select_for_replay(
        entries_of(previous_replay_buffer),
        round_number=round_number,
        max_added=training.replay_max_added,
        max_staleness=training.replay_max_staleness,
    )
    if len(chosen) == 0:
        return fresh.reset_index(drop=True)
    replayed = previous_replay_buffer.iloc[chosen].assign(
        origin=str(Origin.REPLAYED),
        reason=str(ScheduleReason.SELECTED),
        finish_reason=str(FinishReason.EOS),  # correct ones alone are replayed, and a truncated one is never correct
    )
    replayed = replayed.assign(staleness=round_number - replayed["sampled_round"])[TRAINING_BATCH.names]
    return pd.concat([fresh, replayed], ignore_index=True)


def score_training_batch(
    training_batch: pd.DataFrame,
    behaviour_policy: Checkpoint,
    reference_policy: Checkpoint,
    training: TrainingParameters,
    rollout: RolloutParameters,
    policy: PolicyParameters,
) -> pd.DataFrame:
    """log π_old of every row by the trainer, how far the sampler's own figures are from it, and log π_ref if needed.

    Raises:
        LogProbGapError: the gap of the fresh rows says that the sampler did not run this policy.
    """
    scorers = [behaviour_policy, *([reference_policy] if training.needs_reference else [])]
    scored, *of_reference = _scores(training_batch, scorers, training=training, rollout=rollout, policy=policy)
    is_fresh = (training_batch["origin"] == Origin.FRESH).to_numpy()
    sampled = [np.asarray(values, dtype=np.float64) for values in training_batch["sampler_log_probs"]]
    as_sampled = scored
    if rollout.is_truncated:  # the sampler's figures are of the kept tokens alone, which π_old is not
        (as_sampled,) = _scores(
            training_batch,
            [behaviour_policy],
            training=training,
            rollout=rollout,
            policy=policy,
            top_k=rollout.top_k,
            top_p=rollout.top_p,
        )
    gaps = gaps_of_rollouts(training_batch, as_sampled)
    check_sampler(gap_of_round(training_batch, gaps), training=training, rollout=rollout, policy=policy)
    if training.replay_behaviour == "stored":
        scored = [
            ours if fresh else theirs.astype(np.float32)
            for ours, theirs, fresh in zip(scored, sampled, is_fresh, strict=True)
        ]
    return pd.DataFrame(
        {
            "rollout_id": training_batch["rollout_id"],
            "behaviour_log_probs": scored,
            **gaps,
            "reference_log_probs": of_reference[0] if of_reference else [None] * len(scored),
        },
        columns=BEHAVIOUR_LOG_PROBS.names,
    )


def _scores(
    training_batch: pd.DataFrame,
    policies: list[Checkpoint],
    *,
    training: TrainingParameters,
    rollout: RolloutParameters,
    policy: PolicyParameters,
    top_k: int = 0,
    top_p: float = 1.0,
) -> list[list[np.ndarray]]:
    """Log-probabilities of every row's tokens under each of the policies."""
    from paced_rl.policies import deterministic_algorithms, open_policy
    from paced_rl.training.scoring import score_completions

    num_rows = len(training_batch) * len(policies)
    with progress_bar("score", num_rows) as advance, deterministic_algorithms(policy.is_deterministic):
        return [
            score_completions(
                open_policy(checkpoint, device=policy.device, dtype=policy.dtype),
                training_batch["prompt_token_ids"].to_list(),
                training_batch["completion_token_ids"].to_list(),
                temperature=rollout.sampling_temperature,
                max_tokens_per_forward=training.max_tokens_per_forward,
                top_k=top_k,
                top_p=top_p,
                on_progress=advance,
            )
            for checkpoint in policies
        ]


def train_policy(
    training_batch: pd.DataFrame,
    behaviour_log_probs: pd.DataFrame,
    previous_outcome_history: pd.DataFrame,
    prompt_embeddings: TableReader,
    behaviour_policy: Checkpoint,
    reference_policy: Checkpoint,
    log_z_head: Checkpoint,
    optimizer_state: Checkpoint,
    training: TrainingParameters,
    rollout: RolloutParameters,
    policy: PolicyParameters,
    round_number: int,
    seed: int,
) -> tuple[CheckpointFiles, CheckpointFiles, CheckpointFiles, pd.DataFrame]:
    """The next policy, head and optimiser state, and one row of metrics per optimiser step."""
    from paced_rl.pipelines.training.state import open_trainer, past_of, trainer_files, training_examples
    from paced_rl.policies import deterministic_algorithms
    from paced_rl.training.trainer import train_round

    trainer, loaded = open_trainer(
        behaviour_policy,
        reference_policy,
        log_z_head,
        optimizer_state,
        training=training,
        policy=policy,
        sampling_temperature=rollout.sampling_temperature,
        max_new_tokens=rollout.max_new_tokens,
        round_number=round_number,
        seed=derive_seed(seed, "training", round_number),
        adapter_seed=derive_seed(seed, "lora"),
    )
    wanted = pd.concat([training_batch["prompt_id"], previous_outcome_history["prompt_id"]])
    embeddings = embeddings_of(prompt_embeddings, wanted)
    past = past_of(previous_outcome_history, embeddings, training=training, round_number=round_number)
    examples = training_examples(training_batch, behaviour_log_probs, embeddings, training=training, past=past)
    num_rows = len(training_batch) * training.num_epochs
    with progress_bar("train", num_rows) as advance, deterministic_algorithms(policy.is_deterministic):
        rows = train_round(trainer, examples, on_progress=advance)
    first_step = int(optimizer_state.metadata["optimizer_step"])
    metrics = pd.DataFrame(rows).assign(
        optimizer_step=range(first_step + 1, first_step + 1 + len(rows)),
        **gap_of_round(training_batch, behaviour_log_probs),
    )
    files = trainer_files(
        trainer,
        loaded,
        behaviour_policy.folder,
        has_adapter=policy.lora_rank > 0,
        policy_version=round_number,
        optimizer_step=first_step + len(rows),
    )
    return *files, metrics[TRAINING_METRICS.names]


def update_replay_buffer(
    training_batch: pd.DataFrame,
    previous_replay_buffer: pd.DataFrame,
    training: TrainingParameters,
    round_number: int,
) -> pd.DataFrame:
    """The buffer that the next round may replay from: correct completions with the largest priorities."""
    from paced_rl.scheduling.replay import check_valid, update_entries

    is_candidate = (training_batch["origin"] == Origin.FRESH) & (training_batch["reward"] == 1.0)
    candidates = training_batch[is_candidate]
    replayed_ids = training_batch.loc[training_batch["origin"] == Origin.REPLAYED, "rollout_id"]
    entries, sources = update_entries(
        entries_of(previous_replay_buffer),
        entries_of(candidates),
        candidate_rewards=candidates["reward"].to_numpy(),
        replayed_indices=np.flatnonzero(previous_replay_buffer["rollout_id"].isin(replayed_ids).to_numpy()),
        round_number=round_number,
        capacity=training.replay_capacity,
        max_staleness=training.replay_max_staleness,
    )
    check_valid(entries, capacity=training.replay_capacity)
    columns = [name for name in REPLAY_BUFFER.names if name != "age"]
    tables = [table[columns] for table in (previous_replay_buffer, candidates) if len(table)]
    rows = pd.concat(tables, ignore_index=True).iloc[sources] if tables else candidates[columns]
    rows = rows.assign(reuse_count=entries.reuse_counts)
    return rows.assign(age=round_number - rows["sampled_round"])[REPLAY_BUFFER.names].reset_index(drop=True)
