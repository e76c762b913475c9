"""Statistics over the completions of one prompt."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def group_mean(values: Float[Tensor, "B"], group_index: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Mean over each completion's group, handed back to every completion of the group.

    Args:
        values: one number per completion; gradient flows through the mean.
        group_index: completions of one prompt share a number. Any integers, in any order, groups of any size.

    Returns:
        The mean of the group each completion belongs to.
    """
    _, position, num_members = torch.unique(group_index, return_inverse=True, return_counts=True)
    sums = torch.zeros_like(num_members, dtype=values.dtype).index_add(0, position, values)
    return (sums / num_members)[position]


def group_minimum(values: Float[Tensor, "B"], group_index: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Smallest value of each completion's group, handed back to every completion of the group.

    Args:
        values: one number per completion.
        group_index: completions of one prompt share a number.

    Returns:
        The minimum of the group each completion belongs to.
    """
    groups, position = torch.unique(group_index, return_inverse=True)
    smallest = torch.full_like(groups, torch.inf, dtype=values.dtype)
    return smallest.scatter_reduce(0, position, values, "amin")[position]


def group_size(group_index: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
    """Number of completions in each completion's group.

    Args:
        group_index: completions of one prompt share a number.

    Returns:
        The size of the group each completion belongs to; at least 1.
    """
    _, position, num_members = torch.unique(group_index, return_inverse=True, return_counts=True)
    return num_members[position]
