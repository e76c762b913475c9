"""Replay bookkeeping: hand-made cases, a slow reference, and long random lives."""

from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paced_rl.scheduling import (
    ReplayEntries,
    check_valid,
    content_key,
    empty_entries,
    expected_priority,
    priority,
    select_for_replay,
    update_entries,
)
from paced_rl.seeds import derive_generator

Row = tuple[str, str, float, int, int]
"""rollout_id, content_key, priority, sampled_round, reuse_count"""


def from_rows(rows: list[Row]) -> ReplayEntries:
    # Columns of objects, as tables deliver them.
    return ReplayEntries(
        rollout_ids=np.array([row[0] for row in rows], dtype=object),
        content_keys=np.array([row[1] for row in rows], dtype=object),
        priorities=np.array([row[2] for row in rows], dtype=np.float64),
        sampled_rounds=np.array([row[3] for row in rows], dtype=np.int64),
        reuse_counts=np.array([row[4] for row in rows], dtype=np.int64),
    )


def to_rows(entries: ReplayEntries) -> list[Row]:
    columns = (
        entries.rollout_ids,
        entries.content_keys,
        entries.priorities,
        entries.sampled_rounds,
        entries.reuse_counts,
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


def update(entries: ReplayEntries, candidates: ReplayEntries, **changes: Any) -> tuple[ReplayEntries, np.ndarray]:
    arguments: dict[str, Any] = {
        "candidate_rewards": np.ones(len(candidates)),
        "replayed_indices": np.empty(0, dtype=np.int64),
        "round_number": 5,
        "capacity": 100,
        "max_staleness": 10,
    }
    return update_entries(entries, candidates, **{**arguments, **changes})


def update_slowly(
    entries: list[Row], candidates: list[Row], replayed: list[int], round_number: int, capacity: int, max_staleness: int
) -> list[Row]:
    rows = [(*row[:4], row[4] + (index in replayed)) for index, row in enumerate(entries)] + candidates
    rows = [row for row in rows if round_number + 1 - row[3] <= max_staleness]
    newest: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: (-row[3], -row[2], row[0])):
        newest.setdefault(row[1], row)
    return sorted(newest.values(), key=lambda row: (-row[2], -row[3], row[0]))[:capacity]


def test_select_takes_largest_then_newer_then_smaller_id() -> None:
    entries = from_rows(
        [
            ("b", "1", 0.5, 3, 0),
            ("a", "2", 0.5, 3, 0),
            ("c", "3", 0.5, 4, 0),
            ("d", "4", 0.9, 1, 0),
            ("e", "5", 0.1, 4, 0),
        ]
    )
    selected = select_for_replay(entries, round_number=5, max_added=4, max_staleness=10)
    assert entries.rollout_ids[selected].tolist() == ["d", "c", "a", "b"]


@pytest.mark.parametrize(("max_staleness", "expected"), [(1, ["c"]), (2, ["b", "c"]), (3, ["a", "b", "c"])])
def test_select_leaves_stale_ones(max_staleness: int, expected: list[str]) -> None:
    entries = from_rows([("a", "1", 0.9, 2, 0), ("b", "2", 0.8, 3, 0), ("c", "3", 0.7, 4, 0)])
    selected = select_for_replay(entries, round_number=5, max_added=8, max_staleness=max_staleness)
    assert entries.rollout_ids[selected].tolist() == expected


def test_nothing_to_select() -> None:
    assert select_for_replay(empty_entries(), round_number=1, max_added=8, max_staleness=3).tolist() == []
    one = from_rows([("a", "1", 0.9, 2, 0)])
    assert select_for_replay(one, round_number=3, max_added=0, max_staleness=3).tolist() == []


def test_update_counts_reuse_and_names_sources() -> None:
    entries = from_rows([("a", "1", 0.5, 3, 1), ("b", "2", 0.9, 4, 0)])
    candidates = from_rows([("c", "3", 0.7, 5, 0)])
    updated, sources = update(entries, candidates, replayed_indices=np.array([0]))
    assert to_rows(updated) == [("b", "2", 0.9, 4, 0), ("c", "3", 0.7, 5, 0), ("a", "1", 0.5, 3, 2)]
    assert sources.tolist() == [1, 2, 0]
    assert entries.reuse_counts.tolist() == [1, 0]  # the input is left alone


def test_update_keeps_the_newer_of_equal_content_even_at_a_smaller_priority() -> None:
    entries = from_rows([("old", "same", 0.9, 3, 4)])
    candidates = from_rows([("new", "same", 0.2, 5, 0), ("sibling", "same", 0.2, 5, 0)])
    assert to_rows(update(entries, candidates)[0]) == [("new", "same", 0.2, 5, 0)]


