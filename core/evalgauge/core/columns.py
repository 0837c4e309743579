"""The events of one type in a batch, read as columns: each field once, however many metrics want it."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from evalgauge.core.keys import KeyNumbers
from evalgauge.core.payload import examine
from evalgauge.core.series import Encoder, ScalarEncoder, passing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from evalgauge.core.derive import Function
    from evalgauge.core.pack.event_model import EventSpec, QualityRule
    from evalgauge.core.payload import Payloads
    from evalgauge.core.reading import Path

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DATES = (
    (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND,
    (datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC) - _EPOCH) // _MICROSECOND,
)
"""The first and the last microsecond that a date in UTC can be."""
_EXACT_SECONDS = 2.0**31
"""Before 2038 and after 1901 a double of seconds, times a million, is less than half from the right microsecond."""

TRACEPARENT = "traceparent"
"""CloudEvents extension that names an event's trace; a data field of that name serves where the envelope has none."""

ABSENT = -1.0
"""What stands for an absent field whose texts are decoded as numbers."""


@dataclass(frozen=True, slots=True)
class FieldReader:
    """How one field is read from a decoded event, whatever shape the event came in."""

    path: Path | None
    """Where the value stands in the body of a decoded event; None for a constant."""
    number: bool = False
    translate: Callable[[Any], str | None] = str
    """Text fields: value → text, None where absent. Called once for each distinct value."""
    constant: Any = None
    scale: float | None = None
    offset: float | None = None
    default: float | None = None
    """Number fields: for absent values."""
    payload: bool = False
    """The value is JSON of any kind, and not decoded."""
    scalar: bool = False
    """The value may be any JSON scalar, whatever the field's type."""
    texts: tuple[str, ...] | None = None
    """Text fields: each value is the number of one of these, `ABSENT` or None; without them it is the text."""
    made_numbers: Callable[[Columns], NDArray[np.float64]] | None = None
    """Number fields that are derived: values (n,), NaN where absent."""
    made_codes: Callable[[Columns, Encoder], NDArray[np.intp]] | None = None
    """Text fields that are derived: codes (n,) of the field's own encoder."""


@dataclass(frozen=True, slots=True)
class EnvelopeReader:
    """How the envelope is read from a decoded event."""

    id: Callable[[Any], str]
    source: Callable[[Any], str]
    time: Callable[[Any], datetime | None]
    traceparent: Path | None
    """None where events of this shape have none."""


@dataclass(frozen=True, slots=True)
class TypeReader:
    """Everything that is read of one event type."""

    type: str
    spec: EventSpec
    envelope: EnvelopeReader
    fields: Mapping[str, FieldReader]
    body: Path | None = None
    """Where a decoded event has the object that holds its fields; None where that is the event itself."""
    check: Callable[[Columns], NDArray[np.bool_]] | None = None
    """What decoding could not judge: shape (n,), True for events to refuse."""
    positional: bool = False
    """The id is the event's place in its partition."""
    functions: Sequence[Function] = ()
    """Those by which fields are derived: each may refuse an event."""


