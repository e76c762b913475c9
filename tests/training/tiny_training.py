"""A small trainer and a batch with everything in it: unequal lengths, groups, weights, replayed rows."""

import copy
from typing import Any

import numpy as np
import torch

from paced_rl.objectives.log_z_head import LogPartitionHead
from paced_rl.parameters import TrainingParameters
from paced_rl.starter import build_character_tokenizer, build_tiny_qwen2
from paced_rl.training.examples import TrainingExamples
from paced_rl.training.trainer import Trainer, make_optimizers

VOCABULARY = 16
EMBEDDING_SIZE = 5
TEMPERATURE = 0.7
PAD_TOKEN_ID = 0
MAX_NEW_TOKENS = 8


def tiny_model() -> torch.nn.Module:
    """Predictions are far from uniform; float64, so that Adam does not blow rounding up to whole steps."""
    tokenizer = build_character_tokenizer("0123456789+-")
    sizes = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 24, "max_positions": 64}
    return build_tiny_qwen2(tokenizer, **sizes, seed=3, initializer_range=0.2).double()


def make_trainer(model: torch.nn.Module, **changes: Any) -> Trainer:
    """A trainer on its own copies of the model and of a head that knows nothing."""
    settings = {"num_minibatches": 3, "learning_rate": 1e-2, "log_z_learning_rate": 1e-2, "log_z_epochs": 3, **changes}
    if settings.get("objective", "paced") != "paced":
        settings["replay_max_added"] = 0
    parameters = TrainingParameters(**settings)
    model = copy.deepcopy(model)
    head = LogPartitionHead(
        EMBEDDING_SIZE,
        8,
        reward_temperature=0.05,
        initial_accuracy=0.4,
        seed=5,
        is_bounded=parameters.is_log_z_accuracy,
    )
    policy_optimizer, head_optimizer = make_optimizers(model, head, parameters)
    return Trainer(
        model=model,
        pad_token_id=PAD_TOKEN_ID,
        head=head,
        policy_optimizer=policy_optimizer,
        head_optimizer=head_optimizer,
        parameters=parameters,
        sampling_temperature=TEMPERATURE,
        max_new_tokens=MAX_NEW_TOKENS,
        seed=11,
    )


def log_probs_alone(model: torch.nn.Module, prompt: np.ndarray, completion: np.ndarray) -> torch.Tensor:
    """log π of a completion's tokens from one forward pass of its own: no batch, no padding."""
    token_ids = torch.from_numpy(np.concatenate([prompt, completion]))
    logits = model(input_ids=token_ids[None]).logits[0]
    distribution = torch.log_softmax(logits / TEMPERATURE, dim=-1)
    return torch.stack([distribution[len(prompt) - 1 + i, int(token)] for i, token in enumerate(completion)])


def make_examples(
    model: torch.nn.Module, *, num_prompts: int = 4, group_size: int = 3, seed: int = 0, has_reference: bool = False
) -> TrainingExamples:
    """Groups of fresh rows, and a replayed row of each of the first two prompts; behaviour a little off the model."""
    draw = np.random.default_rng(seed)
    prompts = [draw.integers(2, VOCABULARY - 2, size=draw.integers(1, 6)) for _ in range(num_prompts)]
    embeddings = draw.normal(size=(num_prompts, EMBEDDING_SIZE)).astype(np.float32)
    index = np.repeat(np.arange(num_prompts), group_size)
    num_replayed = min(2, num_prompts)
    index = np.concatenate([index, np.arange(num_replayed)])
    is_fresh = np.arange(len(index)) < num_prompts * group_size
    completions = [draw.integers(1, VOCABULARY - 2, size=draw.integers(1, MAX_NEW_TOKENS + 1)) for _ in index]
    with torch.no_grad():
        own = [log_probs_alone(model, prompts[p], y).numpy() for p, y in zip(index, completions, strict=True)]
    behaviour = [(values + draw.normal(0, 0.2, size=len(values))).astype(np.float32) for values in own]
    sampler = [(values + draw.normal(0, 0.3, size=len(values))).astype(np.float32) for values in behaviour]
    weights = np.where(is_fresh, np.where(index % 2 == 0, 1.0, 0.5), 0.0)
    reference = [(values + draw.normal(0, 0.4, size=len(values))).astype(np.float32) for values in own]
    reference_log_probs = reference if has_reference else None
    return TrainingExamples(
        prompt_ids=[f"prompt {p}" for p in index],
        prompts=[prompts[p] for p in index],
        completions=completions,
        behaviour_log_probs=behaviour,
        sampler_log_probs=sampler,
        rewards=np.where(is_fresh, draw.integers(0, 2, size=len(index)), 1).astype(np.float64),
        group_index=index,
        is_fresh=is_fresh,
        is_truncated=is_fresh & (np.array([len(completion) for completion in completions]) == MAX_NEW_TOKENS),
        head_weights=weights,
        embeddings=embeddings[index],
        reference_log_probs=reference_log_probs,
    )


def weights_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every tensor of the module."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def largest_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Over all tensors; 0 when they are equal."""
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
