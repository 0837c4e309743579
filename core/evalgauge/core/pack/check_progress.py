"""What is wrong with a metric of progress, and with fields that hold ids."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from evalgauge.core.findings import suggest
from evalgauge.core.pack.check_labels import check_label
from evalgauge.core.units import UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evalgauge.core.document import Path_
    from evalgauge.core.pack.check import Check
    from evalgauge.core.pack.event_model import FieldSpec
    from evalgauge.core.pack.metric_model import ProgressSpec

_NUMBERS = {"number", "integer"}


def check_ids(check: Check, path: Path_, what: str, fields: Sequence[str], events: Sequence[str]) -> None:
    """Report the problems of fields whose texts tell things apart; each must be in all of `events`."""
    for index, field in enumerate(fields):
        where = (*path, index)
        if field in fields[:index]:
            check.report(where, f"metric `{path[1]}`: `{field}` stands in `{path[-1]}` twice")
        for event in events:
            spec = check.events[event].columns.get(field)
            if spec is None:
                known = [one for one, found in check.events[event].columns.items() if found.type == "string"]
                check.report(where, f"{what} `{field}` is no field of `{event}`", suggest(field, known))
            elif spec.type != "string":
                message = f"{what} `{field}` of `{event}` is of type `{spec.type}`, not text"
                check.report(where, message, "Declare it as `string`: an id is text.")
            elif spec.payload:
                check.report(where, f"{what} `{field}` of `{event}` is payload, which no state may hold")


def check_progress(check: Check, path: Path_, name: str, metric: ProgressSpec) -> None:
    """Report every problem of a metric of progress whose event types are known; those of its key are known too."""
    told = list(dict.fromkeys(metric.on_))
    for index, event in enumerate(metric.on_):
        if event in metric.on_[:index]:
            check.report((*path, "on", index), f"metric `{name}`: `{event}` stands there twice")
    check_ids(check, (*path, "pairs"), f"metric `{name}`: pair field", metric.pairs, told)
    for index, field in enumerate(metric.pairs):
        if field in metric.key:
            message = f"metric `{name}`: `{field}` stands in `key` already"
            check.report((*path, "pairs", index), message, "Name what tells the pairs of a key apart.")
    _check_value(check, path, name, metric, told)
    for event, field in metric.expected.items():
        where = (*path, "expected", event)
        spec = check.events[event].columns.get(field)
        if spec is None:
            message = f"metric `{name}`: `{field}` is no field of `{event}`"
            check.report(where, message, suggest(field, _numbers(check, event)))
        elif spec.type not in _NUMBERS:
            message = (
                f"metric `{name}`: `{field}` of `{event}` is of type `{spec.type}`, not a number of pairs"
            )
            check.report(where, message, suggest(field, _numbers(check, event)))
    _check_milestones(check, path, name, metric)
    _check_by(check, path, name, metric)


def _numbers(check: Check, event: str) -> list[str]:
    return [one for one, found in check.events[event].columns.items() if found.type in _NUMBERS]


def _check_value(check: Check, path: Path_, name: str, metric: ProgressSpec, told: Sequence[str]) -> None:
    where, found = (*path, "value"), []
    for event in told:
        spec = check.events[event].columns.get(metric.value)
        if spec is None:
            message = f"metric `{name}`: value `{metric.value}` is no field of `{event}`"
            check.report(where, message, suggest(metric.value, _numbers(check, event)))
        elif spec.type not in _NUMBERS:
            message = (
                f"metric `{name}`: value `{metric.value}` of `{event}` is of type `{spec.type}`, not a number"
            )
            check.report(where, message, suggest(metric.value, _numbers(check, event)))
        elif not _is_ratio(spec):
            message = f"metric `{name}`: value `{metric.value}` of `{event}` is no progress in `{spec.unit}`"
            message = (
                message if spec.unit else f"metric `{name}`: nothing says how `{metric.value}` is measured"
            )
            check.report(where, message, f"Declare `unit: percent` or `unit: ratio` for `{metric.value}`.")
        else:
            found.append(spec.unit)
    for event in metric.expected:
        spec = check.events[event].columns.get(metric.value)
        if event not in told and spec is not None and spec.unit is not None:
            found.append(spec.unit)
    if len({*found}) > 1:
        shown = ", ".join(sorted({*map(str, found)}))
        check.report(
            where, f"metric `{name}`: `{metric.value}` has different units: {shown}", "Use one unit."
        )


def _is_ratio(spec: FieldSpec) -> bool:
    return spec.unit in UNITS and UNITS[spec.unit].base == "ratio"


def _check_milestones(check: Check, path: Path_, name: str, metric: ProgressSpec) -> None:
    for index, (lower, upper) in enumerate(pairwise([0.0, *metric.milestones])):
        if not lower < upper <= 1:
            message = f"metric `{name}`: milestone {upper:g} does not come after {lower:g}"
            message = message if upper <= 1 else f"metric `{name}`: milestone {upper:g} lies beyond 1"
            hint = "They are ratios, ascending, each once, above 0 up to 1: 50 % is 0.5."
            check.report((*path, "milestones", index), message, hint)
        elif round(upper * 100, 4) != round(upper * 100, 12):
            check.report(
                (*path, "milestones", index),
                f"metric `{name}`: milestone {upper!r} is finer than a ten-thousandth of a percent",
            )
    if "milestone_keys" in metric.model_fields_set and not metric.milestones and not check.is_broken(*path):
        check.report(
            (*path, "milestone_keys"),
            f"metric `{name}`: `milestone_keys` goes with `milestones`",
            at_key=True,
        )


def _check_by(check: Check, path: Path_, name: str, metric: ProgressSpec) -> None:
    for label, spec in metric.by.items():
        where = (*path, "by", label)
        check_label(check, where, metric, spec)
        if spec.field is None:
            message = f"metric `{name}`: further label `{label}` needs a `field`"
            check.report(
                where, message, "What is the same for all, or for a time, divides no pairs.", at_key=True
            )
        if label in metric.labels:
            message = f"metric `{name}`: `{label}` is a label of it already"
            check.report(where, message, "Take it out of `by`.", at_key=True)
