from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paced_rl.datasets.checkpoint import CheckpointDataset
from paced_rl.parameters import RetentionParameters
from paced_rl.retention import CHECKPOINTS, manifests, prune_rounds, restore_round, rounds_to_keep
from paced_rl.types import CheckpointFiles

EVALUATIONS = [(0, 0.1), (5, 0.7), (10, 0.7), (15, 0.3)]


@pytest.mark.parametrize(
    ("retention", "expected"),
    [
        ({}, {*range(18)}),
        ({"keep_every": 5}, {*range(18)}),  # without keep_last everything stays
        ({"keep_last": 3}, {0, 5, 15, 16, 17}),  # the best is the first of the equally good
        ({"keep_last": 3, "keep_best": False}, {0, 15, 16, 17}),
        ({"keep_last": 1, "keep_best": False}, {0, 17}),
        ({"keep_last": 1, "keep_every": 4, "keep_best": False}, {0, 4, 8, 12, 16, 17}),
        ({"keep_last": 100}, {*range(18)}),
    ],
)
def test_which_rounds_stay_after_round_17(retention: dict[str, int | bool], expected: set[int]) -> None:
    assert rounds_to_keep(17, RetentionParameters.model_validate(retention), EVALUATIONS) == expected


@given(
    accuracies=st.lists(st.none() | st.integers(0, 4).map(float), min_size=1, max_size=15),
    keep_last=st.none() | st.integers(1, 4),
    keep_every=st.none() | st.integers(1, 4),
    keep_best=st.booleans(),
)
def test_what_stays_at_the_end_was_never_deleted_on_the_way(
    accuracies: list[float | None], keep_last: int | None, keep_every: int | None, keep_best: bool
) -> None:
    retention = RetentionParameters(keep_last=keep_last, keep_every=keep_every, keep_best=keep_best)
    evaluations = [(number, value) for number, value in enumerate(accuracies) if value is not None]
    weights = set()
    for latest in range(len(accuracies)):
        weights.add(latest)
        kept = rounds_to_keep(latest, retention, [(number, value) for number, value in evaluations if number <= latest])
        assert {0, latest} <= kept <= weights
        weights &= kept
    # A loop that runs over the finished rounds once more deletes nothing that it would keep at the end.
    for latest in range(len(accuracies)):
        kept = rounds_to_keep(latest, retention, [(number, value) for number, value in evaluations if number <= latest])
        assert {number for number in weights if number <= latest} <= kept


def save_rounds(project: Path, num_rounds: int) -> None:
    for number in range(num_rounds):
        for manifest in manifests(project, "x", number):
            files = {"model.safetensors": f"{manifest.stem} of {number}".encode()}
            CheckpointDataset(filepath=str(manifest)).save(CheckpointFiles(files=files, metadata={}))


def weights(project: Path) -> set[tuple[str, int]]:
    found = (project / "data/06_models").rglob("*.safetensors")
    return {(path.parts[-6], int(path.parts[-4].removeprefix("round="))) for path in found}


def test_weights_of_the_other_rounds_are_deleted_and_their_manifests_stay(tmp_path: Path) -> None:
    save_rounds(tmp_path, 5)
    texts = {path: path.read_bytes() for number in range(5) for path in manifests(tmp_path, "x", number)}
    for _ in range(2):
        prune_rounds(tmp_path, "x", latest=4, kept={2})
        # Neither round 0 nor the latest is ever touched.
        assert weights(tmp_path) == {(name, number) for name in CHECKPOINTS for number in (0, 2, 4)}
    assert {path: path.read_bytes() for path in texts} == texts
    assert all(CheckpointDataset(filepath=str(path)).exists() for path in texts)

    restore_round(tmp_path, "x", 3)
    exists = {path: CheckpointDataset(filepath=str(path)).exists() for path in texts}
    assert [path for path, there in exists.items() if not there] == [*manifests(tmp_path, "x", 3)]
