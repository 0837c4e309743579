"""Decoding of a piece with bad lines in it: by blocks, cut at the line to blame where one does not decode."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from evalgauge.core.errors import UNDECODABLE
from evalgauge.core.event import Finding, Reason, Refusal
from evalgauge.core.shape import Decoded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evalgauge.core.event import Limits
    from evalgauge.core.lines import Lines
    from evalgauge.core.shape import Shape

_BLOCK = 32
"""Lines that are tried together."""
_INDEX, _BYTE = re.compile(r" at `\$\[(\d{1,9})\][^`]*`$"), re.compile(r"\(byte (\d{1,9})\)$")
"""Where msgspec's errors say which of the lines, or which byte, is at fault: at the end, since they quote the event."""


class _OutOfDateError(Exception):
    """The decoder that the piece was begun with does not know all of its texts."""


class Careful:
    """The lines of one piece, each judged for itself."""

    def __init__(  # noqa: PLR0913, PLR0917 - they belong together
        self,
        shape: Shape,
        body: bytes | memoryview,
        limits: Limits,
        lines: Lines,
        deep: frozenset[int],
        first_line: int,
    ) -> None:
        self._shape, self._body, self._limits, self._lines = shape, body, limits, lines
        self._deep = deep
        """Lines that are nested too deep."""
        self._first = first_line
        self._starts, self._ends = lines.starts.tolist(), lines.ends.tolist()
        self._begin()

    def _begin(self) -> None:
        self._decoder = self._shape.decoder()
        self._result = Decoded(lines=len(self._ends))
        self._events: list[Any] = []
        self._good: list[tuple[int, int]] = []
        """The lines whose events were taken: first, and the one after the last."""

    def decoded(self) -> Decoded:
        """All lines."""
        try:
            self._take_all()
        except _OutOfDateError:  # events of two decoders are not alike, and a piece has those of one
            self._begin()
            self._take_all()
        self._result.received = len(self._events) + len(self._result.refusals)
        spans = [np.arange(first, last, dtype=np.int64) for first, last in self._good]
        numbers = np.concatenate([np.empty(0, np.int64), *spans]) + self._first
        group(self._result, self._shape, self._events, numbers, self._body, self._lines, self._first)
        self._shape.learn(self._events)
        return self._result

    def _take_all(self) -> None:
        count, first = len(self._ends), 0
        for odd in [*np.flatnonzero(~self._lines.plain).tolist(), count]:
            self._take(first, odd)
            if odd < count:
                self._judge(odd)
            first = odd + 1

    def _take(self, first: int, last: int) -> None:
        """Take plain lines."""
        while first < last:
            end = min(first + _BLOCK, last)
            suspect = self._suspect(first, end)
            if suspect is None:
                first = end
                continue
            # The place may be the one after the fault: then what stands before fails again, and is cut again.
            self._take(first, suspect)
            self._judge(suspect)
            first = suspect + 1

    def _suspect(self, first: int, last: int) -> int | None:
        """Take lines as a whole; else the line that is probably to blame."""
        begin, end = self._starts[first], self._ends[last - 1]
        try:
            events = self._decoder.decode_lines(self._body[begin:end])
        except msgspec.DecodeError as error:
            text = str(error)
            if found := _INDEX.search(text):
                return min(first + int(found[1]), last - 1)
            # A line that ends too soon is noticed at the first byte of the next.
            place = begin + int(found[1]) - 1 if (found := _BYTE.search(text)) else -1
        except UnicodeDecodeError as error:
            place = bytes(self._body[begin:end]).find(error.object) + begin  # the text that is none
        except RecursionError:
            place = -1
        else:
            if len(events) == last - first:
                self._events += events
                self._good.append((first, last))
                return None
            place = -1
        if place < begin:
            return (first + last) // 2
        return min(bisect_right(self._starts, place) - 1, last - 1)

    def _judge(self, line: int) -> None:
        text = bytes(self._body[self._starts[line] : self._ends[line]])
        stripped = text.strip(b" \t\r")
        if not stripped:
            return
        finding = self._outer(line, stripped)
        if finding is None and stripped[:1] + stripped[-1:] != b"{}":
            finding = self._shape.explain(stripped) or Finding(
                Reason.MALFORMED_JSON, "the line is no single JSON object"
            )
        if finding is None:
            # Decoded first: `explain` looks at what decoding skips too, and neighbours must not decide who is judged.
            if self._decodes(stripped):
                self._good.append((line, line + 1))
            else:
                self._result.refusals.append(refusal(self._shape, text, self._first + line))
            return
        self._result.refusals.append(Refusal(self._first + line, *finding, text))

    def _decodes(self, line: bytes) -> bool:
        """Take one line, if it can be. Raises `_OutOfDateError`."""
        try:
            event = self._decoder.decode(line)
        except UNDECODABLE:
            try:
                event = self._shape.decode(line)
            except UNDECODABLE:
                return False
            if self._shape.reconsider(line):
                raise _OutOfDateError from None
        self._events.append(event)
        return True

    def _outer(self, line: int, text: bytes) -> Finding | None:
        limits = self._limits
        if len(text) > limits.event_bytes:
            detail = f"the event has {len(text)} bytes, {limits.event_bytes} are allowed"
            return Finding(Reason.TOO_LARGE, detail)
        if line in self._deep:
            detail = f"objects and lists are nested deeper than {limits.depth} levels"
            return Finding(Reason.TOO_DEEP, detail)
        return None


def group(  # noqa: PLR0913, PLR0917 - they belong together
    decoded: Decoded,
    shape: Shape,
    events: list[Any],
    numbers: NDArray[np.int64],
    body: bytes | memoryview,
    lines: Lines,
    first_line: int,
) -> None:
    """Put events into what was decoded, those aside that only now turn out to be wrong."""
    bad: list[int] = []
    decoded.groups = list(shape.group(events, numbers, bad))
    for number in bad:
        line = number - first_line
        decoded.refusals.append(refusal(shape, bytes(body[lines.starts[line] : lines.ends[line]]), number))
    decoded.refusals.sort(key=lambda refusal: refusal.line)


def refusal(shape: Shape, text: bytes, line: int) -> Refusal:
    """The refusal of a line that does not decode."""
    finding = shape.explain(text) or Finding(Reason.WRONG_TYPE, "the event does not have the declared shape")
    return Refusal(line, *finding, text)
