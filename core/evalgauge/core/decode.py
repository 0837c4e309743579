"""Bytes to events: newline-delimited CloudEvents, the clean way for a whole chunk, line by line where it is not."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import msgspec
import numpy as np

from evalgauge.core.careful import Careful, group
from evalgauge.core.columns import ABSENT, TRACEPARENT, EnvelopeReader, FieldReader, TypeReader
from evalgauge.core.derive import derived_fields
from evalgauge.core.errors import UNDECODABLE
from evalgauge.core.event import UNKNOWN_TYPE_LABEL, Finding, Limits, Reason
from evalgauge.core.filters import optional_text
from evalgauge.core.known_texts import KnownTexts, known, numbered
from evalgauge.core.lines import has_returns, survey, too_deep
from evalgauge.core.reading import Path
from evalgauge.core.shape import Decoded, Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from evalgauge.core.columns import Columns
    from evalgauge.core.pack.event_model import EventSpec, FieldSpec
    from evalgauge.core.pack.model import Pack

LARGEST = {"integer": 2**63 - 1, "number": sys.float_info.max}
"""Field type → the largest magnitude it holds."""

_JSON_KINDS: dict[type, str] = {
    bool: "boolean",
    str: "string",
    int: "number",
    float: "number",
    dict: "object",
    list: "array",
}
_KIND_OF = {"string": "string", "boolean": "boolean", "number": "number", "integer": "number"}
"""Field type → what JSON calls its values."""

LONGEST = 1024
"""Characters of an id or a source."""
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST)]
Time = Annotated[datetime, msgspec.Meta(tz=True)]


class BadEvent(Exception):  # noqa: N818 - a signal, not a fault
    """One event is refused.

    It ends where it is caught, and only what was found goes on: an exception that a caller holds is held by the frame
    that it holds, and with these frames the events of a whole piece, until the collector of cycles comes by.
    """

    def __init__(self, reason: Reason, detail: str, type_: str = UNKNOWN_TYPE_LABEL) -> None:
        super().__init__(detail)
        self.finding = Finding(reason, detail, type_)


def decode(shape: Shape, body: bytes | memoryview, limits: Limits, first_line: int) -> Decoded:
    """Decode a piece of a chunk that holds whole lines; its first line has number `first_line`."""
    lines = survey(body, limits)
    if lines.plain.all() and len(lines.plain):
        events = shape.events(body, len(lines.plain))
        if events is not None and not too_deep(body, lines, limits, shape.least_brackets):
            decoded = Decoded(received=len(events), lines=len(events))
            numbers = np.arange(first_line, first_line + len(events), dtype=np.int64)
            group(decoded, shape, events, numbers, body, lines, first_line)
            return decoded
    elif has_returns(body, lines):
        # Lines of another system: without the return they may all be plain. A refused line loses it, no more.
        body = bytes(body).replace(b"\r\n", b"\n")
        lines = survey(body, limits)
    deep = too_deep(body, lines, limits, 0)
    lines.plain[deep] = False
    return Careful(shape, body, limits, lines, frozenset(deep), first_line).decoded()


def parse_object(line: bytes) -> dict[str, Any]:
    """A line as a plain object. Raises `BadEvent` with the reason why it is none."""
    try:
        value = msgspec.json.decode(line)
    except UnicodeDecodeError as error:
        raise BadEvent(Reason.INVALID_UTF8, f"not UTF-8 at byte {error.start} of a string") from error
    except RecursionError as error:
        raise BadEvent(Reason.TOO_DEEP, "objects and lists are nested too deep to read") from error
    except msgspec.DecodeError as error:
        if _not_utf8(line):
            raise BadEvent(Reason.INVALID_UTF8, "the line is not UTF-8") from error
        if isinstance(error, msgspec.ValidationError):  # JSON as such has no bound for numbers
            raise BadEvent(Reason.OUT_OF_RANGE, f"a number is too large: {str(error).lower()}") from error
        raise BadEvent(Reason.MALFORMED_JSON, str(error)) from error
    if not isinstance(value, dict):
        raise BadEvent(Reason.NOT_AN_OBJECT, f"the value is a JSON {json_kind(value)}, not an object")
    return value


def _not_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return True
    return False


def json_kind(value: object) -> str:
    """What JSON calls a value's type."""
    return _JSON_KINDS.get(type(value), "null")


