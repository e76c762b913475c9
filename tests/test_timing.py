import time

import pytest

from paced_rl import timing


def test_records_of_one_name_add_up_and_taking_empties_the_recorder() -> None:
    timing.take()
    timing.record("verification", "verifier:math", 1.0)
    timing.record("verification", "verifier:code", 2.0)
    timing.record("verification", "verifier:math", 0.5)
    taken = [(t.stage, t.name, t.seconds) for t in timing.take()]
    assert taken == [("verification", "verifier:math", 1.5), ("verification", "verifier:code", 2.0)]
    assert timing.take() == []


def test_measure_records_a_block_that_raises() -> None:
    def fail() -> None:
        with timing.measure("training", "train"):
            time.sleep(0.01)
            raise ZeroDivisionError

    timing.take()
    with pytest.raises(ZeroDivisionError):
        fail()
    (taken,) = timing.take()
    assert (taken.stage, taken.name) == ("training", "train")
    assert taken.seconds >= 0.01


def test_peak_memory_never_falls() -> None:
    before = timing.peak_memory_bytes()
    assert before > 2**20, "bytes, and a Python process needs more than a mebibyte"
    assert timing.peak_memory_bytes() >= before