def test_update_drops_what_the_next_round_may_not_replay() -> None:
    entries = from_rows([("a", "1", 0.9, 3, 0), ("b", "2", 0.8, 4, 0)])
    updated, _ = update(entries, from_rows([("c", "3", 0.1, 5, 0)]), max_staleness=2)
    assert updated.rollout_ids.tolist() == ["b", "c"]
    selected = select_for_replay(updated, round_number=6, max_added=9, max_staleness=2)
    assert len(selected) == len(updated)


def test_capacity_zero_keeps_nothing() -> None:
    updated, sources = update(empty_entries(), from_rows([("c", "3", 0.1, 5, 0)]), capacity=0)
    assert len(updated) == len(sources) == 0


row_values = st.tuples(
    st.integers(0, 9).map(lambda key: f"content {key}"),
    st.integers(0, 4).map(lambda quarter: quarter / 4),
    st.integers(1, 8),
    st.integers(0, 3),
)


@given(st.lists(row_values, max_size=12), st.integers(0, 12), st.integers(0, 8), st.integers(1, 6), st.data())
def test_update_follows_the_plain_rule(
    values: list[Any], num_entries: int, capacity: int, max_staleness: int, data: st.DataObject
) -> None:
    rows: list[Row] = [(f"rollout {index}", *value) for index, value in enumerate(values)]
    entries, candidates = rows[:num_entries], rows[num_entries:]
    replayed = data.draw(st.lists(st.sampled_from(range(len(entries))), unique=True)) if entries else []
    updated, sources = update(
        from_rows(entries),
        from_rows(candidates),
        replayed_indices=np.array(replayed, dtype=np.int64),
        round_number=8,
        capacity=capacity,
        max_staleness=max_staleness,
    )
    assert to_rows(updated) == update_slowly(entries, candidates, replayed, 8, capacity, max_staleness)
    assert [rows[source][0] for source in sources] == updated.rollout_ids.tolist()
    check_valid(updated, capacity=capacity)


def live(seed: int, first_round: int, last_round: int, entries: ReplayEntries, checks: dict[str, int]) -> ReplayEntries:
    """Rounds of a random life, every round a function of its number and the buffer; checks the rules after each."""
    capacity, max_added, max_staleness = checks["capacity"], checks["max_added"], checks["max_staleness"]
    for round_number in range(first_round, last_round + 1):
        replayed = select_for_replay(
            entries, round_number=round_number, max_added=max_added, max_staleness=max_staleness
        )
        assert len(replayed) <= max_added
        assert (round_number - entries.sampled_rounds[replayed] <= max_staleness).all()
        generator = derive_generator(seed, "life", round_number)
        size = int(generator.integers(0, 12))
        candidates = from_rows(
            [
                (
                    f"{round_number:04d}-{i}",
                    f"{generator.integers(0, 40)}",
                    generator.integers(0, 9) / 8,
                    round_number,
                    0,
                )
                for i in range(size)
            ]
        )
        before = entries
        entries, sources = update(
            before,
            candidates,
            replayed_indices=replayed,
            round_number=round_number,
            capacity=capacity,
            max_staleness=max_staleness,
        )
        check_valid(entries, capacity=capacity)
        assert (round_number - entries.sampled_rounds < max_staleness).all()
        ids = before.rollout_ids.tolist() + candidates.rollout_ids.tolist()
        assert [ids[source] for source in sources] == entries.rollout_ids.tolist()
    return entries


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 20), st.integers(0, 8), st.integers(1, 6))
def test_a_random_life_stays_valid_and_resumes(seed: int, capacity: int, max_added: int, max_staleness: int) -> None:
    checks = {"capacity": capacity, "max_added": max_added, "max_staleness": max_staleness}
    whole = live(seed, 1, 20, empty_entries(), checks)
    stored = to_rows(live(seed, 1, 9, empty_entries(), checks))  # as a table would hold it
    assert to_rows(live(seed, 10, 20, from_rows(stored), checks)) == to_rows(whole)


def test_wrong_completions_are_refused() -> None:
    candidates = from_rows([("a", "1", 0.5, 5, 0), ("b", "2", 0.5, 5, 0)])
    with pytest.raises(ValueError, match=r"1 of 2 .*reward other than 1.*'b'"):
        update(empty_entries(), candidates, candidate_rewards=np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="1 candidate_rewards for 2 candidates"):
        update(empty_entries(), candidates, candidate_rewards=np.array([1.0]))


