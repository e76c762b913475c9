"""What choices among prompts of known outcome were worth: measures, and how far chance alone would move them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from paced_rl.metrics.informativeness import HIT_RANGE

COLUMNS = ("count", "hit", "informative", "tokens", "wasted", "variance", "left_out_variance")
"""Of `group_values`; the last two are p(1 − p), from all completions and from those that an oracle did not see."""

MEASURES = ("hit_rate", "informative_fraction", "wasted_token_share", "reward_variance", "regret", "captured_headroom")
"""Of `choice_measures`, each defined there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceRows:
    """Rows of a table of choices that others are compared with."""

    uniform: int
    """Takes everything evenly."""
    oracle: int
    """Chose by all completions but two, which judge it."""
    hindsight: int
    """Chose by all completions."""


def unbiased_reward_variance(
    num_correct: Int[np.ndarray, " P"], num_scored: Int[np.ndarray, " P"]
) -> Float[np.ndarray, " P"]:
    """p(1 − p) of each prompt without bias: c(n − c) / (n(n − 1)), the sample variance of its 0/1 rewards.

    Unlike hit rate and informative fraction its expectation is the same for any n ≥ 2, so that two completions of a
    group can be compared with all of them. Zero for groups that are all right or all wrong; at most n / (4(n − 1)).

    Raises:
        ValueError: a group of fewer than 2 completions.
    """
    if (num_scored < 2).any():
        raise ValueError(f"a variance needs at least 2 completions of each prompt, got {num_scored.min()}")
    return num_correct * (num_scored - num_correct) / (num_scored * (num_scored - 1.0))


def group_values(
    num_correct: Int[np.ndarray, " P"],
    num_scored: Int[np.ndarray, " P"],
    num_tokens: Int[np.ndarray, " P"],
    left_out_differ: Float[np.ndarray, " P"],
) -> Float[np.ndarray, "P columns"]:
    """What choosing each prompt brings, the columns of `COLUMNS`.

    Args:
        num_correct: right completions of the whole group.
        num_scored: n, at least 2.
        num_tokens: sampled for the group.
        left_out_differ: how often one of the two completions that an oracle did not see is right and one wrong, which
            is a variance of 1/2; else it is 0.

    Raises:
        ValueError: a group of fewer than 2 completions.
    """
    observed = num_correct / num_scored
    is_informative = (num_correct > 0) & (num_correct < num_scored)
    return np.stack(
        [
            np.ones(len(num_correct)),
            (observed >= HIT_RANGE[0]) & (observed <= HIT_RANGE[1]),
            is_informative,
            num_tokens,
            num_tokens * ~is_informative,
            unbiased_reward_variance(num_correct, num_scored),
            left_out_differ / 2,
        ],
        axis=1,
    )


def resampled_sums(
    shares: Float[np.ndarray, "rules P"],
    values: Float[np.ndarray, "P columns"],
    *,
    num_resamples: int,
    generator: np.random.Generator,
) -> Float[np.ndarray, "resamples rules columns"]:
    """Σ over prompts of weight · share · value: once with all weights 1, then with random ones.

    The weights are Exp(1), the same for all rules, which makes differences between rules paired. Sums of several
    rounds may be added, and ratios of sums taken: the Bayesian bootstrap over prompts, whose ratios are always defined.

    Source: Rubin 1981, https://doi.org/10.1214/aos/1176345338.

    Returns:
        [1 + num_resamples, rules, columns]; the first is the plain sum.
    """
    num_prompts, num_columns = values.shape
    weights = np.ones((1 + num_resamples, num_prompts))
    weights[1:] = generator.standard_exponential((num_resamples, num_prompts))
    brought = shares.T[:, :, None] * values[:, None, :]
    sums = weights @ brought.reshape(num_prompts, -1)
    return sums.reshape(1 + num_resamples, len(shares), num_columns)


def choice_measures(
    sums: Float[np.ndarray, "resamples rules columns"], rows: ReferenceRows
) -> dict[str, Float[np.ndarray, "resamples rules"]]:
    """Each of `MEASURES` for every rule; NaN where it would not be honest.

    - `hit_rate`, `informative_fraction`: share of the chosen groups with an observed accuracy in [0.25, 0.75], or in
      (0, 1).
    - `wasted_token_share`: of the tokens of the chosen groups, those of groups that are all right or all wrong.
    - `reward_variance`: mean p(1 − p) of the chosen prompts, see `unbiased_reward_variance`; of the oracle
      from the completions that it did not see. NaN in hindsight, which chose by its own judge.
    - `regret`: the oracle's reward variance less the rule's.
    - `captured_headroom`: (rule − uniform) / (oracle − uniform), of the reward variance.

    The first three are NaN for the oracle: they depend on the size of a group, and two completions judge it.
    """
    column = {name: sums[..., position] for position, name in enumerate(COLUMNS)}
    variance = column["variance"] / column["count"]
    variance[:, rows.oracle] = (column["left_out_variance"] / column["count"])[:, rows.oracle]
    variance[:, rows.hindsight] = np.nan
    oracle, uniform = variance[:, [rows.oracle]], variance[:, [rows.uniform]]
    measures = {
        "hit_rate": column["hit"] / column["count"],
        "informative_fraction": column["informative"] / column["count"],
        "wasted_token_share": column["wasted"] / column["tokens"],
    }
    for values in measures.values():
        values[:, rows.oracle] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):  # a pool of equal prompts leaves nothing to gain
        captured = (variance - uniform) / (oracle - uniform)
    return measures | {
        "reward_variance": variance,
        "regret": oracle - variance,
        "captured_headroom": captured,
    }
