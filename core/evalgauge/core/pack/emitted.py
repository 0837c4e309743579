"""What a metric of a pack is exposed as: one family or several. Rules are checked by it, and instruments fill it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from evalgauge.core.families import Family
from evalgauge.core.pack.metric_model import (
    ActiveSpec,
    ConsistencySpec,
    CounterSpec,
    DeviationSpec,
    ElapsedSpec,
    HistogramSpec,
    PatternSpec,
    ProgressSpec,
    WindowSpec,
)
from evalgauge.core.units import UNITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from evalgauge.core.families import Kind
    from evalgauge.core.pack.metric_model import MetricSpec


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
    labels = tuple(metric.labels)
    match metric:
        case ElapsedSpec():
            found = [one for one in elapsed(name, metric) if all(one.more.values())]
        case ActiveSpec():
            found = list(active(name, metric))
        case PatternSpec():
            found = list(pattern(name, metric))
        case ConsistencySpec():
            found = list(consistency(name, metric))
        case DeviationSpec():
            found = list(deviation(name, metric))
        case ProgressSpec():
            found = progress(name, metric).all()
        case WindowSpec():
            found = list(window(name, metric, unit).values())
        case CounterSpec():
            found = [Emitted(name, "counter", metric.help, unit, labels)]
        case HistogramSpec():
            found = [Emitted(name, "histogram", metric.help, unit, labels, bounds=tuple(metric.buckets))]
        case _:
            found = [Emitted(name, "gauge", metric.help, unit, labels)]
    return found


def active(name: str, metric: ActiveSpec) -> tuple[Emitted, Emitted]:
    """What `active` is exposed as: keys that are active, keys evicted."""
    return (
        Emitted(name, "gauge", metric.help, "", tuple(metric.labels)),
        Emitted(f"{name}_evicted", "counter", f"{metric.help} Keys forgotten because there were too many."),
    )


def pattern(name: str, metric: PatternSpec) -> tuple[Emitted, Emitted, Emitted]:
    """What `pattern` is exposed as: matches, time of the last one, keys evicted."""
    labels, told = tuple(metric.labels), metric.help
    severity = {} if metric.severity is None else {"severity": (metric.severity,)}
    return (
        Emitted(name, "counter", told, "", labels, severity),
        Emitted(
            f"{name}_last_match_timestamp_seconds",
            "gauge",
            f"{told} When it was complete last.",
            "seconds",
            labels,
            severity,
        ),
        Emitted(f"{name}_evicted", "counter", f"{told} Keys forgotten because there were too many."),
    )


@dataclass(frozen=True, slots=True)
class ProgressFamilies:
    """What `progress` is exposed as."""

    ratio: Emitted
    by: tuple[Emitted, ...]
    """One for each further label."""
    pairs: Emitted
    expected: Emitted
    done: Emitted
    completion: Emitted
    rate: Emitted
    fit: Emitted
    milestones: Emitted
    evicted: Emitted
    milestones_evicted: Emitted

    def all(self) -> list[Emitted]:
        """Each of them; of milestones only where there are some."""
        kept = (self.milestones, self.milestones_evicted) if all(self.milestones.more.values()) else ()
        shown = (self.ratio, *self.by, self.pairs, self.expected, self.done)
        return [*shown, self.completion, self.rate, self.fit, self.evicted, *kept]


def progress(name: str, metric: ProgressSpec) -> ProgressFamilies:
    """What `progress` is exposed as."""
    labels, told, stem = tuple(metric.labels), metric.help, name.removesuffix("_ratio")

    def gauge(suffix: str, says: str, unit: str = "", *more: str) -> Emitted:
        return Emitted(f"{stem}_{suffix}", "gauge", f"{told} {says}", unit, (*labels, *more))

    when = gauge("milestone_timestamp_seconds", "When a milestone was reached first.", "seconds")
    return ProgressFamilies(
        ratio=Emitted(name, "gauge", told, "ratio", labels),
        by=tuple(gauge(f"by_{label}_ratio", f"By {label}.", "ratio", label) for label in metric.by),
        pairs=gauge("pairs", "Pairs known."),
        expected=gauge("pairs_expected", "Pairs known or announced, whichever are more."),
        done=gauge("pairs_done", "Progress of all pairs together, where one that is done counts 1."),
        completion=gauge(
            "estimated_completion_timestamp_seconds", "When it will be complete, or became so.", "seconds"
        ),
        rate=gauge("ratio_per_second", "Slope of the line through its last points."),
        fit=gauge("r_squared", "How well that line fits them, from 0 to 1."),
        milestones=replace(when, more={"milestone": tuple(map(percent, metric.milestones))}),
        evicted=Emitted(
            f"{stem}_evicted", "counter", f"{told} Pairs and keys forgotten because there were too many."
        ),
        milestones_evicted=Emitted(
            f"{stem}_milestones_evicted",
            "counter",
            f"{told} Keys whose milestones were forgotten because there were too many.",
        ),
    )


def percent(ratio: float) -> str:
    """A milestone as its label shows it."""
    return f"{ratio * 100:.6g}"


def window(name: str, metric: WindowSpec, unit: str) -> dict[str, Emitted]:
    """What `window` is exposed as, by what each family says; the base unit stands last in their names."""
    base = next((f"_{one}" for one in _BASES if name.endswith(f"_{one}")), "")
    stem, labels, told = name.removesuffix(base), tuple(metric.labels), metric.help
    found = {
        "count": Emitted(f"{stem}_count", "gauge", f"{told} Events in the newest window.", "", labels),
    }
    says = {"sum": "Sum", "mean": "Mean", "min": "Least", "max": "Greatest"}
    found |= {
        one: Emitted(f"{stem}_{one}{base}", "gauge", f"{told} {word} in the newest window.", unit, labels)
        for one, word in says.items()
    }
    found = {one: found[one] for one in found if one in metric.shown}
    if metric.distinct is not None:
        told_distinct = f"{told} Different values of {metric.distinct} in the newest window."
        found["distinct"] = Emitted(f"{stem}_distinct", "gauge", told_distinct, "", labels)
    if metric.quantiles:
        shares = {"quantile": tuple(_number(share) for share in metric.quantiles)}
        told_shares = f"{told} Quantiles in the newest window, within 1 %."
        found["quantile"] = Emitted(name, "gauge", told_shares, unit, labels, shares)
    found["end"] = Emitted(
        f"{stem}_end_timestamp_seconds",
        "gauge",
        f"{told} When the newest window ended.",
        "seconds",
        labels if metric.events else (),
    )
    if metric.distinct is not None:
        told_evicted = f"{told} Values forgotten because there were too many."
        found["evicted"] = Emitted(f"{stem}_evicted", "counter", told_evicted)
    return found


_BASES = sorted({unit.base for unit in UNITS.values() if unit.base})


def deviation(name: str, metric: DeviationSpec) -> tuple[Emitted, Emitted, Emitted]:
    """What `deviation` is exposed as: values beyond, values judged, keys evicted."""
    labels, told = tuple(metric.labels), metric.help
    return (
        Emitted(name, "counter", told, "", labels, {"side": ("above", "below")}),
        Emitted(f"{name}_judged", "counter", f"{told} Values whose key had enough history.", "", labels),
        Emitted(f"{name}_evicted", "counter", f"{told} Keys forgotten because there were too many."),
    )


def consistency(name: str, metric: ConsistencySpec) -> tuple[Emitted, Emitted, Emitted, Emitted, Emitted]:
    """What `consistency` is exposed as: ratios, where they came from, nodes without one, repeats, nodes evicted."""
    labels, told, stem = tuple(metric.labels), metric.help, name.removesuffix("_ratio")
    return (
        Emitted(name, "histogram", told, "ratio", labels, bounds=tuple(metric.buckets)),
        Emitted(
            f"{stem}_observed",
            "counter",
            f"{told} Ratios by where they came from.",
            "",
            labels,
            {"source": ("given", "computed")},
        ),
        Emitted(
            f"{stem}_incomplete",
            "counter",
            f"{told} Completed nodes that have none.",
            "",
            labels,
            {"reason": ("missing", "large")},
        ),
        Emitted(f"{stem}_repeated", "counter", f"{told} Completions after no comparison.", "", labels),
        Emitted(f"{stem}_evicted", "counter", f"{told} Nodes forgotten because there were too many."),
    )


def elapsed(name: str, metric: ElapsedSpec) -> tuple[Emitted, ...]:
    """What `elapsed` is exposed as: times, limits, expired, unmatched, evicted, open, oldest open."""
    labels, stem = tuple(metric.labels), name.removesuffix("_seconds")
    limits = {
        "limit": tuple(map(_number, metric.within)),
        "result": ("met", "missed"),
    }
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


def _number(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)
