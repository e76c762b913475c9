"""Fixtures that more than one test file uses."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from paced_rl.starter import build_character_tokenizer, build_tiny_qwen2, write_policy_folder

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

COUNTDOWN_CHARACTERS = "0123456789 +-*/()>:"


@pytest.fixture(scope="session")
def tiny_policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2 (hidden 32, 2 layers) with a character tokenizer; its predictions are near uniform.

    Shared by the whole session: copy it before changing anything in it.
    """
    folder = tmp_path_factory.mktemp("tiny_policy")
    tokenizer = build_character_tokenizer(COUNTDOWN_CHARACTERS)
    model = build_tiny_qwen2(
        tokenizer,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        intermediate_size=64,
        max_positions=128,
        seed=1,
    )
    write_policy_folder(model, tokenizer, folder)
    return folder


@pytest.fixture
def python_handles_interrupts() -> Iterator[None]:
    """Ctrl-C reaches Python as it does from a terminal: whoever runs the tests in the background has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
