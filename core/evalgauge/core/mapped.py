"""Events of another shape, read as a mapping declares: columns straight from the foreign object."""

from __future__ import annotations

import functools
import itertools
import math
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from evalgauge.core.columns import Columns, EnvelopeReader, FieldReader, TypeReader
from evalgauge.core.decode import (
    LARGEST,
    LONGEST,
    BadEvent,
    CloudEventsShape,
    is_number,
    json_kind,
    parse_object,
)
from evalgauge.core.derive import derived_fields
from evalgauge.core.errors import UNDECODABLE
from evalgauge.core.event import Finding, Reason
from evalgauge.core.filters import optional_text, text_of
from evalgauge.core.known_texts import KnownTexts, known
from evalgauge.core.reading import Path
from evalgauge.core.series import passing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Mapping as AbstractMapping

    from numpy.typing import NDArray

    from evalgauge.core.mapping import Mapping, TimeMapping, ValueMapping
    from evalgauge.core.pack.event_model import EventSpec, FieldSpec

_INVALID = "\0invalid"
"""Stands for a text that the mapping or the schema refuses; recognised by identity, so no data can forge it."""
_UNIX = {"unix": 1, "unix_ms": 1_000, "unix_us": 1_000_000, "unix_ns": 1_000_000_000}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WRITTEN = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
"""A number as JSON writes it."""
_NoText = int | float | bool | None
_Scalar = str | _NoText
_Number = float | None
_Written = str | int | float | None
_AwareTime = Annotated[datetime, msgspec.Meta(tz=True)] | None
_NOTHING = (None, "")
_UNREAD = object()
"""Stands for the leaf of a path that is not read: it may hold anything."""
_READY_TIMES = (_AwareTime, datetime | None)
"""Leaves whose values decoding has judged already."""


