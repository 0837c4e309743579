"""Mappings read strictly, against the events of the packs that they map to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from evalgauge.core.decode import event_types
from evalgauge.core.document import examine, in_order, read_document
from evalgauge.core.errors import DocumentError
from evalgauge.core.findings import suggest
from evalgauge.core.mapping import FirstOf, Mapping

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from evalgauge.core.document import Document, Path_
    from evalgauge.core.errors import Problem
    from evalgauge.core.mapping import IdMapping, TypeMapping, ValueMapping
    from evalgauge.core.pack.event_model import EventSpec, FieldSpec
    from evalgauge.core.pack.model import Pack

_WORDS = ("rfc3339", "unix", "unix_ms", "unix_us", "unix_ns")
_YEARS = ("%Y", "%y", "%G", "%c", "%x")
_NOWHERE = "no.type"
_PLACEHOLDERS = {
    "mapping": "unnamed",
    "version": 1,
    "type": {"constant": _NOWHERE},
    "id": {"from": "position"},
    "time": {"from": "arrival"},
    "source": {"constant": "unnamed"},
    "data": {_NOWHERE: {}},
}
"""What stands for a part that is wrong in itself, so that the rest can be checked as well."""


def load_mapping(path: str | Path, packs: Sequence[Pack], *, pushes: bool = False) -> Mapping:
    """Read a mapping to the events of `packs`; `pushes` is True for an input without positions, such as HTTP.

    Raises `DocumentError` with every fault of the file.
    """
    return checked_mapping(read_document(path), packs, pushes=pushes)


def checked_mapping(document: Document, packs: Sequence[Pack], *, pushes: bool = False) -> Mapping:
    """A mapping from a document that is read already. Raises as `load_mapping`."""
    examined = examine(document, Mapping, _entry, _PLACEHOLDERS)
    problems = list(examined.problems)
    if examined.model is not None:
        events = event_types(packs)
        broken = frozenset(str(entry[0]) for entry in examined.broken if len(entry) == 1)
        check = _Check(document, examined.model, events, broken, frozenset(examined.broken))
        check.run(pushes=pushes)
        problems += check.problems
    if problems or examined.model is None:
        raise DocumentError(in_order(problems))
    return examined.model


def _entry(path: Path_) -> Path_:
    return path[:3] if path[:1] == ("data",) else path[:1]


@dataclass(slots=True)
class _Check:
    document: Document
    mapping: Mapping
    events: dict[str, EventSpec]
    broken: frozenset[str]
    """Keys at the top that were replaced."""
    left_out: frozenset[Path_]
    problems: list[Problem] = field(default_factory=list)
    paths: dict[str, tuple[str, Path_]] = field(default_factory=dict)
    """Dotted path → how it is read first (`value` or `anything`), and where that is said."""

    def report(self, path: Path_, message: str, hint: str = "", *, at_key: bool = False) -> None:
        self.problems.append(self.document.problem(path, message, hint, at_key=at_key))

    def run(self, *, pushes: bool) -> None:
        self._type()
        self._id(pushes=pushes)
        if "time" not in self.broken:
            self._time()
        self._read(("source", "field"), self.mapping.source.field)
        self._read(("traceparent",), self.mapping.traceparent)
        if "data" not in self.broken:
            for name, rules in self.mapping.data.items():
                if name in self.events:
                    self._fields(("data", name), self.events[name], rules)
                else:
                    hint = suggest(name, self.events)
                    self.report(
                        ("data", name), f"no pack declares the event type `{name}`", hint, at_key=True
                    )
        self._nested()

    def _type(self) -> None:
        rule = self.mapping.type
        if "type" in self.broken:
            return
        self._read(("type", "field"), rule.field)
        self._separator("type", rule)
        if rule.fields is not None:
            self._type_fields(rule.fields, rule)
        if "data" in self.broken:
            return
        given: dict[Path_, str] = {("type", "constant"): rule.constant} if rule.constant is not None else {}
        given |= {("type", "table", key): name for key, name in (rule.table or {}).items()}
        for path, name in given.items():
            if name not in self.events:
                self.report(path, f"no pack declares the event type `{name}`", suggest(name, self.events))
            elif name not in self.mapping.data:
                self.report(
                    path, f"`data` says nothing of `{name}`", f"Give its fields under `data: {name}:`."
                )
        for name in self.mapping.data:
            if given and name in self.events and name not in given.values():
                self.report(("data", name), f"no event gets the type `{name}`", "See `type`.", at_key=True)

    def _type_fields(self, fields: Sequence[str], rule: TypeMapping) -> None:
        for index, path in enumerate(fields):
            self._read(("type", "fields", index), path)
        for key in rule.table or {}:
            if rule.separator and key.count(rule.separator) < len(fields) - 1:
                message = f"`{key}` is not made of {len(fields)} values joined by `{rule.separator}`"
                hint = f"Such as {rule.separator.join(path.rpartition('.')[2] for path in fields)}."
                self.report(("type", "table", key), message, hint, at_key=True)

    def _id(self, *, pushes: bool) -> None:
        rule = self.mapping.id
        if "id" in self.broken:
            return
        given: dict[Path_, str | FirstOf] = {} if rule.field is None else {("id", "field"): rule.field}
        given |= {("id", "fields", index): one for index, one in enumerate(rule.fields or ())}
        for place, one in given.items():
            if isinstance(one, str):
                self._read(place, one)
            else:
                for index, path in enumerate(one.first):
                    self._read((*place, "first", index), path)
        self._separator("id", rule)
        if rule.from_ is not None and pushes:
            message = "what is pushed here has no position, so a repeated event could not be known again"
            self.report(("id", "from"), message, "Make the id from a `field` or several `fields`.")

    def _separator(self, key: str, rule: IdMapping | TypeMapping) -> None:
        if rule.fields is None and "separator" in rule.model_fields_set:
            self.report((key, "separator"), "`separator` goes with `fields`", "Leave it out.", at_key=True)

    def _time(self) -> None:
        rule = self.mapping.time
        self._read(("time", "field"), rule.field)
        for key in ("format", "zone"):
            if rule.from_ is not None and key in rule.model_fields_set:
                self.report(("time", key), f"`{key}` goes with `field`", "Leave it out.", at_key=True)
        if rule.zone is not None:
            try:
                ZoneInfo(rule.zone)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                zones = available_timezones()
                hint = (
                    suggest(rule.zone, zones) if zones else "This machine knows no zones: pip install tzdata."
                )
                self.report(("time", "zone"), f"no time zone is called `{rule.zone}`", hint)
        if rule.field is not None:
            self._format(rule.format, rule.zone)

    def _format(self, form: str, zone: str | None) -> None:
        path = ("time", "format")
        unused = "`zone` is never used, for the time says its own offset"
        if form in _WORDS:
            if form != "rfc3339" and zone is not None:
                self.report(("time", "zone"), unused, "Leave it out.", at_key=True)
            return
        if "%" not in form:
            hint = suggest(form, _WORDS)
            self.report(
                path, f"`{form}` is no format", f"{hint} Or a strptime format such as %d/%m/%Y %H:%M."
            )
            return
        try:
            datetime.strptime("", form)  # noqa: DTZ007 - only the format is tried
        except (ValueError, re.error) as error:
            if "does not match" not in str(error):
                self.report(path, f"`{form}` is no strptime format: {error}")
                return
        if not any(year in form for year in _YEARS):
            self.report(path, f"`{form}` says no year", "Map a field that holds date and time.")
        if "%z" not in form and zone is None:
            hint = "Name the `zone` of these times, such as Europe/Berlin or UTC."
            self.report(path, f"times of the format `{form}` have no offset, and no `zone` is named", hint)
        if "%z" in form and zone is not None:
            self.report(("time", "zone"), unused, "Leave it out.", at_key=True)

    def _fields(self, path: Path_, event: EventSpec, rules: dict[str, ValueMapping]) -> None:
        for name, rule in rules.items():
            where = (*path, name)
            spec = event.fields.get(name)
            if name in event.derive:
                message = f"`{name}` of `{path[1]}` is derived, and a mapping cannot write it"
                hint = f"Map what it is made of: {', '.join(event.derive[name].operands)}."
                self.report(where, message, hint, at_key=True)
                continue
            if spec is None:
                message = f"`{name}` is no field of `{path[1]}`"
                self.report(where, message, suggest(name, event.fields), at_key=True)
                continue
            self._read((*where, "field"), rule.field, anything=spec.type == "any")
            self._value(where, name, spec, rule)
        for name, spec in event.fields.items():
            if spec.required and name not in rules and (*path, name) not in self.left_out:
                message = f"`{path[1]}` needs the field `{name}`, which is not mapped"
                self.report(
                    path, message, f"Give `{name}: path.of.it`, or `{name}: {{constant: …}}`.", at_key=True
                )

    def _value(self, where: Path_, name: str, spec: FieldSpec, rule: ValueMapping) -> None:
        self._keys(where, name, spec, rule)
        if rule.table is not None and spec.type != "string":
            message = f"`{name}`: `table` gives text, and the field is of type `{spec.type}`"
            self.report((*where, "table"), message, at_key=True)
            return
        if rule.default is not None and spec.type == "any":
            self.report((*where, "default"), f"`{name}`: a field of type `any` has no default", at_key=True)
            return
        for key in ("constant", "default", "table_default"):
            if getattr(rule, key) is not None:
                self._fits((*where, key), name, spec, getattr(rule, key))
        for incoming, value in (rule.table or {}).items():
            self._fits((*where, "table", incoming), name, spec, value)

    def _keys(self, where: Path_, name: str, spec: FieldSpec, rule: ValueMapping) -> None:
        """Report keys that have no meaning beside the others."""
        if rule.field is None:
            for key in _given(rule, "default", "table", "table_default", "from_text", "scale", "offset"):
                self.report(
                    (*where, key), f"`{name}`: `{key}` goes with `field`", "Leave it out.", at_key=True
                )
        if rule.table_default is not None and rule.table is None:
            self.report(
                (*where, "table_default"), f"`{name}`: `table_default` goes with `table`", at_key=True
            )
        for key in _given(rule, "from_text", "scale", "offset"):
            if spec.type not in {"number", "integer"}:
                message = f"`{name}`: `{key}` is for numbers, and the field is of type `{spec.type}`"
                self.report((*where, key), message, at_key=True)
        if rule.scale == 0:
            self.report(
                (*where, "scale"), f"`{name}`: `scale: 0` makes every value the same", "Use `constant`."
            )

    def _fits(self, where: Path_, name: str, spec: FieldSpec, value: object) -> None:
        """Report a stated value that the field's schema would refuse."""
        shown = str(value).lower() if isinstance(value, bool) else value
        right = {
            "string": isinstance(value, str),
            "boolean": isinstance(value, bool),
            "number": isinstance(value, float) and not isinstance(value, bool),
            "integer": isinstance(value, float) and not isinstance(value, bool) and value.is_integer(),
            "any": True,
        }[spec.type]
        if not right:
            self.report(where, f"`{name}` is of type `{spec.type}`, and `{shown}` is not")
        elif spec.enum is not None and value not in spec.enum:
            self.report(where, f"`{name}` is never `{shown}`", suggest(str(value), spec.enum))
        elif spec.max_length is not None and len(str(value)) > spec.max_length:
            self.report(where, f"`{name}`: `{shown}` is longer than max_length {spec.max_length}")
        elif isinstance(value, float) and (
            (spec.min is not None and value < spec.min) or (spec.max is not None and value > spec.max)
        ):
            self.report(where, f"`{name}` is never {value:g}, the schema refuses it")

    def _read(self, where: Path_, path: str | None, *, anything: bool = False) -> None:
        """Note that `path` is read, as a single value or as anything."""
        if path is None:
            return
        if not all(path.split(".")):
            self.report(where, f"`{path}` is no dotted path", "Names joined by dots, such as `result.score`.")
            return
        way = "anything" if anything else "value"
        first, _ = self.paths.setdefault(path, (way, where))
        if first != way:
            message = f"`{path}` is read as a single value and, for a field of type `any`, as whatever it is"
            self.report(where, message, "Map it to one of the two.")

    def _nested(self) -> None:
        """Report a path that is read as a value and gone through as an object."""
        for path, (_, where) in self.paths.items():
            parts = path.split(".")
            for length in range(1, len(parts)):
                outer = ".".join(parts[:length])
                if outer in self.paths:
                    message = (
                        f"`{outer}` is read as a value, and here as an object that holds `{parts[length]}`"
                    )
                    self.report(where, message, "Map it to one of the two.")


def _given(rule: ValueMapping, *keys: str) -> list[str]:
    """Those of the keys that say something."""
    return [key for key in keys if getattr(rule, key) is not None and (key != "from_text" or rule.from_text)]
