"""Where the lines of a chunk stand, and which of them look like one JSON object within the limits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evalgauge.core.event import Limits

_NEWLINE, _OPEN, _CLOSE = 10, 123, 125
# `[` and `{` differ in one bit.
_BRACKET, _CASE = 0x5B, 0xDF
# A string that never ends takes the rest of the line: tried again at each of its quotes it would cost hours.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of a body: `body[starts[i]:ends[i]]`, newline left out, shape (n,) each."""

    starts: NDArray[np.intp]
    ends: NDArray[np.intp]
    plain: NDArray[np.bool_]
    """The line opens with `{`, closes with `}`, and breaks no limit.

    A newline between `}` and `{` always parts two JSON values: inside a value a comma or colon would stand there,
    and inside a string a bare newline is not allowed. So if a run of plain lines holds as many values as lines,
    each line is one value.
    """


def survey(body: bytes | memoryview, limits: Limits) -> Lines:
    """Find the lines of a body."""
    array = np.frombuffer(body, np.uint8)
    ends = np.flatnonzero(array == _NEWLINE)
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
    folded = np.bitwise_and(array, _CASE)
    brackets = np.equal(folded, _BRACKET, out=folded.view(np.bool_))
    # Depth needs that many brackets in one line, and every other plain line has one at least (a blank one has none).
    if int(np.count_nonzero(brackets)) - int(np.count_nonzero(plain)) >= limits.depth:
        per_line = np.diff(np.searchsorted(np.flatnonzero(brackets), ends), prepend=0)
        for line in np.flatnonzero(per_line > limits.depth).tolist():
            plain[line] &= depth_of(bytes(body[starts[line] : ends[line]])) <= limits.depth
    return Lines(starts, ends, plain)


def depth_of(line: bytes) -> int:
    """Levels of nested objects and lists in a line of JSON, brackets within strings left out."""
    depth = deepest = 0
    for token in _TOKEN.findall(line):
        if token in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token in b"]}":
            depth -= 1
    return deepest
