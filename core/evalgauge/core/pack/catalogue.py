"""Every series that a pack's PromQL may select: its own, recorded ones, Prometheus's, and those of other packs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from evalgauge.core.pack.labels import Labels
from evalgauge.core.pack.names import SCRAPED, TARGET_LABELS, Series, foreign_series, series_of
from evalgauge.core.pack.promql import read
from evalgauge.core.pack.variables import resolve

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from evalgauge.core.pack.model import Pack, RecordingRule


class Catalogue(Mapping[str, Series]):
    """Series name → series, for the PromQL of `pack`; labels of recorded series are inferred when asked for."""

    def __init__(self, pack: Pack, others: Sequence[Pack] = (), unsure: Collection[str] = ()) -> None:
        """`others` are packs it may refer to; of the names in `unsure` nothing is known but that they exist."""
        self._known: dict[str, Series] = {}
        self._rules: dict[str, tuple[RecordingRule, Pack]] = {}
        self._pending: set[str] = set()
        everything = [*others, pack]
        events = {name: spec for one in everything for name, spec in one.events.items()}
        scraped = Labels(TARGET_LABELS, TARGET_LABELS)
        for name in SCRAPED:
            self._known[name] = Series(name, "gauge", scraped)
        alerts = frozenset(name for one in everything for name in one.alerts)
        states = {"alertname": alerts, "alertstate": frozenset({"pending", "firing"})}
        sure = frozenset({"alertname", "alertstate"})
        self._known["ALERTS"] = Series("ALERTS", "gauge", Labels(None, sure, states))
        self._known["ALERTS_FOR_STATE"] = Series(
            "ALERTS_FOR_STATE", "gauge", Labels(None, sure - {"alertstate"}, {"alertname": alerts})
        )
        for one in everything:
            self._known |= series_of(one, events)
            for group in one.recording.values():
                self._rules |= {name: (rule, one) for name, rule in group.rules.items()}
        for name, metric in pack.foreign.items():
            self._known |= foreign_series(name, metric)
        for name in unsure:
            self._known[name] = Series(name, "recorded", Labels(None))
            self._rules.pop(name, None)

    def __getitem__(self, name: str) -> Series:
        """The series of that name. Raises KeyError."""
        if name in self._known:
            return self._known[name]
        rule, pack = self._rules[name]
        if name in self._pending:
            # A rule over its own result: its labels cannot be told, which is no fault here.
            return Series(name, "recorded", Labels(None))
        self._pending.add(name)
        reading = read(resolve(rule.expr, pack), self)
        self._pending.discard(name)
        # A faulty rule is told once: nothing more follows from it.
        labels = Labels(None) if reading.faults else reading.labels
        if labels.possible is not None:
            labels = Labels(labels.possible | {*rule.labels}, labels.certain | {*rule.labels}, labels.values)
        values = {**labels.values, **{key: frozenset({value}) for key, value in rule.labels.items()}}
        self._known[name] = Series(name, "recorded", Labels(labels.possible, labels.certain, values))
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        """All names."""
        return iter({**self._known, **dict.fromkeys(self._rules)})

    def __len__(self) -> int:
        """How many names there are."""
        return len({**self._known, **dict.fromkeys(self._rules)})


def infer(expr: str, catalogue: Catalogue, pack: Pack) -> Labels:
    """The labels that the result of a rule's expression has, `${parameter}`s resolved first."""
    return read(resolve(expr, pack), catalogue).labels
