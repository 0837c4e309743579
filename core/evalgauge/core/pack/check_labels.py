"""What is wrong with a metric's labels: where their values come from, and which values those can be."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zoneinfo import available_timezones

from evalgauge.core.findings import suggest
from evalgauge.core.pack.metric_model import CounterSpec
from evalgauge.core.pack.names import MOST_INTEGERS, OTHER, PROCESS, RESERVED_LABELS, integers

if TYPE_CHECKING:
    from evalgauge.core.document import Path_
    from evalgauge.core.pack.check import Check
    from evalgauge.core.pack.event_model import FieldSpec, LabelSpec
    from evalgauge.core.pack.metric_model import MetricSpec

_MOST_LABELS = 20
"""Prometheus itself has no limit; more than this is a mistake."""
_A = {
    "gauge": "a gauge",
    "histogram": "a histogram",
    "elapsed": "a time",
    "active": "a gauge",
    "deviation": "this",
    "pattern": "this",
    "progress": "this",
    "window": "a window",
    "consistency": "a distribution",
}


def check_labels(check: Check, path: Path_, name: str, metric: MetricSpec) -> None:
    """Report every problem of the labels of one metric whose event types are known."""
    if len(metric.labels) > _MOST_LABELS:
        check.report((*path, "labels"), f"metric `{name}` has more than {_MOST_LABELS} labels", at_key=True)
    for label, spec in metric.labels.items():
        check_label(check, (*path, "labels", label), metric, spec)


def check_label(check: Check, where: Path_, metric: MetricSpec, spec: LabelSpec) -> None:
    """Report every problem of the label that stands at `where`, whose last part is its name."""
    name, label = where[1], str(where[-1])
    if label in RESERVED_LABELS:
        hint = "Prometheus, its rules or the deployment set it. Choose another name."
        check.report(where, f"metric `{name}`: label `{label}` is reserved", hint, at_key=True)
    given = [key for key in ("field", "constant", "quality", "calendar") if getattr(spec, key) is not None]
    if len(given) != 1 and check.is_broken("metrics", name) and not given:
        return  # A misspelt key was left out.
    if len(given) != 1:
        found = f"both `{'` and `'.join(given)}`" if given else "none of them"
        message = "needs exactly one of `field`, `constant`, `quality` and `calendar`"
        check.report(where, f"metric `{name}`: label `{label}` {message}, and has {found}", at_key=True)
        return
    _check_keys(check, where, label, spec, metric)
    _check_texts(check, where, label, spec)
    if PROCESS in metric.on:
        return
    if spec.field is not None:
        _check_field(check, where, label, spec, metric)
    if spec.quality is not None:
        _check_quality(check, where, label, spec, metric)


def _check_keys(check: Check, where: Path_, label: str, spec: LabelSpec, metric: MetricSpec) -> None:
    if spec.field is None:
        for key in ("default", "table", "table_default", "limit"):
            if key in spec.model_fields_set:
                check.report(
                    (*where, key), f"label `{label}`: `{key}` goes with `field`", "Leave it out.", at_key=True
                )
    if "zone" in spec.model_fields_set and spec.calendar is None:
        check.report((*where, "zone"), f"label `{label}`: `zone` goes with `calendar`", at_key=True)
    if spec.zone not in available_timezones():
        message = f"label `{label}`: there is no time zone `{spec.zone}`"
        check.report((*where, "zone"), message, suggest(spec.zone, available_timezones()))
    if spec.table_default is not None and spec.table is None:
        check.report(
            (*where, "table_default"), f"label `{label}`: `table_default` goes with `table`", at_key=True
        )
    if spec.enum is not None and PROCESS not in metric.on:
        hint = "Declare the enum at the event's field."
        check.report((*where, "enum"), f"label `{label}`: `enum` is for `on: {PROCESS}`", hint, at_key=True)


def _check_texts(check: Check, where: Path_, label: str, spec: LabelSpec) -> None:
    if spec.constant == "":
        check.report(
            (*where, "constant"), f"label `{label}`: an empty constant is no label", "Leave the label out."
        )
    texts: dict[Path_, str | None] = {
        ("constant",): spec.constant,
        ("default",): spec.default,
        ("table_default",): spec.table_default,
    }
    texts |= {("table", key): value for key, value in (spec.table or {}).items()}
    for key, text in texts.items():
        if text == OTHER:
            check.report((*where, *key), f"label `{label}`: `{OTHER}` is reserved for values beyond a limit")


def _check_field(check: Check, where: Path_, label: str, spec: LabelSpec, metric: MetricSpec) -> None:
    name = str(spec.field)
    found: list[FieldSpec] = []
    for event in metric.labelled:
        fields = check.events[event].columns
        if name in fields:
            found.append(fields[name])
        else:
            message = f"metric `{where[1]}`: label `{label}` names no field of `{event}`: `{name}`"
            check.report(
                (*where, "field"),
                message,
                _mend(name, [key for key, one in fields.items() if not one.payload]),
            )
    for one in found:
        problem, hint = _unfit(one, spec)
        if problem:
            check.report((*where, "field"), f"metric `{where[1]}`: label `{label}`: `{name}` {problem}", hint)
            break
    if found and len(found) == len(metric.labelled):
        _check_default(check, where, label, spec, found)
        _check_table(check, where, label, spec, found)
    enum = [member for one in found for member in one.enum or ()]
    if enum and spec.limit < len(set(enum)) and spec.table is None:
        message = f"label `{label}`: limit {spec.limit} is below the {len(set(enum))} values of its enum"
        check.report((*where, "limit"), message)


def _mend(name: str, fields: list[str]) -> str:
    near = suggest(name, fields)
    listed = ", ".join(fields[:20]) + (", …" if len(fields) > 20 else "")  # noqa: PLR2004 - as much as one reads
    return f"{near} Fields: {listed}." if near.startswith("Did you mean") else near


def _unfit(field: FieldSpec, spec: LabelSpec) -> tuple[str, str]:
    """Why a field can be no label, and the mend; empty if it can."""
    if field.payload:
        return "is payload, which no metric may show", "Leave the label out."
    if field.type == "any":
        return "may be anything, which is no label", "Give the field a type."
    tabled = spec.table is not None and spec.table_default is not None
    if field.type == "number" and not tabled:
        hint = "Observe it in a histogram, or give `table` and `table_default`."
        return "is a number, and each would be a series of its own", hint
    if field.type == "integer" and not tabled and integers(field) is None:
        hint = f"Declare its `min` and `max` (at most {MOST_INTEGERS} numbers), or give `table` and `table_default`."
        return "is a number without bounds, and each would be a series of its own", hint
    return "", ""


def _check_default(check: Check, where: Path_, label: str, spec: LabelSpec, found: list[FieldSpec]) -> None:
    if not spec.default:
        return
    if all(field.required for field in found):
        message = f"label `{label}`: `default` is never used, an event without `{spec.field}` is refused"
        check.report((*where, "default"), message, "Leave it out.", at_key=True)
    longest = min((field.max_length for field in found if field.max_length is not None), default=None)
    if longest is not None and len(spec.default) > longest:
        message = (
            f"label `{label}`: default `{spec.default}` is longer than max_length {longest} of `{spec.field}`"
        )
        check.report((*where, "default"), message)


def _check_table(check: Check, where: Path_, label: str, spec: LabelSpec, found: list[FieldSpec]) -> None:
    for key in spec.table or ():
        place = (*where, "table", key)
        possible = {member for field in found for member in field.enum or ()}
        if all(field.type == "boolean" for field in found):
            possible = {"true", "false"}
        if possible and key not in possible and all(field.enum or field.type == "boolean" for field in found):
            check.report(
                place,
                f"label `{label}`: `{spec.field}` is never `{key}`",
                suggest(key, possible),
                at_key=True,
            )
        if all(field.type in {"number", "integer"} for field in found) and not _is_number(key):
            check.report(
                place, f"label `{label}`: `{spec.field}` is a number, and `{key}` is none", at_key=True
            )
        longest = [field.max_length for field in found if field.max_length is not None]
        if len(longest) == len(found) and len(key) > max(longest):
            check.report(
                place, f"label `{label}`: `{key}` is longer than max_length of `{spec.field}`", at_key=True
            )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_quality(check: Check, where: Path_, label: str, spec: LabelSpec, metric: MetricSpec) -> None:
    without = [event for event in metric.labelled if not check.events[event].quality]
    if without:
        message = f"metric `{where[1]}`: label `{label}`: `{without[0]}` has no quality rules"
        check.report((*where, "quality"), message, "Declare them in its `quality`, or leave the label out.")
    if spec.quality == "rule" and not isinstance(metric, CounterSpec):
        message = f"metric `{where[1]}`: label `{label}`: an event counts once for each broken rule"
        check.report(
            (*where, "quality"), message, f"That has a meaning for a counter, not for {_A[metric.type]}."
        )
    several = [key for key, one in metric.labels.items() if one.quality == "rule"]
    if spec.quality == "rule" and label != several[0]:
        check.report(
            (*where, "quality"), f"metric `{where[1]}`: two labels of broken rules", "Leave one out."
        )
