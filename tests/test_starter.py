"""The parts of a starter policy: tokenizer, model, folder."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from paced_rl.starter import build_character_tokenizer, build_tiny_qwen2, write_policy_folder

CHARACTERS = "0123456789 +-*/()>:"
PRINTABLE = "".join(map(chr, range(32, 127)))
SIZES = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32, "max_positions": 64}


@given(st.text(alphabet=CHARACTERS))
def test_every_character_is_one_token_and_decoding_inverts_encoding(text: str) -> None:
    tokenizer = build_character_tokenizer(CHARACTERS)
    token_ids = tokenizer.encode(text)
    assert token_ids == [2 + CHARACTERS.index(character) for character in text]
    assert (
        tokenizer.decode([*token_ids, tokenizer.eos_token_id, tokenizer.pad_token_id], skip_special_tokens=True) == text
    )


def test_all_of_printable_ascii_makes_the_round_trip() -> None:
    tokenizer = build_character_tokenizer(PRINTABLE)
    text = "I'll say: don't (2 + 2)  = 5 !"
    assert len(tokenizer.encode(text)) == len(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("characters", ["", "aba", "aé", "a\n"])
def test_an_unusable_alphabet_is_refused(characters: str) -> None:
    with pytest.raises(ValueError, match="different printable ASCII characters"):
        build_character_tokenizer(characters)


def test_the_folder_gives_back_tokenizer_and_model(tmp_path: Path) -> None:
    tokenizer = build_character_tokenizer(CHARACTERS)
    model = build_tiny_qwen2(tokenizer, **SIZES, seed=3)
    write_policy_folder(model, tokenizer, tmp_path)
    loaded_tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    loaded_model = AutoModelForCausalLM.from_pretrained(tmp_path)

    text = " 3 4  12>24: (3*4)+12"
    token_ids = tokenizer.encode(text)
    assert loaded_tokenizer.encode(text) == token_ids
    assert loaded_tokenizer.decode(token_ids) == text
    assert loaded_tokenizer.get_vocab() == tokenizer.get_vocab()
    assert (loaded_tokenizer.pad_token_id, loaded_tokenizer.eos_token_id) == (0, 1)
    assert loaded_model.dtype == torch.float32
    assert loaded_model.config.vocab_size == 24  # 19 characters and 2 special tokens, padded to a multiple of 8
    assert loaded_model.get_input_embeddings().weight is loaded_model.get_output_embeddings().weight
    with torch.no_grad():
        torch.testing.assert_close(
            loaded_model(torch.tensor([token_ids])).logits, model(torch.tensor([token_ids])).logits
        )


def test_weights_depend_on_the_seed_alone_and_the_global_generator_is_left_alone() -> None:
    tokenizer = build_character_tokenizer(CHARACTERS)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = build_tiny_qwen2(tokenizer, **SIZES, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    again = build_tiny_qwen2(tokenizer, **SIZES, seed=3).state_dict()
    other = build_tiny_qwen2(tokenizer, **SIZES, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(first[name], other[name])
    assert first[name].std() == pytest.approx(0.02, rel=0.15)
    assert torch.all(first["model.norm.weight"] == 1)
    assert torch.all(first["model.layers.0.self_attn.q_proj.bias"] == 0)


def test_odd_head_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"multiple of 2·num_heads.*hidden_size=18, num_heads=2"):
        build_tiny_qwen2(build_character_tokenizer("01"), **{**SIZES, "hidden_size": 18}, seed=0)
