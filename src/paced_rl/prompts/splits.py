"""No text in two splits: what is measured must not have been trained on."""

from collections import defaultdict
from collections.abc import Iterable

from paced_rl.prompts.identity import normalised_text
from paced_rl.types import Prompt

MAX_LISTED = 10


class SplitOverlapError(ValueError):
    """A text is in more than one split."""


def check_splits_are_disjoint(prompts: Iterable[Prompt]) -> None:
    """Checks that no two splits share a text, up to case, white space and compatibility characters.

    Within a split the same text may occur twice, e.g. with other verifier arguments.

    Raises:
        SplitOverlapError: naming up to 10 texts by the ids and splits they occur with.
    """
    groups: defaultdict[str, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        groups[normalised_text(prompt.text)].append(prompt)
    overlaps = [group for group in groups.values() if len({prompt.split for prompt in group}) > 1]
    if overlaps:
        listed = "; ".join(
            ", ".join(f"{prompt.prompt_id} ({prompt.split})" for prompt in group) for group in overlaps[:MAX_LISTED]
        )
        raise SplitOverlapError(
            f"{len(overlaps)} prompt texts are in more than one split, the first {min(len(overlaps), MAX_LISTED)}: "
            f"{listed}. Texts are compared without regard to case and white space. Keep each in one split, or leave "
            "the `split` column out to have the file split anew."
        )
