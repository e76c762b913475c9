"""No text in two splits."""

import pytest

from paced_rl.prompts import SplitOverlapError, check_splits_are_disjoint
from paced_rl.types import Prompt, Split


def make_prompt(name: str, text: str, split: Split) -> Prompt:
    return Prompt(
        prompt_id=name,
        source="test",
        split=split,
        text=text,
        reference_answer="",
        verifier="arithmetic",
        verifier_arguments={},
        metadata={},
    )


def test_disjoint_splits_pass_even_with_repetitions_inside_one() -> None:
    check_splits_are_disjoint([])
    prompts = [
        make_prompt("a", "one", Split.TRAIN),
        make_prompt("b", "One", Split.TRAIN),
        make_prompt("c", "two", Split.TEST),
    ]
    check_splits_are_disjoint(prompts)
    with pytest.raises(SplitOverlapError, match=r"^1 prompt texts .*: a \(train\), b \(train\), d \(test\)\."):
        check_splits_are_disjoint([*prompts, make_prompt("d", "ONE", Split.TEST)])


@pytest.mark.parametrize("pair", [("train", "test"), ("audit", "train"), ("validation", "test")])
def test_a_shared_text_is_named_with_ids_splits_and_a_remedy(pair: tuple[str, str]) -> None:
    left, right = map(Split, pair)
    prompts = [make_prompt("aaaa", "What is 2?", left), make_prompt("bbbb", "what  is 2?\n", right)]
    message = rf"1 prompt texts .* aaaa \({left}\), bbbb \({right}\).*Keep each in one split"
    with pytest.raises(SplitOverlapError, match=message):
        check_splits_are_disjoint(prompts)


def test_only_the_first_ten_are_listed() -> None:
    prompts = [
        make_prompt(f"{split}-{i:02}", f"text {i}", split) for i in range(12) for split in [Split.TRAIN, Split.TEST]
    ]
    with pytest.raises(SplitOverlapError) as caught:
        check_splits_are_disjoint(prompts)
    assert "12 prompt texts" in str(caught.value)
    assert "train-09" in str(caught.value)
    assert "train-10" not in str(caught.value)