class MappedShape:
    """Events in a foreign shape."""

    least_brackets = 1

    def __init__(
        self, mapping: Mapping, types: AbstractMapping[str, EventSpec], native: CloudEventsShape
    ) -> None:
        """`native` judges an event once it is in the envelope."""
        self._mapping = mapping
        self._types = {name: types[name] for name in mapping.data}
        self._native = native
        self._leaves = _leaves(mapping, self._types)
        struct, self._paths = _struct_of(_tree(self._leaves))
        self._decoder = msgspec.json.Decoder(struct)
        self._known = KnownTexts(self._decoder, self._texts_of, self._knowing_decoder)
        self._alone = {name: msgspec.json.Decoder(self._struct_alone(name)) for name in self._types}
        self._readers = {name: self._reader(name, spec) for name, spec in self._types.items()}

    def _texts_of(self, events: list[Any]) -> Iterable[tuple[str, list[Any]]]:
        for path, leaf in self._leaves.items():
            if leaf == _Scalar:
                yield path, self._paths[path].column(events)

    def _knowing_decoder(self, texts: AbstractMapping[str, tuple[str, ...]]) -> msgspec.json.Decoder[Any]:
        leaves = {
            path: known(leaf, texts.get(path)) | _NoText if path in texts else leaf
            for path, leaf in self._leaves.items()
        }
        return msgspec.json.Decoder(_struct_of(_tree(leaves))[0])

    def events(self, body: bytes | memoryview, count: int) -> list[Any] | None:
        """The events of `count` plain lines; None where the lines are not one event each."""
        return self._known.events(body, count)

    def decoder(self) -> msgspec.json.Decoder[Any]:
        """Decodes the paths that the mapping names; the rest of an object is skipped."""
        return self._known.decoder()

    def reconsider(self, line: bytes) -> bool:
        """Look at an event that was decoded alone: whether it has a text that is new."""
        return self._known.reconsider(line)

    def learn(self, events: list[Any]) -> None:
        """Get to know the texts of a piece."""
        self._known.learn(events)

    def decode(self, line: bytes) -> Any:
        """One event. A path that only other types read may hold anything in it. Raises as msgspec does."""
        try:
            return self._decoder.decode(line)
        except msgspec.ValidationError:
            if len(self._types) == 1:
                raise
            try:
                type_ = self._type(parse_object(line))
            except BadEvent:
                type_ = None
            if type_ is None:
                raise
        return self._alone[type_].decode(line)

    def _struct_alone(self, type_: str) -> type[msgspec.Struct]:
        """The struct with the same attributes, in which only the paths of one type are judged."""
        own = _leaves(self._mapping, self._types, only=type_)
        tree = _tree({path: self._leaves[path] if path in own else _UNREAD for path in self._leaves})
        return _struct_of(tree)[0]

    def group(
        self, events: list[Any], lines: NDArray[np.int64], bad: list[int]
    ) -> Iterable[tuple[TypeReader, list[Any], NDArray[np.int64]]]:
        """Events by type; an event of a type that the mapping does not name is bad."""
        rule = self._mapping.type
        if rule.constant is not None:
            if events:
                yield self._readers[rule.constant], events, lines
            return
        rows: dict[str, list[int]] = {name: [] for name in self._readers}
        for row, text in enumerate(self._type_texts(events)):
            type_ = text if rule.table is None else rule.table.get(text or "")
            if type_ in rows:
                rows[type_].append(row)
            else:
                bad.append(int(lines[row]))
        for type_, found in rows.items():
            if found:
                yield self._readers[type_], [events[row] for row in found], lines[found]

    def _type_texts(self, events: list[Any]) -> Iterable[str | None]:
        """Of each event what tells its type; None where something of it is missing."""
        first, *others = (self._paths[path].column(events) for path in self._mapping.type.paths)
        if not others:
            return (None if value is None else text_of(value) for value in first)
        separator = self._mapping.type.separator
        rows = zip(first, *others, strict=True)
        return (None if None in row else separator.join(map(text_of, row)) for row in rows)

    def explain(self, line: bytes) -> Finding | None:
        """Why a line is refused: first what the mapping cannot read, then what the schema does not allow."""
        try:
            self._native.judge(self.envelope(parse_object(line)))
            self.decode(line)
        except BadEvent as bad:
            return bad.finding
        except UNDECODABLE as error:
            return Finding(Reason.MAPPING_FAILED, str(error))
        return None

    def envelope(self, value: dict[str, Any]) -> dict[str, Any]:
        """One foreign object as the CloudEvents envelope it stands for. Raises `BadEvent`."""
        mapping = self._mapping
        type_ = self._type(value)
        event: dict[str, Any] = {
            "type": type_,
            "id": self._id(value, type_),
            "source": self._source(value, type_),
        }
        time = self._time(value, type_)
        if time is not None:
            event["time"] = time.isoformat()
        if mapping.traceparent is not None:
            event["traceparent"] = _at(value, mapping.traceparent)
        fields = self._types[type_].fields
        event["data"] = {
            name: _mapped_value(rule, fields[name], value, type_)
            for name, rule in mapping.data[type_].items()
        }
        return event

    def _type(self, value: dict[str, Any]) -> str:
        rule = self._mapping.type
        if rule.constant is not None:
            return rule.constant
        texts = []
        for path in rule.paths:
            raw = _at(value, path)
            texts.append(None if raw is None else _text(raw, path, Reason.MAPPING_FAILED))
        present = [text for text in texts if text is not None]
        text = rule.separator.join(present) if len(present) == len(texts) else None
        type_ = text if rule.table is None else rule.table.get(text or "")
        if type_ is None or type_ not in self._types:
            found = " and ".join(
                f"`{path}` is {str(text)[:100]!r}" for path, text in zip(rule.paths, texts, strict=True)
            )
            raise BadEvent(Reason.UNKNOWN_TYPE, f"{found}, which the mapping gives no event type")
        return type_

    def _id(self, value: dict[str, Any], type_: str) -> str:
        rule = self._mapping.id
        if rule.from_ is not None:
            return "position"
        parts = []
        for paths in rule.parts:
            found = ((path, raw) for path in paths if (raw := _at(value, path)) is not None and raw != "")
            path, raw = next(found, ("", None))
            if raw is None:
                where = " and ".join(f"`{path}`" for path in paths)
                raise BadEvent(
                    Reason.BAD_ID,
                    f"{where}, from which the id is made, {'are' if paths[1:] else 'is'} missing or empty",
                    type_,
                )
            parts.append(_text(raw, path, Reason.BAD_ID, type_))
        return rule.separator.join(parts)

    def _source(self, value: dict[str, Any], type_: str) -> str:
        rule = self._mapping.source
        if rule.constant is not None:
            return rule.constant
        raw = _at(value, str(rule.field))
        if raw is None or raw == "":
            raise BadEvent(
                Reason.MISSING_FIELD, f"`{rule.field}`, the event's source, is missing or empty", type_
            )
        return _text(raw, str(rule.field), Reason.WRONG_TYPE, type_)

    def _time(self, value: dict[str, Any], type_: str) -> datetime | None:
        rule = self._mapping.time
        raw = None if rule.field is None else _at(value, rule.field)
        if raw is None:
            return None
        try:
            return _parse_time(rule, raw)
        except (ValueError, TypeError, OverflowError) as error:
            detail = f"`{rule.field}` is no time of the format {rule.format}: {error}"
            raise BadEvent(Reason.BAD_TIME, detail, type_) from error

    def _reader(self, type_: str, spec: EventSpec) -> TypeReader:
        rules = self._mapping.data[type_]
        fields: dict[str, FieldReader] = {}
        for name, field in spec.fields.items():
            rule = rules.get(name)
            fields[name] = _constant_reader(field, None) if rule is None else self._field_reader(field, rule)
        derived, functions = derived_fields(spec)
        return TypeReader(
            type_,
            spec,
            self._envelope_reader(),
            fields | derived,
            check=functools.partial(_check, self, rules),
            positional=self._mapping.id.from_ is not None,
            functions=functions,
        )

    def _field_reader(self, field: FieldSpec, rule: ValueMapping) -> FieldReader:
        if rule.field is None:
            return _constant_reader(field, rule.constant)
        path = self._paths[rule.field]
        if field.type == "any":
            return FieldReader(path, payload=True)
        if is_number(field):
            return FieldReader(
                _WrittenNumber(path) if rule.from_text else path,
                number=True,
                translate=functools.partial(_number_text, rule),
                scale=rule.scale,
                offset=rule.offset,
                default=None if rule.default is None else float(rule.default),
                scalar=self._leaves[rule.field] in (_Scalar, _Written),
            )
        return FieldReader(path, translate=functools.partial(_translate, field, rule), scalar=True)

    def _id_paths(self) -> list[Path]:
        """Where the parts of the id stand."""
        found = [[self._paths[path] for path in paths] for paths in self._mapping.id.parts]
        return [_First(paths) if paths[1:] else paths[0] for paths in found]

    def _envelope_reader(self) -> EnvelopeReader:
        mapping, leaves = self._mapping, self._paths
        id_paths = self._id_paths()
        separator = mapping.id.separator

        def identity(event: Any) -> str:
            return separator.join(text_of(path.one(event)) for path in id_paths)

        source: Callable[[Any], str]
        if mapping.source.constant is not None:
            constant = mapping.source.constant

            def source(event: Any) -> str:  # noqa: ARG001 - the shape of a reader
                return constant
        else:
            source_path = leaves[str(mapping.source.field)]

            def source(event: Any) -> str:
                return text_of(source_path.one(event))

        time: Callable[[Any], datetime | None]
        if mapping.time.field is None:

            def time(event: Any) -> None:  # noqa: ARG001 - the shape of a reader
                return None
        else:
            time_path, rule = leaves[mapping.time.field], mapping.time

            def time(event: Any) -> datetime | None:
                raw = time_path.one(event)
                if raw is None:
                    return None
                return _with_zone(raw, rule) if isinstance(raw, datetime) else _parse_time(rule, raw)

        trace = None if mapping.traceparent is None else leaves[mapping.traceparent]
        return EnvelopeReader(identity, source, time, trace)

    def wrong(self, columns: Columns, rules: AbstractMapping[str, ValueMapping]) -> NDArray[np.bool_]:
        """Shape (n,): True for events that the mapping cannot read or the schema does not allow."""
        bad = np.zeros(columns.n, np.bool_)
        for name, field in columns.reader.spec.fields.items():
            rule = rules.get(name)
            if self._native.tenant_given and name == columns.reader.spec.tenant:
                field = field.model_copy(update={"required": False})  # noqa: PLW2901 - the same field, made optional
            if is_number(field):
                if columns.reader.fields[name].scalar:
                    bad |= columns.not_numbers(name)
                bad |= _wrong_numbers(columns.numbers(name), field)
            elif rule is not None and (field.enum is not None or rule.table is not None):
                codes, texts = columns.codes(name)
                bad |= passing(codes, texts, _refused_if(required=field.required))
            else:
                bad |= _wrong_texts(columns, name, field, rule)
        mapping = self._mapping
        bad |= _unfit(columns, self._id_paths(), len(mapping.id.separator))
        if mapping.source.field is not None:
            bad |= _unfit(columns, [self._paths[mapping.source.field]], 0)
        if mapping.time.field is not None and self._leaves[mapping.time.field] not in _READY_TIMES:
            bad |= self._bad_times(columns)
        return bad

    def _bad_times(self, columns: Columns) -> NDArray[np.bool_]:
        bad = np.zeros(columns.n, np.bool_)
        read = columns.reader.envelope.time
        for row, event in enumerate(columns.events):
            try:
                read(event)
            except (ValueError, TypeError, OverflowError):
                bad[row] = True
        return bad