class CloudEventsShape:
    """Events in the CloudEvents 1.0 envelope, their `data` as the packs declare it."""

    least_brackets = 2

    def __init__(self, types: Mapping[str, EventSpec], *, tenant_given: bool = False) -> None:
        """`tenant_given`: a token names the tenant, so that the event itself need not."""
        self._types = types
        self.tenant_given = tenant_given
        self._readers = [_reader(name, spec) for name, spec in types.items()]
        self._reader_of: dict[type, TypeReader] = {}
        """By struct: that of any event, and that of events whose texts are known. A piece has one kind of them."""
        self._knowing: list[type] = []
        """The structs of the latter."""
        self._decoder = self._decoder_of(self._readers, {})
        self._texts = {
            reader.type: [("", Path("source"))]
            + [
                (name, Path(f"data.f_{name}"))
                for name, one in reader.spec.fields.items()
                if _is_text(name, one)
            ]
            for reader in self._readers
        }
        self._known = KnownTexts(self._decoder, self._texts_of, self._knowing_decoder)

    def _decoder_of(
        self, readers: Sequence[TypeReader], texts: Mapping[tuple[str, str], tuple[str, ...]]
    ) -> msgspec.json.Decoder[Any]:
        """A decoder for events whose fields have these texts; (event type, field) → texts; "" is the source."""
        single = len(readers) == 1
        structs: list[type] = []
        for number, reader in enumerate(readers):
            name = reader.type
            types = {key: found for (type_, key), found in texts.items() if type_ == name}
            source = types.pop("", None)
            data = _data_struct(f"Data{number}", reader.spec, types, tenant_given=self.tenant_given)
            # In the order in which most writers put them: there msgspec looks for the next one first.
            envelope: list[Any] = [("id", Text), ("source", known(Text, source))]
            if single:
                envelope.append(("type", Literal[name]))
            envelope += [("time", Time | None, None), ("data", data), ("traceparent", str | None, None)]
            tag_field, tag = (None, None) if single else ("type", name)
            struct = msgspec.defstruct(
                f"Event{number}", envelope, gc=False, kw_only=True, tag_field=tag_field, tag=tag
            )
            structs.append(struct)
        self._reader_of.update(zip(structs, readers, strict=True))
        return msgspec.json.Decoder(Union[tuple(structs)] if structs else Literal[""])  # noqa: UP007 - made at run time

    def _knowing_decoder(
        self, learnt: Mapping[tuple[str, str], tuple[str, ...]]
    ) -> msgspec.json.Decoder[Any]:
        for struct in self._knowing:  # of an earlier one no event is left that is not in its group
            del self._reader_of[struct]
        before = set(self._reader_of)
        texts = dict(learnt)
        readers = []
        for plain in self._readers:
            fields = plain.spec.fields
            texts |= {
                (plain.type, key): tuple(one.enum) for key, one in fields.items() if one.enum is not None
            }
            own = {key: texts[plain.type, key] for key in fields if (plain.type, key) in texts}
            readers.append(replace(plain, fields={**plain.fields, **_native_fields(plain.spec, own)}))
        decoder = self._decoder_of(readers, texts)
        self._knowing = [struct for struct in self._reader_of if struct not in before]
        return decoder

    def _texts_of(self, events: list[Any]) -> Iterable[tuple[tuple[str, str], list[Any]]]:
        for reader, some, _ in self.group(events, np.empty(len(events), np.int64), []):
            for name, path in self._texts[reader.type]:
                yield (reader.type, name), path.column(some)

    def events(self, body: bytes | memoryview, count: int) -> list[Any] | None:
        """The events of `count` plain lines; None where the lines are not one event each."""
        return self._known.events(body, count)

    def decoder(self) -> msgspec.json.Decoder[Any]:
        """Decodes lines into one struct for each event type; or into one for events whose texts are known."""
        return self._known.decoder()

    def reconsider(self, line: bytes) -> bool:
        """Look at an event that was decoded alone: whether it has a text that is new."""
        return self._known.reconsider(line)

    def learn(self, events: list[Any]) -> None:
        """Get to know the texts of a piece."""
        self._known.learn(events)

    def decode(self, line: bytes) -> Any:
        """One event. Raises as msgspec does."""
        return self._decoder.decode(line)

    def group(
        self, events: list[Any], lines: NDArray[np.int64], bad: list[int]
    ) -> Iterable[tuple[TypeReader, list[Any], NDArray[np.int64]]]:
        """Events by type, in declared order of the types."""
        del bad
        if not events:
            return
        if len(self._readers) == 1:
            yield self._reader_of[type(events[0])], events, lines
            return
        kinds = list(map(type, events))
        here = set(kinds)
        for kind, reader in self._reader_of.items():
            if kind not in here:
                continue
            if len(here) == 1:
                yield reader, events, lines
                return
            rows = [row for row, have in enumerate(kinds) if have is kind]
            yield reader, [events[row] for row in rows], lines[rows]

    def explain(self, line: bytes) -> Finding | None:
        """Why a line is refused, in the order a person would look: JSON, type, id, source, time, data."""
        type_ = UNKNOWN_TYPE_LABEL
        try:
            event = parse_object(line)
            self.judge(event)
            type_ = event["type"]
            self._decoder.decode(line)
        except BadEvent as bad:
            return bad.finding
        except UnicodeDecodeError:
            return Finding(Reason.INVALID_UTF8, "the line is not UTF-8", type_)
        except UNDECODABLE as error:
            return Finding(Reason.WRONG_TYPE, str(error), type_)
        return None

    def judge(self, event: dict[str, Any]) -> None:  # noqa: C901 - one check after the other
        """Raise `BadEvent` for the first rule of the schema that an event in the envelope breaks."""
        type_ = event.get("type")
        if type_ is None:
            raise BadEvent(Reason.MISSING_FIELD, "`type` is missing")
        if not isinstance(type_, str):
            raise BadEvent(Reason.WRONG_TYPE, f"`type` is a {json_kind(type_)}, not a string")
        spec = self._types.get(type_)
        if spec is None:
            raise BadEvent(Reason.UNKNOWN_TYPE, f"no loaded pack declares the event type {type_[:100]!r}")
        identity = event.get("id")
        if not isinstance(identity, str) or not 1 <= len(identity) <= LONGEST:
            raise BadEvent(Reason.BAD_ID, f"`id` must be a string of 1 to {LONGEST} characters", type_)
        source = event.get("source")
        if source is None:
            raise BadEvent(Reason.MISSING_FIELD, "`source` is missing", type_)
        if not isinstance(source, str) or not 1 <= len(source) <= LONGEST:
            raise BadEvent(
                Reason.WRONG_TYPE, f"`source` must be a string of 1 to {LONGEST} characters", type_
            )
        if event.get("time") is not None:
            try:
                msgspec.convert(event["time"], Time)
            except msgspec.ValidationError as error:
                detail = f"`time` must be an RFC 3339 time with an offset: {str(error).lower()}"
                raise BadEvent(Reason.BAD_TIME, detail, type_) from error
        if not isinstance(event.get("traceparent"), str | None):
            raise BadEvent(Reason.WRONG_TYPE, "`traceparent` is no string", type_)
        data = event.get("data")
        if data is None:
            raise BadEvent(Reason.MISSING_FIELD, "`data` is missing", type_)
        if not isinstance(data, dict):
            raise BadEvent(Reason.WRONG_TYPE, f"`data` is a JSON {json_kind(data)}, not an object", type_)
        for name, field_spec in spec.fields.items():
            optional = self.tenant_given and name == spec.tenant
            _judge_field(name, field_spec, data.get(name), type_, optional=optional)


