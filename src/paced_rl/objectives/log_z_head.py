"""The learned log partition function: a small network from a prompt's embedding to log Z_φ(x)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

# A dimension whose spread is below this share of its mean is a constant plus rounding; scaling it up would feed the
# head noise. float32 resolves 1.2e-7.
_SMALLEST_RELATIVE_SPREAD = 1e-6


class LogPartitionHead(nn.Module):
    """log Z_φ(x) = sigmoid(f(embedding)) / β, where f is a 3-layer perceptron.

    Unbounded, as `flowrl` needs it, it is log Z_φ(x) = f(embedding), which starts at 0 and is no accuracy.

    Bounded, since log Z* at the behaviour policy is p/β and so in [0, 1/β] = [0, 20] at β = 0.05: an unbounded head
    that starts at 0 has far to go, and every estimate of the bounded one is an accuracy. The last layer starts with
    zero weights, so that every prompt starts at `initial_accuracy` whatever its embedding.

    Embeddings are standardised per dimension, since hidden states of language models have a few dimensions that are
    hundreds of times larger than the rest; until `fit_standardisation` is called they are taken as they are. The
    statistics are buffers: they travel with `state_dict`.

    Source: https://arxiv.org/abs/2602.12642 states a 3-layer MLP over embeddings of the frozen reference model.
    Differs: the bound, the start and the standardisation are ours, and so is the activation (GELU).
    """

    embedding_mean: Tensor
    embedding_std: Tensor

    def __init__(
        self,
        embedding_size: int,
        hidden_size: int,
        *,
        reward_temperature: float,
        initial_accuracy: float,
        seed: int,
        is_bounded: bool = True,
    ) -> None:
        """Draw the start weights from a generator of their own; the global one is not consumed.

        Args:
            embedding_size: E.
            hidden_size: width of both hidden layers.
            reward_temperature: β > 0.
            initial_accuracy: estimate of every prompt before training, in (0, 1); of a bounded head.
            seed: of the start weights.
            is_bounded: whether log Z is kept within [0, 1/β].

        Raises:
            ValueError: `reward_temperature` or `initial_accuracy` is out of range.
        """
        super().__init__()
        if not reward_temperature > 0:
            raise ValueError(f"LogPartitionHead: reward_temperature = {reward_temperature}, must be above 0")
        if not 0 < initial_accuracy < 1:
            raise ValueError(
                f"LogPartitionHead: initial_accuracy = {initial_accuracy}, must be above 0 and below 1, where a "
                "sigmoid can start and still move"
            )
        self.reward_temperature = reward_temperature
        self.is_bounded = is_bounded
        generator = torch.Generator().manual_seed(seed)
        self.input_layer = _linear(embedding_size, hidden_size, generator)
        self.hidden_layer = _linear(hidden_size, hidden_size, generator)
        self.output_layer = _linear(hidden_size, 1, generator)
        nn.init.zeros_(self.output_layer.weight)
        if is_bounded:
            nn.init.constant_(self.output_layer.bias, math.log(initial_accuracy / (1 - initial_accuracy)))
        self.register_buffer("embedding_mean", torch.zeros(embedding_size))
        self.register_buffer("embedding_std", torch.ones(embedding_size))

    def forward(self, embeddings: Float[Tensor, "B E"]) -> Float[Tensor, "B"]:
        """log Z of each prompt.

        Args:
            embeddings: one row per prompt, of any float type; computed in the head's own type. A constant: the head
                never trains the model that embeds.

        Returns:
            Nats, in [0, 1/β] if bounded. Carries gradient to the head's weights.
        """
        centred = embeddings.detach().to(self.embedding_mean.dtype) - self.embedding_mean
        hidden = F.gelu(self.input_layer(centred / self.embedding_std))
        hidden = F.gelu(self.hidden_layer(hidden))
        output: Tensor = self.output_layer(hidden).squeeze(-1)
        return torch.sigmoid(output) / self.reward_temperature if self.is_bounded else output

    @torch.no_grad()
    def fit_standardisation(self, embeddings: Float[Tensor, "N E"]) -> None:
        """Take mean and standard deviation of each dimension from these prompts, once, before any training.

        Later it would change the estimates of every prompt. A dimension that is constant here is centred, not scaled.

        Args:
            embeddings: of the train prompts.

        Raises:
            ValueError: the embeddings do not fit the head, there are none, or one is not finite.
        """
        expected = tuple(self.embedding_mean.shape)
        if embeddings.ndim != 2 or embeddings.shape[0] == 0 or tuple(embeddings.shape[1:]) != expected:
            raise ValueError(
                f"fit_standardisation: embeddings of shape {tuple(embeddings.shape)}, must be [at least 1, "
                f"{expected[0]}]: one row per train prompt, from the model this head was built for"
            )
        # float64: the mean of thousands of large values loses the digits of the small spread around it.
        values = embeddings.to(self.embedding_mean.device, torch.float64)
        mean, std = values.mean(0), values.std(0, correction=0)
        if not bool(torch.isfinite(std).all()):
            num_bad = int((~torch.isfinite(values)).any(1).sum())
            raise ValueError(
                f"fit_standardisation: {num_bad} of {len(values)} embeddings are not finite; embed the prompts again, "
                "in float32 if the model overflowed"
            )
        is_constant = std <= _SMALLEST_RELATIVE_SPREAD * mean.abs()
        self.embedding_mean.copy_(mean)
        self.embedding_std.copy_(torch.where(is_constant, 1.0, std))


def _linear(num_inputs: int, num_outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with PyTorch's usual start weights and no bias yet, drawn from `generator` alone."""
    layer = nn.utils.skip_init(nn.Linear, num_inputs, num_outputs)
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