def _unfit(columns: Columns, paths: Sequence[Path], separator: int) -> NDArray[np.bool_]:
    """Shape (n,): True where a part of an id or source is absent or empty, or the whole of it too long."""
    bad = np.zeros(columns.n, np.bool_)
    length = np.full(columns.n, separator * (len(paths) - 1))
    for path in paths:
        values = path.column(columns.events)
        lengths = [
            len(value) if isinstance(value, str) else 0 if value is None else len(text_of(value))
            for value in values
        ]
        length += lengths
        bad |= np.array(lengths) == 0
    return bad | (length > LONGEST)


def _check(
    shape: MappedShape, rules: AbstractMapping[str, ValueMapping], columns: Columns
) -> NDArray[np.bool_]:
    return shape.wrong(columns, rules)


def _refused_if(*, required: bool) -> Callable[[str | None], bool]:
    return lambda text: text is _INVALID or (text is None and required)


def _wrong_numbers(values: NDArray[np.float64], field: FieldSpec) -> NDArray[np.bool_]:
    absent = np.isnan(values)
    bad = absent.copy() if field.required else np.zeros(len(values), np.bool_)
    if field.min is not None:
        bad |= values < field.min
    if field.max is not None:
        bad |= values > field.max
    if field.type == "integer":
        bad |= ~absent & ((values != np.trunc(values)) | (np.abs(values) > LARGEST["integer"]))
    return bad