class Columns:
    """n events of one type with their lines in the chunk, (n,) ascending. Columns are made when first asked for."""

    def __init__(
        self,
        reader: TypeReader,
        events: Sequence[Any],
        lines: NDArray[np.int64],
        encoders: dict[tuple[str, ...], Encoder],
        arrival: float,
    ) -> None:
        self.reader = reader
        self.events = events
        self.lines = lines
        self.arrival = arrival
        self.n = len(events)
        self._encoders = encoders
        self._raw: dict[str, list[Any]] = {}
        self._codes: dict[str, NDArray[np.intp]] = {}
        self._numbers: dict[str, NDArray[np.float64]] = {}
        self._keys: dict[tuple[str, ...], NDArray[np.intp]] = {}
        self._examined: dict[str, Payloads] = {}
        self._broken: dict[str, NDArray[np.bool_]] | None = None
        self._forced: dict[str, str] = {}
        self.kept: dict[str, Any] = {}
        """What functions came to, by derived field."""
        self._ids: list[str] | None = None
        self._body: Sequence[Any] | None = None
        self._times: NDArray[np.int64] | None = None
        self._traces: list[str | None] | None = None
        self._traced = False
        self.clock: NDArray[np.int64] | None = None
        """Shape (n,): how far time had come before each event, since the delta began; see `clock.stamp`."""
        self.latest = int(np.iinfo(np.int64).max)
        """An event of a later time has a clock that is ahead."""

    @property
    def type(self) -> str:
        """The event type."""
        return self.reader.type

    @property
    def arrived(self) -> int:
        """When they came, in microseconds since 1970. None of them takes time further than that."""
        return round(self.arrival * 1e6)

    def take(self, rows: NDArray[np.intp]) -> Columns:
        """The same for some of the rows only."""
        taken = Columns(
            self.reader,
            [self.events[row] for row in rows.tolist()],
            self.lines[rows],
            self._encoders,
            self.arrival,
        )
        taken._forced = self._forced
        return taken

    def force(self, field: str, text: str) -> None:
        """Write `text` into a text field of every event, before anything is derived."""
        self._forced[field] = text
        self._codes.pop(field, None)
        self._keys.clear()

    def failures(self) -> dict[int, str]:
        """Row → why a function by which a field is derived has failed."""
        found: dict[int, str] = {}
        for function in self.reader.functions if self.n else ():
            found = function.failures(self) | found
        return found

    def is_number(self, field: str) -> bool:
        """True where the field holds numbers."""
        return self.reader.fields[field].number

    def raw(self, field: str) -> list[Any]:
        """The values as they came, None where absent; payloads as `Raw`, null among them."""
        if field in self._forced:
            return [self._forced[field]] * self.n
        found = self._raw.get(field)
        if found is None:
            reader = self.reader.fields[field]
            if reader.made_numbers is not None:
                values = self.numbers(field).tolist()
                found = [None if math.isnan(value) else value for value in values]
            elif reader.made_codes is not None:
                codes, names = self.codes(field)
                found = [names[code] for code in codes.tolist()]
            else:
                found = [reader.constant] * self.n if reader.path is None else self._decoded(reader.path)
            if reader.texts is not None:
                texts = (*reader.texts, None)
                found = [None if number is None else texts[int(number)] for number in found]
            self._raw[field] = found
        return found

    def _decoded(self, path: Path) -> list[Any]:
        return path.column(self._bodies())

    def _bodies(self) -> Sequence[Any]:
        if self._body is None:
            path = self.reader.body
            self._body = self.events if path is None else path.column(self.events)
        return self._body

    def codes(self, field: str) -> tuple[NDArray[np.intp], list[str | None]]:
        """Codes (n,) of a text field, and the text of each code; None is absent."""
        encoder = self.encoder(field)
        found = self._codes.get(field)
        if found is None:
            reader = self.reader.fields[field]
            if field in self._forced:
                found = np.full(self.n, encoder.code_of_text(self._forced[field]), np.intp)
            elif reader.made_codes is not None:
                found = reader.made_codes(self, encoder)
            elif reader.path is None and reader.made_numbers is None:
                found = np.full(self.n, encoder[reader.constant], np.intp)
            elif reader.texts is not None and reader.path is not None:
                numbers = _floats(self._decoded(reader.path), ABSENT).astype(np.intp)
                found = encoder.codes_of(reader.texts, numbers)
            else:
                found = np.frombuffer(_packed("n", list(map(encoder.__getitem__, self.raw(field)))), np.intp)
            self._codes[field] = found
        return found, encoder.texts

    def encoder(self, field: str) -> Encoder:
        """The text field's value → code table; it outlives the batch."""
        key = (self.reader.type, field)
        encoder = self._encoders.get(key)
        if encoder is None:
            reader = self.reader.fields[field]
            encoder = (ScalarEncoder if reader.scalar else Encoder)(reader.translate)
            self._encoders[key] = encoder
        return encoder

    def keys(self, fields: tuple[str, ...], *, tenanted: bool) -> tuple[NDArray[np.intp], KeyNumbers]:
        """Numbers (n,) of the keys that some text fields make, `NO_KEY` where one is absent; and what they number.

        Where they are `tenanted` the first is the tenant's, which may be absent. All types share the numbers of equal
        fields, whatever they call their tenant.
        """
        name = ("", "", *fields[1:]) if tenanted else ("", *fields)
        known = self._encoders.get(name)
        if known is None:
            known = self._encoders[name] = KeyNumbers()
        assert isinstance(known, KeyNumbers)  # noqa: S101 - for the type checker: no event type has an empty name
        found = self._keys.get(name)
        if found is None:
            parts = [self.codes(field) for field in fields]
            found = self._keys[name] = known.of(self.type, parts, tenanted=tenanted)
        return found, known

    def numbers(self, field: str) -> NDArray[np.float64]:
        """Values (n,) of a number field in its own unit; NaN where absent."""
        found = self._numbers.get(field)
        if found is None:
            reader = self.reader.fields[field]
            if reader.made_numbers is not None:
                found = self._numbers[field] = reader.made_numbers(self)
                return found
            values = self.raw(field)
            if reader.scalar:
                values = [value if _is_number(value) else None for value in values]
            found = _floats(values)
            with np.errstate(over="ignore"):  # what becomes infinite is not observed, and counted as such
                if reader.scale is not None:
                    found = found * reader.scale
                if reader.offset is not None:
                    found = found + reader.offset
            if reader.default is not None:
                found = np.where(np.isnan(found), reader.default, found)
            self._numbers[field] = found
        return found

    def not_numbers(self, field: str) -> NDArray[np.bool_]:
        """Shape (n,): the field is there and no number, which happens where `scalar` is set."""
        return np.array([value is not None and not _is_number(value) for value in self.raw(field)], np.bool_)

    def present(self, field: str) -> NDArray[np.bool_]:
        """Shape (n,): the field is there and not null."""
        reader = self.reader.fields[field]
        if reader.number:
            return ~np.isnan(self.numbers(field))
        if reader.payload:
            return self._payloads(field).there
        codes, texts = self.codes(field)
        return passing(codes, texts, lambda text: text is not None)

    def _payloads(self, field: str) -> Payloads:
        found = self._examined.get(field)
        if found is None:
            found = self._examined[field] = examine(self.raw(field))
        return found

    def times(self) -> NDArray[np.int64]:
        """Event times (n,) in microseconds since 1970, of the years 1 to 9999; the arrival where an event has none."""
        if self._times is None:
            try:
                times: Any = map(self.reader.envelope.time, self.events)
                seconds = _floats(list(map(datetime.timestamp, times)))
            except TypeError:  # some event has none
                seconds = np.full(1, np.inf)
            if (np.abs(seconds) < _EXACT_SECONDS).all():
                self._times = np.rint(seconds * 1e6).astype(np.int64)
            else:
                times = np.fromiter(map(self.time, range(self.n)), np.int64, self.n)
                self._times = np.clip(times, _DATES[0], _DATES[1])  # an offset may take a date out of them
        return self._times

    def time(self, row: int) -> int:
        """`times` of one event."""
        time = self.reader.envelope.time(self.events[row])
        return self.arrived if time is None else (time - _EPOCH) // _MICROSECOND

    def locate(self, partition: str, base: int, body: bytes) -> None:
        """Give events whose id is their place one: the partition and the byte offset of their line in it."""
        ends = np.flatnonzero(np.frombuffer(body, np.uint8) == ord("\n")) + 1
        starts = base + np.concatenate(([0], ends))[self.lines]
        self._ids = [f"{partition}@{start:020d}" for start in starts.tolist()]

    def ids(self) -> list[str]:
        """Event ids."""
        if self._ids is None:
            self._ids = list(map(self.reader.envelope.id, self.events))
        return self._ids

    def sources(self) -> list[str]:
        """CloudEvents sources."""
        return list(map(self.reader.envelope.source, self.events))

    def traceparents(self) -> list[str | None] | None:
        """W3C traceparents, or None where no event of the batch has one."""
        if self._traces is None:
            path = self.reader.envelope.traceparent
            self._traces = [None] * self.n if path is None else path.column(self.events)
            if TRACEPARENT in self.reader.fields:
                inner = self.raw(TRACEPARENT)
                self._traces = [outer or own for outer, own in zip(self._traces, inner, strict=True)]
            self._traced = any(self._traces)
        return self._traces if self._traced else None

    def broken(self) -> dict[str, NDArray[np.bool_]]:
        """Quality rule → shape (n,): True for the events that break it."""
        if self._broken is None:
            self._broken = {name: self._breaks(rule) for name, rule in self.reader.spec.quality.items()}
        return self._broken

    def _breaks(self, rule: QualityRule) -> NDArray[np.bool_]:
        reader = self.reader.fields[rule.field]
        result = np.zeros(self.n, np.bool_)
        if rule.present or rule.not_empty:
            result |= ~self.present(rule.field)
        if rule.not_empty and not reader.number:
            if reader.payload:
                result |= self._payloads(rule.field).empty
            else:
                codes, texts = self.codes(rule.field)
                result |= passing(codes, texts, lambda text: text == "")
        if rule.min is not None:
            result |= self.numbers(rule.field) < rule.min
        if rule.max is not None:
            result |= self.numbers(rule.field) > rule.max
        return result


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _packed(kind: str, values: list[Any]) -> bytearray:
    """Memory of an array; `np.fromiter` takes longer to fill one. Raises `struct.error`."""
    return bytearray(struct.pack(f"{len(values)}{kind}", *values))


def _floats(values: list[Any], absent: float = math.nan) -> NDArray[np.float64]:
    try:  # the quick way knows no None
        return np.frombuffer(_packed("d", values), np.float64)
    except struct.error:
        return np.frombuffer(_packed("d", [absent if one is None else one for one in values]), np.float64)
