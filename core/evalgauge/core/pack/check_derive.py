"""What is wrong with the derived fields of an event type."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from evalgauge.core import plugins
from evalgauge.core.errors import ConfigError
from evalgauge.core.findings import suggest
from evalgauge.core.pack.event_model import DERIVATIONS
from evalgauge.core.pack.names import FILTER_WORDS, OTHER
from evalgauge.core.units import UNITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evalgauge.core.document import Path_
    from evalgauge.core.pack.check import Check
    from evalgauge.core.pack.event_model import BucketSpec, DeriveSpec, EventSpec, FieldSpec

_NUMBERS = ("number", "integer")
_TAKES = {
    "ratio": _NUMBERS,
    "difference": _NUMBERS,
    "bucket": _NUMBERS,
    "hash": ("string", *_NUMBERS),
    "lower": ("string",),
    "function": ("string", "boolean", *_NUMBERS),
}
"""Kind → types of the fields that it can be made of."""
_WITH_FUNCTION = ("fields", "type", "enum", "min", "max")


def check_derive(check: Check, path: Path_, event: EventSpec) -> None:
    """Report every problem of the derived fields of an event type whose fields are known."""
    known = dict(event.fields)
    for name, one in event.derive.items():
        where = (*path, name)
        _check_name(check, where, name, event)
        if not one.kind:
            given = [key for key in DERIVATIONS if getattr(one, key) is not None]
            found = f"both `{'` and `'.join(given)}`" if given else "none of them"
            message = f"derived field `{name}` needs exactly one of {', '.join(DERIVATIONS)}, and has {found}"
            check.report(where, message, at_key=True)
        else:
            _check_operands(check, where, one, known, event)
            _check_keys(check, where, one)
            _check_unit(check, where, one, known)
        if one.bucket is not None:
            _check_bucket(check, where, one.bucket)
        if one.function is not None:
            _check_function(check, where, one.function, one)
        if name not in event.fields:
            known[name] = one.as_field(known)


def _check_name(check: Check, where: Path_, name: str, event: EventSpec) -> None:
    if name in event.fields:
        message = f"derived field `{name}`: `{where[1]}` has a field of that name"
        check.report(where, message, "Call it something else.", at_key=True)
    if name in FILTER_WORDS:
        message = f"derived field `{name}`: this name is a word of filters"
        check.report(where, message, "Call it something else.", at_key=True)


def _check_operands(
    check: Check, where: Path_, one: DeriveSpec, known: Mapping[str, FieldSpec], event: EventSpec
) -> None:
    name = str(where[-1])
    for index, operand in enumerate(one.operands):
        place = _place(where, one, index)
        spec = known.get(operand)
        if spec is None:
            _check_unknown(check, place, name, operand, known, event)
            continue
        if spec.payload:
            message = f"derived field `{name}`: `{operand}` is payload, of which nothing may be shown or kept"
            check.report(place, message)
        elif spec.type not in _TAKES[one.kind]:
            kinds = ", ".join(_TAKES[one.kind])
            message = f"derived field `{name}`: `{operand}` is of type `{spec.type}`"
            check.report(place, message, f"`{one.kind}` is made of: {kinds}.")


def _check_unknown(  # noqa: PLR0913, PLR0917 - they belong together
    check: Check,
    place: Path_,
    name: str,
    operand: str,
    known: Mapping[str, FieldSpec],
    event: EventSpec,
) -> None:
    """Report an operand that is no field, or not yet one."""
    if operand not in event.derive:
        message = f"derived field `{name}`: `{operand}` is no field of `{place[1]}`"
        check.report(place, message, suggest(operand, known))
        return
    way = _circle(event, name, operand)
    if way:
        message = f"derived field `{name}` is made of itself: {' → '.join(way)}"
        check.report(place, message, "One of these must be made of fields alone.")
    else:
        message = f"derived field `{name}` is made of `{operand}`, which is derived after it"
        check.report(place, message, f"Put `{operand}` before `{name}`.")


def _circle(event: EventSpec, name: str, operand: str) -> list[str]:
    """The way from `name` over `operand` back to it; empty where there is none."""
    ways, seen = [[name, operand]], {operand}
    while ways:
        way = ways.pop()
        if way[-1] == name:
            return way
        for following in event.derive[way[-1]].operands:
            if following == name or (following in event.derive and following not in seen):
                seen.add(following)
                ways.append([*way, following])
    return []


def _place(where: Path_, one: DeriveSpec, index: int) -> Path_:
    if one.kind in {"bucket", "hash"}:
        return (*where, one.kind, "field")
    if one.kind == "lower":
        return (*where, "lower")
    return (*where, "fields" if one.kind == "function" else one.kind, index)


def _check_keys(check: Check, where: Path_, one: DeriveSpec) -> None:
    """Report keys that have no meaning beside the others."""
    name = where[-1]
    wrong = [] if one.function is not None else [(key, "`function`") for key in _WITH_FUNCTION]
    if one.function is not None and one.type == "number":
        wrong = [("enum", "a `function` of text")]
    elif one.function is not None:
        wrong = [(key, "a `function` of numbers") for key in ("min", "max")]
    numbers = one.kind in {"ratio", "difference"} or one.type == "number"
    wrong += [] if numbers else [("unit", "numbers")]
    for key, with_ in wrong:
        if getattr(one, key):
            message = f"derived field `{name}`: `{key}` goes with {with_}"
            check.report((*where, key), message, "Leave it out.", at_key=True)


def _check_unit(check: Check, where: Path_, one: DeriveSpec, known: Mapping[str, FieldSpec]) -> None:
    name = where[-1]
    if one.unit is not None and one.unit not in UNITS:
        message = f"derived field `{name}`: unknown unit `{one.unit}`"
        check.report((*where, "unit"), message, suggest(one.unit, UNITS))
    if one.difference is None:
        return
    units = {known[operand].unit for operand in one.difference if operand in known}
    shown = " and ".join(sorted(unit or "none" for unit in units))
    if len(units) > 1:
        message = f"derived field `{name}`: a difference of different units: {shown}"
        check.report((*where, "difference"), message, "Declare one unit for both.")
    elif one.unit is not None and units - {one.unit, None}:
        message = (
            f"derived field `{name}`: unit `{one.unit}`, but a difference is in that of its fields: {shown}"
        )
        check.report((*where, "unit"), message, "Leave it out: metrics convert values.")


def _check_bucket(check: Check, where: Path_, bucket: BucketSpec) -> None:
    name = where[-1]
    for index, (lower, upper) in enumerate(pairwise(bucket.bounds), 1):
        if lower >= upper:
            message = f"derived field `{name}`: bound {upper:g} does not come after {lower:g}"
            check.report((*where, "bucket", "bounds", index), message, "Sort them, each once.")
    wanted, given = len(bucket.bounds) + 1, len(bucket.names)
    if wanted != given:
        message = (
            f"derived field `{name}`: {len(bucket.bounds)} bounds make {wanted} ranges, and {given} are named"
        )
        check.report((*where, "bucket", "names"), message)
    _check_names(check, (*where, "bucket", "names"), str(name), bucket.names)


def _check_names(check: Check, where: Path_, name: str, texts: list[str]) -> None:
    for index, text in enumerate(texts):
        if text == OTHER:
            message = f"derived field `{name}`: `{OTHER}` is reserved for values beyond a limit"
            check.report((*where, index), message)
        elif not text:
            check.report((*where, index), f"derived field `{name}`: a text must not be empty")
        elif text in texts[:index]:
            check.report((*where, index), f"derived field `{name}`: `{text}` stands there twice")


def _check_function(check: Check, where: Path_, function: str, one: DeriveSpec) -> None:
    name = str(where[-1])
    for key in ("fields", "type"):
        if not getattr(one, key):
            check.report(where, f"derived field `{name}`: key `{key}` is missing", at_key=True)
    if one.min is not None and one.max is not None and one.min > one.max:
        message = f"derived field `{name}`: `min` {one.min:g} is above `max` {one.max:g}"
        check.report((*where, "min"), message)
    _check_names(check, (*where, "enum"), name, one.enum or [])
    known = plugins.names(plugins.DERIVE)
    if function not in known:
        message = f"derived field `{name}`: no function `{function}` is installed in the entry-point group"
        check.report((*where, "function"), f"{message} `{plugins.DERIVE}`", suggest(function, known))
        return
    try:
        found = plugins.load(plugins.DERIVE, function)
    except ConfigError as error:
        check.report((*where, "function"), f"derived field `{name}`: {error}")
        return
    if not callable(found):
        check.report((*where, "function"), f"derived field `{name}`: `{function}` is no function")
