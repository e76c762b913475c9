"""Steps of the log-Z head: least squares between log Z and what each completion says it should be.

The trajectory-balance residual is log Z − target with target = log π_old − log π_θ + r/β, so a completion enters as
its target, and so does a group of an earlier round: its mean target is its observed accuracy by β, once the distance
between the policy that sampled it and today's is neglected, as the estimate itself neglects it (Proposition 4.1).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from paced_rl.objectives.log_z_head import LogPartitionHead
from paced_rl.objectives.trajectory_balance import trajectory_balance_loss


class NonFiniteLossError(FloatingPointError):
    """A loss or gradient became NaN or infinite; nothing of the round's training was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRows:
    """What the head is fitted to."""

    embeddings: Float[np.ndarray, "N E"]
    targets: Float[np.ndarray, "N"]
    """log Z that each row asks for, nats."""
    weights: Float[np.ndarray, "N"]
    """Not negative; a row of weight 0 changes nothing."""

    def __add__(self, other: "HeadRows") -> "HeadRows":
        """The rows of both."""
        return HeadRows(
            embeddings=np.concatenate([self.embeddings, other.embeddings]),
            targets=np.concatenate([self.targets, other.targets]),
            weights=np.concatenate([self.weights, other.weights]),
        )

    def take(self, positions: Int[np.ndarray, "n"]) -> "HeadRows":
        """The rows at these positions."""
        return HeadRows(
            embeddings=self.embeddings[positions], targets=self.targets[positions], weights=self.weights[positions]
        )


def past_rows(
    *,
    embeddings: Float[np.ndarray, "N E"],
    ages: Int[np.ndarray, "N"],
    num_correct: Int[np.ndarray, "N"],
    num_scored: Int[np.ndarray, "N"],
    weights: Float[np.ndarray, "N"],
    half_life: float,
    reward_temperature: float,
) -> HeadRows:
    """Groups of earlier rounds: each weighs as many rows as it has completions, halved every `half_life` rounds.

    Args:
        embeddings: of the group's prompt.
        ages: rounds since it was sampled, 1 for the round before this one.
        num_correct, num_scored: completions of the group; num_scored above 0.
        weights: of one completion when it was new.
        half_life: rounds, above 0.
        reward_temperature: β.
    """
    return HeadRows(
        embeddings=embeddings,
        targets=num_correct / num_scored / reward_temperature,
        weights=weights * num_scored * 0.5 ** (ages / half_life),
    )


def head_step(head: LogPartitionHead, optimizer: torch.optim.Optimizer, rows: HeadRows) -> float:
    """One step on the weighted mean squared residual.

    Returns:
        That loss before the step, nats²; 0 where no row has weight, and then there is no step.

    Raises:
        NonFiniteLossError: the loss is not finite; the head is as it was.
    """
    counted = rows.weights > 0
    if not counted.any():
        return 0.0
    device = next(head.parameters()).device

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values[counted]).to(device, torch.float32)

    residual = head(tensor(rows.embeddings)) - tensor(rows.targets)
    loss = trajectory_balance_loss(residual, tensor(rows.weights))
    if not bool(torch.isfinite(loss)):
        raise NonFiniteLossError(
            f"log-Z loss is {float(loss.detach())}: it must be finite. The previous head is intact; look for "
            f"non-finite prompt embeddings or lower training.log_z_learning_rate"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return float(loss.detach())
