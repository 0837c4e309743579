"""What a pack's metrics are called outside: reserved names, base units, and every series with its labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evalgauge.core.calendar_time import NAMES
from evalgauge.core.pack.emitted import emitted
from evalgauge.core.pack.labels import Labels
from evalgauge.core.units import UNITS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from evalgauge.core.pack.emitted import Emitted
    from evalgauge.core.pack.event_model import EventSpec, FieldSpec, LabelSpec
    from evalgauge.core.pack.metric_model import MetricSpec
    from evalgauge.core.pack.model import ForeignMetric, Pack

OWN_PACK = "evalgauge"
"""The pack of the program's own metrics: the only one with `on: process` and with names `evalgauge_…`."""
PROCESS = "process"
"""What `on:` says for a metric that the running process reports itself."""
OTHER = "_other"
"""The label value that everything beyond a limit collapses to."""
TARGET_LABELS = frozenset({"job", "instance"})
"""Labels that Prometheus gives every series it scrapes."""
RESERVED_SUFFIXES = ("_total", "_count", "_sum", "_bucket", "_created", "_info")
"""Suffixes that the exposition formats add themselves."""
RESERVED_LABELS = frozenset(
    {"le", "quantile", "job", "instance", "replica", "alertname", "alertstate", "severity"}
)
"""Labels that Prometheus, its rules or a deployment set."""
FILTER_WORDS = frozenset({"all", "any", "not"})
"""Words of a filter, which no field may be called."""

MOST_INTEGERS = 100
"""A field of whole numbers may be a label if no more than these lie between its `min` and `max`."""

SCRAPED: Mapping[str, str] = {
    "up": "gauge",
    "scrape_duration_seconds": "gauge",
    "scrape_samples_scraped": "gauge",
    "scrape_samples_post_metric_relabeling": "gauge",
    "scrape_series_added": "gauge",
}
"""Series that Prometheus writes of each scrape, with their type."""

SeriesKind = Literal["counter", "gauge", "bucket", "sum", "count", "recorded", "foreign"]


@dataclass(frozen=True, slots=True)
class Series:
    """One name that PromQL can select."""

    name: str
    kind: SeriesKind
    labels: Labels
    metric: str = ""
    """The pack's name of the metric it belongs to."""
    unit: str = ""
    """Base unit of its value, of a bucket that of its bound; empty for a plain number."""


_SAMPLES = {"counter": ("", "_total", "_created"), "histogram": ("", "_bucket", "_sum", "_count", "_created")}


def exposed_names(name: str, metric: MetricSpec) -> list[str]:
    """Every sample name that a metric takes up in the exposition formats."""
    return [
        f"{family.name}{suffix}"
        for family in emitted(name, metric, "")
        for suffix in _SAMPLES.get(family.kind, ("",))
    ]


def unit_of(metric: MetricSpec, events: Mapping[str, EventSpec]) -> str | None:
    """The unit of a metric's value as declared by its field or itself: a key of `UNITS`, or None for a count."""
    if metric.unit is not None:
        return metric.unit
    if getattr(metric, "time", False):
        return "s"
    value = getattr(metric, "value", None)
    for event in metric.on:
        spec = events[event].columns.get(value) if value and event in events else None
        if spec is not None and spec.unit is not None:
            return spec.unit
    return None


def base_unit(metric: MetricSpec, events: Mapping[str, EventSpec]) -> str:
    """The unit a metric is shown in (`seconds`, `bytes`, `ratio`, …); empty for a plain number."""
    unit = unit_of(metric, events)
    return UNITS[unit].base if unit in UNITS else ""


def integers(spec: FieldSpec) -> list[str] | None:
    """Every value of a whole number between close bounds, as label text; None where there are too many."""
    if spec.type != "integer" or spec.min is None or spec.max is None or spec.max - spec.min >= MOST_INTEGERS:
        return None
    return [str(value) for value in range(math.ceil(spec.min), math.floor(spec.max) + 1)]


def label_values(
    label: LabelSpec, metric: MetricSpec, events: Mapping[str, EventSpec]
) -> frozenset[str] | None:
    """Every value a label can have, empty for an absent one; None where events decide."""
    if label.constant is not None:
        return frozenset({label.constant})
    if label.enum is not None:
        return frozenset(label.enum)
    values: set[str] = set()
    for name in metric.labelled:
        found = _values_in(label, events[name]) if name in events else None
        if found is None:
            return None
        values |= found
    return frozenset(values)


