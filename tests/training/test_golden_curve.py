"""Eight rounds of a seeded tiny policy against stored curves: a refactoring keeps them, a change of a formula does not.

After a change that is meant to move the curves, export them and look at the difference before committing it:

    .venv/bin/python tests/training/test_golden_curve.py
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paced_rl.embeddings import embed_prompts
from paced_rl.generation import get_generator
from paced_rl.parameters import TrainingParameters
from paced_rl.policies import LoadedPolicy, file_digests, load_policy, open_policy
from paced_rl.seeds import derive_seed
from paced_rl.starter import build_character_tokenizer, build_tiny_qwen2, write_policy_folder
from paced_rl.training.examples import TrainingExamples
from paced_rl.training.head_state import new_head
from paced_rl.training.scoring import score_completions
from paced_rl.training.trainer import Trainer, make_optimizers, train_round
from paced_rl.types import Checkpoint, GenerationRequest, SamplingSettings

GOLDEN = Path(__file__).parents[1] / "golden"
SEED, NUM_ROUNDS, GROUP_SIZE, LEARNING_RATE = 0, 8, 6, 1e-2
PROMPTS = ["1 2>3:", "4 5>9:", "7 8 9>24:", "2 2>4:", "10 3>13:", "6 1>5:", "8 4>2:", "3 3 3>27:"]
SETTINGS: dict[str, dict[str, Any]] = {
    "paced": {"objective": "paced"},
    **{
        name: {"objective": name, "replay_max_added": 0}
        for name in ("vargrad", "flowrl", "gflowrl", "grpo", "dr_grpo", "dapo", "rloo")
    },
}


def reward_of(text: str) -> float:
    """1 if the answer begins with an even digit: a random policy finds that in a fifth of its attempts."""
    return float(text[:1] in set("02468"))


def start(folder: Path, parameters: TrainingParameters) -> tuple[Trainer, Checkpoint, np.ndarray]:
    """The trainer before any round, the policy's folder, and the embeddings [P, E] of the prompts."""
    tokenizer = build_character_tokenizer("0123456789 +-*/()>:")
    sizes = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 64, "max_positions": 32}
    write_policy_folder(build_tiny_qwen2(tokenizer, **sizes, seed=1), tokenizer, folder)
    policy = load_policy(folder, device="cpu", dtype="float32")
    token_ids = [policy.tokenizer.encode(prompt) for prompt in PROMPTS]
    embeddings = np.concatenate(list(embed_prompts(policy, token_ids, layer=-1, pooling="last", batch_size=4)))
    head = new_head(
        [embeddings],
        hidden_size=16,
        reward_temperature=0.05,
        initial_accuracy=0.5,
        seed=2,
        is_bounded=parameters.is_log_z_accuracy,
    )
    policy_optimizer, head_optimizer = make_optimizers(policy.model, head, parameters)
    trainer = Trainer(
        model=policy.model,
        pad_token_id=policy.pad_token_id,
        head=head,
        policy_optimizer=policy_optimizer,
        head_optimizer=head_optimizer,
        parameters=parameters,
        sampling_temperature=1.0,
        max_new_tokens=6,
        seed=SEED,
    )
    return trainer, checkpoint(folder), embeddings


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(folder=folder, files=file_digests(folder), metadata={"policy_version": 0})


def sample(
    behaviour: Checkpoint, embeddings: np.ndarray, round_number: int, *, reference: Checkpoint | None
) -> TrainingExamples:
    """A group of every prompt, judged and scored under the policy that sampled it, and under the reference if any."""
    policy = open_policy(behaviour, device="cpu", dtype="float32")
    requests = [
        GenerationRequest(
            prompt_token_ids=tuple(policy.tokenizer.encode(prompt)),
            seeds=tuple(derive_seed(SEED, "rollout", round_number, prompt, index) for index in range(GROUP_SIZE)),
        )
        for prompt in PROMPTS
    ]
    generator = get_generator("transformers", device="cpu", dtype="float32", batch_size=64)
    groups = generator.generate(behaviour, requests, SamplingSettings(temperature=1.0, max_new_tokens=6))
    index = np.repeat(np.arange(len(PROMPTS)), GROUP_SIZE)
    prompts = [np.array(requests[i].prompt_token_ids) for i in index]
    completions = [np.array(completion.token_ids) for group in groups for completion in group]

    def scored(policy: LoadedPolicy) -> list[np.ndarray]:
        return score_completions(policy, prompts, completions, temperature=1.0, max_tokens_per_forward=1024)

    return TrainingExamples(
        prompt_ids=[PROMPTS[i] for i in index],
        prompts=prompts,
        completions=completions,
        behaviour_log_probs=scored(policy),
        sampler_log_probs=[np.array(completion.log_probs) for group in groups for completion in group],
        rewards=np.array([reward_of(completion.text) for group in groups for completion in group]),
        group_index=index,
        is_fresh=np.ones(len(index), bool),
        is_truncated=np.zeros(len(index), bool),
        head_weights=np.ones(len(index)),
        embeddings=embeddings[index],
        reference_log_probs=None
        if reference is None
        else scored(open_policy(reference, device="cpu", dtype="float32")),
    )


def curve(objective: str) -> dict[str, list[float]]:
    """Reward, losses, gradient norm and mean estimate of each round, eight significant digits."""
    parameters = TrainingParameters(
        **SETTINGS[objective], learning_rate=LEARNING_RATE, num_minibatches=2, log_z_epochs=5
    )
    columns: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        trainer, behaviour, embeddings = start(Path(scratch) / "0", parameters)
        tokenizer = open_policy(behaviour, device="cpu", dtype="float32").tokenizer
        reference = behaviour if parameters.needs_reference else None
        for round_number in range(1, NUM_ROUNDS + 1):
            examples = sample(behaviour, embeddings, round_number, reference=reference)
            steps = train_round(trainer, examples)
            folder = Path(scratch) / str(round_number)
            write_policy_folder(trainer.model, tokenizer, folder)
            behaviour = checkpoint(folder)
            with torch.no_grad():
                estimates = 0.05 * trainer.head(torch.from_numpy(embeddings))
            row = {"reward": float(examples.rewards.mean()), "mean_estimate": float(estimates.mean())}
            for name in ("policy_loss", "log_z_loss", "gradient_norm"):
                row[name] = float(np.mean([step[name] for step in steps]))
            for name, value in row.items():
                columns.setdefault(name, []).append(float(f"{value:.8g}"))
    return columns


@pytest.mark.parametrize("objective", SETTINGS)
def test_the_curve_is_the_stored_one(objective: str) -> None:
    stored = json.loads((GOLDEN / f"{objective}_curve.json").read_text())
    found = curve(objective)

    assert found.keys() == stored.keys()
    for name, values in found.items():
        # The loss of a policy gradient is a mean of advantages, which cancel: its digits are those of terms near 1.
        assert values == pytest.approx(stored[name], rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("objective", SETTINGS)
def test_the_stored_curve_shows_learning(objective: str) -> None:
    reward = json.loads((GOLDEN / f"{objective}_curve.json").read_text())["reward"]
    assert len(reward) == NUM_ROUNDS
    assert np.mean(reward[-3:]) > np.mean(reward[:3]) + 0.2


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in SETTINGS:
        (GOLDEN / f"{name}_curve.json").write_text(json.dumps(curve(name), indent=1) + "\n")
