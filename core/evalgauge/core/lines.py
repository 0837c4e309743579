"""Where the lines of a chunk stand, and which of them look like one JSON object within the limits."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evalgauge.core.event import Limits

_NEWLINE, _RETURN, _OPEN, _CLOSE = 10, 13, 123, 125
# `[` and `{` differ in one bit.
_BRACKET, _CASE = 0x5B, 0xDF
_ONE_OF_EIGHT = np.uint64(1) << np.arange(0, 64, 8, dtype=np.uint64)
"""Eight booleans of which one is true, read as a number (little-endian)."""
# A string that never ends takes the rest of the line: tried again at each of its quotes it would cost hours.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_STEP = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}
_NO_BRACKETS = bytes(set(range(256)) - _STEP.keys())


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of a body: `body[starts[i]:ends[i]]`, newline left out, shape (n,) each."""

    starts: NDArray[np.intp]
    ends: NDArray[np.intp]
    plain: NDArray[np.bool_]
    """The line opens with `{`, closes with `}`, and is not too long.

    A newline between `}` and `{` always parts two JSON values: inside a value a comma or colon would stand there,
    and inside a string a bare newline is not allowed. So if a run of plain lines holds as many values as lines,
    each line is one value.
    """


def survey(body: bytes | memoryview, limits: Limits) -> Lines:
    """Find the lines of a body."""
    array = np.frombuffer(body, np.uint8)
    ends = _newlines(array)
    if len(array) and (not len(ends) or ends[-1] != len(array) - 1):
        ends = np.append(ends, len(array))
    starts = np.empty_like(ends)
    if not len(ends):
        return Lines(starts, ends, np.empty(0, np.bool_))
    starts[0] = 0
    np.add(ends[:-1], 1, out=starts[1:])
    # The byte before an empty line's end is the newline before it, or the body's last byte: no `}` that counts.
    plain = (array[starts] == _OPEN) & (array[ends - 1] == _CLOSE)
    if len(array) > limits.event_bytes:
        plain &= ends - starts <= limits.event_bytes
    return Lines(starts, ends, plain)


def _newlines(array: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Where the newlines are. Eight bytes are looked at together, since few hold one: that halves the time."""
    hits = array == _NEWLINE
    whole = len(hits) & ~7
    words = hits[:whole].view(np.uint64)
    places = np.flatnonzero(words != 0)
    found = words[places]
    within = np.searchsorted(_ONE_OF_EIGHT, found)
    if not (_ONE_OF_EIGHT[np.minimum(within, 7)] == found).all():  # two newlines in eight bytes
        return np.flatnonzero(hits)
    return np.concatenate((places * 8 + within, np.flatnonzero(hits[whole:]) + whole))


def has_returns(body: bytes | memoryview, lines: Lines) -> bool:
    """True where a line ends in a carriage return, as other systems end theirs."""
    return bool((np.frombuffer(body, np.uint8)[lines.ends - 1] == _RETURN).any())


def too_deep(body: bytes | memoryview, lines: Lines, limits: Limits, least: int) -> list[int]:
    """The lines that are nested deeper than allowed; `least` is how many brackets each line is known to have."""
    folded = np.bitwise_and(np.frombuffer(body, np.uint8), _CASE)
    brackets = np.equal(folded, _BRACKET, out=folded.view(np.bool_))
    # A line that is too deep has more brackets than the limit, and the others have theirs.
    if int(np.count_nonzero(brackets)) <= limits.depth + least * (len(lines.ends) - 1):
        return []
    places = np.flatnonzero(brackets)
    # And it has them within its length: so many, one after the other, that lie further apart are on several lines.
    longest = int((lines.ends - lines.starts).max())
    if not (places[limits.depth :] - places[: len(places) - limits.depth] < longest).any():
        return []
    per_line = np.diff(np.searchsorted(places, lines.ends), prepend=0)
    return [
        line
        for line in np.flatnonzero(per_line > limits.depth).tolist()
        if depth_of(bytes(body[lines.starts[line] : lines.ends[line]])) > limits.depth
    ]


def depth_of(line: bytes) -> int:
    """Levels of nested objects and lists in a line of JSON, brackets within strings left out."""
    brackets = _STRING.sub(b"", line).translate(None, _NO_BRACKETS)
    return max(itertools.accumulate(map(_STEP.__getitem__, brackets), initial=0))
