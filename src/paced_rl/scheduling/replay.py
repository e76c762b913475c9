"""Bookkeeping of the replay buffer: which correct completions stay, and which are trained on again.

Pure functions on columns. The buffer's other columns (tokens, log-probabilities …) stay with the caller, who takes the
rows named by the returned indices.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int, Shaped


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReplayEntries:
    """Correct completions, as far as replay must know them; one row each."""

    rollout_ids: Shaped[np.ndarray, " num_entries"]
    """Text; all different."""
    content_keys: Shaped[np.ndarray, " num_entries"]
    """Text, see `content_key`; equal for the same completion of the same prompt."""
    priorities: Float[np.ndarray, " num_entries"]
    """|observed − estimated| accuracy of the group, in [0, 1]."""
    sampled_rounds: Int[np.ndarray, " num_entries"]
    """Round in which the completion was sampled."""
    reuse_counts: Int[np.ndarray, " num_entries"]
    """Batches it has been replayed in."""

    def __len__(self) -> int:
        return len(self.rollout_ids)

    def take(self, indices: Int[np.ndarray, " num_taken"]) -> "ReplayEntries":
        """The entries at `indices`, in that order."""
        return ReplayEntries(**{field.name: getattr(self, field.name)[indices] for field in fields(self)})


def empty_entries() -> ReplayEntries:
    """The buffer before the first round."""
    return ReplayEntries(
        rollout_ids=np.empty(0, dtype=np.str_),
        content_keys=np.empty(0, dtype=np.str_),
        priorities=np.empty(0, dtype=np.float64),
        sampled_rounds=np.empty(0, dtype=np.int64),
        reuse_counts=np.empty(0, dtype=np.int64),
    )


def content_key(prompt_id: str, completion_token_ids: Sequence[int] | Int[np.ndarray, " num_tokens"]) -> str:
    """A hash of what a completion says to which prompt: 32 hex digits, by which duplicates are dropped."""
    # A prompt_id holds no newline, so text and numbers cannot run into one another.
    tokens = np.asarray(completion_token_ids, dtype="<i8").tobytes()
    return hashlib.blake2b(prompt_id.encode() + b"\n" + tokens, digest_size=16).hexdigest()


def priority(
    observed_accuracy: Float[np.ndarray, "*shape"], estimated_accuracy: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """How wrong the estimate was: |observed − estimated|. Zero when the group did exactly as estimated.

    Source: replay of https://arxiv.org/abs/2602.12642. Part of it is luck of a small group: see `expected_priority`.
    """
    return np.abs(np.asarray(observed_accuracy, dtype=np.float64) - np.asarray(estimated_accuracy, dtype=np.float64))


def expected_priority(
    estimated_accuracy: Float[np.ndarray, "*shape"], num_samples: int | Int[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """The priority that luck alone gives: E|X/n − p| with X ~ Binomial(n, p), where p is the estimate itself.

        E|X/n − p| = (2m/n) · C(n, m) · p^m · (1 − p)^(n − m + 1),   m = ⌊n·p⌋ + 1

    Zero at p = 0 and p = 1. With n = 8 it is 0.137 at p = 0.5: only what exceeds it says that the estimate was wrong.

    Source: de Moivre; Diaconis and Zabell 1991, "Closed form summation for classical distributions",
    Statistical Science 6(3), 284-302.

    Args:
        estimated_accuracy: p in [0, 1], any shape.
        num_samples: n, at least 1; one number, or one per estimate.

    Raises:
        ValueError: an estimate outside [0, 1], or a number of samples below 1.
    """
    p, n = np.broadcast_arrays(np.asarray(estimated_accuracy, dtype=np.float64), np.asarray(num_samples))
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"estimated_accuracy must lie in [0, 1], got values from {p.min()} to {p.max()}")
    if not (n >= 1).all():
        raise ValueError(f"num_samples must be at least 1, got {n.min()}")
    # p = 1 is left out because m = n + 1 has no binomial coefficient; p = 0 because its logarithm is infinite.
    is_inside = (p > 0) & (p < 1)
    p_inside, n_inside = p[is_inside], n[is_inside]
    m = np.minimum(np.floor(n_inside * p_inside).astype(np.int64) + 1, n_inside)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n.max(initial=1) + 1)))])
    log_coefficient = log_factorial[n_inside] - log_factorial[m] - log_factorial[n_inside - m]
    log_power = m * np.log(p_inside) + (n_inside - m + 1) * np.log1p(-p_inside)
    expected = np.zeros(p.shape)
    expected[is_inside] = 2 * m / n_inside * np.exp(log_coefficient + log_power)
    return expected


def select_for_replay(
    entries: ReplayEntries, *, round_number: int, max_added: int, max_staleness: int
) -> Int[np.ndarray, " num_replayed"]:
    """The entries to train on again in this round: the largest priorities among those that are not stale.

    Args:
        entries: the buffer as the previous round left it.
        round_number: the round that trains.
        max_added: how many to take at most; 0 takes none.
        max_staleness: largest allowed round_number − sampled_round, in rounds.

    Returns:
        Indices into `entries`; largest priority first, then newer, then smaller rollout_id.

    Raises:
        ValueError: an entry is from a later round than this one, or `max_added` is negative.
    """
    if max_added < 0:
        raise ValueError(f"max_added = {max_added}: it must be at least 0")
    _check_not_from_the_future(entries, round_number)
    ranked = _ranking(entries)
    is_stale = round_number - entries.sampled_rounds > max_staleness
    return ranked[~is_stale[ranked]][:max_added]


def update_entries(
    entries: ReplayEntries,
    candidates: ReplayEntries,
    *,
    candidate_rewards: Float[np.ndarray, " num_candidates"],
    replayed_indices: Int[np.ndarray, " num_replayed"],
    round_number: int,
    capacity: int,
    max_staleness: int,
) -> tuple[ReplayEntries, Int[np.ndarray, " num_kept"]]:
    """The buffer after a round: replayed entries counted, this round's correct completions added, the rest thinned.

    In this order: add 1 to the reuse count of what was replayed; drop what would be stale in the next round, which is
    the first that could replay it; of equal content keep the newest; keep the `capacity` largest priorities.

    Args:
        entries: the buffer this round read.
        candidates: this round's completions; the caller has filtered them to the correct ones.
        candidate_rewards: reward of each candidate, to check that filter: replaying wrong completions is no part of
            the method.
        replayed_indices: into `entries`, what this round trained on again.
        round_number: this round.
        capacity: entries kept at most; 0 keeps none.
        max_staleness: see `select_for_replay`.

    Returns:
        The new buffer, largest priority first, and for each of its rows the index into [entries; candidates].

    Raises:
        ValueError: a candidate's reward is not 1, a replayed index repeats or is out of range, or an entry is from a
            later round.
    """
    _check_candidates(candidates, candidate_rewards)
    if len(np.unique(replayed_indices)) != len(replayed_indices):
        raise ValueError("replayed_indices names an entry twice: a batch replays each entry once at most")
    if len(replayed_indices) and not 0 <= np.min(replayed_indices) <= np.max(replayed_indices) < len(entries):
        raise ValueError(f"replayed_indices must lie in [0, {len(entries)}), got {list(replayed_indices)[:5]} …")
    reuse_counts = entries.reuse_counts.copy()
    reuse_counts[replayed_indices] += 1
    merged = ReplayEntries(
        rollout_ids=np.concatenate([_text(entries.rollout_ids), _text(candidates.rollout_ids)]),
        content_keys=np.concatenate([_text(entries.content_keys), _text(candidates.content_keys)]),
        priorities=np.concatenate([entries.priorities, candidates.priorities]),
        sampled_rounds=np.concatenate([entries.sampled_rounds, candidates.sampled_rounds]),
        reuse_counts=np.concatenate([reuse_counts, candidates.reuse_counts]),
    )
    _check_not_from_the_future(merged, round_number)
    is_kept = (round_number + 1 - merged.sampled_rounds <= max_staleness) & _is_newest_of_its_content(merged)
    ranked = _ranking(merged)
    source_indices = ranked[is_kept[ranked]][:capacity]
    return merged.take(source_indices), source_indices


def check_valid(entries: ReplayEntries, *, capacity: int) -> None:
    """Refuse a buffer that no sequence of updates can produce.

    Raises:
        ValueError: names the broken rule: columns of one length, at most `capacity` entries, no rollout and no content
            twice, priorities in [0, 1], reuse counts at least 0.
    """
    lengths = {field.name: len(getattr(entries, field.name)) for field in fields(entries)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"replay columns must have one length, got {lengths}")
    if len(entries) > capacity:
        raise ValueError(f"the replay buffer holds {len(entries)} entries, above its capacity of {capacity}")
    for name in ("rollout_ids", "content_keys"):
        values, counts = np.unique(_text(getattr(entries, name)), return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"replay {name} must be unique, got twice or more: {values[counts > 1][:5].tolist()}")
    # Written so that NaN counts as outside.
    if not ((entries.priorities >= 0) & (entries.priorities <= 1)).all():
        raise ValueError(f"replay priorities must lie in [0, 1], got {entries.priorities.tolist()[:5]} …")
    if (entries.reuse_counts < 0).any():
        raise ValueError(f"replay reuse_counts must be at least 0, got {entries.reuse_counts.min()}")


def _text(column: Shaped[np.ndarray, " num_entries"]) -> Shaped[np.ndarray, " num_entries"]:
    """The column as fixed-width text: tables deliver objects, which sort slowly and concatenate badly."""
    return np.asarray(column, dtype=np.str_)


def _ranking(entries: ReplayEntries) -> Int[np.ndarray, " num_entries"]:
    """Indices by largest priority, then newer, then smaller rollout_id; `lexsort` takes its last key first."""
    return np.lexsort((_text(entries.rollout_ids), -entries.sampled_rounds, -entries.priorities))


def _is_newest_of_its_content(entries: ReplayEntries) -> Shaped[np.ndarray, " num_entries"]:
    """True for one entry per content: the newest; within a round the larger priority, then the smaller rollout_id."""
    by_age = np.lexsort((_text(entries.rollout_ids), -entries.priorities, -entries.sampled_rounds))
    # `unique` returns the first occurrence, which in this order is the newest.
    first_occurrences = np.unique(_text(entries.content_keys)[by_age], return_index=True)[1]
    is_newest = np.zeros(len(entries), dtype=bool)
    is_newest[by_age[first_occurrences]] = True
    return is_newest


def _check_candidates(candidates: ReplayEntries, candidate_rewards: Float[np.ndarray, " num_candidates"]) -> None:
    if len(candidate_rewards) != len(candidates):
        raise ValueError(f"{len(candidate_rewards)} candidate_rewards for {len(candidates)} candidates: give one each")
    is_wrong = np.asarray(candidate_rewards) != 1
    if is_wrong.any():
        raise ValueError(
            f"{is_wrong.sum()} of {len(candidates)} replay candidates have a reward other than 1, first "
            f"{_text(candidates.rollout_ids)[is_wrong][:5].tolist()}: pass the correct completions only"
        )


def _check_not_from_the_future(entries: ReplayEntries, round_number: int) -> None:
    newest = entries.sampled_rounds.max(initial=round_number)
    if newest > round_number:
        raise ValueError(
            f"replay in round {round_number} met a completion sampled in round {newest}: "
            "give it the buffer that the previous round wrote"
        )
