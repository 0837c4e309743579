"""Totals of replicas that have left a group for good: the same families with one more label, and frozen.

They are shown beside what this process counts and never become part of it: a counter that took them over would jump,
and Prometheus would take all of them for news.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from evalgauge.core.errors import StateError
from evalgauge.core.partitions import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from evalgauge.core.collect import Departed
    from evalgauge.core.families import Family
    from evalgauge.core.instrument import Instrument

LABEL = "replica"
"""Tells whose totals they are. No metric of a pack has it (`RESERVED_LABELS`)."""
_log = logging.getLogger(__name__)


class Frozen:
    """The families of replicas that left. They are drawn once: nothing can change them any more."""

    def __init__(self, fresh: Callable[[], Iterable[tuple[str, Instrument]]]) -> None:
        """`fresh` gives an empty instrument of each metric that a replica keeps, with the metric's name."""
        self._fresh = fresh
        self._shown: Mapping[str, Family] = {}
        self._told: set[tuple[str, str]] = set()
        """(replica, metric or meaning) that the log has."""

    def drawn(self, departed: Mapping[str, Departed], generation: int) -> dict[str, Family]:
        """Name → family of all these replicas, the label `replica` last.

        What cannot be shown is left out and logged: a fault in what somebody counted long ago must not keep those that
        are alive from counting.
        """
        parts: dict[str, list[tuple[str, Family]]] = {}
        for name in sorted(departed):
            for family in self._families(name, departed[name], generation):
                parts.setdefault(family.name, []).append((name, family))
        return {family: _together(found) for family, found in parts.items()}

    def _families(self, replica: str, left: Departed, generation: int) -> Iterable[Family]:
        declared = set()
        for metric, instrument in self._fresh():
            meanings = {table.meaning for table in instrument.tables}
            declared |= meanings
            if not any(left.pages.get(meaning) for meaning in meanings):
                continue
            try:
                for table in instrument.tables:
                    pages = left.pages.get(table.meaning, [])
                    load(f"{metric} of {replica}, which has left the group,", table, pages)
            except StateError as error:
                if self._news(replica, metric):
                    _log.error("%s; it is not shown", error)
                continue
            yield from instrument.families(generation, ())
        for meaning in left.pages.keys() - declared:
            if self._news(replica, meaning):
                _log.warning(
                    "metric %s of %s, which has left the group: no pack declares it now as it was, it is not shown",
                    left.metrics.get(meaning, meaning),
                    replica,
                )

    def _news(self, replica: str, what: str) -> bool:
        news = (replica, what) not in self._told
        self._told.add((replica, what))
        return news

    def show(self, families: Mapping[str, Family]) -> None:
        """Show what `drawn` has given, and nothing else."""
        self._shown = families

    def clear(self) -> None:
        """Show nothing."""
        self._shown = {}

    def beside(self, families: list[Family]) -> list[Family]:
        """The same families, with what is frozen of each as a further part of it."""
        if not self._shown:
            return families
        return [
            replace(one, more=(*one.more, self._shown[one.name])) if one.name in self._shown else one
            for one in families
        ]


def _together(parts: Sequence[tuple[str, Family]]) -> Family:
    """One family of several replicas' rows. Without births: it must not look as if it began anew, at zero."""
    first = parts[0][1]
    values = np.concatenate([family.values for _, family in parts])
    buckets = [family.buckets for _, family in parts if family.buckets is not None]
    return replace(
        first,
        label_names=(*first.label_names, LABEL),
        series=[
            (*labels, replica) for replica, family in parts for labels in family.series[: len(family.values)]
        ],
        values=values,
        created=np.full(len(values), np.nan),
        born=np.zeros(len(values)),
        buckets=np.concatenate(buckets) if buckets else None,
        exemplars={},
    )
