"""A language model so small that every completion can be enumerated: 3 tokens, at most 2 per completion, in float64.

Token 0 ends a completion. There are 7 completions: the end at once, and each of the tokens 1 and 2 followed by any
token (a completion of two tokens is cut there). Parameters are a table of logits, one row per context, so that every
distribution over the completions can be represented and the optimum is exact.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from paced_rl.objectives.log_probs import sequence_log_prob, token_log_probs

PADDING = 0
TOKEN_IDS = torch.tensor([[0, PADDING], [1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [2, 2]])
"""[7, 2]"""
COMPLETION_MASK = torch.tensor([[True, False]] + [[True, True]] * 6)
REWARDS = torch.tensor([0, 1, 0, 1, 0, 0, 1], dtype=torch.float64)
REWARD_TEMPERATURE = 0.05

BEHAVIOUR = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0.25, 0.5, 0.25]], dtype=torch.float64).log()
"""Parameters [3 contexts, 3 tokens] of π_old; contexts are: nothing, token 1, token 2."""
EXACT_SAMPLE = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 3, 4, 5, 5, 6])
"""16 completions, each as often as π_old samples it on average: a mean over them IS the expectation over π_old."""


def draw_parameters(seed: int) -> Float[Tensor, "3 3"]:
    """Parameters of a random policy."""
    return torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def toy_token_log_probs(parameters: Float[Tensor, "3 3"]) -> Float[Tensor, "7 2"]:
    """Log-probability of every token of the 7 completions."""
    logits = torch.stack([parameters[torch.zeros(7, dtype=torch.long)], parameters[TOKEN_IDS[:, 0]]], dim=1)
    return token_log_probs(logits, TOKEN_IDS, temperature=1.0)


def toy_sequence_log_prob(parameters: Float[Tensor, "3 3"]) -> Float[Tensor, "7"]:
    """Log-probability of the 7 completions."""
    return sequence_log_prob(toy_token_log_probs(parameters), COMPLETION_MASK)


def exact_log_z(behaviour: Float[Tensor, "3 3"]) -> Float[Tensor, ""]:
    """log Σ_y π_old(y) · exp(r(y)/β), by summation."""
    return torch.logsumexp(toy_sequence_log_prob(behaviour) + REWARDS / REWARD_TEMPERATURE, dim=0)


def optimal_parameters(behaviour: Float[Tensor, "3 3"]) -> Float[Tensor, "3 3"]:
    """Parameters of π*(y) = π_old(y) · exp(r(y)/β) / Z: the logit of a token is the log weight of all that follows."""
    weight = toy_sequence_log_prob(behaviour) + REWARDS / REWARD_TEMPERATURE
    after_1, after_2 = weight[1:4], weight[4:7]
    start = torch.stack([weight[0], after_1.logsumexp(0), after_2.logsumexp(0)])
    return torch.stack([start, after_1, after_2])
