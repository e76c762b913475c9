"""Prompts: generated puzzles or rows of a file, named by their content, each text in one split only."""

from paced_rl.prompts.countdown import Puzzle, countdown_prompts, countdown_puzzles
from paced_rl.prompts.files import PromptFileError, prompts_from_rows
from paced_rl.prompts.identity import normalised_text, prompt_id
from paced_rl.prompts.lost_characters import lost_characters
from paced_rl.prompts.splits import SplitOverlapError, check_splits_are_disjoint

__all__ = [
    "PromptFileError",
    "Puzzle",
    "SplitOverlapError",
    "check_splits_are_disjoint",
    "countdown_prompts",
    "countdown_puzzles",
    "lost_characters",
    "normalised_text",
    "prompt_id",
    "prompts_from_rows",
]
