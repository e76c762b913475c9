"""What the sandbox worker loads for the verifier `reasoning_gym`; import it nowhere else."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import reasoning_gym

from paced_rl.verifiers.reasoning_gym import UNPARSEABLE_SCORE

# Some scorers parse an answer without a guard: prime_factorization, coin_flip, game_of_life and boxnet in 0.1.25.
_PARSE_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, SyntaxError, RecursionError)


@functools.cache
def _scorer(dataset: str) -> Callable[[str, Mapping[str, Any]], float]:
    # reasoning_gym makes a dataset for it, which may read its word lists.
    return reasoning_gym.get_score_answer_fn(dataset)


def score(completion: str, arguments: Mapping[str, Any]) -> float:
    """reasoning_gym's own score of `completion` for `arguments["entry"]` of the dataset `arguments["dataset"]`.

    An answer the scorer raises on is UNPARSEABLE_SCORE, provided that the entry's own answer does not make it raise:
    then the entry is at fault, and the exception stands.
    """
    score_answer = _scorer(arguments["dataset"])
    try:
        return float(score_answer(completion, arguments["entry"]))
    except _PARSE_ERRORS:
        score_answer(arguments["entry"]["answer"], arguments["entry"])
        return UNPARSEABLE_SCORE
