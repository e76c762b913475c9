"""What differs between two experiments: what they were asked for, what they ran on, and where their data part."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from paced_rl.inspection.compare import IDENTICAL, Comparison, compare_datasets
from paced_rl.inspection.experiment import Experiment
from paced_rl.inspection.states import ranges
from paced_rl.provenance import flat

SECTIONS = ("parameters", "versions", "git", "hardware", "code")
"""Parts of `provenance.json` that are compared. Seeds follow from parameters, inputs are data."""

_ALWAYS_DIFFERENT = ("parameters.experiment", "parameters.round")
_ABSENT = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One setting that differs."""

    section: str
    """One of `SECTIONS`, or `provenance` where one experiment has no such file."""
    name: str
    first: str
    second: str
    rounds: str
    """Where, e.g. "1–10"."""


def setting_differences(first: Experiment, second: Experiment) -> list[Difference]:
    """Everything but data that differs in the rounds that both have, told once for all rounds where it is the same."""
    found: dict[tuple[str, str, str, str], list[int]] = {}
    for round_number in _common_rounds(first, second):
        documents = [provenance_of(experiment, round_number) for experiment in (first, second)]
        for key in _differing(*documents):
            found.setdefault(key, []).append(round_number)
    return [
        Difference(section=section, name=name, first=ours, second=theirs, rounds=ranges(numbers))
        for (section, name, ours, theirs), numbers in sorted(found.items(), key=lambda item: _order(item[0]))
    ]


def provenance_of(experiment: Experiment, round_number: int) -> dict[str, Any] | None:
    """What a round's `provenance.json` says; None where there is none."""
    dataset = experiment.catalog(round_number)["provenance"]
    document: dict[str, Any] | None = dataset.load() if dataset.exists() else None
    return document


def first_data_difference(first: Experiment, second: Experiment) -> tuple[int | None, list[Comparison]]:
    """The first round (0: what is done once) with data that differ, and these data; (None, []) where there is none.

    Only rounds that both have are looked at. Figures and timings are left out.
    """
    for round_number in (0, *_common_rounds(first, second)):
        differing = [found for found in compare_round(first, second, round_number) if found.verdict != IDENTICAL]
        if differing:
            return round_number, differing
    return None, []


def compare_round(first: Experiment, second: Experiment, round_number: int) -> Iterator[Comparison]:
    """Every table and checkpoint of a round, in the order in which the round writes them."""
    catalogs = [experiment.catalog(max(round_number, 1)) for experiment in (first, second)]
    for name in first.data_names(round_number):
        found = compare_datasets(plain_name(name), *(catalog[name] for catalog in catalogs), tolerance=None)
        if found is not None:
            yield found


def plain_name(name: str) -> str:
    """`previous_policy@start`, which is what round 1 calls the policy of round 0, is `policy`."""
    return name.partition("@")[0].removeprefix("previous_")


def _common_rounds(first: Experiment, second: Experiment) -> list[int]:
    return min(first.rounds(), second.rounds(), key=len)


def _differing(
    first: Mapping[str, Any] | None, second: Mapping[str, Any] | None
) -> Iterator[tuple[str, str, str, str]]:
    if first is None or second is None:
        if first is not second:
            before, after = ("missing" if document is None else "there" for document in (first, second))
            yield "provenance", "provenance.json", before, after
        return
    ours, theirs = _settings(first), _settings(second)
    # A round's file names the nodes that were executed for it; what one of two never had to execute is no difference.
    both = {*ours} & {*theirs}
    for name in {**ours, **theirs}:
        before, after = (str(settings.get(name, _ABSENT)) for settings in (ours, theirs))
        if before != after and name not in _ALWAYS_DIFFERENT and (name in both or not name.startswith("code.")):
            section, _, rest = name.partition(".")
            yield section, rest, before, after


def _settings(document: Mapping[str, Any]) -> dict[str, Any]:
    code = {node: entry["code"] for node, entry in document["nodes"].items()}
    nested = {**document, "git": document["git"] or {}, "code": code}
    return dict(flat({section: nested[section] for section in SECTIONS}))


def _order(key: tuple[str, str, str, str]) -> tuple[int, str]:
    return (SECTIONS.index(key[0]) if key[0] in SECTIONS else -1), key[1]
