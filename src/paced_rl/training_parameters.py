"""The parameters of training, and what every group of parameters has in common."""

import math
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

DAPO_CLIP_RATIO_HIGH = 0.28
"""Of https://arxiv.org/abs/2503.14476: unlikely tokens may gain more than GRPO lets them."""

CLIP_RATIO_HIGH = {"dapo": DAPO_CLIP_RATIO_HIGH, "gflowrl": 1.0}
"""ε_high of objectives that have one of their own; `gflowrl` cuts weights of completions off at 2."""

FLOW_REWARD_SCALE = {"flowrl": 15.0, "gflowrl": 8.0}
"""β' of the two flow objectives, nats per token: what FlowRL's code runs, and the best of those that GFlowRL tried."""

POLICY_GRADIENTS = ("grpo", "dr_grpo", "dapo", "rloo")


class Group(BaseModel):
    """Unknown names are refused, and so are numbers that are not finite; values stay as they were read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TrainingParameters(Group):
    """The objective, the optimiser, the log-Z head, replay."""

    objective: Literal["paced", "vargrad", "flowrl", "gflowrl", "grpo", "dr_grpo", "dapo", "rloo"] = "paced"
    """`paced` learns log Z, `vargrad` takes the group's own; `flowrl` and `gflowrl` are the same pair against the
    reference policy; the others are policy gradients (docs/paper_map.md)."""
    reward_temperature: float = Field(0.05, gt=0)
    """β: rewards enter as r/β, and β·log Z is an accuracy."""
    learning_rate: float = Field(1e-4, ge=0)
    """Of the policy; 0 trains the head alone."""
    learning_rate_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the policy's rate falls over the rounds, to 0 at the end of `learning_rate_total_rounds`."""
    learning_rate_warm_up_rounds: int = Field(0, ge=0)
    """First rounds, in which the policy's rate rises linearly from 0; 0 begins with the whole of it."""
    learning_rate_total_rounds: int | None = Field(None, ge=1)
    """Rounds until `linear` and `cosine` are at 0, where later rounds stay; `constant` does not read it."""
    weight_decay: float = Field(0.1, ge=0)
    max_gradient_norm: float = Field(1.0, gt=0)
    """Of the policy, per optimiser step. It always matters: the paced gradient is 2/β = 40 times that of REINFORCE."""
    num_epochs: int = Field(1, ge=1)
    """Passes over the round's batch."""
    num_minibatches: int = Field(1, ge=1)
    """Optimiser steps per pass."""
    max_tokens_per_forward: int = Field(16384, ge=1)
    """Padded tokens in one forward and backward pass; gradients accumulate, so it changes memory and not results."""
    clip_ratio: float = Field(0.2, gt=0)
    """`grpo`, `dr_grpo`, `dapo`: importance weights outside 1 ± this give no gradient. `flowrl`: the weight of a
    completion is cut off there."""
    clip_ratio_high: float | None = Field(None, gt=0)
    """The same above 1; null takes 0.28 with `dapo`, its paper's, 1 with `gflowrl`, and `clip_ratio` otherwise."""
    kl_coefficient: float = Field(0.0, ge=0)
    """Policy gradients: weight of the penalty KL(π_θ ‖ π_ref) beside the loss; 0 scores no reference policy."""
    flow_reward_scale: float | None = Field(None, gt=0)
    """β' of `flowrl` and `gflowrl`: rewards enter as β'·r, in nats per token; null takes 15 and 8."""
    flow_gap_clip: float = Field(0.2, gt=0)
    """`gflowrl`: nats per token by which a completion better than its group is raised at most."""
    flow_gap_clip_high: float = Field(0.28, gt=0)
    """`gflowrl`: nats per token by which a worse one is lowered at most."""
    importance_correction: Literal["off", "token", "sequence"] = "off"
    """Weighs fresh tokens or completions by π_old/π_sampler, for samplers that differ from the trainer. `sequence` also
    weighs the head's rows; `token` is for losses that are sums over tokens, the policy gradients."""
    importance_cap: float = Field(2.0, ge=1)
    """Largest such weight."""
    log_z_learning_rate: float = Field(1e-3, ge=0)
    """Of the log-Z head."""
    log_z_hidden_size: int = Field(128, ge=1)
    log_z_epochs: int = Field(10, ge=1)
    """Passes of the head over its rows; the first goes with the policy's own steps, over the fresh groups alone."""
    log_z_half_life: float = Field(10.0, ge=0)
    """Rounds after which a group of an earlier round counts half in the further passes; 0 leaves the past out."""
    log_z_audit_weight: float = Field(1.0, ge=0)
    """Weight of a uniformly drawn group in the head's loss beside 1 of a selected one; 0 leaves the audit slice out."""
    initial_accuracy: float = Field(0.5, gt=0, lt=1)
    """Estimate of every prompt before the head has seen anything."""
    replay_capacity: int = Field(128, ge=0)
    """Correct completions kept for replay."""
    replay_max_added: int = Field(64, ge=0)
    """Replayed completions added to a batch at most; 0 switches replay off."""
    replay_max_staleness: int = Field(10, ge=1)
    """Rounds after which a completion leaves the buffer."""
    replay_behaviour: Literal["recomputed", "stored"] = "recomputed"
    """Behaviour log-probabilities of replayed rows: of the round's own behaviour policy, or as stored when sampled."""
    replay_trains_head: bool = False
    """Whether replayed rows train the head too, which pulls log Z up, since all of them are right."""
    max_log_prob_gap: float | None = Field(None, gt=0)
    """Largest mean |sampler − trainer| log-probability per token, in nats, that a round accepts; null takes 0.001 in
    float32 and 0.05 in bfloat16."""

    @property
    def log_z_past_rounds(self) -> int:
        """Earlier rounds the head is trained on: those whose groups count at least an eighth; none under `flowrl`,
        whose log Z has no target in an observed accuracy."""
        return math.ceil(3 * self.log_z_half_life) if self.is_log_z_accuracy else 0

    @property
    def needs_groups(self) -> bool:
        """Whether the loss of a completion is made of its siblings' rewards too."""
        return self.objective != "paced"

    @property
    def is_trajectory_balance(self) -> bool:
        """Whether the loss is a squared residual of the whole completion."""
        return self.objective in ("paced", "vargrad", "flowrl", "gflowrl")

    @property
    def is_log_z_accuracy(self) -> bool:
        """Whether β·log Z of the head is an accuracy; under `flowrl` the head learns another quantity."""
        return self.objective != "flowrl"

    @property
    def needs_reference(self) -> bool:
        """Whether the loss reads log-probabilities under the reference policy."""
        return self.objective in FLOW_REWARD_SCALE or self.kl_coefficient > 0

    @property
    def reward_scale(self) -> float:
        """β' of the flow objectives."""
        return FLOW_REWARD_SCALE[self.objective] if self.flow_reward_scale is None else self.flow_reward_scale

    @property
    def is_clipped(self) -> bool:
        """Whether the loss stops the gradient of tokens whose importance weight has left `clip_range`."""
        return self.objective in ("grpo", "dr_grpo", "dapo")

    @property
    def clip_range(self) -> tuple[float, float]:
        """How far below and above 1 an importance weight may be."""
        default = CLIP_RATIO_HIGH.get(self.objective, self.clip_ratio)
        return self.clip_ratio, default if self.clip_ratio_high is None else self.clip_ratio_high

    @field_validator("importance_correction", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads a bare `off` as false

    @model_validator(mode="after")
    def _whole_groups_have_no_replay(self) -> Self:
        if self.needs_groups and self.replay_max_added > 0:
            raise ValueError(
                f"objective {self.objective} needs every completion's whole group and takes no replayed rows: "
                "set training.replay_max_added=0"
            )
        return self

    @model_validator(mode="after")
    def _replayed_rows_that_train_the_head_are_there(self) -> Self:
        if self.replay_trains_head and self.replay_max_added == 0:
            raise ValueError(
                "replay_trains_head = true with replay_max_added = 0: nothing is replayed that could train the head; "
                "set training.replay_max_added above 0, or training.replay_trains_head=false"
            )
        return self

    @model_validator(mode="after")
    def _policy_gradients_alone_have_a_penalty(self) -> Self:
        if self.kl_coefficient > 0 and self.objective not in POLICY_GRADIENTS:
            raise ValueError(
                f"kl_coefficient = {self.kl_coefficient} with objective {self.objective}: a squared residual has its "
                "anchor within, and a penalty would move its optimum away from the target distribution; set "
                f"training.kl_coefficient=0, or take one of {', '.join(POLICY_GRADIENTS)}"
            )
        return self

    @model_validator(mode="after")
    def _falling_rates_have_an_end(self) -> Self:
        total, warm_up = self.learning_rate_total_rounds, self.learning_rate_warm_up_rounds
        if self.learning_rate_schedule != "constant" and (total is None or total <= warm_up):
            raise ValueError(
                f"learning_rate_schedule = {self.learning_rate_schedule} with learning_rate_total_rounds = {total} and "
                f"learning_rate_warm_up_rounds = {warm_up}: the rate falls from the end of the warm-up to the last of "
                "the total rounds; set training.learning_rate_total_rounds above the warm-up"
            )
        return self

    @model_validator(mode="after")
    def _whole_completions_have_no_token_weights(self) -> Self:
        if self.is_trajectory_balance and self.importance_correction == "token":
            raise ValueError(
                f"objective {self.objective} squares a residual of the whole completion, which is no sum over tokens "
                "that could be weighed one by one: set training.importance_correction to sequence or off"
            )
        return self
