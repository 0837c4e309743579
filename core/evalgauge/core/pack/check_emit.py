"""What is wrong with internal events: those that nobody makes, and fields that nothing fills."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalgauge.core.findings import suggest
from evalgauge.core.pack.emitted import percent
from evalgauge.core.pack.metric_model import DeviationSpec, PatternSpec, ProgressSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evalgauge.core.document import Path_
    from evalgauge.core.pack.check import Check
    from evalgauge.core.pack.event_model import EventSpec, FieldSpec
    from evalgauge.core.pack.metric_model import EmitSpec, MetricSpec

_NUMBER = None
"""Instead of the texts that a field can hold."""
_ANY: tuple[str, ...] = ()
_NEVER_REFUSED = ("max_length", "min", "max")


def emit_of(metric: MetricSpec) -> EmitSpec | None:
    """What internal event a metric makes, if it can and does."""
    return getattr(metric, "emit", None)


def own_fields(metric: MetricSpec) -> Mapping[str, tuple[str, ...] | None]:
    """What a kind of metric says of each thing that it finds: name → texts it can be, any, or a number."""
    match metric:
        case PatternSpec():
            return {} if metric.severity is None else {"severity": (metric.severity,)}
        case DeviationSpec():
            return {"side": ("above", "below"), "value": _NUMBER}
        case ProgressSpec():
            return {"milestone": tuple(map(percent, metric.milestones)), "ratio": _NUMBER}
    return {}


def check_internal(check: Check) -> None:
    """Report every problem of the internal events of a pack."""
    made = {emit.event for metric in check.pack.metrics.values() if (emit := emit_of(metric)) is not None}
    for name, event in check.pack.events.items():
        if not event.internal:
            continue
        if name not in made and not any(check.is_broken("metrics", metric) for metric in check.pack.metrics):
            hint = "Name it in the `emit` of one, or leave it out."
            check.report(("events", name), f"no metric makes the internal event `{name}`", hint, at_key=True)
        for field, spec in event.fields.items():
            for key in _NEVER_REFUSED:
                if getattr(spec, key) is not None:
                    message = f"field `{field}`: an internal event is never refused, `{key}` decides nothing"
                    check.report(
                        ("events", name, "fields", field, key), message, "Leave it out.", at_key=True
                    )


def check_emit(check: Check, path: Path_, name: str, metric: MetricSpec) -> None:
    """Report every problem of what a metric makes, and of making one thing of internal and other events."""
    internal = [type_ for type_ in metric.on if check.events[type_].internal]
    if internal and len(internal) < len(metric.on):
        message = f"metric `{name}`: `{internal[0]}` is internal, and other events of `on` are not"
        check.report(path, message, "Declare a metric for each: they have no common order.", at_key=True)
    emit = emit_of(metric)
    if emit is None:
        return
    where = (*path, "emit")
    if internal:
        message = f"metric `{name}`: what is found in internal events makes no further ones"
        check.report(where, message, "Leave `emit` out.", at_key=True)
    event = check.events.get(emit.event)
    if event is not None:
        _check_fields(check, where, name, metric, event)
    elif not check.is_broken("events", emit.event):
        types = [type_ for type_, spec in check.events.items() if spec.internal]
        message = f"metric `{name}` makes `{emit.event}`, which is declared nowhere"
        check.report(where, message, suggest(emit.event, types))


def _check_fields(check: Check, where: Path_, name: str, metric: MetricSpec, event: EventSpec) -> None:
    emit = emit_of(metric)
    assert emit is not None  # noqa: S101 - against a fault of the caller
    if not event.internal:
        hint = f"Write `internal: true` at `{emit.event}`."
        check.report(where, f"metric `{name}` makes `{emit.event}`, which comes from outside", hint)
    for field in emit.set:
        if field not in event.fields:
            message = f"metric `{name}`: `{field}` is no field of `{emit.event}`"
            check.report((*where, "set", field), message, suggest(field, event.fields), at_key=True)
    keys = {*getattr(metric, "key", ())} | {check.events[type_].tenant for type_ in metric.on[:1]}
    known = {
        "metric": (name,),
        **own_fields(metric),
        **dict.fromkeys([*metric.labels, *filter(None, keys)], _ANY),
    }
    known |= {key: (text,) for key, text in emit.set.items()}
    for field, spec in event.fields.items():
        problem, hint = _unfit(field, spec, known)
        if problem:
            check.report(where, f"metric `{name}`: `{field}` of `{emit.event}` {problem}", hint)


def _unfit(field: str, spec: FieldSpec, known: Mapping[str, tuple[str, ...] | None]) -> tuple[str, str]:
    """Why a field cannot be filled with what is `known`, and the mend; empty if it can."""
    if field not in known:
        return "is filled by nothing", f"Give its text in `set`. What is filled: {', '.join(sorted(known))}."
    texts = known[field]
    wanted = "number" if texts is _NUMBER else "string"
    if spec.type != wanted:
        return f"is of type `{spec.type}`, and filled with a {wanted}", ""
    if spec.enum is not None and (not texts or not {*texts} <= {*spec.enum}):
        told = f"`{'`, `'.join(texts)}`" if texts else "any text"
        return f"has an enum, and is filled with {told}", "List it there, or leave the enum out."
    return "", ""
