"""Debezium: change events as the JSON converter of Kafka Connect writes them, without their schema."""

from __future__ import annotations

import contextlib

import msgspec

from evalgauge.collectors.kafka_values import NOTHING, one_line
from evalgauge.core.errors import UNDECODABLE

HOLDS_PAYLOAD = b'"payload"'
"""Bytes without which a value has no schema to take off."""
NULL = b"null"
"""How older converters write a tombstone."""


class _WithSchema(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What the converter writes with `schemas.enable=true`: these two keys, and never another."""

    schema: msgspec.Raw
    payload: msgspec.Raw


_WITH_SCHEMA = msgspec.json.Decoder(_WithSchema)


def change(value: bytes | None) -> tuple[bytes, int]:
    """The one line of a change, as (line, 1); (nothing, 0) for a tombstone.

    With a schema it is the payload, byte for byte, else the value. What is no change event stays as it is, on one
    line: no value holds several.
    """
    value = value or b""
    if HOLDS_PAYLOAD in value:
        # What does not decode is a row with a column of that name, or no JSON at all.
        with contextlib.suppress(*UNDECODABLE):
            value = bytes(_WITH_SCHEMA.decode(value).payload)
    if value == NULL:
        return NOTHING
    line = one_line(value)
    return (line, 1) if line else NOTHING