def _judge_field(name: str, spec: FieldSpec, value: Any, type_: str, *, optional: bool) -> None:
    if value is None:
        if spec.required and not optional:
            raise BadEvent(Reason.MISSING_FIELD, f"required field `{name}` is missing", type_)
        return
    if spec.type == "any":
        return
    kind = json_kind(value)
    if kind != _KIND_OF[spec.type] or (
        spec.type == "integer" and isinstance(value, float) and not value.is_integer()
    ):
        raise BadEvent(Reason.WRONG_TYPE, f"field `{name}` is a JSON {kind}, not a {spec.type}", type_)
    if spec.enum is not None and value not in spec.enum:
        raise BadEvent(Reason.NOT_IN_ENUM, f"field `{name}` must be one of {', '.join(spec.enum)}", type_)
    if spec.max_length is not None and len(value) > spec.max_length:
        raise BadEvent(
            Reason.OUT_OF_RANGE, f"field `{name}` is longer than {spec.max_length} characters", type_
        )
    if kind == "number" and not -LARGEST[spec.type] <= value <= LARGEST[spec.type]:
        raise BadEvent(Reason.OUT_OF_RANGE, f"field `{name}` does not fit into 64 bits", type_)
    if spec.min is not None and value < spec.min:
        raise BadEvent(Reason.OUT_OF_RANGE, f"field `{name}` is below {spec.min:g}", type_)
    if spec.max is not None and value > spec.max:
        raise BadEvent(Reason.OUT_OF_RANGE, f"field `{name}` is above {spec.max:g}", type_)


