"""Verifiers: what decides whether a completion is right.

`arithmetic` and `exact_match` run in this process and are bounded by construction; `reasoning_gym` runs third-party
scorers in a sandbox.
"""

import difflib
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any, TypeAlias

from paced_rl.types import Verdict, VerdictStatus
from paced_rl.verifiers.arithmetic import ArithmeticVerifier
from paced_rl.verifiers.exact_match import ExactMatchVerifier
from paced_rl.verifiers.protocol import Verifier
from paced_rl.verifiers.reasoning_gym import ReasoningGymVerifier

__all__ = ["VERIFIER_NAMES", "VerificationItem", "Verifier", "get_verifier", "verify_completions"]

VERIFIER_NAMES = ("arithmetic", "exact_match", "reasoning_gym")

VerificationItem: TypeAlias = tuple[str, Mapping[str, Any], str, bool]
"""(verifier name, its arguments, completion text, is_truncated)."""


def get_verifier(name: str, *, timeout_seconds: float, memory_bytes: int) -> Verifier:
    """The verifier called `name`; close it after use.

    Args:
        name: one of VERIFIER_NAMES.
        timeout_seconds: wall-clock limit of one answer in the sandbox.
        memory_bytes: address-space limit of the sandbox worker.

    Raises:
        ValueError: there is no such verifier.
    """
    if name == "arithmetic":
        return ArithmeticVerifier()
    if name == "exact_match":
        return ExactMatchVerifier()
    if name == "reasoning_gym":
        return ReasoningGymVerifier(timeout_seconds=timeout_seconds, memory_bytes=memory_bytes)
    near = difflib.get_close_matches(name, VERIFIER_NAMES, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(f"there is no verifier {name!r:.80}; allowed: {', '.join(VERIFIER_NAMES)}.{hint}")


def verify_completions(
    items: Sequence[VerificationItem], *, timeout_seconds: float, memory_bytes: int
) -> tuple[list[Verdict], dict[str, float]]:
    """Judges completions one after the other, each verifier staying warm until the last.

    A truncated completion is TRUNCATED with reward 0, and no verifier sees it. All arguments are checked before the
    first completion is judged.

    Args:
        items: [n] of (verifier name, arguments, completion text, is_truncated).
        timeout_seconds: see `get_verifier`.
        memory_bytes: see `get_verifier`.

    Returns:
        The verdicts, [n] in the order of `items`, and the wall-clock seconds spent in each verifier by name.

    Raises:
        ValueError: an unknown verifier or bad arguments, with the index of the item.
        WorkerStartError: a sandbox worker could not be started at all.
    """
    with ExitStack() as stack:
        verifiers: dict[str, Verifier] = {}
        for index, (name, arguments, _, _) in enumerate(items):
            try:
                if name not in verifiers:
                    verifier = get_verifier(name, timeout_seconds=timeout_seconds, memory_bytes=memory_bytes)
                    verifiers[name] = stack.enter_context(closing(verifier))
                verifiers[name].check_arguments(arguments)
            except ValueError as error:
                raise ValueError(f"completion {index} of {len(items)}: {error}") from error
        seconds = dict.fromkeys(verifiers, 0.0)
        verdicts = []
        for name, arguments, completion, is_truncated in items:
            if is_truncated:
                verdicts.append(Verdict(status=VerdictStatus.TRUNCATED, reward=0.0, extracted_answer=None))
                continue
            start = time.perf_counter()
            verdicts.append(verifiers[name].verify(completion, arguments))
            seconds[name] += time.perf_counter() - start
    return verdicts, seconds
