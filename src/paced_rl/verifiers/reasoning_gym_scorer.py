"""What the sandbox worker loads for the verifier `reasoning_gym`; import it nowhere else."""

from collections.abc import Mapping
from typing import Any

import reasoning_gym


def score(completion: str, arguments: Mapping[str, Any]) -> float:
    """reasoning_gym's own score of `completion` for `arguments["entry"]` of the dataset `arguments["dataset"]`."""
    return float(reasoning_gym.get_score_answer_fn(arguments["dataset"])(completion, arguments["entry"]))
