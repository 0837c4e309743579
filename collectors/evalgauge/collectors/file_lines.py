"""Lines out of bytes: cuts a stream into chunks of whole lines, wherever the blocks it comes in end."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evalgauge.core.collect import FileRange, Stopped

if TYPE_CHECKING:
    import threading

    from numpy.typing import NDArray

TAIL_BYTES = 256
"""Bytes before a position that are remembered (hashed), to know the place again in a copy of the file."""
BOM = b"\xef\xbb\xbf"
_NEAR_END = 64 << 10
_SCAN = 1 << 20


@dataclass(frozen=True, slots=True)
class Cut:
    """Whole lines of one stream. Offsets count bytes of the (decompressed) stream.

    `body` equals the stream's bytes from `start` to `end`, unless `whole` is False: then it is one line above
    the bound, of which only the first bytes are kept, enough for the engine to refuse it as too large.
    """

    body: bytes | FileRange
    start: int
    end: int
    lines: int | None
    """Newlines from `start` to `end`; None where counting would mean reading the range."""
    tail: bytes
    """The stream's last bytes before `end`, at most TAIL_BYTES of them."""
    whole: bool = True


class LineCutter:
    """Takes blocks of a stream as they come and gives back cuts of about `target` bytes.

    A line above `bound` bytes is a cut of its own with its first `bound + 1` bytes: a file without a single
    newline costs `bound` bytes of memory, not its size. Such a line is kept whole where it happens to lie
    inside one block; the engine refuses it either way, at the same position.
    """

    def __init__(self, offset: int, target: int, bound: int) -> None:
        self.start = offset
        """Offset of the first byte that is in no cut yet."""
        self._target = max(target, 1)
        self._bound = max(bound, 1)
        self._lines: list[bytes] = []
        self._lines_size = 0
        self._rest: list[bytes] = []
        self._rest_size = 0

    @property
    def fed(self) -> int:
        """Offset after the last byte fed."""
        return self.start + self._lines_size + self._rest_size

    @property
    def incomplete(self) -> int:
        """Bytes of the last line so far, whose newline has not come."""
        return self._rest_size

    def feed(self, block: bytes) -> list[Cut]:
        """Add the stream's next bytes; returns the cuts that are full."""
        cuts: list[Cut] = []
        if self._rest_size > self._bound:
            end = block.find(b"\n") + 1
            if not end:
                self._rest_size += len(block)
                return cuts
            cuts += self.take()
            self._rest_size += end
            cuts.append(self._long_line(b"\n"))
            block = block[end:]
        end = block.rfind(b"\n") + 1
        if end:
            piece = b"".join([*self._rest, block[:end]])
            self._rest, self._rest_size = [], 0
            cuts += self._add(piece)
            block = block[end:]
        if block:
            self._rest.append(block)
            self._rest_size += len(block)
            if self._rest_size > self._bound:
                self._rest = [b"".join(self._rest)[: self._bound + 1]]
        return cuts

    def take(self) -> list[Cut]:
        """The whole lines fed so far that are in no cut yet: none or one cut."""
        if not self._lines:
            return []
        body = b"".join(self._lines)
        self._lines, self._lines_size = [], 0
        return [self._cut(body)]

    def finish(self) -> list[Cut]:
        """Everything left, the last line as it is: there will be no newline."""
        cuts = self.take()
        if self._rest_size > self._bound:
            cuts.append(self._long_line(b""))
        elif self._rest:
            body = b"".join(self._rest)
            self._rest, self._rest_size = [], 0
            cuts.append(self._cut(body))
        return cuts

    def _add(self, piece: bytes) -> list[Cut]:
        cuts = self.take() if self._lines_size + len(piece) > self._target else []
        while len(piece) > self._target:
            end = piece.rfind(b"\n", 0, self._target) + 1 or piece.find(b"\n", self._target) + 1
            if end > max(self._target, self._bound + 1):
                self._rest, self._rest_size = [piece[: self._bound + 1]], end
                cuts.append(self._long_line(b"\n"))
            else:
                cuts.append(self._cut(piece[:end]))
            piece = piece[end:]
        if piece:
            self._lines.append(piece)
            self._lines_size += len(piece)
        return cuts

    def _cut(self, body: bytes) -> Cut:
        start = self.start
        self.start += len(body)
        return Cut(body, start, self.start, body.count(b"\n"), body[-TAIL_BYTES:])

    def _long_line(self, newline: bytes) -> Cut:
        start = self.start
        body = b"".join(self._rest) + newline
        self.start += self._rest_size
        self._rest, self._rest_size = [], 0
        return Cut(body, start, self.start, len(newline), newline, whole=False)