def _wrong_texts(
    columns: Columns, name: str, field: FieldSpec, rule: ValueMapping | None
) -> NDArray[np.bool_]:
    bad = np.zeros(columns.n, np.bool_)
    if rule is None or rule.field is None:
        return bad | (field.required and (rule is None or rule.constant is None))
    if columns.reader.fields[name].payload:
        return bad | (field.required and ~columns.present(name))
    values = columns.raw(name)
    if field.required and rule.default is None and None in values:
        bad |= np.array([value is None for value in values], np.bool_)
    if field.max_length is not None:
        longest = field.max_length
        bad |= np.array([value is not None and len(text_of(value)) > longest for value in values], np.bool_)
    if field.type == "boolean":
        bad |= np.array([value is not None and not isinstance(value, bool) for value in values], np.bool_)
    return bad


def _constant_reader(field: FieldSpec, constant: str | float | bool | None) -> FieldReader:  # noqa: FBT001 - a JSON value
    if is_number(field):
        return FieldReader(None, number=True, translate=optional_text, constant=constant)
    if field.type == "any":
        raw = None if constant is None else msgspec.Raw(msgspec.json.encode(constant))
        return FieldReader(None, constant=raw, payload=True)
    return FieldReader(None, constant=constant, translate=optional_text)


def _translate(field: FieldSpec, rule: ValueMapping, value: Any) -> str | None:
    if value is None:
        return None if rule.default is None else text_of(rule.default)
    text = text_of(value)
    if rule.table is not None:
        text = rule.table.get(text, _INVALID if rule.table_default is None else rule.table_default)
    if field.enum is not None and text not in field.enum:
        return _INVALID
    return text


