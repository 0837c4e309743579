"""Labels of a set of series, followed through operators: never too few, so that what is missing is sure to be."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Labels:
    """What the series of an expression are labelled with, as far as that is sure."""

    possible: frozenset[str] | None
    """No series has a label that is not in it; None: anything may be there."""
    certain: frozenset[str] = frozenset()
    """Every series has these, not empty."""
    values: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Label → all values it can have; a label that is not in it can have any."""


def only(labels: Labels, names: frozenset[str]) -> Labels:
    """Labels of `by (names)`."""
    possible = names if labels.possible is None else labels.possible & names
    return Labels(possible, labels.certain & names, _values(labels, names))


def without(labels: Labels, names: Iterable[str]) -> Labels:
    """Labels of `without (names)`."""
    gone = frozenset(names)
    possible = None if labels.possible is None else labels.possible - gone
    kept = frozenset(labels.values) - gone
    return Labels(possible, labels.certain - gone, _values(labels, kept))


def _values(labels: Labels, names: Iterable[str]) -> dict[str, frozenset[str]]:
    return {name: labels.values[name] for name in names if name in labels.values}


def both(left: Labels, right: Labels) -> Labels:
    """Labels of a one-to-one match: they are the same on both sides."""
    if left.possible is None or right.possible is None:
        possible = left.possible if right.possible is None else right.possible
    else:
        possible = left.possible & right.possible
    return Labels(possible, left.certain | right.certain, {**right.values, **left.values})


def either(left: Labels, right: Labels) -> Labels:
    """Labels of `or`: a series comes from one side or the other."""
    possible = None if left.possible is None or right.possible is None else left.possible | right.possible
    shared = {name: left.values[name] | right.values[name] for name in {*left.values} & {*right.values}}
    for one, other in ((left, right), (right, left)):
        if other.possible is not None:
            absent = {*one.values} - other.possible
            shared |= {name: one.values[name] | {""} for name in absent}
    return Labels(possible, left.certain & right.certain, shared)


def equal_to(labels: Labels, name: str, value: str) -> Labels:
    """Labels of a selector that matches `name="value"`."""
    if value:
        return replace(
            labels, certain=labels.certain | {name}, values={**labels.values, name: frozenset({value})}
        )
    return without(labels, {name})
