"""What an event is once inside: the reasons for refusing one, and what is kept of a refused one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

UNKNOWN_TYPE_LABEL = "_unknown"
"""Label value that stands for every event type no pack declares: an attacker writes the type, never a label."""


class Reason(StrEnum):
    """Why an event was refused. A closed list: it is a label of `evalgauge_events_rejected_total`."""

    MALFORMED_JSON = "malformed_json"
    INVALID_UTF8 = "invalid_utf8"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    NOT_IN_ENUM = "not_in_enum"
    OUT_OF_RANGE = "out_of_range"
    UNKNOWN_TYPE = "unknown_type"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    BAD_TIME = "bad_time"
    BAD_ID = "bad_id"
    FOREIGN_TENANT = "foreign_tenant"
    MAPPING_FAILED = "mapping_failed"
    INSTRUMENT_ERROR = "instrument_error"


class Finding(NamedTuple):
    """Why one event is refused, in a word of the list and in a sentence."""

    reason: Reason
    detail: str
    type: str = UNKNOWN_TYPE_LABEL
    """The declared event type, else `_unknown`."""


class Refusal(NamedTuple):
    """One refused event: its line in the chunk (from 0), why, and the bytes as they came."""

    line: int
    reason: Reason
    detail: str
    type: str
    """The declared event type, else `_unknown`."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """What one event may be at most."""

    event_bytes: int = 1 << 20
    """Bytes of its line."""
    depth: int = 32
    """Levels of nested objects and arrays."""
    clock_ahead: float = 300.0
    """Seconds from an event's arrival to its time: what is further ahead is left out by metrics that go by time."""