class _First(Path):
    """The first of several places where something stands that is not empty."""

    __slots__ = ("_places",)

    def __init__(self, places: Sequence[Path]) -> None:
        self._places = places

    def one(self, event: Any) -> Any:
        """The value of one event."""
        return next((value for place in self._places if (value := place.one(event)) not in _NOTHING), None)

    def column(self, events: Sequence[Any]) -> list[Any]:
        """The values of all events."""
        rows = zip(*(place.column(events) for place in self._places), strict=True)
        return [next((value for value in row if value not in _NOTHING), None) for row in rows]


class _WrittenNumber(Path):
    """Where a number stands that is written as text; a text that is none stays one."""

    __slots__ = ("_place",)

    def __init__(self, place: Path) -> None:
        self._place = place

    def one(self, event: Any) -> Any:
        """The value of one event."""
        return _as_number(self._place.one(event))

    def column(self, events: Sequence[Any]) -> list[Any]:
        """The values of all events."""
        return list(map(_as_number, self._place.column(events)))


def _as_number(value: Any) -> Any:
    """The number that a text is, within 64 bits; whatever else it is, as it is."""
    if isinstance(value, str) and _WRITTEN.fullmatch(value) and math.isfinite(number := float(value)):
        return number
    return value


def _converted(rule: ValueMapping, raw: float) -> float:
    number = raw if rule.scale is None else raw * rule.scale
    return number if rule.offset is None else number + rule.offset


