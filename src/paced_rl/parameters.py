"""One typed group of parameters per stage: ranges, units, and what 0 means, under each field.

Kedro hands a node that is annotated with one of these classes the validated object, and stops before any node when a
value is out of range. Defaults live here; `conf/base/parameters_<stage>.yml` repeats those a user is likely to change.
"""

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from paced_rl.rollout_parameters import RolloutParameters as RolloutParameters
from paced_rl.scheduling import Estimator, Selector
from paced_rl.training_parameters import Group
from paced_rl.training_parameters import (
    TrainingParameters as TrainingParameters,
)  # one place to import every group from


class CountdownParameters(Group):
    """The procedural task of the embedded default: reach a target from given numbers by + - * / and parentheses."""

    min_numbers: int = Field(2, ge=2, le=6)
    max_numbers: int = Field(4, ge=2, le=6)
    """How many numbers a puzzle gives."""
    min_value: int = Field(1, ge=1)
    max_value: int = Field(9, ge=1)
    """Range of the given numbers."""
    min_target: int = Field(1, ge=1)
    max_target: int = Field(24, ge=1)
    """Range of the target."""
    template: str = "{numbers}>{target}:"
    """Rendered prompt; `{numbers}` is the numbers joined by single spaces."""

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        for name in ("numbers", "value", "target"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low > high:
                raise ValueError(f"min_{name} = {low} is above max_{name} = {high}")
        return self


class ReasoningGymParameters(Group):
    """A dataset of reasoning_gym, whose entries are made on the spot."""

    dataset: str = "chain_sum"
    """A name that reasoning_gym knows, see `reasoning_gym.factory.DATASETS`."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Fields of the dataset's configuration, such as `max_terms`; what is left out keeps reasoning_gym's default."""
    template: str = "{question}"
    """Rendered prompt: `{question}`, and any field of an entry's metadata, such as chain_sum's `{expression}`."""
    verifier: Literal["reasoning_gym", "exact_match"] = "reasoning_gym"
    """The dataset's own scorer, in the sandbox, or equality of texts, for answers that have one spelling."""


class DataPreparationParameters(Group):
    """Where prompts come from and how they are split."""

    source: str = "countdown"
    """`countdown` or `reasoning_gym` (generated), or the path of a .parquet or .jsonl file with the columns `prompt`,
    `reference_answer`, and optionally `split`, `verifier`, `verifier_arguments`, `metadata`."""
    num_train: int = Field(2000, ge=1)
    num_audit: int = Field(200, ge=0)
    num_validation: int = Field(300, ge=1)
    num_test: int = Field(300, ge=0)
    """Prompts per split; a file without a `split` column is split in these numbers, train taking what is left."""
    max_prompt_tokens: int = Field(64, ge=1)
    """A longer prompt is refused, never cut."""
    verifier: str = "arithmetic"
    """Verifier of file prompts that do not name one."""
    countdown: CountdownParameters = CountdownParameters()
    reasoning_gym: ReasoningGymParameters = ReasoningGymParameters()
    embedding_layer: int = Field(-1)
    """Index into the hidden states of the reference policy: 0 is the token embedding, -1 the last layer."""
    embedding_pooling: Literal["last", "mean"] = "mean"
    """`last`: state of the prompt's last token; `mean`: mean over the prompt's tokens."""
    embedding_batch_size: int = Field(256, ge=1)

    @property
    def split_sizes(self) -> dict[str, Any]:
        """`num_train`, `num_audit`, `num_validation` and `num_test`, by name."""
        return {name: getattr(self, name) for name in ("num_train", "num_audit", "num_validation", "num_test")}

    @property
    def is_generated(self) -> bool:
        """Whether the prompts are made in the numbers asked for, and not read from a file."""
        return self.source in ("countdown", "reasoning_gym")


class PolicyParameters(Group):
    """The model that is trained."""

    source: str = "data/01_raw/starter_policy"
    """A folder in Hugging Face format, or a hub id such as `Qwen/Qwen2.5-Math-1.5B`."""
    revision: str | None = None
    """Commit or tag of a hub id; None takes the newest and records which it was."""
    device: str = "cpu"
    """PyTorch device of embedding, transformers sampling, training and evaluation."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the forward pass; log-probabilities are always computed in float32."""
    deterministic: bool | None = None
    """Whether PyTorch may take only kernels that give the same bits in every run; null says yes on a CPU, where it
    costs nothing that `benchmarks/deterministic.py` could measure, and no elsewhere."""
    lora_rank: int = Field(0, ge=0)
    """Rank of a low-rank adapter that is trained in place of the weights; 0 trains all weights. Needs `peft`."""
    lora_alpha: int = Field(32, ge=1)
    """The adapter counts lora_alpha / lora_rank."""
    lora_target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the layers with an adapter, e.g. [q_proj, v_proj]; `all-linear` is every linear one but the output."""

    @property
    def is_deterministic(self) -> bool:
        """`deterministic`, with null decided by the device."""
        return self.device.startswith("cpu") if self.deterministic is None else self.deterministic


class SchedulingParameters(Group):
    """Which prompts a round takes."""

    selector: Selector = "nearest"
    """Rule of choice, see `paced_rl.scheduling.selectors` and `dynamic_sampling`; `oracle` needs the pipeline
    `oracle_round`, which `kedro paced train` takes by itself."""
    estimator: Estimator = "learned"
    """What gives `estimated_accuracy`, see `paced_rl.scheduling.estimators`: the head, or what stands in for it."""
    target_accuracy: float = Field(0.5, ge=0, le=1)
    """Accuracy the selector looks for (τ in the paper)."""
    num_prompts: int = Field(32, ge=1)
    """Prompts per round, the audit slice included."""
    candidate_pool_size: int = Field(0, ge=0)
    """Train prompts drawn uniformly each round to select among; 0 means all."""
    audit_fraction: float = Field(0.125, ge=0, le=1)
    """Share of the round's prompts drawn uniformly whatever the estimate; rounded to whole prompts."""
    warm_up_rounds: int = Field(3, ge=0)
    """First rounds in which every prompt is drawn uniformly, so that the head has learned before it selects."""
    softening: float = Field(0.1, gt=0)
    """Of `softened`: standard deviation of the weight around the target, in units of accuracy."""
    outcome_half_life: float = Field(10.0, ge=0)
    """Rounds after which an outcome counts half in the Betas of `posterior`, `beta_thompson` and `beta_posterior`, and
    in the informative share of `dynamic_sampling`. Nobody looks further back than three of them; 0 leaves all outcomes
    out."""
    retest_share: float = Field(0.25, ge=0, le=1)
    """Of `pass_rate_variance`: share of the selected places that go to prompts without a measurement, and to solved and
    unsolved ones; 0 measures those only when nothing else is left."""
    retest_after: int = Field(10, ge=1)
    """Of `pass_rate_variance`: rounds after which a solved or unsolved prompt is due to be measured again."""
    max_oversampling: float = Field(3.0, ge=1)
    """Of `dynamic_sampling`: prompts rolled out at most, as a multiple of `num_prompts`; rounded down to whole prompts.
    1 rolls out no more than other selectors do."""
    oracle_samples: int = Field(8, ge=1)
    """Of `oracle`: completions per candidate and round that measure its accuracy and are not trained on."""

    @property
    def outcome_past_rounds(self) -> int:
        """Earlier rounds whose outcomes selectors and estimators read: those that count at least an eighth."""
        return math.ceil(3 * self.outcome_half_life)


class VerificationParameters(Group):
    """Limits of the verifiers."""

    timeout_seconds: float = Field(5.0, gt=0)
    """Wall-clock limit of one answer in the sandbox; the in-process arithmetic verifier is bounded by construction."""
    memory_bytes: int = Field(2 * 1024**3, ge=512 * 1024**2)
    """Address-space limit of the sandbox worker. Loading reasoning_gym 0.1.25 and scoring right answers takes 200 to
    290 MiB, depending on the run."""


class EvaluationParameters(Group):
    """What is measured on prompts that are never trained on."""

    every: int = Field(5, ge=1)
    """Rounds between evaluations; round 0 is always evaluated."""
    num_samples: int = Field(4, ge=1)
    """Completions per prompt (n of pass@k)."""
    sampling_temperature: float = Field(1.0, ge=0)
    """0 is greedy."""
    splits: tuple[Literal["validation", "audit", "test"], ...] = ("validation", "audit")
    """Which prompts. `test` is read by the report of a study alone: rounds, stopping and retention never look at it."""


class ReportingParameters(Group):
    """What the figures show."""

    calibration_window: int = Field(20, ge=1)
    """Rounds of audit outcomes in the reliability diagram."""
    num_rollouts_in_mlflow: int = Field(64, ge=0)
    """Rollouts logged as a table in MLflow; the Parquet table holds all of them."""
    max_histogram_prompts: int = Field(20000, ge=1)
    """Prompts drawn in the histogram of estimates."""


class StoppingParameters(Group):
    """When `kedro paced train` ends before its last round; by accuracy on the validation split, so only evaluated
    rounds count."""

    target_accuracy: float | None = Field(None, ge=0, le=1)
    """Accuracy at which to stop; None never does."""
    patience: int | None = Field(None, ge=1)
    """Evaluations without improvement after which to stop; None never does."""
    min_improvement: float = Field(0.0, ge=0, le=1)
    """How much better than the best so far an evaluation must be to count as improvement; 0 takes any difference."""


class RetentionParameters(Group):
    """Which rounds keep their weights (policy, log-Z head, optimiser state) in `kedro paced train`.

    Tables and manifests always stay, and so do the weights of round 0 and of the last round.
    """

    keep_last: int | None = Field(None, ge=1)
    """Rounds, counted from the last one, that keep theirs; None keeps all of them, whatever the other two say."""
    keep_every: int | None = Field(None, ge=1)
    """Rounds divisible by it keep theirs for good; None: no such rounds."""
    keep_best: bool = True
    """Whether the round of the best validation accuracy so far keeps its weights."""


class StarterPolicyParameters(Group):
    """How a starter policy is made."""

    hidden_size: int = Field(128, ge=8)
    num_layers: int = Field(4, ge=1)
    num_heads: int = Field(4, ge=1)
    intermediate_size: int = Field(256, ge=8)
    num_lines: int = Field(921_600, ge=1)
    """Lines of the corpus, each seen once; the number of optimiser steps is this by the batch size."""
    mixed_share: float = Field(0.2, ge=0, le=1)
    """Last part of the corpus, in which some answers are random."""
    random_fraction: float = Field(0.25, ge=0, le=1)
    """Share of the answers there that are right only by chance: they use the right numbers (countdown), or are those of
    other entries (reasoning_gym)."""
    batch_size: int = Field(192, ge=1)
    learning_rate: float = Field(2e-3, gt=0)


GROUPS: dict[str, type[Group]] = {
    "data_preparation": DataPreparationParameters,
    "policy": PolicyParameters,
    "scheduling": SchedulingParameters,
    "rollout": RolloutParameters,
    "verification": VerificationParameters,
    "training": TrainingParameters,
    "evaluation": EvaluationParameters,
    "reporting": ReportingParameters,
    "stopping": StoppingParameters,
    "retention": RetentionParameters,
    "starter_policy": StarterPolicyParameters,
}
"""Every group by its `params:` key."""
