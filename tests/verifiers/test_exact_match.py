import pytest
from hypothesis import given
from hypothesis import strategies as st

from paced_rl.types import VerdictStatus
from paced_rl.verifiers import verify_completions
from paced_rl.verifiers.exact_match import ExactMatchVerifier

VERIFIER = ExactMatchVerifier()


@pytest.mark.parametrize(
    ("completion", "status"),
    [
        ("42", VerdictStatus.RIGHT),
        (" 42\n", VerdictStatus.RIGHT),
        ("+42", VerdictStatus.WRONG),
        ("42.0", VerdictStatus.WRONG),
        ("4 2", VerdictStatus.WRONG),
        ("٤٢", VerdictStatus.WRONG),  # the same number in other digits
        ("42\x00", VerdictStatus.WRONG),
        ("__import__('os')._exit(1)", VerdictStatus.WRONG),
        ("", VerdictStatus.UNPARSEABLE),
        (" \t\n", VerdictStatus.UNPARSEABLE),
    ],
)
def test_only_the_answer_itself_is_right(completion: str, status: VerdictStatus) -> None:
    verdict = VERIFIER.verify(completion, {"answer": "42"})
    assert verdict.status is status
    assert verdict.reward == float(status is VerdictStatus.RIGHT)
    assert verdict.extracted_answer == (completion.strip() or None)


@given(st.text(min_size=1), st.text())
def test_right_exactly_when_the_stripped_texts_are_equal(answer: str, completion: str) -> None:
    verdict = VERIFIER.verify(completion, {"answer": answer})
    assert (verdict.reward == 1.0) == (completion.strip() == answer.strip() != "")


@pytest.mark.parametrize("answer", [42, None, "", "  ", ["42"]])
def test_an_answer_that_is_no_text_is_refused(answer: object) -> None:
    with pytest.raises(ValueError, match="answer must be a text"):
        VERIFIER.check_arguments({"answer": answer})


def test_it_is_known_by_its_name_and_its_arguments_are_checked() -> None:
    limits = {"timeout_seconds": 1.0, "memory_bytes": 1024**3}
    verdicts, _ = verify_completions([("exact_match", {"answer": "7"}, "7", False)], **limits)
    assert [verdict.reward for verdict in verdicts] == [1.0]
    with pytest.raises(ValueError, match=r"missing: \['answer'\], unknown: \['anwser'\]"):
        verify_completions([("exact_match", {"anwser": "7"}, "7", False)], **limits)