def cut_file(  # noqa: PLR0913, PLR0917 - each is one fact about the place
    path: str, fd: int, offset: int, target: int, bound: int, stop: threading.Event
) -> Cut | None:
    """The next cut of a plain file from `offset` on, as a range that a worker reads; None at the end.

    Only the bytes around the cut are read here. Short ends come as bytes. Whatever follows the last newline
    counts as the last line: use this for files that are complete. Raises `Stopped` when `stop` is set while
    it looks for the end of a line that is gigabytes long.
    """
    size = os.fstat(fd).st_size
    if offset >= size:
        return None
    end = _end_of_lines(fd, offset, size, target, bound)
    if end is None:
        end = _after_newline(fd, offset + bound + 1, size, stop)
        has_newline = os.pread(fd, 1, end - 1) == b"\n"
        newline = b"\n" if has_newline else b""
        return Cut(os.pread(fd, bound + 1, offset) + newline, offset, end, len(newline), newline, whole=False)
    tail = os.pread(fd, min(TAIL_BYTES, end - offset), max(offset, end - TAIL_BYTES))
    if end - offset >= _NEAR_END:
        return Cut(FileRange(path, offset, end - offset), offset, end, None, tail)
    body = os.pread(fd, end - offset, offset)
    return Cut(body, offset, offset + len(body), body.count(b"\n"), body[-TAIL_BYTES:])


def after_last_newline(fd: int, start: int, end: int) -> int:
    """Offset after the last newline of a plain file between `start` and `end`; `start` where there is none."""
    at = end
    while at > start:
        low = max(start, at - _NEAR_END)
        found = os.pread(fd, at - low, low).rfind(b"\n")
        if found >= 0:
            return low + found + 1
        at = low
    return start


def _end_of_lines(fd: int, offset: int, size: int, target: int, bound: int) -> int | None:
    """Where a cut of whole lines ends; None if the first line is above both `target` and `bound`."""
    if size - offset <= target:
        return size
    end = after_last_newline(fd, offset, offset + target)
    if end > offset:
        return end
    limit = min(size, offset + bound + 1)
    end = _after_newline(fd, offset + target, limit) if limit > offset + target else offset + target
    found = os.pread(fd, 1, end - 1) == b"\n"
    return end if found or end == size else None


def _after_newline(fd: int, start: int, end: int, stop: threading.Event | None = None) -> int:
    """Offset after the first newline from `start` on; `end` where there is none before it."""
    at = start
    while at < end:
        if stop is not None and stop.is_set():
            raise Stopped
        block = os.pread(fd, min(_SCAN, end - at), at)
        found = block.find(b"\n")
        if found >= 0:
            return at + found + 1
        if not block:
            return at
        at += len(block)
    return end


class LineLocator:
    """Names the lines of one chunk by where they start: `<prefix><byte offset>`.

    The name of a line is the same however the file is cut, by however many workers, before and after a
    restart. Lines are counted as they stand, blank ones included. In bulk, without this object: the line that
    starts at byte n of the body is `f"{prefix}{offset + n}"`.
    """

    __slots__ = ("_body", "_starts", "offset", "prefix")

    def __init__(self, prefix: str, offset: int, body: bytes | FileRange) -> None:
        self.prefix = prefix
        self.offset = offset
        self._body = body
        self._starts: NDArray[np.intp] | None = None

    def __call__(self, line: int) -> str:
        """The position of line `line` of the chunk, counted from 0. Reads a range again, once."""
        if line == 0:
            return f"{self.prefix}{self.offset}"
        if self._starts is None:
            try:
                data = self._body if isinstance(self._body, bytes) else read_range(self._body)
            except OSError:
                return f"{self.prefix}{self.offset} line {line + 1} from there"
            self._starts = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
        if line > len(self._starts):
            return f"{self.prefix}{self.offset} line {line + 1} from there"
        return f"{self.prefix}{self.offset + int(self._starts[line - 1])}"


def without_bom(body: bytes | FileRange) -> bytes | FileRange:
    """The body of a first chunk after its byte order mark, which some editors write and JSON does not know."""
    if isinstance(body, bytes):
        return body[len(BOM) :]
    return FileRange(body.path, body.offset + len(BOM), body.length - len(BOM))


def read_range(span: FileRange) -> bytes:
    """The bytes of a range; fewer if the file has become shorter. Raises OSError."""
    fd = os.open(span.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts: list[bytes] = []
        at, end = span.offset, span.offset + span.length
        while at < end and (part := os.pread(fd, end - at, at)):
            parts.append(part)
            at += len(part)
        return b"".join(parts)
    finally:
        os.close(fd)
