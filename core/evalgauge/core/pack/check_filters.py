"""What is wrong with a filter: fields that are not there, comparisons that never hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalgauge.core.findings import suggest
from evalgauge.core.pack.event_model import AllOf, AnyOf, Not

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evalgauge.core.document import Path_
    from evalgauge.core.pack.check import Check
    from evalgauge.core.pack.event_model import Comparison, FieldSpec, Filter

_ORDER = ("lt", "le", "gt", "ge")


def check_filter(check: Check, path: Path_, where: Filter, on: Sequence[str]) -> None:
    """Report every problem of a filter over the events `on`, which are all known."""
    if isinstance(where, AllOf):
        for index, part in enumerate(where.all):
            check_filter(check, (*path, "all", index), part, on)
    elif isinstance(where, AnyOf):
        for index, part in enumerate(where.any):
            check_filter(check, (*path, "any", index), part, on)
    elif isinstance(where, Not):
        check_filter(check, (*path, "not"), where.not_, on)
    elif not where:
        check.report(path, "the filter names no field", "Leave it out.")
    else:
        for field, comparison in where.items():
            for event in on:
                spec = check.events[event].columns.get(field)
                if spec is None:
                    hint = suggest(field, check.events[event].columns)
                    check.report(
                        (*path, field), f"filter: `{field}` is no field of `{event}`", hint, at_key=True
                    )
                else:
                    _check_comparison(check, (*path, field), field, spec, comparison)


def _check_comparison(check: Check, path: Path_, field: str, spec: FieldSpec, comparison: Comparison) -> None:
    given = {key for key in ("eq", "in_", *_ORDER, "present") if getattr(comparison, key) is not None}
    if not given:
        check.report(
            path,
            f"filter: the comparison of `{field}` asks for nothing",
            "Give eq, in, lt, le, gt, ge or present.",
        )
    if comparison.present is False and len(given) > 1:
        check.report(path, f"filter: an absent `{field}` equals nothing, so this never holds")
    if spec.type == "any" and given - {"present"}:
        message = f"filter: `{field}` may be anything: only `present` can be asked of it"
        check.report(path, message, "Give the field a type.")
        return
    for key in _ORDER:
        if key in given and spec.type not in {"number", "integer"}:
            message = f"filter: `{key}` compares numbers, and `{field}` is of type `{spec.type}`"
            check.report((*path, key), message, at_key=True)
    values: list[tuple[Path_, object]] = [((*path, "eq"), comparison.eq)] if comparison.eq is not None else []
    values += [((*path, "in", index), one) for index, one in enumerate(comparison.in_ or ())]
    for place, value in values:
        _check_equal(check, place, field, spec, value)
    lower = max((one for one in (comparison.gt, comparison.ge) if one is not None), default=None)
    upper = min((one for one in (comparison.lt, comparison.le) if one is not None), default=None)
    if lower is not None and upper is not None:
        open_ended = lower == comparison.gt or upper == comparison.lt
        if lower > upper or (lower == upper and open_ended):
            check.report(path, f"filter: no `{field}` is above {lower:g} and below {upper:g} at once")


def _check_equal(check: Check, path: Path_, field: str, spec: FieldSpec, value: object) -> None:
    right = {
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "integer": isinstance(value, int | float)
        and not isinstance(value, bool)
        and float(value).is_integer(),
    }[spec.type]
    if not right:
        shown = str(value).lower() if isinstance(value, bool) else value
        hint = "Put it in quotes." if spec.type == "string" else ""
        check.report(path, f"filter: `{field}` is of type `{spec.type}` and never equals `{shown}`", hint)
    elif spec.enum is not None and value not in spec.enum:
        check.report(path, f"filter: `{field}` is never `{value}`", suggest(str(value), spec.enum))
    elif isinstance(value, float) and (
        (spec.min is not None and value < spec.min) or (spec.max is not None and value > spec.max)
    ):
        check.report(path, f"filter: `{field}` is never {value:g}, the schema refuses it")
