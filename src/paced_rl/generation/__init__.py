"""Sampling completions: one protocol, and the backends that follow it."""

from paced_rl.generation.backends import close_generators, get_generator
from paced_rl.generation.protocol import Generator

__all__ = ["Generator", "close_generators", "get_generator"]
