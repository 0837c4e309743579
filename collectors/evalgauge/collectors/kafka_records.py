"""What a Kafka record becomes: its value and headers as lines of JSON, in the format that the input names."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, assert_never, cast

from evalgauge.collectors.kafka_cloudevents import cloudevent
from evalgauge.collectors.kafka_debezium import HOLDS_PAYLOAD, NULL, change
from evalgauge.collectors.kafka_values import lines_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


class RecordFormat(StrEnum):
    """How events are written in records."""

    EVENTS = "events"
    """JSON or NDJSON; headers say nothing."""
    CLOUDEVENTS = "cloudevents"
    """The Kafka protocol binding of CloudEvents 1.0: headers say how an event is written."""
    DEBEZIUM = "debezium"
    """Change events of a database, with or without their schema."""


class Body(NamedTuple):
    """What records come to, as newline-delimited JSON; no newline after the last line."""

    data: bytes
    firsts: list[int] | None
    """Number of the first line of record i, from 0. A record without a line has the number of the line that
    would be its first, so `bisect_right(firsts, line) - 1` is the record that line belongs to. None: exactly one
    line for each record."""


def body_of(
    format: RecordFormat,  # noqa: A002 - as the configuration calls it
    values: Sequence[bytes | None],
    headers: Callable[[int], Sequence[tuple[str, bytes | None]]],
) -> Body:
    """Turn the records of one partition, in order, into lines. Raises nothing: what is bad the engine refuses.

    `headers(i)` gives those of record i; it is called for CLOUDEVENTS alone.
    """
    match format:
        case RecordFormat.EVENTS:
            return _lines_as_they_are(values) or _gather(map(lines_of, values))
        case RecordFormat.CLOUDEVENTS:
            return _gather(cloudevent(value, headers(i)) for i, value in enumerate(values))
        case RecordFormat.DEBEZIUM:
            body = _lines_as_they_are(values)
            if body is None or HOLDS_PAYLOAD in body.data or NULL in values:
                return _gather(map(change, values))
            return body
    assert_never(format)


def _lines_as_they_are(values: Sequence[bytes | None]) -> Body | None:
    """The usual case, each value a line already; None where it is not. No work for a single record."""
    if not all(values):
        return None
    lines = cast("Sequence[bytes]", values)
    # One newline is found, or none, many times faster than all of them are counted.
    return None if b"\n" in b"".join(lines) else Body(b"\n".join(lines), None)


def _gather(found: Iterable[tuple[bytes, int]]) -> Body:
    """Put the lines of records together, given as (lines, how many) for each."""
    parts: list[bytes] = []
    firsts: list[int] = []
    total, one_each = 0, True
    for lines, count in found:
        firsts.append(total)
        if count:
            parts.append(lines)
        total += count
        one_each &= count == 1
    return Body(b"\n".join(parts), None if one_each else firsts)
