"""What is wrong with a metric that keeps state by key."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from evalgauge.core.findings import suggest
from evalgauge.core.pack.check_consistency import check_consistency
from evalgauge.core.pack.check_progress import check_ids, check_progress
from evalgauge.core.pack.emitted import emitted
from evalgauge.core.pack.metric_model import (
    ActiveSpec,
    ConsistencySpec,
    ElapsedSpec,
    PatternSpec,
    ProgressSpec,
)

if TYPE_CHECKING:
    from evalgauge.core.document import Path_
    from evalgauge.core.pack.check import Check
    from evalgauge.core.pack.metric_model import DeviationSpec, KeyedSpec


_LEAST, _MOST = 0.001, 100 * 365.25 * 86_400
"""Seconds that a time of a keyed metric may be."""


def check_keyed(check: Check, path: Path_, name: str, metric: KeyedSpec) -> None:
    """Report every problem of a metric whose event types are known."""
    _check_key(check, path, name, metric)
    for key in ("ttl", "within", "lateness"):
        given = getattr(metric, key, None)
        for seconds in given if isinstance(given, list) else [given]:
            if (seconds is not None and not (key == "lateness" or seconds >= _LEAST)) or (
                seconds or 0
            ) > _MOST:
                check.report(
                    (*path, key), f"metric `{name}`: `{key}` must be from 1 ms to 100 years", at_key=True
                )
    if isinstance(metric, ElapsedSpec):
        _check_limits(check, path, name, metric)
    elif isinstance(metric, ActiveSpec):
        _check_closed(check, path, name, metric)
    elif isinstance(metric, PatternSpec):
        _check_pattern(check, path, name, metric)
    elif isinstance(metric, ProgressSpec):
        check_progress(check, path, name, metric)
    elif isinstance(metric, ConsistencySpec):
        check_consistency(check, path, name, metric)
    else:
        _check_judged(check, path, name, metric)
    added = {label for family in emitted(name, metric, "") for label in family.more}
    for label in sorted(added & metric.label_specs.keys()):
        message = f"metric `{name}`: label `{label}` is one that `{metric.type}` adds itself"
        where = (*path, "labels" if label in metric.labels else "by", label)
        check.report(where, message, "Choose another name.", at_key=True)


def _check_key(check: Check, path: Path_, name: str, metric: KeyedSpec) -> None:
    check_ids(check, (*path, "key"), f"metric `{name}`: key", metric.key, metric.on)


def _check_limits(check: Check, path: Path_, name: str, metric: ElapsedSpec) -> None:
    for index, (lower, upper) in enumerate(pairwise([0.0, *metric.within])):
        if lower >= upper:
            message = f"metric `{name}`: limit {upper:g} s does not come after {lower:g} s"
            check.report((*path, "within", index), message, "Sort them, each once, above zero.")
    most = max(metric.within, default=0.0) + metric.lateness
    if metric.ttl <= most:
        message = (
            f"metric `{name}`: a key is forgotten after {metric.ttl:g} s, and decided only after {most:g} s"
        )
        check.report(
            (*path, "ttl"), message, "`ttl` must be longer than the last limit and `lateness` together."
        )


def _check_closed(check: Check, path: Path_, name: str, metric: ActiveSpec) -> None:
    for index, event in enumerate(metric.closed):
        if event not in metric.on:
            message = f"metric `{name}`: `{event}` in `closed` is not in `on`"
            check.report((*path, "closed", index), message, suggest(event, metric.on))
    if not {*metric.on} - {*metric.closed} and not check.is_broken(*path):
        check.report(
            (*path, "closed"), f"metric `{name}`: no event type shows a key to be active", at_key=True
        )


def _check_judged(check: Check, path: Path_, name: str, metric: DeviationSpec) -> None:
    for event in metric.on:
        fields = check.events[event].columns
        spec = fields.get(metric.value)
        numbers = [one for one, found in fields.items() if found.type in {"number", "integer"}]
        if spec is None:
            message = f"metric `{name}`: value `{metric.value}` is no field of `{event}`"
            check.report((*path, "value"), message, suggest(metric.value, numbers))
        elif spec.type not in {"number", "integer"}:
            message = (
                f"metric `{name}`: value `{metric.value}` of `{event}` is of type `{spec.type}`, not a number"
            )
            check.report((*path, "value"), message, suggest(metric.value, numbers))
        elif spec.payload:
            message = f"metric `{name}`: `{metric.value}` of `{event}` is payload, which no state may hold"
            check.report((*path, "value"), message)
    specs = [check.events[event].columns.get(metric.value) for event in metric.on]
    units = {spec.unit for spec in specs if spec is not None}
    if len(units) > 1:
        shown = ", ".join(sorted(map(str, units)))
        message = f"metric `{name}`: `{metric.value}` has different units: {shown}"
        check.report((*path, "value"), message, "Use one unit.")


_MOST_AMONG = 64
"""Events that a pattern can look back at: one bit each."""


def _check_pattern(check: Check, path: Path_, name: str, metric: PatternSpec) -> None:
    if check.is_broken(*path):
        return
    _check_room(check, path, name, metric)
    for key, types in (("sequence", metric.sequence), ("counted", metric.counted)):
        for index, event in enumerate(types):
            if event not in metric.on:
                message = f"metric `{name}`: `{event}` in `{key}` is not in `on`"
                check.report((*path, key, index), message, suggest(event, metric.on))
    if metric.sequence and metric.count > 1:
        check.report((*path, "count"), f"metric `{name}`: `count` does not go with `sequence`", at_key=True)
    if len(metric.sequence) == 1:
        check.report((*path, "sequence"), f"metric `{name}`: one type is no sequence", "Leave it out.")
    if metric.counted and (metric.among is None or metric.sequence):
        check.report(
            (*path, "counted"), f"metric `{name}`: `counted` goes with `count` and `among`", at_key=True
        )
    if metric.within is not None and metric.ttl < metric.within:
        check.report((*path, "ttl"), f"metric `{name}`: `ttl` is shorter than `within`", at_key=True)


def _check_room(check: Check, path: Path_, name: str, metric: PatternSpec) -> None:
    bounds = [key for key in ("within", "among") if getattr(metric, key) is not None]
    many = bool(metric.sequence) or metric.count > 1
    if len(bounds) != (1 if many else 0):
        found = " and ".join(f"`{key}`" for key in bounds) or "none"
        wanted = (
            "exactly one of `within` and `among`"
            if many
            else "neither `within` nor `among`: each event is one"
        )
        check.report(path, f"metric `{name}` needs {wanted}, and has {found}", at_key=True)
    if metric.among is None:
        return
    least, most = len(metric.sequence) or metric.count, None if metric.sequence else _MOST_AMONG
    if metric.among < least or (most is not None and metric.among > most):
        told = "" if most is None else f", at most {most}"
        check.report((*path, "among"), f"metric `{name}`: `among` must be at least {least}{told}")
