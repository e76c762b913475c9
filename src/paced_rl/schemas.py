"""One Arrow schema per table: the contract between two stages.

`experiment` and `round` are not in a file but in its path (`experiment=<name>/round=<rrrr>/`); a dataset adds them on
loading, and `pandas.read_parquet` on a table's folder does the same for a whole study.
"""

import pyarrow as pa

_TOKEN_IDS = pa.list_(pa.int32())
_LOG_PROBS = pa.list_(pa.float32())


def _schema(**columns: pa.DataType | tuple[pa.DataType, bool]) -> pa.Schema:
    """A schema whose columns are not nullable unless given as (type, True)."""
    fields = []
    for name, column in columns.items():
        data_type, nullable = column if isinstance(column, tuple) else (column, False)
        fields.append(pa.field(name, data_type, nullable=nullable))
    return pa.schema(fields)


PROMPTS = _schema(
    prompt_id=pa.string(),
    source=pa.string(),
    split=pa.string(),
    text=pa.string(),
    token_ids=_TOKEN_IDS,
    reference_answer=pa.string(),
    verifier=pa.string(),
    verifier_arguments=pa.string(),  # JSON object
    metadata=pa.string(),  # JSON object
)

PROMPT_EMBEDDINGS = _schema(prompt_id=pa.string(), split=pa.string(), embedding=_LOG_PROBS)

# Train and audit prompts; log_z is the head's, and estimated_accuracy = reward_temperature · log_z unless
# scheduling.estimator names another.
ACCURACY_ESTIMATES = _schema(
    prompt_id=pa.string(), split=pa.string(), log_z=pa.float64(), estimated_accuracy=pa.float64()
)

SCHEDULE = _schema(
    prompt_id=pa.string(),
    rank=pa.int32(),  # 0 is the first to be rolled out
    reason=pa.string(),  # selected / audit / warm_up
    log_z=pa.float64(),
    estimated_accuracy=pa.float64(),
)

# What the selector `oracle` was told: candidates rolled out beside the round, none of it trained on.
MEASURED_ACCURACIES = _schema(
    prompt_id=pa.string(),
    num_scored=pa.int32(),  # completions with a reward
    num_correct=pa.int32(),
    num_tokens=pa.int64(),
)

ROLLOUTS = _schema(
    rollout_id=pa.string(),
    prompt_id=pa.string(),
    sample_index=pa.int32(),
    policy_version=pa.int32(),
    seed=pa.int64(),
    completion=pa.string(),
    completion_token_ids=_TOKEN_IDS,
    sampler_log_probs=_LOG_PROBS,  # nats, under the sampling distribution, as the sampler computed them
    num_tokens=pa.int32(),
    finish_reason=pa.string(),  # eos / length
    sampling_temperature=pa.float64(),
)

VERDICTS = _schema(
    rollout_id=pa.string(),
    prompt_id=pa.string(),
    verifier=pa.string(),
    status=pa.string(),
    reward=(pa.float64(), True),  # null: the verifier itself failed
    extracted_answer=(pa.string(), True),
)

TRAINING_BATCH = _schema(
    rollout_id=pa.string(),
    prompt_id=pa.string(),
    origin=pa.string(),  # fresh / replayed
    reason=pa.string(),
    sampled_round=pa.int32(),
    policy_version=pa.int32(),
    staleness=pa.int32(),  # rounds between sampling and training; 0 when fresh
    prompt_token_ids=_TOKEN_IDS,
    completion_token_ids=_TOKEN_IDS,
    sampler_log_probs=_LOG_PROBS,
    finish_reason=pa.string(),  # eos / length
    reward=pa.float64(),
    observed_accuracy=pa.float64(),  # of the group when it was sampled
    estimated_accuracy=pa.float64(),  # of the prompt when it was scheduled
    priority=pa.float64(),  # abs(observed_accuracy − estimated_accuracy)
    reuse_count=pa.int32(),  # earlier batches this completion was replayed in
)

BEHAVIOUR_LOG_PROBS = _schema(
    rollout_id=pa.string(),
    behaviour_log_probs=_LOG_PROBS,  # nats, recomputed by the trainer in float32
    mean_log_prob_gap=pa.float64(),  # mean over tokens of abs(sampler − trainer)
    max_log_prob_gap=pa.float64(),
    sampler_kl=(pa.float64(), True),  # nats per token: KL(π_sampler‖π_trainer) by k3, over the tokens that were drawn
    reference_log_probs=(_LOG_PROBS, True),  # nats, under the reference policy; null where the objective needs none
)

REPLAY_BUFFER = _schema(
    rollout_id=pa.string(),
    prompt_id=pa.string(),
    sampled_round=pa.int32(),
    policy_version=pa.int32(),
    age=pa.int32(),  # rounds since it was sampled
    reuse_count=pa.int32(),
    prompt_token_ids=_TOKEN_IDS,
    completion_token_ids=_TOKEN_IDS,
    sampler_log_probs=_LOG_PROBS,
    reward=pa.float64(),
    observed_accuracy=pa.float64(),
    estimated_accuracy=pa.float64(),
    priority=pa.float64(),
)

# The buffer as the round read it, in its order.
REPLAY_AUDIT = _schema(
    rollout_id=pa.string(),
    prompt_id=pa.string(),
    state=pa.string(),  # replayed / waiting
    sampled_round=pa.int32(),
    age=pa.int32(),  # rounds
    reuse_count=pa.int32(),  # earlier batches
    observed_accuracy=pa.float64(),  # of the group when it was sampled
    estimated_accuracy=pa.float64(),
    priority=pa.float64(),  # abs(observed_accuracy − estimated_accuracy)
    expected_priority=pa.float64(),  # what an exact estimate would show by luck, with rollout.group_size completions
    excess_priority=pa.float64(),  # priority − expected_priority: what luck does not explain
    log_z_shift=(pa.float64(), True),  # nats: the group's log Z if the replayed rows trained the head; null if waiting
)

