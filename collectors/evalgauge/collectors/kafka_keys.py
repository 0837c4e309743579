"""Keys of records beside a field of their events: whether producers partition by what the configuration says."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from evalgauge.collectors.kafka_records import body_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evalgauge.collectors.kafka_client import Batch
    from evalgauge.collectors.kafka_records import Body, RecordFormat

ATTRIBUTES = ("source", "subject")
"""Of the envelope; any other name is a field of the data."""
_NOTHING = msgspec.Raw(b"null")


@lru_cache(maxsize=16)
def field_reader(field: str) -> Callable[[bytes], list[bytes | None]]:
    """Something that reads a field's text out of lines of JSON, one event each, decoding nothing else.

    None for an event that has it not, or as an object or list. It raises `msgspec.DecodeError` for what is no event.
    """
    quick, quick_pick = _decoder(field, str, msgspec.UNSET)
    decoder, pick = _decoder(field, msgspec.Raw, _NOTHING)

    def read(lines: bytes) -> list[bytes | None]:
        # Nearly always it is text in all of them, which is decoded in a third of the time.
        with suppress(msgspec.DecodeError, AttributeError, TypeError, UnicodeEncodeError):
            return list(map(str.encode, map(quick_pick, quick.decode_lines(lines))))
        return [_text(pick, event) for event in decoder.decode_lines(lines)]

    return read


def _decoder(field: str, kind: Any, default: Any) -> tuple[msgspec.json.Decoder[Any], Callable[[Any], Any]]:
    """What decodes an event to that one field, and what takes it out; AttributeError where the event has no data."""
    held = ("value", kind, msgspec.field(name=field, default=default))
    if field in ATTRIBUTES:
        return msgspec.json.Decoder(msgspec.defstruct("_Event", [held], gc=False)), attrgetter("value")
    data = msgspec.defstruct("_Data", [held], gc=False)
    event = msgspec.defstruct("_Event", [("data", data | None, None)], gc=False)
    return msgspec.json.Decoder(event), attrgetter("data.value")


def _text(pick: Callable[[Any], msgspec.Raw], event: Any) -> bytes | None:
    """Text without its quotes, a number or a truth value as it is written."""
    try:
        written = bytes(pick(event))
    except AttributeError:
        return None
    if written.startswith(b'"'):
        return str(msgspec.json.decode(written)).encode("utf-8", "surrogatepass")
    return None if written == b"null" or written[:1] in b"{[" else written


def text_field(line: bytes, field: str) -> bytes | None:
    """The text of a field of one event; None where it has none, or is no event."""
    try:
        return field_reader(field)(line)[0]
    except (msgspec.DecodeError, RecursionError, IndexError):
        return None


def record_texts(read: Callable[[bytes], list[bytes | None]], body: Body, count: int) -> list[bytes | None]:
    """The text of a field for each of `count` records, by a `field_reader`.

    None where a record is no event, has no such field, or holds several events that have not the same.
    """
    data, firsts = body
    if firsts is None:
        try:
            found = read(data)
        except (msgspec.DecodeError, RecursionError):
            found = []
        if len(found) == count:
            return found
        firsts = list(range(count))
    lines = data.split(b"\n") if data else []
    texts = []
    for first, end in pairwise([*firsts, len(lines)]):
        held = set()
        for line in lines[first:end]:
            try:
                held |= set(read(line))
            except (msgspec.DecodeError, RecursionError):
                held.add(None)
        texts.append(held.pop() if len(held) == 1 else None)
    return texts


class KeyCheck:
    """Compares the key of each record with a field of the event, and counts those that differ.

    A record that holds several events must have the key of each. What is no event is left to the engine to refuse.
    """

    def __init__(self, field: str, record_format: RecordFormat) -> None:
        self._format = record_format
        self._read = field_reader(field)
        self.mismatches = 0
        """Records seen so far whose key is another than their event's field."""

    def see(self, batch: Batch) -> None:
        """Look at these."""
        body = body_of(self._format, batch.values, batch.headers)
        if body.data:
            self.mismatches += self._differing(batch.keys(), body.data, body.firsts)

    def _differing(self, keys: list[bytes | None], data: bytes, firsts: list[int] | None) -> int:
        if firsts is None:
            try:
                found = self._read(data)
            except (msgspec.DecodeError, RecursionError):
                found = []
            if len(found) == len(keys):
                # Equal lists are compared many times faster than their items one by one.
                return 0 if found == keys else sum(map(_differ, keys, found))
        lines = data.split(b"\n")
        firsts = list(range(len(keys))) if firsts is None else firsts
        ends = [*firsts[1:], len(lines)]
        return sum(
            any(self._differs(key, line) for line in lines[first:end])
            for key, first, end in zip(keys, firsts, ends, strict=True)
        )

    def _differs(self, key: bytes | None, line: bytes) -> bool:
        try:
            found: Sequence[bytes | None] = self._read(line)
        except (msgspec.DecodeError, RecursionError):
            return False
        return any(_differ(key, one) for one in found)


def _differ(key: bytes | None, text: bytes | None) -> bool:
    """An event without the field has no place of its own, so any key will do."""
    return text is not None and key != text
