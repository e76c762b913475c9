"""Which characters a tokenizer has lost of a text: some drop in silence what is not in their vocabulary."""

import unicodedata
from collections import Counter

_IGNORED = frozenset({"Mn", "Cc", "Cf"})
"""Unicode categories of what tokenizers normalise away: combining marks, control characters, joiners."""


def lost_characters(text: str, decoded: str) -> list[str]:
    """Characters of `text` that are missing from `decode(encode(text))`, in their order, each once; white space only
    where nothing else is missing.

    Differences of form are no loss: case, accents, compatibility characters, repeated, leading and trailing white
    space, spaces put around words. White space between words that is dropped altogether glues them, and is a loss.

    Args:
        text: what was encoded.
        decoded: what its tokens decode to, without unknown tokens.
    """
    if decoded == text:
        return []
    lost = Counter(_levelled(text)) - Counter(_levelled(decoded))
    found = [character for character in dict.fromkeys(text) if lost.keys() & set(_levelled(f"a{character}a")[1:-1])]
    # Beside a lost character a space may end up at the end of the text, where it is no loss; and of white space the
    # plain space is the last that a tokenizer would not know.
    visible = [character for character in found if not character.isspace()]
    return visible or [character for character in found if character != " "] or found


def _levelled(text: str) -> str:
    """The text without what differs by form alone; every run of white space is one space."""
    # Line feeds and tabs are control characters too, so white space is levelled before those are dropped.
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", " ".join(text.split())).casefold())
    kept = "".join(character for character in decomposed if unicodedata.category(character) not in _IGNORED)
    return " ".join(kept.split())
