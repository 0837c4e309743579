"""A pack at a glance: its events, every series with how many of it there can be, rules and alerts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from evalgauge.core.pack.catalogue import Catalogue
from evalgauge.core.pack.names import (
    OTHER,
    PROCESS,
    TARGET_LABELS,
    base_unit,
    is_bounded,
    label_values,
    series_of,
)
from evalgauge.core.pack.variables import resolve

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from evalgauge.core.pack.event_model import EventSpec
    from evalgauge.core.pack.loader import LoadedPack
    from evalgauge.core.pack.metric_model import MetricSpec
    from evalgauge.core.pack.model import Pack
    from evalgauge.core.pack.names import Series


def summary(loaded: LoadedPack, others: Sequence[Pack] = ()) -> dict[str, Any]:
    """All of it as JSON values. `others` are the packs it may refer to, such as those whose events it uses."""
    pack = loaded.pack
    declared = {name: spec for other in others for name, spec in other.events.items() if name in pack.use}
    events = {**declared, **pack.events}
    catalogue = Catalogue(pack, others)
    return {
        "pack": pack.pack,
        "version": pack.version,
        "title": pack.title,
        "description": pack.description,
        "source": loaded.source,
        "uses": pack.use,
        "events": {name: _event(spec) for name, spec in pack.events.items()},
        "metrics": [_metric(name, metric, events, pack) for name, metric in pack.metrics.items()],
        "parameters": [
            {"name": name, "value": one.value, "unit": one.unit, "description": one.description}
            for name, one in pack.parameters.items()
        ],
        "recording": [
            {
                "name": name,
                "group": group,
                "labels": None if (found := catalogue[name].labels.possible) is None else sorted(found),
                "unit": rule.unit,
                "description": resolve(rule.description, pack),
            }
            for group, rules in pack.recording.items()
            for name, rule in rules.rules.items()
        ],
        "alerts": [
            {
                "name": name,
                "severity": alert.severity,
                "for_seconds": alert.for_,
                "keep_firing_for_seconds": alert.keep_firing_for,
                "summary": resolve(alert.summary, pack),
            }
            for name, alert in pack.alerts.items()
        ],
    }


def estimate(metric: MetricSpec, events: Mapping[str, EventSpec], some: Collection[str] | None = None) -> int:
    """The most label sets a metric can have: what its labels, or `some` of them, allow together, within its limit.

    As `SeriesIndex` admits them: a label shows its limit and `_other`; at the metric's limit a label set is still new
    where all that have a limit are `_other`. What the process says of itself has none.
    """
    specs = [metric.label_specs[name] for name in (metric.labels if some is None else some)]
    known = [label_values(label, metric, events) for label in specs]
    if PROCESS in metric.on:
        sizes = [label.limit if one is None else len(one) for label, one in zip(specs, known, strict=True)]
        return min(math.prod(sizes), metric.limit)
    types = [events[name] for name in metric.labelled if name in events]
    fixed = most = 1
    for label, values in zip(specs, known, strict=True):
        if values is not None and is_bounded(label, types):
            fixed, most = fixed * len(values), most * len(values)
        else:
            named = label.limit + 1 if values is None else len(values - {OTHER})
            most *= min(named, label.limit + 1)
    return min(most, metric.limit + fixed)


def _event(spec: EventSpec) -> dict[str, Any]:
    return {
        "description": spec.description,
        "tenant": spec.tenant,
        "fields": {
            name: one.model_dump(exclude_defaults=True, by_alias=True) for name, one in spec.fields.items()
        },
        "derived": {
            name: {
                **spec.columns[name].model_dump(include={"type", "unit", "enum"}, exclude_none=True),
                **one.model_dump(exclude_defaults=True),
            }
            for name, one in spec.derive.items()
        },
        "quality": {
            name: one.model_dump(exclude_defaults=True, by_alias=True) for name, one in spec.quality.items()
        },
    }


def _metric(name: str, metric: MetricSpec, events: Mapping[str, EventSpec], pack: Pack) -> dict[str, Any]:
    """One metric with its series; a bucket and its like each count once for each label set."""
    series = {key: found for key, found in series_of(pack, events).items() if found.metric == name}
    return {
        "name": name,
        "type": metric.type,
        "help": metric.help,
        "unit": base_unit(metric, events),
        "on": "the process" if PROCESS in metric.on else metric.on,
        "limit": metric.limit,
        "series": [
            {
                "name": key,
                "type": found.kind if found.kind in {"counter", "gauge"} else "histogram",
                "unit": found.unit,
                "labels": _labels(found.labels.possible),
                "at_most": _at_most(found, metric, events),
            }
            for key, found in series.items()
        ],
    }


def _at_most(series: Series, metric: MetricSpec, events: Mapping[str, EventSpec]) -> int:
    """The most series of a name: the sets of those of the metric's labels it has, times those that are added."""
    possible = (series.labels.possible or frozenset()) - TARGET_LABELS
    own = [label for label in metric.label_specs if label in possible]
    added = possible - {*own, "le"}
    bounds = len(getattr(metric, "buckets", ())) + 1 if "le" in possible else 1
    return (
        estimate(metric, events, own)
        * bounds
        * math.prod(len(series.labels.values[label]) for label in added)
    )


def _labels(possible: frozenset[str] | None) -> list[str] | None:
    return None if possible is None else sorted(possible - TARGET_LABELS)
