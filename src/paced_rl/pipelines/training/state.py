"""Between tables and checkpoints on one side and the trainer's own objects on the other."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from paced_rl.objectives.log_z_head import LogPartitionHead
from paced_rl.parameters import PolicyParameters, TrainingParameters
from paced_rl.policies import LoadedPolicy, open_policy, policy_files
from paced_rl.policies.lora import AdapterSettings, adapter_files, merge_adapter, open_adapter
from paced_rl.training.examples import TrainingExamples
from paced_rl.training.head_state import head_files, load_head
from paced_rl.training.head_training import HeadRows, past_rows
from paced_rl.training.optimizer_state import optimizer_tensors, restore_optimizer
from paced_rl.training.trainer import Trainer, make_optimizers
from paced_rl.types import Checkpoint, CheckpointFiles, FinishReason, Origin, ScheduleReason

POLICY_OPTIMIZER = "policy_optimizer.safetensors"
HEAD_OPTIMIZER = "log_z_optimizer.safetensors"


def open_trainer(
    behaviour_policy: Checkpoint,
    reference_policy: Checkpoint,
    log_z_head: Checkpoint,
    optimizer_state: Checkpoint,
    *,
    training: TrainingParameters,
    policy: PolicyParameters,
    sampling_temperature: float,
    max_new_tokens: int,
    round_number: int,
    seed: int,
    adapter_seed: int,
) -> tuple[Trainer, LoadedPolicy]:
    """A trainer on its own copy of the behaviour policy, where the previous round's optimisers left off.

    With `policy.lora_rank` that copy is the reference policy with the behaviour policy's adapter.

    Raises:
        ValueError: the head is not of the form that the objective trains, or an optimiser's state does not fit.
    """
    if policy.lora_rank:
        loaded = _open_with_adapter(behaviour_policy, reference_policy, policy=policy, seed=adapter_seed)
    else:
        # Sampling and scoring have the policy open already; copying its weights takes a sixth of reading them again.
        shared = open_policy(behaviour_policy, device=policy.device, dtype=policy.dtype)
        loaded = replace(shared, model=copy.deepcopy(shared.model))
    head = load_head(log_z_head, reward_temperature=training.reward_temperature)
    if head.is_bounded != training.is_log_z_accuracy:
        raise ValueError(
            f"training.objective = {training.objective} needs a log-Z head that is "
            f"{'bounded' if training.is_log_z_accuracy else 'unbounded'}, and this experiment began with the other "
            "form: start a new one with --params experiment=<new name>"
        )
    policy_optimizer, head_optimizer = make_optimizers(loaded.model, head, training, round_number=round_number)
    for optimizer, module, name in (
        (policy_optimizer, loaded.model, POLICY_OPTIMIZER),
        (head_optimizer, head, HEAD_OPTIMIZER),
    ):
        if name in optimizer_state.files:
            restore_optimizer(optimizer, module, _load(optimizer_state.folder / name))
    trainer = Trainer(
        model=loaded.model,
        pad_token_id=loaded.pad_token_id,
        head=head,
        policy_optimizer=policy_optimizer,
        head_optimizer=head_optimizer,
        parameters=training,
        sampling_temperature=sampling_temperature,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    return trainer, loaded


def _open_with_adapter(
    behaviour_policy: Checkpoint, reference_policy: Checkpoint, *, policy: PolicyParameters, seed: int
) -> LoadedPolicy:
    base = open_policy(reference_policy, device=policy.device, dtype=policy.dtype)
    settings = AdapterSettings(
        rank=policy.lora_rank,
        alpha=policy.lora_alpha,
        target_modules=policy.lora_target_modules,
        base_source=policy.source,
        base_revision=policy.revision,
        seed=seed,
    )
    return replace(base, model=open_adapter(base, reference_policy, behaviour_policy, settings))


def _load(path: Path) -> Mapping[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def training_examples(
    training_batch: pd.DataFrame,
    behaviour_log_probs: pd.DataFrame,
    embeddings: Mapping[str, np.ndarray],
    *,
    training: TrainingParameters,
    past: HeadRows | None = None,
) -> TrainingExamples:
    """The rows of the batch as the trainer takes them.

    Raises:
        ValueError: the two tables are not of the same rows.
    """
    if training_batch["rollout_id"].to_list() != behaviour_log_probs["rollout_id"].to_list():
        raise ValueError(
            "training_batch and behaviour_log_probs hold different rollouts: they are of different runs; run "
            "`kedro run --from-nodes=assemble_training_batch`"
        )
    is_fresh = (training_batch["origin"] == Origin.FRESH).to_numpy()
    is_selected = (training_batch["reason"] == ScheduleReason.SELECTED).to_numpy()
    weight_of_replayed = 1.0 if training.replay_trains_head else 0.0
    weights = np.where(is_fresh, np.where(is_selected, 1.0, training.log_z_audit_weight), weight_of_replayed)
    prompt_ids = training_batch["prompt_id"].to_list()
    return TrainingExamples(
        prompt_ids=prompt_ids,
        prompts=[np.asarray(ids) for ids in training_batch["prompt_token_ids"]],
        completions=[np.asarray(ids) for ids in training_batch["completion_token_ids"]],
        behaviour_log_probs=[np.asarray(values) for values in behaviour_log_probs["behaviour_log_probs"]],
        sampler_log_probs=[np.asarray(values) for values in training_batch["sampler_log_probs"]],
        rewards=training_batch["reward"].to_numpy(dtype=np.float64),
        group_index=pd.factorize(training_batch["prompt_id"])[0].astype(np.int64),
        is_fresh=is_fresh,
        is_truncated=(training_batch["finish_reason"] == FinishReason.LENGTH).to_numpy(),
        head_weights=weights,
        embeddings=np.stack([embeddings[prompt_id] for prompt_id in prompt_ids]),
        reference_log_probs=[np.asarray(values) for values in behaviour_log_probs["reference_log_probs"]]
        if training.needs_reference
        else None,
        past=past,
    )


def past_of(
    outcome_history: pd.DataFrame,
    embeddings: Mapping[str, np.ndarray],
    *,
    training: TrainingParameters,
    round_number: int,
) -> HeadRows | None:
    """The scored groups of earlier rounds that still count for the head; None where there are none."""
    age = round_number - outcome_history["scheduled_round"]
    past = outcome_history[(outcome_history["num_scored"] > 0) & (age > 0) & (age <= training.log_z_past_rounds)]
    if past.empty:
        return None
    is_selected = (past["reason"] == ScheduleReason.SELECTED).to_numpy()
    return past_rows(
        embeddings=np.stack([embeddings[prompt_id] for prompt_id in past["prompt_id"]]),
        ages=(round_number - past["scheduled_round"]).to_numpy(),
        num_correct=past["num_correct"].to_numpy(),
        num_scored=past["num_scored"].to_numpy(),
        weights=np.where(is_selected, 1.0, training.log_z_audit_weight),
        half_life=training.log_z_half_life,
        reward_temperature=training.reward_temperature,
    )


def trainer_files(
    trainer: Trainer,
    loaded: LoadedPolicy,
    source_folder: Path,
    *,
    has_adapter: bool,
    policy_version: int,
    optimizer_step: int,
) -> tuple[CheckpointFiles, CheckpointFiles, CheckpointFiles]:
    """Policy, head and optimiser states as the next round will find them."""
    head: LogPartitionHead = trainer.head
    optimizer_state = CheckpointFiles(
        files={
            POLICY_OPTIMIZER: optimizer_tensors(trainer.policy_optimizer, trainer.model),
            HEAD_OPTIMIZER: optimizer_tensors(trainer.head_optimizer, head),
        },
        metadata={"policy_version": policy_version, "optimizer_step": optimizer_step},
    )
    adapter = adapter_files(trainer.model) if has_adapter else {}
    if has_adapter:  # last: it uses the model up whose parameters the optimiser's state is named after
        loaded = replace(loaded, model=merge_adapter(trainer.model))
    files = {**policy_files(loaded, source_folder), **adapter}
    return (
        CheckpointFiles(files=files, metadata={"policy_version": policy_version}),
        head_files(head, policy_version=policy_version),
        optimizer_state,
    )