TRAINING_METRICS = _schema(
    optimizer_step=pa.int32(),  # counted over the whole experiment
    epoch=pa.int32(),
    num_completions=pa.int32(),
    num_replayed=pa.int32(),
    num_tokens=pa.int32(),
    policy_loss=pa.float64(),
    log_z_loss=pa.float64(),
    gradient_norm=pa.float64(),  # before clipping
    learning_rate=(pa.float64(), True),  # of the policy
    mean_residual=(pa.float64(), True),  # under paced, vargrad, flowrl and gflowrl
    kl_behaviour_policy=pa.float64(),  # nats per completion: KL(π_old‖π_θ) before this step, over the fresh rows
    kl_reference_policy=(pa.float64(), True),  # nats per completion: KL(π_θ‖π_ref) before this step, where scored
    clip_fraction=(pa.float64(), True),  # under grpo, dr_grpo and dapo
    mean_importance_correction=(pa.float64(), True),  # weight of fresh tokens or completions; null where it is off
    capped_correction_fraction=(pa.float64(), True),  # share of those weights that importance_cap cut off
    mean_log_prob_gap=pa.float64(),  # sampler against trainer, over all tokens of the round's rollouts
    max_log_prob_gap=(pa.float64(), True),
    sampler_kl=(pa.float64(), True),
)

# One row per round and scheduled prompt: what was predicted and what came out. Covers the last rounds only.
OUTCOME_HISTORY = _schema(
    scheduled_round=pa.int32(),
    prompt_id=pa.string(),
    reason=pa.string(),
    log_z=pa.float64(),  # of the head, whatever the estimator
    estimated_accuracy=pa.float64(),
    num_scored=pa.int32(),  # completions with a reward
    num_correct=pa.int32(),
)

EVALUATION = _schema(
    split=pa.string(),
    prompt_id=pa.string(),
    policy_version=pa.int32(),
    estimated_accuracy=(pa.float64(), True),  # null where no head has been trained
    num_samples=pa.int32(),
    num_scored=pa.int32(),
    num_correct=pa.int32(),
    num_distinct_correct=pa.int32(),
    num_tokens=pa.int32(),
)

LEARNING_CURVE = _schema(
    curve_round=pa.int32(),
    tokens_sampled=pa.int64(),  # by rollouts, cumulative over the experiment; evaluation not counted
    train_accuracy=(pa.float64(), True),
    validation_accuracy=(pa.float64(), True),  # null in rounds without evaluation
    validation_accuracy_low=(pa.float64(), True),  # bootstrap over prompts, 95 %
    validation_accuracy_high=(pa.float64(), True),
)

ROUND_SUMMARY = _schema(
    policy_version=pa.int32(),
    num_prompts=pa.int32(),
    num_completions=pa.int32(),
    num_right=pa.int32(),
    num_wrong=pa.int32(),
    num_unparseable=pa.int32(),
    num_timed_out=pa.int32(),
    num_truncated=pa.int32(),
    num_verifier_errors=pa.int32(),
    num_replayed=pa.int32(),
    tokens_sampled=pa.int64(),
    tokens_trained=pa.int64(),
    tokens_evaluated=pa.int64(),
    tokens_measured=(pa.float64(), True),  # a count; by the selector oracle, beside those sampled; null under others
    accuracy=(pa.float64(), True),
    accuracy_of_selected=(pa.float64(), True),
    accuracy_of_audit=(pa.float64(), True),
    informative_fraction=(pa.float64(), True),
    hit_rate=(pa.float64(), True),
    distinct_correct_per_solved_prompt=(pa.float64(), True),
    mean_absolute_error_of_selected=(pa.float64(), True),
    mean_absolute_error_of_audit=(pa.float64(), True),
    binomial_floor_of_audit=(pa.float64(), True),  # mean |observed − p| expected if every estimate were exact
    brier_score=(pa.float64(), True),  # over the calibration window
    expected_calibration_error=(pa.float64(), True),
    rank_correlation=(pa.float64(), True),
    replay_mean_age=(pa.float64(), True),
    replay_mean_reuse_count=(pa.float64(), True),
    replay_mean_priority=(pa.float64(), True),
    replay_mean_excess_priority=(pa.float64(), True),  # what luck does not explain of it
    replay_mean_log_z_shift=(pa.float64(), True),  # nats; see replay_audit
    policy_loss=pa.float64(),
    log_z_loss=pa.float64(),
    gradient_norm=pa.float64(),
    kl_behaviour_policy=pa.float64(),
    mean_log_prob_gap=pa.float64(),
    max_log_prob_gap=(pa.float64(), True),
    sampler_kl=(pa.float64(), True),
    validation_accuracy=(pa.float64(), True),
    validation_pass_at_k=(pa.float64(), True),  # k = evaluation.num_samples
    audit_mean_absolute_error=(pa.float64(), True),  # on the never-trained audit split
)

TIMINGS = _schema(
    stage=pa.string(),
    name=pa.string(),  # node, or verifier:<name>
    seconds=pa.float64(),
    peak_memory_bytes=pa.int64(),
)

# The starter's corpus: one line of text per row.
STARTER_CORPUS = _schema(prompt=pa.string(), completion=pa.string(), kind=pa.string())

STARTER_LOSSES = _schema(step=pa.int32(), loss=pa.float64())  # nats per completion token

TABLES: dict[str, pa.Schema] = {
    name.lower(): value for name, value in dict(globals()).items() if isinstance(value, pa.Schema)
}
"""Every schema by its table's name."""
