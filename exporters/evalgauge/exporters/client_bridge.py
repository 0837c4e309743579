"""The families as a collector of `prometheus_client`, for an app that serves a registry of its own."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from prometheus_client.core import Exemplar as ClientExemplar
from prometheus_client.core import Metric
from prometheus_client.core import Sample as ClientSample
from prometheus_client.registry import Collector

from evalgauge.core.export import NotReady
from evalgauge.exporters.exposition import exemplar_labels, lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from evalgauge.core.families import Exemplar, Family


class FamilyCollector(Collector):
    """Register it with `registry.register(FamilyCollector(snapshot))`; every collection is the last commit.

    Until state is restored it gives nothing at all: a series that is absent is no reset, a zero is one.
    """

    def __init__(
        self, snapshot: Callable[[], Sequence[Family]], *, created: bool = True, zero_first: float = 0.0
    ) -> None:
        self._snapshot = snapshot
        self._created = created
        self._zero_first = zero_first

    def describe(self) -> Iterator[Metric]:
        """Yield the families without samples, so that a registry can refuse a name it already has."""
        for family in self._families():
            yield _metric(family)

    def collect(self) -> Iterator[Metric]:
        """Yield the families with all their samples."""
        fresh_after = time.time() - self._zero_first if self._zero_first > 0 else math.inf
        for family in self._families():
            metric = _metric(family)
            metric.samples = [
                sample
                for part in (family, *family.more)
                for sample in _samples(part, created=self._created, fresh_after=fresh_after)
            ]
            yield metric

    def _families(self) -> Sequence[Family]:
        try:
            return self._snapshot()
        except NotReady:
            return ()


def _metric(family: Family) -> Metric:
    # Metric would append a unit that the name does not end in, and the series would have another name.
    unit = family.unit if family.name.endswith(f"_{family.unit}") else ""
    return Metric(family.name, family.help, family.kind, unit)


def _samples(family: Family, *, created: bool, fresh_after: float) -> Iterator[ClientSample]:
    # The registry decides on the format after this, so what OpenMetrics forbids is left out always.
    found = lines(family, created=created, signed_sums=False, fresh_after=fresh_after)
    columns = [line.values.tolist() for line in found]
    for index, row in enumerate(family.series[: len(family.values)]):
        labels = {name: value for name, value in zip(family.label_names, row, strict=True) if value}
        fresh = family.born[index] > fresh_after
        for number, (line, column) in enumerate(zip(found, columns, strict=True)):
            value = column[index]
            if line.suffix == "_created" and math.isnan(value):
                continue
            exemplar = None
            if line.suffix in {"_total", "_bucket"} and not fresh:
                exemplar = _exemplar(family.exemplars.get((index, number)))
            own = labels if line.le is None else {**labels, "le": line.le}
            yield ClientSample(f"{family.name}{line.suffix}", own, value, None, exemplar)


def _exemplar(exemplar: Exemplar | None) -> ClientExemplar | None:
    if exemplar is None or not (labels := exemplar_labels(exemplar)):
        return None
    at = exemplar.time if math.isfinite(exemplar.time) else None
    return ClientExemplar(labels, exemplar.value, at)
