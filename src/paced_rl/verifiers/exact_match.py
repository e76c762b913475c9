"""Verifier `exact_match`: a completion is RIGHT if it is the answer, character by character, and nothing else.

White space at either end is not part of either. It looks at texts and runs nothing, so it needs no sandbox, and judges
a completion in a microsecond. Answers with several spellings (`5`, `+5`, `5.0`) need a verifier that knows them.
"""

from collections.abc import Mapping
from typing import Any

from paced_rl.types import Verdict, VerdictStatus
from paced_rl.verifiers.protocol import check_argument_names


class ExactMatchVerifier:
    """The verifier `exact_match`; see the module's docstring."""

    argument_names = ("answer",)

    def check_arguments(self, arguments: Mapping[str, Any]) -> None:
        """Refuses anything but `answer`, a text that is more than white space.

        Raises:
            ValueError: naming the argument, what was got and what is allowed.
        """
        check_argument_names("exact_match", arguments, self.argument_names)
        answer = arguments["answer"]
        if not isinstance(answer, str) or not answer.strip():
            raise ValueError(
                f"verifier exact_match: answer must be a text that is not blank, got {repr(answer)[:80]}. "
                "Write a number as text, as a completion spells it."
            )

    def verify(self, completion: str, arguments: Mapping[str, Any]) -> Verdict:
        """The verdict on `completion`; `extracted_answer` is the text without surrounding white space.

        Args:
            completion: any text; a blank one is UNPARSEABLE.
            arguments: have passed `check_arguments`.
        """
        answer = completion.strip()
        if not answer:
            return Verdict(status=VerdictStatus.UNPARSEABLE, reward=0.0, extracted_answer=None)
        is_right = answer == str(arguments["answer"]).strip()
        return Verdict(
            status=VerdictStatus.RIGHT if is_right else VerdictStatus.WRONG,
            reward=1.0 if is_right else 0.0,
            extracted_answer=answer,
        )

    def close(self) -> None:
        """There is nothing to end."""
