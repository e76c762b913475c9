"""A policy small enough to train on two cores: a character tokenizer, a random Qwen2, and the folder that holds both.

Nothing here is trained; a starter policy is made from these parts by teaching the random model what answers look like.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen2ForCausalLM

PAD_TOKEN = "<pad>"
EOS_TOKEN = "<eos>"
BYTE_LEVEL_SPACE = "Ġ"
"""How byte-level vocabularies spell the space; the other printable ASCII characters stand for themselves."""
VOCABULARY_MULTIPLE = 8
"""The embedding has a multiple of this many rows; matrix products on GPUs are fastest then."""


def build_character_tokenizer(characters: str) -> "PreTrainedTokenizerFast":
    """A tokenizer in which every character is one token, and encoding adds nothing.

    Ids: 0 is the padding token, 1 the end-of-sequence token, 2 + i the i-th of `characters`. `decode(encode(x)) == x`,
    spaces included, for every text over the alphabet. A character outside it is DROPPED by encoding, so compare
    `decode(encode(x))` with x before trusting a foreign text.

    It is a `Qwen2Tokenizer` without merges, because `AutoTokenizer` makes that class for every Qwen2 folder whatever
    its tokenizer_config.json names, and only the vocabulary and the special tokens of tokenizer.json survive.

    Args:
        characters: the alphabet, each character once; printable ASCII, where one character is one byte.

    Raises:
        ValueError: the alphabet is empty, repeats a character, or has one that is not printable ASCII.
    """
    from transformers import Qwen2Tokenizer

    repeated = sorted({character for character in characters if characters.count(character) > 1})
    foreign = sorted({character for character in characters if not " " <= character <= "~"})
    if not characters or repeated or foreign:
        raise ValueError(
            f"characters must be a non-empty string of different printable ASCII characters; got {characters!r}, "
            f"repeated: {repeated}, not printable ASCII: {foreign}"
        )
    tokens = [PAD_TOKEN, EOS_TOKEN, *characters.replace(" ", BYTE_LEVEL_SPACE)]
    return Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[],
        pad_token=PAD_TOKEN,
        eos_token=EOS_TOKEN,
        unk_token=EOS_TOKEN,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def build_tiny_qwen2(
    tokenizer: "PreTrainedTokenizerFast",
    *,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    intermediate_size: int,
    max_positions: int,
    seed: int,
    initializer_range: float = 0.02,
) -> "Qwen2ForCausalLM":
    """A random Qwen2 on the CPU: float32, tied embeddings, as many key-value heads as heads.

    Weight matrices are drawn from N(0, initializer_range²) by a generator of its own, biases are 0 and norms 1, so that
    the weights depend on `seed` and the sizes alone and no global generator is consumed.

    Args:
        tokenizer: gives the vocabulary, which is padded to a multiple of 8 rows, and the special tokens.
        hidden_size: width; a multiple of 2·num_heads, as rotary positions pair the features of a head.
        num_layers: transformer blocks.
        num_heads: attention heads.
        intermediate_size: width of the gated MLP.
        max_positions: longest sequence in tokens, prompt and completion together.
        seed: of the weights, in [0, 2⁶³).
        initializer_range: standard deviation of the matrices; the smaller, the closer to uniform are the predictions.

    Raises:
        ValueError: hidden_size is no multiple of 2·num_heads.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    if hidden_size % (2 * num_heads):
        raise ValueError(
            f"hidden_size must be a multiple of 2·num_heads; got hidden_size={hidden_size}, num_heads={num_heads}"
        )
    config = Qwen2Config(
        vocab_size=-(-len(tokenizer) // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE,
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        intermediate_size=intermediate_size,
        max_position_embeddings=max_positions,
        tie_word_embeddings=True,
        initializer_range=initializer_range,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    # Building draws weights from the global generator; its state is put back and every weight drawn anew.
    with torch.random.fork_rng(devices=[]):
        model = Qwen2ForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0.0, initializer_range, generator=generator)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    return model.eval()


def write_policy_folder(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", folder: Path) -> None:
    """Writes config, generation config, weights (safetensors) and tokenizer in Hugging Face format into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def folder_files(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast") -> dict[str, bytes]:
    """What `write_policy_folder` writes, as file name → bytes, for a dataset that stores it atomically."""
    with tempfile.TemporaryDirectory() as folder:
        write_policy_folder(model, tokenizer, Path(folder))
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
