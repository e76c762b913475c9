"""When two prompts are the same one."""

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from typing import Any


def prompt_id(text: str, verifier: str, verifier_arguments: Mapping[str, Any]) -> str:
    """The first 64 bits, as 16 hex digits, of BLAKE2b over what decides a prompt's rewards, as canonical JSON.

    The order of keys in `verifier_arguments` does not matter. Among 10⁶ prompts the chance of any collision is 3·10⁻⁸.

    Raises:
        TypeError: the arguments hold something JSON has no form for.
        ValueError: the arguments hold NaN or infinity.
    """
    content = json.dumps(
        [text, verifier, verifier_arguments], sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def normalised_text(text: str) -> str:
    """The text with compatibility characters, case and white space levelled; equal where only the form differs.

    NFKC, then casefold, then NFKC again because folding may decompose, then every run of white space to one space.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())
