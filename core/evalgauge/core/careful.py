"""Decoding of a piece with bad lines in it: line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evalgauge.core.errors import UNDECODABLE
from evalgauge.core.event import Finding, Reason, Refusal
from evalgauge.core.shape import Decoded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evalgauge.core.event import Limits
    from evalgauge.core.lines import Lines
    from evalgauge.core.shape import Shape


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
        self._texts = bytes(body).split(b"\n")[: len(lines.ends)]
        self._begin()

    def _begin(self) -> None:
        self._decoder = self._shape.decoder()
        self._result = Decoded(lines=len(self._texts))
        self._events: list[Any] = []
        self._without: list[int] = []
        """The lines that give no event."""

    def decoded(self) -> Decoded:
        """All lines."""
        try:
            self._take_all()
        except _OutOfDateError:  # events of two decoders are not alike, and a piece has those of one
            self._begin()
            self._take_all()
        self._result.received = len(self._events) + len(self._result.refusals)
        numbers = np.delete(np.arange(len(self._texts), dtype=np.int64), self._without) + self._first
        group(self._result, self._shape, self._events, numbers, self._body, self._lines, self._first)
        self._shape.learn(self._events)
        return self._result

    def _take_all(self) -> None:
        count, first = len(self._texts), 0
        for odd in [*np.flatnonzero(~self._lines.plain).tolist(), count]:
            self._take(first, odd)
            if odd < count:
                self._judge(odd, failed=False)
            first = odd + 1

    def _take(self, first: int, last: int) -> None:
        """Take plain lines."""
        decode, events = self._decoder.decode, self._events
        rest = iter(self._texts[first:last])
        while first < last:
            before = len(events)
            try:
                # Where one fails, those before it are in the list already, and `rest` goes on after it.
                events.extend(map(decode, rest))
            except UNDECODABLE:
                first += len(events) - before
                self._judge(first, failed=True)
                first += 1
            else:
                return

    def _judge(self, line: int, *, failed: bool) -> None:
        """Take a line, or refuse it; `failed`: it was tried and could not be decoded."""
        text = self._texts[line]
        stripped = text.strip(b" \t\r")
        if not stripped:
            self._without.append(line)
            return
        finding = self._outer(line, stripped)
        if finding is None and stripped[:1] + stripped[-1:] != b"{}":
            finding = self._shape.explain(stripped) or Finding(
                Reason.MALFORMED_JSON, "the line is no single JSON object"
            )
        if finding is not None:
            self._result.refusals.append(Refusal(self._first + line, *finding, text))
        # Decoded first: `explain` looks at what decoding skips too, and neighbours must not decide who is judged.
        elif not self._decodes(stripped, failed=failed):
            self._result.refusals.append(refusal(self._shape, text, self._first + line))
        else:
            return
        self._without.append(line)

    def _decodes(self, line: bytes, *, failed: bool) -> bool:
        """Take one line, if it can be. Raises `_OutOfDateError`."""
        try:
            if not failed:
                self._events.append(self._decoder.decode(line))
                return True
        except UNDECODABLE:
            pass
        try:
            event = self._shape.decode(line)
        except UNDECODABLE:
            return False
        if self._shape.reconsider(line):
            raise _OutOfDateError
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
