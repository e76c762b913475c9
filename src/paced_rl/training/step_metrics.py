"""What one optimiser step is recorded as: sums over its micro-batches, and the row of `training_metrics` they make."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int

from paced_rl.objectives.divergence import reference_kl_k3
from paced_rl.objectives.log_probs import sequence_log_prob
from paced_rl.parameters import TrainingParameters
from paced_rl.training.examples import TrainingExamples
from paced_rl.training.policy_losses import LossInputs, LossOutputs


@dataclass(slots=True, kw_only=True)
class StepSums:
    """Sums over the micro-batches of one optimiser step."""

    loss: float = 0.0
    residual: float = 0.0
    clipped: float = 0.0
    log_ratio: float = 0.0
    reference_kl: float = 0.0
    num_fresh: int = 0
    per_row: dict[int, float] = field(default_factory=dict)
    """Row → log π_θ of its completion, before the step."""

    def add(
        self,
        inputs: LossInputs,
        outputs: LossOutputs,
        rows: Int[np.ndarray, "B"],
        is_fresh: Bool[np.ndarray, "B"],
    ) -> None:
        """One micro-batch, whose completions are `rows` of the round's batch."""
        mask = inputs.completion_mask
        policy = sequence_log_prob(inputs.policy_log_probs.detach(), mask).cpu().numpy().astype(np.float64)
        behaviour = sequence_log_prob(inputs.behaviour_log_probs, mask).cpu().numpy().astype(np.float64)
        self.loss += float(outputs.loss.detach().sum())
        self.residual += float(outputs.residual.sum()) if outputs.residual is not None else 0.0
        if outputs.clipped_fraction is not None:
            self.clipped += float(outputs.clipped_fraction) * int(mask.sum())
        self.log_ratio += float((behaviour - policy)[is_fresh].sum())
        if inputs.reference_log_probs is not None:
            divergence = reference_kl_k3(inputs.policy_log_probs.detach(), inputs.reference_log_probs, mask)
            self.reference_kl += float(divergence.cpu().numpy().astype(np.float64)[is_fresh].sum())
        self.num_fresh += int(is_fresh.sum())
        self.per_row.update(zip(rows.tolist(), policy.tolist(), strict=True))

    def metrics(
        self, examples: TrainingExamples, rows: Int[np.ndarray, "n"], parameters: TrainingParameters
    ) -> dict[str, float | int | None]:
        """Columns of `training_metrics` that the policy's step on `rows` settles."""
        num_tokens = int(sum(len(examples.completions[row]) for row in rows))
        num_fresh = max(1, self.num_fresh)
        has_reference = examples.reference_log_probs is not None
        return {
            "num_completions": len(rows),
            "num_replayed": int((~examples.is_fresh[rows]).sum()),
            "num_tokens": num_tokens,
            "policy_loss": self.loss / len(rows),
            "mean_residual": self.residual / len(rows) if parameters.is_trajectory_balance else None,
            "kl_behaviour_policy": self.log_ratio / num_fresh,
            "kl_reference_policy": self.reference_kl / num_fresh if has_reference else None,
            "clip_fraction": self.clipped / num_tokens if parameters.is_clipped else None,
        }