def is_bounded(label: LabelSpec, types: Iterable[EventSpec]) -> bool:
    """Whether the pack itself names every value of a label, so that no limit changes any of them."""
    if label.field is None or (label.table is not None and label.table_default is not None):
        return True
    fields = [event.columns[label.field] for event in types if label.field in event.columns]
    return bool(fields) and all(field.enum is not None or field.type == "boolean" for field in fields)


def _values_in(label: LabelSpec, event: EventSpec) -> set[str] | None:
    """Every value that events of one type can give a label."""
    if label.quality is not None:
        return {"valid", "invalid"} if label.quality == "validity" else set(event.quality)
    if label.calendar is not None:
        return {*NAMES[label.calendar]}
    spec = event.columns.get(label.field or "")
    if spec is None:
        return None
    table, otherwise = label.table or {}, label.table_default
    tabled = label.table is not None and otherwise is not None
    absent = set() if spec.required else {label.default}
    # Whole numbers have the limits of any text: beyond, they become `_other`.
    overflow = {OTHER} if spec.type == "integer" and not tabled else set()
    incoming = spec.enum or (["true", "false"] if spec.type == "boolean" else integers(spec))
    if incoming is not None:
        shown = {table.get(one, one if otherwise is None else otherwise) for one in incoming}
        return shown | absent | overflow
    return {*table.values(), otherwise or ""} | absent if tabled else None


def labels_of(metric: MetricSpec, events: Mapping[str, EventSpec]) -> Labels:
    """The labels that a metric's series have once scraped, some of them or all."""
    values = {
        name: found
        for name, spec in metric.label_specs.items()
        if (found := label_values(spec, metric, events))
    }
    certain = {name for name, found in values.items() if "" not in found}
    return Labels(frozenset(metric.label_specs) | TARGET_LABELS, frozenset(certain) | TARGET_LABELS, values)


def series_of(pack: Pack, events: Mapping[str, EventSpec]) -> dict[str, Series]:
    """Series name → series, for each metric of a pack. `events` holds the types it declares and uses."""
    found: dict[str, Series] = {}
    for name, metric in pack.metrics.items():
        own = labels_of(metric, events)
        for family in emitted(name, metric, base_unit(metric, events)):
            labels = _labels_of(family, own)
            if family.kind == "counter":
                found[f"{family.name}_total"] = Series(
                    f"{family.name}_total", "counter", labels, name, family.unit
                )
            elif family.kind == "gauge":
                found[family.name] = Series(family.name, "gauge", labels, name, family.unit)
            else:
                bounds = {"+Inf"} | {text for bound in family.bounds for text in (f"{bound:g}", repr(bound))}
                by_bound = _with(labels, {"le": bounds})
                found[f"{family.name}_bucket"] = Series(
                    f"{family.name}_bucket", "bucket", by_bound, name, family.unit
                )
                found[f"{family.name}_sum"] = Series(f"{family.name}_sum", "sum", labels, name, family.unit)
                found[f"{family.name}_count"] = Series(f"{family.name}_count", "count", labels, name)
    return found


def _labels_of(family: Emitted, own: Labels) -> Labels:
    """The labels of a family of a metric that has `own`."""
    possible = TARGET_LABELS | set(family.labels)
    values = {name: found for name, found in own.values.items() if name in possible}
    return _with(Labels(possible, own.certain & possible, values), family.more)


def _with(labels: Labels, more: Mapping[str, Collection[str]]) -> Labels:
    """The same with further labels that every series has, of these values."""
    return Labels(
        (labels.possible or frozenset()) | {*more},
        labels.certain | {*more},
        {**labels.values, **{name: frozenset(values) for name, values in more.items()}},
    )


def foreign_series(name: str, metric: ForeignMetric) -> dict[str, Series]:
    """Series of a metric that another program emits."""
    labels = Labels(frozenset(metric.labels) | TARGET_LABELS)
    found = {name: Series(name, "gauge" if metric.type == "gauge" else "foreign", labels, name)}
    if metric.type == "counter":
        return {name: Series(name, "counter", labels, name)}
    if metric.type in {"histogram", "summary"}:
        found |= {f"{name}_{part}": Series(f"{name}_{part}", part, labels, name) for part in ("sum", "count")}
    if metric.type == "histogram":
        by_bound = Labels((labels.possible or frozenset()) | {"le"})
        found[f"{name}_bucket"] = Series(f"{name}_bucket", "bucket", by_bound, name)
    return found


def exposed_series(pack: Pack, events: Mapping[str, EventSpec] | None = None) -> dict[str, frozenset[str]]:
    """Series name → the labels its metric gives it (`le` included, `job` and `instance` not)."""
    found = series_of(pack, {**(events or {}), **pack.events})
    return {name: (series.labels.possible or frozenset()) - TARGET_LABELS for name, series in found.items()}
