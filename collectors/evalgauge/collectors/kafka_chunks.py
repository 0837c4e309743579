"""Records of one partition become chunks: bodies within the bound, each with the position after it."""

from __future__ import annotations

import time
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from evalgauge.collectors.kafka_records import body_of
from evalgauge.core.collect import Chunk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evalgauge.collectors.kafka_client import Batch, Partition
    from evalgauge.collectors.kafka_place import Place
    from evalgauge.collectors.kafka_records import RecordFormat
    from evalgauge.core.collect import PartitionPages

FULL_BYTES = 4 << 20
FULL_RECORDS = 16_000
"""A chunk is full from either on: about as many events as the engine looks at together."""


class _Part(NamedTuple):
    """Some records and their lines."""

    data: bytes
    lines: int
    offsets: Sequence[int]
    firsts: list[int] | None


class PartitionReader:
    """What was read of a partition and is in no chunk yet, and the place before that."""

    def __init__(self, partition: Partition, place: Place, format: RecordFormat, max_bytes: int) -> None:  # noqa: A002 - as the configuration calls it
        self.partition = partition
        self.place = place
        """After the last chunk."""
        self._name = str(partition)
        self._format = format
        self._max_bytes = max_bytes
        self._full = min(FULL_BYTES, max_bytes)
        self._parts: list[_Part] = []
        self.size = 0
        """Bytes in no chunk yet."""
        self._records = 0
        self._epoch = place.leader_epoch
        self.read_to = time.time()
        """Unix time that the records after the last chunk are younger than, as far as is known.

        That of its last record, or when it was seen that nothing came after it; at first, when reading began.
        """
        self._newest = 0.0

    @property
    def pending(self) -> bool:
        """There is something to `take`."""
        return bool(self._parts)

    def begin(self, pages: PartitionPages | None = None) -> Chunk:
        """A chunk without events that commits where this partition begins, so that a restart need not guess.

        In a group it brings the partition's state.
        """
        return Chunk(
            self._name,
            b"",
            _Locator([]),
            self.place.position(),
            base=self.place.bytes,
            arrival=time.time(),
            adopt=pages,
        )

    def add(self, batch: Batch) -> Iterator[Chunk]:
        """Take records in; yields the chunks that are full."""
        for part in self._cut(batch, 0, len(batch.values)):
            if self._parts and self.size + len(part.data) > self._max_bytes:
                yield self.take()
            self._parts.append(part)
            self.size += len(part.data) + 1
            self._records += len(part.offsets)
            self._epoch = batch.epoch
            self._newest = max(0.0, batch.newest / 1000)
            if self.size >= self._full or self._records >= FULL_RECORDS:
                yield self.take()

    def _cut(self, batch: Batch, first: int, end: int) -> Iterator[_Part]:
        """Halves, until each is within the bound; one record alone may be larger."""
        whole = end - first == len(batch.values)
        values = batch.values if whole else batch.values[first:end]
        headers = batch.headers if whole else lambda index: batch.headers(first + index)
        data, firsts = body_of(self._format, values, headers)
        if len(data) > self._max_bytes and end - first > 1:
            middle = (first + end) // 2
            yield from self._cut(batch, first, middle)
            yield from self._cut(batch, middle, end)
            return
        lines = end - first if firsts is None else data.count(b"\n") + bool(data)
        yield _Part(data, lines, batch.offsets if whole else batch.offsets[first:end], firsts)

    def take(self) -> Chunk:
        """What is pending, as one chunk."""
        parts, self._parts = self._parts, []
        self.size = self._records = 0
        held = [part.data for part in parts if part.data]
        # A newline after the last event too, so that bytes do not depend on how the stream is cut.
        body = b"\n".join([*held, b""]) if held else b""
        base = self.place.bytes
        self.place = self.place._replace(
            offset=parts[-1].offsets[-1] + 1,
            bytes=base + len(body),
            leader_epoch=self._epoch,
        )
        self.read_to = self._newest or self.read_to
        commit = self.place.position()
        return Chunk(self._name, body, _Locator(parts), commit, base=base, arrival=time.time())


class _Locator:
    """Names the place of a line: the offset of its record, and its line in there if the record holds several."""

    __slots__ = ("_parts",)

    def __init__(self, parts: list[_Part]) -> None:
        # Without the bodies: a locator may outlive its chunk.
        self._parts = [part._replace(data=b"") for part in parts]

    def __call__(self, line: int) -> str:
        for lines, offsets, firsts in ((part.lines, part.offsets, part.firsts) for part in self._parts):
            if line >= lines:
                line -= lines
                continue
            if firsts is None:
                return f"offset {offsets[line]}"
            record = bisect_right(firsts, line) - 1
            within = line - firsts[record]
            after = firsts[record + 1] if record + 1 < len(firsts) else lines
            several = after - firsts[record] > 1
            return f"offset {offsets[record]} line {within + 1}" if several else f"offset {offsets[record]}"
        raise IndexError(f"the chunk has no line {line}")
