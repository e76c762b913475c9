"""What tokenizers lose of a text: nothing by form, everything that the policy would not read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from paced_rl.prompts import lost_characters
from paced_rl.starter import build_character_tokenizer

COUNTDOWN_CHARACTERS = "0123456789 +-*/()>:"
CHARACTERS = build_character_tokenizer(COUNTDOWN_CHARACTERS)


@pytest.mark.parametrize(
    ("text", "decoded", "lost"),
    [
        ("1 2>3:", "1 2>3:", []),
        ("1 2>3=", "1 2>3", ["="]),
        ("x=1, x=2", "x1, x2", ["="]),
        ("aab", "ab", ["a"]),
        ("3 4\n5", "3 45", ["\n"]),
        ("3 4 5", "345", [" "]),
        ("é→", "", ["é", "→"]),
        ("日本語", "日語", ["本"]),
    ],
)
def test_what_is_missing_is_named_once_each(text: str, decoded: str, lost: list[str]) -> None:
    assert lost_characters(text, decoded) == lost


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("What is 1+1?", "what is 1 + 1 ?"),  # lower case, and spaces around every sign
        ("  two\n\nlines \t", "two lines"),
        ("Ångström résumé", "angstrom resume"),
        ("① ﬁne…", "1 fine..."),
        ("e\u0301", "é"),
        ("zero\u200bwidth \x07", "zerowidth"),
        ("Straße", "strasse"),
        ("", ""),
    ],
)
def test_differences_of_form_are_no_loss(text: str, decoded: str) -> None:
    assert lost_characters(text, decoded) == []


@given(st.text(COUNTDOWN_CHARACTERS + "=\nxé→", max_size=30))
def test_the_character_tokenizer_loses_what_is_outside_its_alphabet(text: str) -> None:
    decoded = CHARACTERS.decode(CHARACTERS(text)["input_ids"])
    visible = {character for character in text if character not in COUNTDOWN_CHARACTERS and not character.isspace()}
    assert visible <= set(lost_characters(text, decoded)) <= {c for c in text if c not in COUNTDOWN_CHARACTERS}


def bert() -> Tokenizer:
    """Lower case, no accents, unknown words become one token."""
    vocabulary = [
        "[UNK]",
        *"abcdefghijklmnopqrstuvwxyz0123456789+?",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"),
    ]
    made = Tokenizer(models.WordPiece({token: i for i, token in enumerate(vocabulary)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(cleanup=False)
    return made


def byte_level() -> Tokenizer:
    """As Qwen's and Llama's: every byte is a token, after NFC."""
    made = Tokenizer(models.BPE({token: i for i, token in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def metaspace() -> Tokenizer:
    """As SentencePiece: spaces are written ▁, one is put in front, runs are collapsed."""
    pieces = [("<unk>", 0.0), *((c, -1.0) for c in "▁abcdefghijklmnopqrstuvwxyzW0123456789+?")]
    made = Tokenizer(models.Unigram(pieces, unk_id=0))
    made.normalizer = normalizers.Replace(" {2,}", " ")
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return made


@pytest.mark.parametrize("make", [bert, byte_level, metaspace])
def test_real_kinds_of_tokenizers_lose_nothing_of_what_they_know(make: object) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=make())  # type: ignore[operator]
    text = "What  is 1+1?"
    decoded = tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False)
    assert lost_characters(text, decoded) == []
