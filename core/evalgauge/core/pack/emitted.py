"""What a metric of a pack is exposed as: one family or several. Rules are checked by it, and instruments fill it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from evalgauge.core.families import Family
from evalgauge.core.pack.model import ActiveSpec, CounterSpec, ElapsedSpec, HistogramSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from evalgauge.core.families import Kind
    from evalgauge.core.pack.model import MetricSpec


@dataclass(frozen=True, slots=True)
class Emitted:
    """One family."""

    name: str
    """Without the suffix `_total`."""
    kind: Kind
    help: str
    unit: str = ""
    """Base unit, empty for plain numbers."""
    labels: tuple[str, ...] = ()
    """Those of the metric that it has."""
    more: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Labels that the instrument adds, with their values; they stand last."""
    bounds: tuple[float, ...] = ()
    """Of a histogram, in the base unit."""

    def family(
        self,
        series: Sequence[tuple[str, ...]],
        values: NDArray[np.float64] | NDArray[np.int64],
        births: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
        *,
        generation: int = -1,
        buckets: NDArray[np.int64] | None = None,
    ) -> Family:
        """It with rows (n,); `births` are when they were created and born, (n,) each. Without them they come and go."""
        created, born = births or (np.full(len(values), np.nan), np.zeros(len(values)))
        return Family(
            name=self.name,
            kind=self.kind,
            help=self.help,
            unit=self.unit,
            label_names=(*self.labels, *self.more),
            series=series,
            values=values,
            created=created,
            born=born,
            bounds=self.bounds,
            buckets=buckets,
            generation=generation,
        )


def emitted(name: str, metric: MetricSpec, unit: str) -> list[Emitted]:
    """Every family of a metric whose value is shown in the base unit `unit`."""
    if isinstance(metric, ActiveSpec):
        return list(active(name, metric))
    if isinstance(metric, ElapsedSpec):
        return [one for one in elapsed(name, metric) if all(one.more.values())]
    labels = tuple(metric.labels)
    if isinstance(metric, CounterSpec):
        return [Emitted(name, "counter", metric.help, unit, labels)]
    if isinstance(metric, HistogramSpec):
        return [Emitted(name, "histogram", metric.help, unit, labels, bounds=tuple(metric.buckets))]
    return [Emitted(name, "gauge", metric.help, unit, labels)]


def active(name: str, metric: ActiveSpec) -> tuple[Emitted, Emitted]:
    """What `active` is exposed as: keys that are active, keys evicted."""
    return (
        Emitted(name, "gauge", metric.help, "", tuple(metric.labels)),
        Emitted(f"{name}_evicted", "counter", f"{metric.help} Keys forgotten because there were too many."),
    )


def elapsed(name: str, metric: ElapsedSpec) -> tuple[Emitted, ...]:
    """What `elapsed` is exposed as: times, limits, expired, unmatched, evicted, open, oldest open."""
    labels, stem = tuple(metric.labels), name.removesuffix("_seconds")
    limits = {"limit": tuple(f"{limit:g}" for limit in metric.within), "result": ("met", "missed")}
    told = metric.help
    return (
        Emitted(name, "histogram", told, "seconds", labels, bounds=tuple(metric.buckets)),
        Emitted(
            f"{stem}_limits", "counter", f"{told} By limit in seconds, met or missed.", "", labels, limits
        ),
        Emitted(f"{stem}_expired", "counter", f"{told} Forgotten without an end.", "", labels),
        Emitted(f"{stem}_unmatched", "counter", f"{told} Ends without a beginning."),
        Emitted(f"{stem}_evicted", "counter", f"{told} Keys forgotten because there were too many."),
        Emitted(f"{stem}_open", "gauge", f"{told} Begun and not ended.", "", labels),
        Emitted(
            f"{stem}_oldest_open_timestamp_seconds",
            "gauge",
            f"{told} When the oldest that is open began.",
            "seconds",
            labels,
        ),
    )