def _number_text(rule: ValueMapping, value: Any) -> str | None:
    """Label text of a number field: of what it is after scale and offset."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = _converted(rule, float(value))
    elif value is None:
        value = rule.default
    return optional_text(value)


def _mapped_value(rule: ValueMapping, field: FieldSpec, value: dict[str, Any], type_: str) -> Any:  # noqa: PLR0911 - one return for each case
    if rule.field is None:
        return rule.constant
    raw = _at(value, rule.field)
    if raw is None:
        return rule.default
    if field.type == "any":
        return raw
    if is_number(field):
        read = _as_number(raw) if rule.from_text else raw
        if json_kind(read) != "number":
            is_ = (
                f"the text {raw[:100]!r}"
                if isinstance(read, str) and rule.from_text
                else f"a JSON {json_kind(raw)}"
            )
            raise BadEvent(Reason.MAPPING_FAILED, f"`{rule.field}` is {is_}, not a number", type_)
        raw = read
        if not -LARGEST["number"] <= raw <= LARGEST["number"]:
            raise BadEvent(Reason.OUT_OF_RANGE, f"`{rule.field}` does not fit into 64 bits", type_)
        return _converted(rule, raw)
    if field.type == "boolean":
        return raw
    text = _text(raw, rule.field, Reason.MAPPING_FAILED, type_)
    if rule.table is None:
        return text
    if text not in rule.table and rule.table_default is None:
        raise BadEvent(
            Reason.MAPPING_FAILED, f"`{rule.field}` is {text[:100]!r}, which is not in the table", type_
        )
    return rule.table.get(text, rule.table_default)


def _text(raw: Any, path: str, reason: Reason, type_: str = "_unknown") -> str:
    if isinstance(raw, dict | list):
        raise BadEvent(reason, f"`{path}` is a JSON {json_kind(raw)}, not a single value", type_)
    return text_of(raw)


def _at(value: dict[str, Any], path: str) -> Any:
    found: Any = value
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _with_zone(time: datetime, rule: TimeMapping) -> datetime:
    if time.tzinfo is None:
        if rule.zone is None:
            msg = "it has no offset, and the mapping names no zone"
            raise ValueError(msg)
        return time.replace(tzinfo=ZoneInfo(rule.zone))
    return time


@functools.lru_cache(maxsize=1 << 12, typed=True)
def _parse_time(rule: TimeMapping, raw: str | float) -> datetime:
    if rule.format == "rfc3339":
        return _with_zone(msgspec.convert(raw, datetime), rule)
    if rule.format in _UNIX:
        if isinstance(raw, str | bool):
            msg = "it is not a number"
            raise TypeError(msg)
        per_second = _UNIX[rule.format]
        if isinstance(raw, int):
            seconds, rest = divmod(raw, per_second)
            return _EPOCH + timedelta(seconds=seconds, microseconds=rest * 1_000_000 // per_second)
        return _EPOCH + timedelta(seconds=raw / per_second)
    if not isinstance(raw, str):
        msg = "it is not a string"
        raise TypeError(msg)
    return _with_zone(datetime.strptime(raw, rule.format), rule)  # noqa: DTZ007 - the zone follows


def _leaves(
    mapping: Mapping, types: AbstractMapping[str, EventSpec], only: str | None = None
) -> dict[str, Any]:
    """Dotted path → the msgspec type of what stands there; of all event types, or of one."""
    leaves: dict[str, Any] = {}

    def want(path: str | None, leaf: Any) -> None:
        if path is not None:
            # A path that is read in two ways takes any scalar.
            leaves[path] = leaf if leaves.get(path, leaf) == leaf else _Scalar

    for type_, rules in mapping.data.items():
        for name, rule in rules.items() if only in (None, type_) else ():
            field = types[type_].fields[name]
            if field.type == "any":
                want(rule.field, msgspec.Raw)  # takes null as well; in a union it would take nothing else
            else:
                number = _Written if rule.from_text else _Number
                want(rule.field, number if is_number(field) else _Scalar)
    time = mapping.time
    if time.format == "rfc3339":
        want(time.field, _AwareTime if time.zone is None else datetime | None)
    else:
        want(time.field, int | float | None if time.format in _UNIX else str | None)
    for path in (*mapping.type.paths, *itertools.chain(*mapping.id.parts), mapping.source.field):
        want(path, _Scalar)
    want(mapping.traceparent, str | None)
    return leaves


def _tree(leaves: AbstractMapping[str, Any]) -> dict[str, Any]:
    """Dotted paths as nested objects, in the order of the paths."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *outer, last = path.split(".")
        node = tree
        for part in outer:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree


def _unread(tree: dict[str, Any]) -> bool:
    return all(_unread(child) if isinstance(child, dict) else child is _UNREAD for child in tree.values())


def _struct_of(tree: dict[str, Any]) -> tuple[type[msgspec.Struct], dict[str, Path]]:
    """A struct for the object, and where in it each dotted path ends: attributes are named by their place."""
    paths: dict[str, str] = {}
    counter = iter(range(1 << 30))

    def build(node: dict[str, Any], path: str, attributes: str) -> type[msgspec.Struct]:
        fields: list[Any] = []
        for number, (key, child) in enumerate(node.items()):
            attribute = f"f{number}"
            here, chain = f"{path}{key}", f"{attributes}{attribute}"
            if isinstance(child, dict) and _unread(child):
                leaf: Any = msgspec.Raw
            elif isinstance(child, dict):
                leaf = build(child, f"{here}.", f"{chain}.") | None
            else:
                leaf = msgspec.Raw if child is _UNREAD else child
                paths[here] = chain
            fields.append((attribute, leaf, msgspec.field(name=key, default=None)))
        return msgspec.defstruct(f"Foreign{next(counter)}", fields, gc=False)

    struct = build(tree, "", "")
    return struct, {path: Path(chain) for path, chain in paths.items()}
