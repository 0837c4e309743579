"""Values of Kafka records as lines of JSON: a value is never more lines than it holds events, nor fewer."""

from __future__ import annotations

import re

import msgspec

from evalgauge.core.event import Limits
from evalgauge.core.lines import survey

SPACE = b" \t\r\n"
"""What JSON takes for space."""
NOTHING = (b"", 0)
"""The lines of a value that holds no event."""

_LIMITS = Limits()
_RAW = msgspec.json.Decoder(msgspec.Raw)
# Possessive, so that a string that never ends is gone through once: it takes the rest, newlines and all.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


def one_line(value: bytes) -> bytes:
    """A value that is one event, on one line; valid if and only if the value is. None at all where it is space."""
    if b"\n" not in value:
        return value
    value = value.strip(SPACE)
    return value if b"\n" not in value else _compact(value) or _unbroken(value)


def lines_of(value: bytes | None) -> tuple[bytes, int]:
    """The events of a value, one a line, and how many lines that is.

    One JSON document becomes one line, however it is laid out; of NDJSON the lines stand as they are. What is
    neither is one line that the engine refuses as malformed.
    """
    if not value:
        return NOTHING
    # Left alone where nothing is to do, for beside others like it nobody looks at it: its bytes say where it stands.
    if b"\n" not in value:
        return value, 1
    value = value.strip(SPACE)
    if b"\n" not in value:
        return (value, 1) if value else NOTHING
    compact = _compact(value)
    return (compact, 1) if compact else _ndjson(value.replace(b"\r\n", b"\n")) or (_unbroken(value), 1)


def _compact(value: bytes) -> bytes | None:
    """One JSON document without space between its tokens; None where the value is none."""
    try:
        return msgspec.json.format(value, indent=-1)
    except (msgspec.DecodeError, RecursionError):
        return None


def _unbroken(value: bytes) -> bytes:
    """The value on one line, as malformed as it was.

    To JSON a carriage return is what a newline is: space between tokens, and forbidden in a string. A space in
    its place would heal a string that was broken over two lines.
    """
    return value.replace(b"\n", b"\r")


def _ndjson(value: bytes) -> tuple[bytes, int] | None:
    """The lines of NDJSON, blank ones left out; None where newlines do not only part events.

    A newline parts events where no string, object or list is open. A line that is bad in another way is refused
    alone; after one that leaves something open nobody knows where the next event begins.
    """
    if not value.startswith(b"{"):
        return None
    plain = survey(value, _LIMITS).plain
    count = len(plain)
    if plain.all() and _values(value) == count:  # then each line is one, as `survey` says of plain lines
        return value, count
    bare = _STRING.sub(b"", value)
    if bare.count(b"\n") != count - 1 or not all(map(_closed, bare.split(b"\n"))):
        return None
    lines = [line for line in value.split(b"\n") if line.strip(SPACE)]
    return b"\n".join(lines), len(lines)


def _values(text: bytes) -> int:
    """How many JSON values stand one after the other; -1 where something else does."""
    try:
        return len(_RAW.decode_lines(text))
    except (msgspec.DecodeError, RecursionError):
        return -1


def _closed(bare: bytes) -> bool:
    """Whether a line, its strings left out, closes as many objects and lists as it opens."""
    return bare.count(b"{") == bare.count(b"}") and bare.count(b"[") == bare.count(b"]")
