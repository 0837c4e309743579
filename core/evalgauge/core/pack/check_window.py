"""What is wrong with a metric of windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalgauge.core.findings import suggest

if TYPE_CHECKING:
    from evalgauge.core.document import Path_
    from evalgauge.core.pack.check import Check
    from evalgauge.core.pack.metric_model import WindowSpec

MOST_STEPS = 1_500
"""Steps that a window and its lateness may have: one a minute for a day and an hour."""
MOST_SERIES = 1 << 24
_LEAST, _MOST = 1.0, 100 * 365.25 * 86_400
"""Seconds that a window, or a step of it, may have."""


def check_window(check: Check, path: Path_, name: str, metric: WindowSpec) -> None:
    """Report every problem of a metric whose event types are known."""
    if check.is_broken(*path):
        return
    if (metric.size is None) == (metric.events is None):
        found = "neither" if metric.size is None else "both"
        message = (
            f"metric `{name}` needs either `size` (a time) or `events` (a number of them), and has {found}"
        )
        check.report(path, message, at_key=True)
    elif metric.size is not None:
        for key in ("every_events", "ttl"):
            _check_foreign(check, path, metric, key, "`events`")
        _check_times(check, path, name, metric, metric.size)
    elif metric.events is not None:
        for key in ("every", "lateness"):
            _check_foreign(check, path, metric, key, "`size`")
        _check_steps(check, path, "every_events", (metric.events, metric.every_events or metric.events, 0))
        if not _LEAST <= metric.ttl <= _MOST:
            check.report((*path, "ttl"), f"metric `{name}`: `ttl` must be from 1 s to 100 years", at_key=True)
    if metric.limit > MOST_SERIES:
        check.report(
            (*path, "limit"), f"metric `{name}`: windows have at most {MOST_SERIES} series", at_key=True
        )
    _check_shown(check, path, name, metric)
    _check_distinct(check, path, name, metric)


def _check_foreign(check: Check, path: Path_, metric: WindowSpec, key: str, partner: str) -> None:
    if key in metric.model_fields_set:
        message = f"metric `{path[-1]}`: `{key}` goes with {partner}"
        check.report((*path, key), message, "Leave it out.", at_key=True)


def _check_times(check: Check, path: Path_, name: str, metric: WindowSpec, size: float) -> None:
    every = size if metric.every is None else metric.every
    sound = True
    for key, seconds in (("size", size), ("every", every)):
        if not _LEAST <= seconds <= _MOST and (key == "size" or metric.every is not None):
            sound = False
            check.report((*path, key), f"metric `{name}`: `{key}` must be from 1 s to 100 years", at_key=True)
    if metric.lateness > _MOST:
        check.report(
            (*path, "lateness"), f"metric `{name}`: `lateness` must be at most 100 years", at_key=True
        )
    elif sound:
        _check_steps(check, path, "every", (_micros(size), _micros(every), _micros(metric.lateness)))


def _check_steps(check: Check, path: Path_, key: str, sizes: tuple[int, int, int]) -> None:
    """`sizes` are those of a window, a step, and how much longer steps are held."""
    name, (size, every, lateness) = path[-1], sizes
    whole, unit = ("size", "s") if key == "every" else ("events", "events")
    scale = 1_000_000 if key == "every" else 1
    if size % every:
        parts = max(1, size // every)
        part = next((one for one in range(parts, parts + MOST_STEPS) if size % (one * scale) == 0), 1)
        told = f"{size / scale:g} {unit}, is no whole number of steps of {every / scale:g}"
        message = f"metric `{name}`: `{whole}`, {told}"
        check.report(
            (*path, key), message, f"Write `{key}: {size // part / scale:g}`, or another part of it."
        )
    elif (steps := -(-(size + lateness) // every)) > MOST_STEPS:
        added = " and `lateness` together" if lateness else ""
        message = f"metric `{name}`: `{whole}`{added} are {steps} steps, and at most {MOST_STEPS} are held"
        least = -(-(size + lateness) // MOST_STEPS) / scale
        check.report(
            (*path, key if every != size else "lateness"),
            message,
            f"A step must be at least {least:g} {unit} long.",
        )


def _micros(seconds: float) -> int:
    return round(seconds * 1e6)


def _check_shown(check: Check, path: Path_, name: str, metric: WindowSpec) -> None:
    wanting = [one for one in metric.show if one != "count"]
    for key, wants in (("show", wanting), ("quantiles", metric.quantiles)):
        if wants and metric.value is None:
            message = f"metric `{name}`: `{key}` needs `value`, the field whose values are meant"
            check.report((*path, key), message, at_key=True)
    for key, values in (("show", metric.show), ("quantiles", metric.quantiles)):
        for index, one in enumerate(values):
            if one in values[:index]:
                check.report((*path, key, index), f"metric `{name}`: `{one}` stands in `{key}` twice")
    for index, share in enumerate(metric.quantiles):
        if not 0 <= share <= 1:
            message = f"metric `{name}`: {share:g} is no share from 0 to 1"
            check.report((*path, "quantiles", index), message, "The 95th percentile is 0.95.")


def _check_distinct(check: Check, path: Path_, name: str, metric: WindowSpec) -> None:
    if metric.distinct is None:
        _check_foreign(check, path, metric, "keys", "`distinct`")
        return
    where = (*path, "distinct")
    for event in metric.on:
        fields = check.events[event].columns
        spec = fields.get(metric.distinct)
        if spec is None:
            texts = [one for one, found in fields.items() if found.type == "string"]
            message = f"metric `{name}`: `{metric.distinct}` in `distinct` is no field of `{event}`"
            check.report(where, message, suggest(metric.distinct, texts))
        elif spec.type != "string":
            message = f"metric `{name}`: `{metric.distinct}` of `{event}` is of type `{spec.type}`, not text"
            check.report(where, message, "Declare it as `string`.")
        elif spec.payload:
            message = f"metric `{name}`: `{metric.distinct}` of `{event}` is payload, which no state may hold"
            check.report(where, message)