@pytest.mark.parametrize(("indices", "message"), [([0, 0], "twice"), ([1], r"\[0, 1\)"), ([-1], r"\[0, 1\)")])
def test_impossible_replayed_indices_are_refused(indices: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        update(from_rows([("a", "1", 0.5, 4, 0)]), empty_entries(), replayed_indices=np.array(indices))


def test_completions_from_the_future_are_refused() -> None:
    entries = from_rows([("a", "1", 0.5, 6, 0)])
    with pytest.raises(ValueError, match="round 5 met a completion sampled in round 6"):
        select_for_replay(entries, round_number=5, max_added=1, max_staleness=3)
    with pytest.raises(ValueError, match="round 5 met a completion sampled in round 6"):
        update(empty_entries(), entries)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "1", 0.5, 1, 0), ("b", "2", 0.5, 1, 0), ("c", "3", 0.5, 1, 0)], "3 entries, above its capacity of 2"),
        ([("a", "1", 0.5, 1, 0), ("a", "2", 0.5, 1, 0)], r"rollout_ids must be unique.*'a'"),
        ([("a", "1", 0.5, 1, 0), ("b", "1", 0.5, 1, 0)], r"content_keys must be unique.*'1'"),
        ([("a", "1", float("nan"), 1, 0)], "priorities"),
        ([("a", "1", 1.5, 1, 0)], "priorities"),
        ([("a", "1", 0.5, 1, -1)], "reuse_counts"),
    ],
)
def test_check_valid_refuses(rows: list[Row], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_valid(from_rows(rows), capacity=2)


def test_check_valid_refuses_uneven_columns() -> None:
    broken = ReplayEntries(
        rollout_ids=np.array(["a"]),
        content_keys=np.array(["1"]),
        priorities=np.array([0.1, 0.2]),
        sampled_rounds=np.array([1]),
        reuse_counts=np.array([0]),
    )
    with pytest.raises(ValueError, match="'priorities': 2"):
        check_valid(broken, capacity=2)


def test_content_key_is_of_prompt_and_tokens() -> None:
    assert content_key("p", [1, 2, 3]) == content_key("p", np.array([1, 2, 3], dtype=np.int32))
    assert (
        len({content_key("p", [1, 2]), content_key("p", [2, 1]), content_key("q", [1, 2]), content_key("p", [1])}) == 4
    )


def test_priority_by_hand() -> None:
    assert priority(np.array([0.5, 0.0, 1.0]), np.array([0.5, 0.25, 0.25])).tolist() == [0.0, 0.25, 0.75]


def test_expected_priority_by_hand() -> None:
    # n = 1: X is 0 or 1, so E|X − p| = 2p(1 − p). n = 2, p = ½: |X/2 − ½| is ½ with probability ½.
    assert np.allclose(expected_priority(np.array([0.0, 0.3, 1.0]), 1), [0.0, 0.42, 0.0], atol=1e-15)
    assert np.isclose(expected_priority(np.array(0.5), 2), 0.25, atol=1e-15)


def _binomial_sum(p: float, n: int) -> float:
    return sum(comb(n, k) * p**k * (1 - p) ** (n - k) * abs(k / n - p) for k in range(n + 1))


@given(st.floats(0, 1), st.integers(1, 64))
def test_expected_priority_is_the_sum_over_outcomes(p: float, n: int) -> None:
    assert np.isclose(expected_priority(np.array([p]), n)[0], _binomial_sum(p, n), rtol=1e-9, atol=1e-12)


def test_expected_priority_takes_a_size_per_group() -> None:
    p, n = np.array([0.25, 0.5, 0.125, 1.0]), np.array([8, 7, 8, 3])
    assert np.allclose(expected_priority(p, n), [_binomial_sum(*pair) for pair in zip(p, n.tolist(), strict=True)])


def test_luck_is_what_a_simulation_of_exact_estimates_shows() -> None:
    generator = derive_generator(0, "luck")
    accuracies = generator.random(20_000)
    observed = generator.binomial(8, accuracies) / 8
    excess = priority(observed, accuracies) - expected_priority(accuracies, 8)
    assert abs(excess.mean()) < 5 * excess.std() / np.sqrt(20_000)


@pytest.mark.parametrize(("p", "n"), [(1.1, 8), (-0.1, 8), (float("nan"), 8), (0.5, 0)])
def test_expected_priority_refuses(p: float, n: int) -> None:
    with pytest.raises(ValueError, match=r"must"):
        expected_priority(np.array([p]), n)
