"""What every verifier offers."""

from collections.abc import Mapping
from typing import Any, Protocol

from paced_rl.types import Verdict


class Verifier(Protocol):
    """Judges completions against the arguments that come with a prompt."""

    @property
    def argument_names(self) -> tuple[str, ...]:
        """The keys `arguments` must have: exactly these."""
        ...

    def check_arguments(self, arguments: Mapping[str, Any]) -> None:
        """Refuses arguments no completion could be judged with.

        Raises:
            ValueError: naming the argument, what was got and what is allowed.
        """
        ...

    def verify(self, completion: str, arguments: Mapping[str, Any]) -> Verdict:
        """The verdict on one completion; never raises for anything a completion can contain.

        Args:
            completion: text as sampled, any characters, any length.
            arguments: have passed `check_arguments`.
        """
        ...

    def close(self) -> None:
        """Ends whatever process the verifier holds; it may be used again afterwards."""
        ...


def check_argument_names(verifier: str, arguments: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Refuses arguments whose keys are not exactly `names`.

    Raises:
        ValueError: naming the missing or unknown keys.
    """
    if not isinstance(arguments, Mapping):
        raise ValueError(
            f"verifier {verifier}: arguments must be an object with the keys {list(names)}, "
            f"got {repr(arguments)[:80]}. Correct the prompt's verifier_arguments."
        )
    missing = [name for name in names if name not in arguments]
    unknown = [str(name) for name in arguments if name not in names]
    if missing or unknown:
        raise ValueError(
            f"verifier {verifier}: arguments must have exactly the keys {list(names)}; "
            f"missing: {missing}, unknown: {unknown}. Correct the prompt's verifier_arguments."
        )