def _data_struct(
    name: str, spec: EventSpec, texts: Mapping[str, tuple[str, ...]], *, tenant_given: bool
) -> type[msgspec.Struct]:
    fields: list[Any] = []
    for key, field_spec in spec.fields.items():
        type_ = numbered(texts[key]) if key in texts else field_type(field_spec)
        if field_spec.required and not (tenant_given and key == spec.tenant):
            fields.append((f"f_{key}", type_, msgspec.field(name=key)))
        else:
            # In a union msgspec takes Raw for null alone; Raw by itself takes null as well.
            optional = type_ if type_ is msgspec.Raw else type_ | None
            absent = ABSENT if key in texts else None
            fields.append((f"f_{key}", optional, msgspec.field(name=key, default=absent)))
    return msgspec.defstruct(name, fields, gc=False, kw_only=True)


def field_type(spec: FieldSpec) -> Any:  # noqa: PLR0911 - one return for each case
    """The msgspec type that accepts what a field's schema allows."""
    if spec.type == "any":
        return msgspec.Raw
    if spec.enum is not None:
        return Literal[tuple(spec.enum)]
    if spec.type == "boolean":
        return bool
    if spec.type == "string":
        return Annotated[str, msgspec.Meta(max_length=spec.max_length)] if spec.max_length else str
    if spec.type == "integer":
        # Without bounds an integer may have thousands of digits, which no column of numbers can hold.
        least, most = -LARGEST["integer"], LARGEST["integer"]
        low = least if spec.min is None else max(least, math.ceil(spec.min))
        high = most if spec.max is None else min(most, math.floor(spec.max))
        return Annotated[int, msgspec.Meta(ge=low, le=high)]
    if spec.min is None and spec.max is None:
        return float
    return Annotated[float, msgspec.Meta(ge=spec.min, le=spec.max)]


def _is_text(name: str, spec: FieldSpec) -> bool:
    """Whether a field's texts are learnt. Those of an enum are known; a trace is read as a text."""
    return spec.type == "string" and spec.enum is None and name != TRACEPARENT


def is_number(spec: FieldSpec) -> bool:
    """True for fields that become a column of numbers."""
    return spec.type in ("number", "integer")


def _reader(type_: str, spec: EventSpec) -> TypeReader:
    derived, functions = derived_fields(spec)
    fields = _native_fields(spec, {}) | derived
    return TypeReader(
        type_, spec, _ENVELOPE, fields, Path("data"), check=_check_of(spec), functions=functions
    )


def _native_fields(spec: EventSpec, texts: Mapping[str, tuple[str, ...]]) -> dict[str, FieldReader]:
    readers = {}
    for key, field_spec in spec.fields.items():
        path = Path(f"f_{key}")
        if field_spec.type == "any":
            readers[key] = FieldReader(path, payload=True)
        else:
            readers[key] = FieldReader(
                path, number=is_number(field_spec), translate=optional_text, texts=texts.get(key)
            )
    return readers


def _check_of(spec: EventSpec) -> Callable[[Columns], NDArray[np.bool_]] | None:
    """What decoding does not judge: a required payload that is null, since any JSON value is one to it."""
    payloads = [name for name, field in spec.fields.items() if field.required and field.type == "any"]
    if not payloads:
        return None

    def check(columns: Columns) -> NDArray[np.bool_]:
        bad = np.zeros(columns.n, np.bool_)
        for name in payloads:
            bad |= ~columns.present(name)
        return bad

    return check


_ENVELOPE = EnvelopeReader(attrgetter("id"), attrgetter("source"), attrgetter("time"), Path("traceparent"))


def event_types(packs: Sequence[Pack]) -> dict[str, EventSpec]:
    """Every event type of the packs with its declaration, those that come from outside only."""
    return {name: spec for pack in packs for name, spec in pack.events.items() if not spec.internal}
