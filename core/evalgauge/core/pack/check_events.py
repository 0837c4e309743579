"""What is wrong with a pack's event types: fields that contradict themselves, quality rules that cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalgauge.core.findings import suggest
from evalgauge.core.pack.check_derive import check_derive
from evalgauge.core.pack.names import FILTER_WORDS, OTHER, PROCESS
from evalgauge.core.units import UNITS

if TYPE_CHECKING:
    from evalgauge.core.document import Path_
    from evalgauge.core.pack.check import Check
    from evalgauge.core.pack.event_model import EventSpec, FieldSpec, QualityRule

_NUMBERS = ("number", "integer")


def check_events(check: Check) -> None:
    """Report every problem of the events section."""
    for name, event in check.pack.events.items():
        for field_name, spec in event.fields.items():
            _check_field(check, ("events", name, "fields", field_name), field_name, spec)
        if not check.is_broken("events", name):
            check_derive(check, ("events", name, "derive"), event)
        for rule_name, rule in event.quality.items():
            if not check.is_broken("events", name):
                _check_rule(check, ("events", name, "quality", rule_name), rule, event)
        if event.tenant is not None:
            _check_tenant(check, ("events", name, "tenant"), event.tenant, event)
    if PROCESS in check.pack.events:
        check.report(("events", PROCESS), f"`{PROCESS}` is reserved", at_key=True)


def _check_field(check: Check, path: Path_, name: str, spec: FieldSpec) -> None:
    if name in FILTER_WORDS:
        check.report(
            path, f"field `{name}`: this name is a word of filters", "Call it something else.", at_key=True
        )
    for key in ("enum", "max_length"):
        if getattr(spec, key) is not None and spec.type != "string":
            check.report(
                (*path, key),
                f"field `{name}`: `{key}` is for strings, not for type `{spec.type}`",
                at_key=True,
            )
    for key in ("min", "max", "unit"):
        if getattr(spec, key) is not None and spec.type not in _NUMBERS:
            check.report(
                (*path, key),
                f"field `{name}`: `{key}` is for numbers, not for type `{spec.type}`",
                at_key=True,
            )
    if spec.min is not None and spec.max is not None and spec.min > spec.max:
        check.report((*path, "min"), f"field `{name}`: `min` {spec.min:g} is above `max` {spec.max:g}")
    if spec.unit is not None and spec.unit not in UNITS:
        check.report(
            (*path, "unit"), f"field `{name}`: unknown unit `{spec.unit}`", suggest(spec.unit, UNITS)
        )
    _check_enum(check, (*path, "enum"), name, spec)


def _check_enum(check: Check, path: Path_, name: str, spec: FieldSpec) -> None:
    for index, member in enumerate(spec.enum or ()):
        where = (*path, index)
        if not member:
            check.report(
                where, f"field `{name}`: an enum member must not be empty", "Leave the field not required."
            )
        elif member == OTHER:
            check.report(where, f"field `{name}`: `{OTHER}` is reserved for values beyond a limit")
        elif member in (spec.enum or ())[:index]:
            check.report(where, f"field `{name}`: `{member}` stands in the enum twice")
        elif spec.max_length is not None and len(member) > spec.max_length:
            check.report(where, f"field `{name}`: `{member}` is longer than max_length {spec.max_length}")


def _check_rule(check: Check, path: Path_, rule: QualityRule, event: EventSpec) -> None:
    name = path[-1]
    if name == OTHER:
        check.report(path, f"`{OTHER}` is reserved for values beyond a limit", at_key=True)
    spec = event.columns.get(rule.field)
    if spec is None:
        hint = suggest(rule.field, event.columns)
        check.report(
            (*path, "field"), f"quality rule `{name}`: `{rule.field}` is no field of `{path[1]}`", hint
        )
        return
    says = [key for key in ("present", "not_empty") if getattr(rule, key)]
    bounds = [key for key in ("min", "max") if getattr(rule, key) is not None]
    if not says and not bounds:
        check.report(
            path,
            f"quality rule `{name}` asks for nothing",
            "Give `present`, `not_empty`, `min` or `max`.",
            at_key=True,
        )
    for key in bounds:
        if spec.type not in _NUMBERS:
            message = (
                f"quality rule `{name}`: `{key}` is for numbers, and `{rule.field}` is of type `{spec.type}`"
            )
            check.report((*path, key), message, at_key=True)
    if rule.min is not None and rule.max is not None and rule.min > rule.max:
        check.report((*path, "min"), f"quality rule `{name}`: `min` {rule.min:g} is above `max` {rule.max:g}")
    _check_breakable(check, path, rule, spec)


def _check_breakable(check: Check, path: Path_, rule: QualityRule, spec: FieldSpec) -> None:
    """Report a rule that no accepted event can break."""
    name = path[-1]
    if rule.present and spec.required:
        message = f"quality rule `{name}`: `present` is pointless, an event without `{rule.field}` is refused"
        check.report(
            (*path, "present"), message, "Leave the rule out, or the field not required.", at_key=True
        )
    if rule.not_empty and spec.type in (*_NUMBERS, "boolean"):
        message = f"quality rule `{name}`: a value of type `{spec.type}` is never empty"
        check.report((*path, "not_empty"), message, "Use `present`.", at_key=True)
    if rule.min is not None and spec.min is not None and rule.min < spec.min:
        message = f"quality rule `{name}`: `min` {rule.min:g} is never broken, the schema refuses below {spec.min:g}"
        check.report((*path, "min"), message)
    if rule.max is not None and spec.max is not None and rule.max > spec.max:
        message = f"quality rule `{name}`: `max` {rule.max:g} is never broken, the schema refuses above {spec.max:g}"
        check.report((*path, "max"), message)


def _check_tenant(check: Check, path: Path_, tenant: str, event: EventSpec) -> None:
    if check.is_broken("events", path[1]):
        return
    spec = event.fields.get(tenant)
    if spec is None:
        check.report(path, f"`tenant`: `{tenant}` is no field of `{path[1]}`", suggest(tenant, event.fields))
    elif spec.type != "string" or spec.payload:
        check.report(path, f"`tenant`: `{tenant}` must be a string that is no payload")
