"""What a policy can do on prompts that are never trained on."""

import pandas as pd

from paced_rl.datasets.parquet_table import TableReader
from paced_rl.parameters import (
    EvaluationParameters,
    PolicyParameters,
    RolloutParameters,
    TrainingParameters,
    VerificationParameters,
)
from paced_rl.pipelines.columns import accuracies_of_head, arguments_of, embeddings_of, empty_table
from paced_rl.progress import progress_bar
from paced_rl.schemas import EVALUATION
from paced_rl.seeds import derive_seed
from paced_rl.timing import record
from paced_rl.types import Checkpoint, Completion, FinishReason, GenerationRequest, SamplingSettings, Verdict


def evaluate_start(
    policy_checkpoint: Checkpoint,
    prompts: pd.DataFrame,
    evaluation: EvaluationParameters,
    rollout: RolloutParameters,
    verification: VerificationParameters,
    policy: PolicyParameters,
    seed: int,
) -> pd.DataFrame:
    """Evaluation of round 0, before any RL; no head has been trained, so there is no estimate."""
    rows = _evaluate(
        policy_checkpoint,
        prompts,
        evaluation=evaluation,
        rollout=rollout,
        verification=verification,
        policy=policy,
        seed=seed,
    )
    return rows.assign(estimated_accuracy=None)[EVALUATION.names]


def evaluate_policy(
    policy_checkpoint: Checkpoint,
    log_z_head: Checkpoint,
    prompts: pd.DataFrame,
    prompt_embeddings: TableReader,
    evaluation: EvaluationParameters,
    rollout: RolloutParameters,
    verification: VerificationParameters,
    training: TrainingParameters,
    policy: PolicyParameters,
    round_number: int,
    seed: int,
) -> pd.DataFrame:
    """Evaluation after this round, every `evaluation.every` rounds; a table without rows in between."""
    if round_number % evaluation.every:
        return empty_table(EVALUATION)
    import numpy as np

    from paced_rl.objectives.estimate import estimate_in_batches
    from paced_rl.training.head_state import load_head

    rows = _evaluate(
        policy_checkpoint,
        prompts,
        evaluation=evaluation,
        rollout=rollout,
        verification=verification,
        policy=policy,
        seed=seed,
    )
    ids = rows["prompt_id"].to_list()
    embeddings = embeddings_of(prompt_embeddings, ids)
    head = load_head(log_z_head, reward_temperature=training.reward_temperature)
    log_z = estimate_in_batches(head, [(ids, np.stack([embeddings[prompt_id] for prompt_id in ids]))])
    return rows.assign(estimated_accuracy=accuracies_of_head(log_z, training))[EVALUATION.names]


def _evaluate(
    policy_checkpoint: Checkpoint,
    prompts: pd.DataFrame,
    *,
    evaluation: EvaluationParameters,
    rollout: RolloutParameters,
    verification: VerificationParameters,
    policy: PolicyParameters,
    seed: int,
) -> pd.DataFrame:
    """Samples, judges and counts; one row per prompt, without an estimate.

    Seeds do not depend on the round or the experiment's name: two policies are compared on common random numbers.
    """
    from paced_rl.pipelines.generators import open_generator
    from paced_rl.policies import deterministic_algorithms
    from paced_rl.verifiers import verify_completions

    chosen = prompts[prompts["split"].isin(evaluation.splits)]
    requests = [
        GenerationRequest(
            prompt_token_ids=tuple(int(token) for token in token_ids),
            seeds=tuple(derive_seed(seed, "evaluation", prompt_id, i) for i in range(evaluation.num_samples)),
        )
        for prompt_id, token_ids in zip(chosen["prompt_id"], chosen["token_ids"], strict=True)
    ]
    generator = open_generator(rollout, policy)
    settings = SamplingSettings(temperature=evaluation.sampling_temperature, max_new_tokens=rollout.max_new_tokens)
    num_completions = len(requests) * evaluation.num_samples
    with progress_bar("evaluation", num_completions) as advance, deterministic_algorithms(policy.is_deterministic):
        groups = generator.generate(policy_checkpoint, requests, settings, on_progress=advance)
    arguments = arguments_of(chosen)
    items = [
        (*arguments[prompt_id], completion.text, completion.finish_reason == FinishReason.LENGTH)
        for prompt_id, group in zip(chosen["prompt_id"], groups, strict=True)
        for completion in group
    ]
    verdicts, seconds = verify_completions(
        items, timeout_seconds=verification.timeout_seconds, memory_bytes=verification.memory_bytes
    )
    for name, spent in seconds.items():
        record("evaluation", f"verifier:{name}", spent)
    size = evaluation.num_samples
    rows = [
        {
            "split": split,
            "prompt_id": prompt_id,
            "policy_version": policy_checkpoint.policy_version,
            **_counts(group, verdicts[index * size : (index + 1) * size]),
        }
        for index, (split, prompt_id, group) in enumerate(
            zip(chosen["split"], chosen["prompt_id"], groups, strict=True)
        )
    ]
    return pd.DataFrame(rows, columns=[name for name in EVALUATION.names if name != "estimated_accuracy"])


def _counts(group: tuple[Completion, ...], verdicts: list[Verdict]) -> dict[str, int]:
    right = [verdict for verdict in verdicts if verdict.reward == 1.0]
    return {
        "num_samples": len(group),
        "num_scored": sum(verdict.reward is not None for verdict in verdicts),
        "num_correct": len(right),
        "num_distinct_correct": len({verdict.extracted_answer for verdict in right}),
        "num_tokens": sum(len(completion.token_ids) for completion in group),
    }
