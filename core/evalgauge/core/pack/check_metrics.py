"""What is wrong with a pack's metrics: names, units, labels, filters, values and buckets."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from evalgauge.core.findings import suggest
from evalgauge.core.pack.check_emit import check_emit
from evalgauge.core.pack.check_filters import check_filter
from evalgauge.core.pack.check_keyed import check_keyed
from evalgauge.core.pack.check_labels import check_labels
from evalgauge.core.pack.check_window import check_window
from evalgauge.core.pack.metric_model import (
    ConsistencySpec,
    CounterSpec,
    ElapsedSpec,
    GaugeSpec,
    HistogramSpec,
    KeyedSpec,
    ProgressSpec,
    WindowSpec,
)
from evalgauge.core.pack.names import (
    OWN_PACK,
    PROCESS,
    RESERVED_SUFFIXES,
    base_unit,
    exposed_names,
    unit_of,
)
from evalgauge.core.units import UNITS

if TYPE_CHECKING:
    from evalgauge.core.document import Path_
    from evalgauge.core.pack.check import Check
    from evalgauge.core.pack.event_model import FieldSpec
    from evalgauge.core.pack.metric_model import CountingSpec, MetricSpec


def check_metrics(check: Check) -> None:
    """Report every problem of the metrics section."""
    taken: dict[str, str] = {}
    for name, metric in check.pack.metrics.items():
        path = ("metrics", name)
        for exposed in exposed_names(name, metric):
            if exposed in taken:
                message = f"metric `{name}` is exposed as `{exposed}`, which `{taken[exposed]}` is already"
                check.report(path, message, "Rename one of them.", at_key=True)
                break
        taken |= dict.fromkeys(exposed_names(name, metric), name)
        _check_name(check, path, name, metric)
        known = _check_on(check, path, name, metric)
        if isinstance(metric, HistogramSpec | ElapsedSpec | ConsistencySpec):
            _check_buckets(check, path, name, metric)
        _check_kind(check, path, name, metric, known=known)
        if known and PROCESS not in metric.on:
            check_emit(check, path, name, metric)
        if known and metric.where is not None:
            check_filter(check, (*path, "where"), metric.where, metric.on)
        if known or PROCESS in metric.on:
            check_labels(check, path, name, metric)


def _check_kind(check: Check, path: Path_, name: str, metric: MetricSpec, *, known: bool) -> None:
    """What only metrics of its kind have; `known` says that its event types are."""
    if isinstance(metric, KeyedSpec):
        if known:
            check_keyed(check, path, name, metric)
    elif isinstance(metric, WindowSpec):
        if known:
            _check_value(check, path, name, metric)
            check_window(check, path, name, metric)
    else:
        _check_counting(check, path, name, metric, known=known)


def _check_counting(check: Check, path: Path_, name: str, metric: CountingSpec, *, known: bool) -> None:
    if PROCESS in metric.on:
        _check_process(check, path, name, metric)
    elif known:
        _check_value(check, path, name, metric)
    if isinstance(metric, GaugeSpec) and PROCESS not in metric.on:
        _check_gauge(check, path, name, metric)


def _check_name(check: Check, path: Path_, name: str, metric: MetricSpec) -> None:
    if name.startswith(f"{OWN_PACK}_") and check.pack.pack != OWN_PACK:
        hint = "Name it after your own workload."
        check.report(
            path, f"metric `{name}`: names with `{OWN_PACK}_` belong to pack `{OWN_PACK}`", hint, at_key=True
        )
    suffix = next((suffix for suffix in RESERVED_SUFFIXES if name.endswith(suffix)), None)
    info = isinstance(metric, GaugeSpec) and metric.info
    if suffix is not None and not (info and suffix == "_info"):
        hint = f"`_total` is added when it is shown: call it `{name.removesuffix(suffix)}`."
        hint = hint if suffix == "_total" else f"Leave `{suffix}` out: formats give it a meaning of its own."
        check.report(path, f"metric `{name}` must not end in `{suffix}`", hint, at_key=True)
    if info and suffix != "_info":
        check.report(path, f"metric `{name}`: with `info: true` its name must end in `_info`", at_key=True)
    base = base_unit(metric, check.events)
    if base and not (name.endswith(f"_{base}") or name == base):
        hint = f"Call it `{_with_unit(name, base)}`: values are shown in {base}."
        check.report(path, f"metric `{name}` must end in its base unit `_{base}`", hint, at_key=True)


def _with_unit(name: str, base: str) -> str:
    """The name as it should be: an ending that is a unit itself gives way."""
    head, _, tail = name.rpartition("_")
    units = {
        *UNITS,
        *(unit.base for unit in UNITS.values()),
        "milliseconds",
        "minutes",
        "hours",
        "pct",
        "sec",
    }
    return f"{head}_{base}" if head and tail in units else f"{name}_{base}"


def _check_on(check: Check, path: Path_, name: str, metric: MetricSpec) -> bool:
    """Whether every event type of `on` is known."""
    known = True
    for index, event in enumerate(metric.on):
        where = (*path, *_place(metric, index))
        if event in metric.on[:index]:
            check.report(where, f"metric `{name}`: `{event}` stands there twice")
        if event in check.events:
            known = known and not check.is_broken("events", event)
            continue
        known = False
        if event == PROCESS:
            if isinstance(metric, KeyedSpec | WindowSpec):
                check.report(where, f"metric `{name}`: `{PROCESS}` sends no events, and has no keys")
            elif check.pack.pack != OWN_PACK:
                hint = suggest(event, check.events)
                check.report(where, f"metric `{name}`: `on: {PROCESS}` belongs to pack `{OWN_PACK}`", hint)
            elif len(metric.on) > 1:
                check.report(where, f"metric `{name}`: `{PROCESS}` stands alone")
        elif not check.is_broken("events", event) and event not in check.pack.use:
            hint = f"Write `use: [{event}]`." if event in check.elsewhere else suggest(event, check.events)
            check.report(where, f"metric `{name}`: no event type `{event}` is declared", hint)
    return known


def _place(metric: MetricSpec, index: int) -> Path_:
    """Where the event type stands that is one of `on`."""
    if isinstance(metric, ElapsedSpec):
        return ("begin",) if index == 0 else ("end", index - 1)
    if isinstance(metric, ProgressSpec) and index >= len(metric.on_):
        return ("expected", metric.on[index])
    if isinstance(metric, ConsistencySpec):
        return ("comparison",) if index == 0 else ("complete",)
    return ("on", index)


def _check_process(check: Check, path: Path_, name: str, metric: CountingSpec) -> None:
    """A metric of the process has its value from the program: only its shape is declared."""
    for key in ("where", "value", "time", "up", "down"):
        if getattr(metric, key, None):
            check.report(
                (*path, key), f"metric `{name}`: `{key}` has no meaning with `on: {PROCESS}`", at_key=True
            )
    _check_unit_name(check, path, name, metric)
    if isinstance(metric, HistogramSpec) and metric.unit is None:
        check.report(
            path, f"metric `{name}` has no unit", 'Give `unit`; `"1"` is a plain number.', at_key=True
        )


def _check_unit_name(check: Check, path: Path_, name: str, metric: CountingSpec | WindowSpec) -> None:
    if metric.unit is not None and metric.unit not in UNITS:
        check.report(
            (*path, "unit"), f"metric `{name}`: unknown unit `{metric.unit}`", suggest(metric.unit, UNITS)
        )


def _check_value(check: Check, path: Path_, name: str, metric: CountingSpec | WindowSpec) -> None:
    if isinstance(metric, HistogramSpec) and metric.value is None and not check.is_broken(*path):
        hint = "Give `value`: the field to observe."
        check.report(path, f"key `value` of `{name}` is missing", hint, at_key=True)
    _check_unit_name(check, path, name, metric)
    if isinstance(metric, GaugeSpec) and metric.info:
        check.report((*path, "info"), f"metric `{name}`: `info` is for `on: {PROCESS}`", at_key=True)
    if metric.value is None:
        if metric.unit is not None:
            check.report(
                (*path, "unit"),
                f"metric `{name}` counts events, which have no unit",
                "Leave `unit` out.",
                at_key=True,
            )
        return
    specs = []
    for event in metric.on:
        spec = check.events[event].columns.get(metric.value)
        if spec is None:
            message = f"metric `{name}`: value `{metric.value}` is no field of `{event}`"
            check.report((*path, "value"), message, suggest(metric.value, _numbers(check, event)))
        else:
            specs.append((event, spec))
    for event, spec in specs:
        _check_value_field(check, path, metric, event, spec)
    units = {spec.unit or metric.unit for _, spec in specs}
    if len(units) > 1:
        shown = ", ".join(sorted(str(unit) for unit in units))
        check.report(
            (*path, "value"),
            f"metric `{name}`: `{metric.value}` has different units: {shown}",
            "Use one unit.",
        )


def _numbers(check: Check, event: str) -> list[str]:
    return [name for name, spec in check.events[event].columns.items() if spec.type in {"number", "integer"}]


def _check_value_field(
    check: Check, path: Path_, metric: CountingSpec | WindowSpec, event: str, spec: FieldSpec
) -> None:
    name, where = path[-1], (*path, "value")
    if spec.type not in {"number", "integer"}:
        message = (
            f"metric `{name}`: value `{metric.value}` of `{event}` is of type `{spec.type}`, not a number"
        )
        check.report(where, message, suggest(str(metric.value), _numbers(check, event)))
        return
    if spec.payload:
        check.report(
            where, f"metric `{name}`: `{metric.value}` of `{event}` is payload, which no metric may show"
        )
    if spec.unit is None and metric.unit is None:
        hint = f'Give `unit` to the field or to the metric: {", ".join(UNITS)} (`"1"` is a plain number).'
        check.report(where, f"metric `{name}`: nothing says in which unit `{metric.value}` is", hint)
    if spec.unit is not None and metric.unit is not None and spec.unit != metric.unit:
        message = (
            f"metric `{name}`: unit `{metric.unit}`, but `{metric.value}` of `{event}` is in `{spec.unit}`"
        )
        check.report((*path, "unit"), message, "Leave the metric's unit out: values are converted.")
    if isinstance(metric, CounterSpec) and (spec.min is None or spec.min < 0):
        message = f"metric `{name}`: a counter only grows, but `{metric.value}` of `{event}` may be negative"
        made = check.events[event].derive.get(str(metric.value))
        hint = f"Declare `min: 0` for `{metric.value}`, or make it a gauge."
        if made is not None and made.ratio is not None:
            hint = (
                f"Declare `min: 0` for {' and '.join(f'`{one}`' for one in made.ratio)}, or make it a gauge."
            )
        elif made is not None and made.function is None:
            hint = "Make it a gauge or a histogram."
        check.report(where, message, hint)


def _check_gauge(check: Check, path: Path_, name: str, metric: GaugeSpec) -> None:
    moved = {*metric.up, *metric.down}
    ways = [metric.value is not None, metric.time, bool(moved)]
    if sum(ways) != 1 and not check.is_broken(*path):
        message = (
            f"metric `{name}` needs either `value` (set by a field), `time` (set by when events were)"
            " or `up` and `down` (moved by event types)"
        )
        check.report(path, message, at_key=True)
    if metric.ttl is not None and not metric.is_set:
        message = f"metric `{name}`: `ttl` is for what events set, not for what they move up and down"
        check.report((*path, "ttl"), message, "Leave it out; `active` counts keys that expire.", at_key=True)
    if moved:
        _check_moved(check, path, name, metric)


def _check_moved(check: Check, path: Path_, name: str, metric: GaugeSpec) -> None:
    moved = {*metric.up, *metric.down}
    for key in ("up", "down"):
        types: list[str] = getattr(metric, key)
        if not types and not check.is_broken(*path):
            check.report(
                path,
                f"metric `{name}`: no event type moves it `{key}`",
                "A gauge goes both ways.",
                at_key=True,
            )
        for index, event in enumerate(types):
            if event not in metric.on:
                message = f"metric `{name}`: `{event}` in `{key}` is not in `on`"
                check.report((*path, key, index), message, suggest(event, metric.on))
    for event in sorted({*metric.up} & {*metric.down}):
        check.report((*path, "down"), f"metric `{name}`: `{event}` stands in `up` and in `down`")
    for index, event in enumerate(metric.on):
        if event not in moved and not check.is_broken(*path):
            message = f"metric `{name}`: `{event}` moves it neither up nor down"
            check.report((*path, "on", index), message, "Name it in `up` or `down`.")
    if metric.across != "sum":
        message = f"metric `{name}`: moved up and down, only the sum over replicas has a meaning"
        check.report((*path, "across"), message, "Write `across: sum`.")


def _check_buckets(
    check: Check, path: Path_, name: str, metric: HistogramSpec | ElapsedSpec | ConsistencySpec
) -> None:
    where = (*path, "buckets")
    for index, (lower, upper) in enumerate(pairwise(metric.buckets), 1):
        if lower == upper:
            check.report((*where, index), f"metric `{name}`: bucket {upper:g} stands there twice")
        elif lower > upper:
            check.report(
                (*where, index), f"metric `{name}`: bucket {upper:g} comes after {lower:g}", "Sort them."
            )
    if not isinstance(metric, HistogramSpec):
        return
    unit, base = UNITS.get(unit_of(metric, check.events) or ""), base_unit(metric, check.events)
    if unit is None or not base:
        return
    most = _greatest(check, metric)
    if most is not None and min(metric.buckets) >= (top := most * float(unit.factor)):
        message = f"metric `{name}`: all values fall into the first bucket: they go up to {top:g} {base}"
        check.report(where, message, f"Buckets are in {base}, whatever the field's unit is.")
    elif base == "ratio" and max(metric.buckets) > 1 and (most is None or most * float(unit.factor) <= 1):
        message = f"metric `{name}`: buckets above 1 of a ratio, which goes from 0 to 1"
        check.report(where, message, "50 % is 0.5.")


def _greatest(check: Check, metric: HistogramSpec) -> float | None:
    """The greatest value that the events may validly have, in the field's unit; None if nothing says so."""
    greatest: list[float] = []
    for name in metric.on:
        event = check.events.get(name)
        spec = event.columns.get(metric.value or "") if event else None
        if event is None or spec is None:
            return None
        bounds = [
            rule.max for rule in event.quality.values() if rule.field == metric.value and rule.max is not None
        ]
        bounds += [spec.max] if spec.max is not None else []
        if not bounds or not math.isfinite(min(bounds)):
            return None
        greatest.append(min(bounds))
    return max(greatest, default=None)
