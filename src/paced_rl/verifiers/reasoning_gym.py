"""Verifier `reasoning_gym`: the scorer of a reasoning_gym dataset, run in the sandbox.

reasoning_gym 0.1.25 hands answers to SymPy's `parse_expr`, which executes them, in `countdown` and other datasets: an
answer is code. See `sandbox` for what is contained and what is not.

An answer is RIGHT if its score is exactly 1.0, which is what reasoning_gym gives a full solution; partial credit (0.01
for any text, 0.05 for a well-formed one, and shares in between) is WRONG, so that rewards stay 0 or 1.
An answer on which the scorer raises an exception is UNPARSEABLE; if it raises for the entry's own answer too, the entry
is at fault and the verdict is VERIFIER_ERROR. Whitespace at either end of a completion is not part of the answer.

Entries pass through JSON. In 0.1.25 the entries of `arc_agi` and `rearc` do not survive it (tuples become lists, and
their own answer no longer scores 1); the entries of `boxnet`, `graph_color`, `propositional_logic`, `rubiks_cube` and
`rush_hour` carry no answer, which their scorers do not need.
"""

import difflib
import json
from collections.abc import Mapping
from typing import Any

from paced_rl.types import Verdict, VerdictStatus
from paced_rl.verifiers.protocol import check_argument_names
from paced_rl.verifiers.sandbox import Sandbox

MAX_COMPLETION_CHARS = 65_536
"""A longer completion is UNPARSEABLE without asking the scorer."""
MAX_ENTRY_CHARS = 1_048_576
"""Of the entry as JSON."""
RIGHT_SCORE = 1.0
UNPARSEABLE_SCORE = -1.0
"""What our scorer gives an answer reasoning_gym's raises on; reasoning_gym's own scores lie in [0, 1]."""
_SCORER = "paced_rl.verifiers.reasoning_gym_scorer:score"


class ReasoningGymVerifier:
    """The verifier `reasoning_gym`; see the module's docstring. Holds a sandbox worker from the first answer on."""

    argument_names = ("dataset", "entry")

    def __init__(self, *, timeout_seconds: float, memory_bytes: int) -> None:
        """Starts nothing yet.

        Args:
            timeout_seconds: wall-clock limit of one answer.
            memory_bytes: address space of the worker; reasoning_gym alone takes some 200 MB.
        """
        self._sandbox = Sandbox(_SCORER, timeout_seconds=timeout_seconds, memory_bytes=memory_bytes)

    def check_arguments(self, arguments: Mapping[str, Any]) -> None:
        """Refuses anything but `dataset`, a name reasoning_gym knows, and `entry`, an object of JSON.

        Raises:
            ValueError: naming the argument, what was got and what is allowed.
        """
        check_argument_names("reasoning_gym", arguments, self.argument_names)
        # Imported here: it takes a second, and only prompts of this verifier need it.
        from reasoning_gym.factory import DATASETS

        dataset, entry = arguments["dataset"], arguments["entry"]
        if not isinstance(dataset, str) or dataset not in DATASETS:
            near = difflib.get_close_matches(str(dataset), DATASETS, n=3)
            raise ValueError(
                f"verifier reasoning_gym: dataset must be a reasoning_gym dataset's name, got {repr(dataset)[:80]}. "
                f"Nearest: {near}. All names: reasoning_gym.factory.DATASETS."
            )
        if not isinstance(entry, Mapping):
            raise ValueError(f"verifier reasoning_gym: entry must be an object, got {repr(entry)[:80]}")
        try:
            num_chars = len(json.dumps(dict(entry), allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"verifier reasoning_gym: entry must be serialisable to JSON, but {error}") from error
        if num_chars > MAX_ENTRY_CHARS:
            raise ValueError(
                f"verifier reasoning_gym: entry has {num_chars} characters as JSON, {MAX_ENTRY_CHARS} are allowed. "
                "Leave out the metadata its scorer does not read."
            )

    def verify(self, completion: str, arguments: Mapping[str, Any]) -> Verdict:
        """The verdict on `completion`; `extracted_answer` is the text without surrounding whitespace.

        Args:
            completion: any text.
            arguments: have passed `check_arguments`.
        """
        answer = completion.strip()
        is_too_long = len(completion) > MAX_COMPLETION_CHARS
        score = UNPARSEABLE_SCORE if is_too_long else self._sandbox.score(answer, arguments)
        if isinstance(score, VerdictStatus):
            reward = None if score is VerdictStatus.VERIFIER_ERROR else 0.0
            return Verdict(status=score, reward=reward, extracted_answer=None)
        if score == UNPARSEABLE_SCORE:
            return Verdict(status=VerdictStatus.UNPARSEABLE, reward=0.0, extracted_answer=None)
        is_right = score == RIGHT_SCORE
        return Verdict(
            status=VerdictStatus.RIGHT if is_right else VerdictStatus.WRONG,
            reward=1.0 if is_right else 0.0,
            extracted_answer=answer,
        )

    def close(self) -> None:
        """Ends the worker."""
        self._sandbox.close()
