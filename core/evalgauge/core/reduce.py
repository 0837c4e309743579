"""Chunks to deltas: decode, validate and reduce whole batches, without touching any state.

A reducer may live in the engine's process or in a worker. It keeps nothing between two chunks but label caches,
and those are bounded: when they grow past a limit they are dropped and a new generation begins.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from evalgauge.core.clock import NEVER, stamp
from evalgauge.core.columns import Columns
from evalgauge.core.decode import CloudEventsShape, decode
from evalgauge.core.event import UNKNOWN_TYPE_LABEL, Finding, Limits, Reason, Refusal
from evalgauge.core.instrument import goes_by_time
from evalgauge.core.keys import KeyNumbers
from evalgauge.core.mapped import MappedShape
from evalgauge.core.series import passing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from evalgauge.core.collect import FileRange
    from evalgauge.core.columns import TypeReader
    from evalgauge.core.instrument import Declared, Instrument, Reducing
    from evalgauge.core.mapping import Mapping
    from evalgauge.core.pack.event_model import EventSpec
    from evalgauge.core.series import Encoder
    from evalgauge.core.shape import Decoded, Shape

PIECE_BYTES = 900_000
"""Bytes decoded at a time: larger pieces fall out of the processor's caches, smaller ones pay per call."""
BATCH_EVENTS = 1 << 14
"""Events of as many pieces as it takes are then looked at together: every look at a column has a price of its own."""
DELTA_EVENTS = 1 << 15
"""Events of one delta at most: far below what would overflow an exact sum, and small enough to acknowledge soon."""
CACHE_LIMIT = 1 << 20
"""Distinct values of a label field, or label sets of a metric, that a reducer remembers before it starts anew."""
KEY_LIMIT = 1 << 18
"""Distinct keys that a reducer remembers before it starts anew: most never come again."""
CACHE_CHARACTERS = 1 << 26
"""Length of all values of a label field that a reducer remembers before it starts anew."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reducer does; crosses to worker processes."""

    types: dict[str, EventSpec]
    """Those that may come; metrics of others see nothing."""
    metrics: tuple[Declared, ...]
    kinds: dict[str, type[Instrument]]
    """Metric type → instrument."""
    mapping: Mapping | None
    limits: Limits
    seed: int
    """Secret of the de-duplication digests."""


@dataclass(frozen=True, slots=True)
class Work:
    """One chunk to reduce. `skip` names lines that are known to be repeats."""

    body: bytes | FileRange
    base: int
    partition: str
    arrival: float
    tenant: str | None = None
    digests: bool = False
    skip: frozenset[int] = frozenset()
    clock: NDArray[np.int64] | None = None
    """Of internal events, by line: how far time had come before the event that each was found at."""


@dataclass(slots=True)
class Delta:
    """What a run of events came to. Deltas of a chunk are merged in order, all of them or none."""

    generation: int
    received: int = 0
    size: int = 0
    """Bytes read."""
    accepted: dict[str, int] = field(default_factory=dict)
    """Event type → events."""
    refusals: list[Refusal] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    """One entry for each metric of the plan: its instrument's delta, or None."""
    digests: bytes = b""
    """16 bytes for each accepted event, in stream order."""
    digest_lines: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    newest: float = 0.0
    """Unix time of the newest of the last events, 0 if unknown; for the lag."""
    clock: int = NEVER
    """How far event time has come, in microseconds since 1970; only where a metric goes by it."""


class _Batch:
    """The events of neighbouring pieces."""

    def __init__(self) -> None:
        self.received = 0
        self.refusals: list[Refusal] = []
        self._groups: dict[int, tuple[TypeReader, list[Any], list[NDArray[np.int64]]]] = {}
        """By identity of the reader."""

    def takes(self, decoded: Decoded) -> bool:
        """Whether this piece can be looked at with the others: events of one type must all be read the same way."""
        types = {reader.type: key for key, (reader, *_) in self._groups.items()}
        return all(types.get(reader.type, id(reader)) == id(reader) for reader, *_ in decoded.groups)

    def add(self, decoded: Decoded) -> int:
        """Take in the next piece; how many lines it has."""
        self.received += decoded.received
        self.refusals += decoded.refusals
        for reader, events, rows in decoded.groups:
            known = self._groups.setdefault(id(reader), (reader, [], []))
            known[1].extend(events)
            known[2].append(rows)
        return decoded.lines

    def groups(self) -> Iterator[tuple[TypeReader, list[Any], NDArray[np.int64]]]:
        """The events of each kind, with their lines."""
        for reader, events, rows in self._groups.values():
            yield reader, events, np.concatenate(rows)


class Reducer:
    """Reduces chunks by one plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._timed = any(goes_by_time(metric, plan.kinds[metric.spec.type]) for metric in plan.metrics)
        self._generation = 0
        self._shapes: dict[bool, Shape] = {}
        self._encoders: dict[tuple[str, ...], Encoder] = {}
        self._parts: list[Reducing] = []
        self._by_type: dict[str, list[Reducing]] = {}
        self._label_sets: list[int] = []
        """Of each metric, those that were announced in this generation."""
        self._start_anew()

    def _start_anew(self) -> None:
        self._generation += 1
        self._encoders = {}
        self._label_sets = [0] * len(self._plan.metrics)
        self._parts = [self._plan.kinds[metric.spec.type].reducing(metric) for metric in self._plan.metrics]
        self._by_type = {type_: [] for type_ in self._plan.types}
        for metric, part in zip(self._plan.metrics, self._parts, strict=True):
            for type_ in metric.types.keys() & self._by_type.keys():
                self._by_type[type_].append(part)

    def _shape(self, *, tenant_given: bool) -> Shape:
        shape = self._shapes.get(tenant_given)
        if shape is None:
            native = CloudEventsShape(self._plan.types, tenant_given=tenant_given)
            mapping = self._plan.mapping
            shape = native if mapping is None else MappedShape(mapping, self._plan.types, native)
            self._shapes[tenant_given] = shape
        return shape

    def reduce(self, work: Work) -> list[Delta]:
        """The deltas of one chunk, in order. An event that makes an instrument raise is refused alone."""
        if self._remembers_too_much():
            self._start_anew()
        body = read_body(work.body)
        try:
            return list(self._deltas(body, work, work.skip))
        except Exception:  # noqa: BLE001 - a plug-in may raise anything
            self._start_anew()
        return self._bisected(body, work)

    def _remembers_too_much(self) -> bool:
        return max(self._label_sets, default=0) > CACHE_LIMIT or any(
            encoder.remembered > (KEY_LIMIT if isinstance(encoder, KeyNumbers) else CACHE_LIMIT)
            or encoder.characters > CACHE_CHARACTERS
            for encoder in self._encoders.values()
        )

    def _deltas(self, body: bytes, work: Work, skip: frozenset[int]) -> Iterator[Delta]:
        delta = Delta(self._generation)
        digests: list[bytes] = []
        lines: list[NDArray[np.int64]] = []
        batch, line = _Batch(), 0
        shape = self._shape(tenant_given=work.tenant is not None)
        for start, end in _pieces(body):
            decoded = decode(shape, memoryview(body)[start:end], self._plan.limits, line)
            if not batch.takes(decoded):
                self._apply(batch, work, skip, delta, digests, lines, body)
                batch = _Batch()
            line += batch.add(decoded)
            delta.size += end - start
            if batch.received >= BATCH_EVENTS or end == len(body):
                self._apply(batch, work, skip, delta, digests, lines, body)
                # Its events must not live on while the next are decoded, in twice the memory and out of cache.
                batch = _Batch()
            if delta.received >= DELTA_EVENTS and not batch.received:
                yield self._finish(delta, digests, lines)
                delta, digests, lines = Delta(self._generation), [], []
        if delta.size or not body:
            yield self._finish(delta, digests, lines)

    def _apply(  # noqa: PLR0913, PLR0917 - they belong together
        self,
        batch: _Batch,
        work: Work,
        skip: frozenset[int],
        delta: Delta,
        digests: list[bytes],
        lines: list[NDArray[np.int64]],
        body: bytes,
    ) -> None:
        delta.received += batch.received
        delta.refusals += batch.refusals
        taken: list[Columns] = []
        for reader, events, rows in batch.groups():
            columns = self._accepted(
                Columns(reader, events, rows, self._encoders, work.arrival), work, skip, delta, body
            )
            if not columns.n:
                continue
            if work.digests:
                digests.append(self._digests(columns, work.tenant))
                lines.append(columns.lines)
            newest = reader.envelope.time(columns.events[-1])
            delta.newest = max(delta.newest, newest.timestamp() if newest else work.arrival)
            delta.accepted[reader.type] = delta.accepted.get(reader.type, 0) + columns.n
            taken.append(columns)
        self._tell_time(taken, work, delta)
        for columns in taken:
            for part in self._by_type[columns.type]:
                part.reduce(columns)

    def _tell_time(self, taken: Sequence[Columns], work: Work, delta: Delta) -> None:
        latest = round((work.arrival + self._plan.limits.clock_ahead) * 1e6)
        for columns in taken:
            if work.clock is None:
                columns.latest = latest
            else:
                columns.clock = work.clock[columns.lines]
        if work.clock is None and self._timed and taken:
            delta.clock = stamp(taken, delta.clock, latest)

    def _accepted(
        self, columns: Columns, work: Work, skip: frozenset[int], delta: Delta, body: bytes
    ) -> Columns:
        """Those events that nothing refuses and nobody skips."""
        reader = columns.reader
        if reader.check is not None:
            columns = self._checked(columns, work, delta, body)
        if work.tenant is not None and reader.spec.tenant is not None:
            columns = self._claim(columns, reader, work.tenant, delta, body)
        if skip:
            keep = np.flatnonzero([line not in skip for line in columns.lines.tolist()])
            if len(keep) < columns.n:
                columns = columns.take(keep)
        if reader.functions:
            columns = self._derivable(columns, delta, body)
        if reader.positional and columns.n:
            columns.locate(work.partition, work.base, body)
        return columns

    def _checked(self, columns: Columns, work: Work, delta: Delta, body: bytes) -> Columns:
        assert columns.reader.check is not None  # noqa: S101 - for the type checker, and against a fault of the caller
        bad = columns.reader.check(columns)
        if not bad.any():
            return columns
        texts, shape = body.split(b"\n"), self._shape(tenant_given=work.tenant is not None)
        for line in columns.lines[bad].tolist():
            finding = shape.explain(texts[line]) or Finding(
                Reason.MAPPING_FAILED, "the mapping cannot read it"
            )
            type_ = finding.type if finding.type in self._plan.types else columns.type
            delta.refusals.append(Refusal(line, finding.reason, finding.detail, type_, texts[line]))
        return columns.take(np.flatnonzero(~bad))

    @staticmethod
    def _derivable(columns: Columns, delta: Delta, body: bytes) -> Columns:
        """Those events on which no function fails that a field is derived by."""
        failures = columns.failures()
        if not failures:
            return columns
        texts = body.split(b"\n")
        for row, detail in failures.items():
            line = int(columns.lines[row])
            delta.refusals.append(Refusal(line, Reason.INSTRUMENT_ERROR, detail, columns.type, texts[line]))
        return columns.take(np.array([row for row in range(columns.n) if row not in failures], np.intp))

    def _claim(self, columns: Columns, reader: TypeReader, tenant: str, delta: Delta, body: bytes) -> Columns:
        field_name = str(reader.spec.tenant)
        codes, texts = columns.codes(field_name)
        foreign = passing(codes, texts, lambda text: text is not None and text != tenant)
        if foreign.any():
            lines = body.split(b"\n")
            for row in np.flatnonzero(foreign).tolist():
                line = int(columns.lines[row])
                detail = f"`{field_name}` names another tenant than the token's, {tenant!r}"
                delta.refusals.append(Refusal(line, Reason.FOREIGN_TENANT, detail, reader.type, lines[line]))
            columns = columns.take(np.flatnonzero(~foreign))
        columns.force(field_name, tenant)
        return columns

    def _digests(self, columns: Columns, tenant: str | None) -> bytes:
        # Lengths stand before the texts, so that no two (tenant, source, id) give the same bytes.
        claim = f"{len(tenant)}:{tenant}" if tenant is not None else "-"
        digest, seed = xxhash.xxh3_128_digest, self._plan.seed
        return b"".join(
            digest(f"{claim}{len(source)}:{source}{identity}".encode("utf-8", "surrogatepass"), seed)
            for source, identity in zip(columns.sources(), columns.ids(), strict=True)
        )

    def _finish(self, delta: Delta, digests: list[bytes], lines: list[NDArray[np.int64]]) -> Delta:
        delta.metrics = [part.take() for part in self._parts]
        for number, one in enumerate(delta.metrics):
            if one is not None:
                self._label_sets[number] += len(one.groups.new)
        if lines:
            all_lines = np.concatenate(lines)
            order = np.argsort(all_lines, kind="stable")
            joined = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
            delta.digests = joined[order].tobytes()
            delta.digest_lines = all_lines[order]
        delta.refusals.sort(key=lambda refusal: refusal.line)
        return delta

    def _bisected(self, body: bytes, work: Work) -> list[Delta]:
        """Find the lines at which an instrument raises, by halves; the others count as if these were not there."""
        texts = body.split(b"\n")
        culprits: dict[int, str] = {}
        todo = [(0, len(texts))]
        while todo:
            first, last = todo.pop()
            skip = frozenset(line - first for line in work.skip if first <= line < last)
            try:
                list(self._deltas(b"\n".join(texts[first:last]), work, skip))
            except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
                if last - first == 1:
                    culprits[first] = f"{type(error).__name__}: {error}"
                else:
                    middle = (first + last) // 2
                    todo += [(first, middle), (middle, last)]
            self._start_anew()
        deltas = None
        try:  # what raised may also have been a cache that is forgotten by now
            deltas = list(self._deltas(body, work, work.skip | culprits.keys()))
        except Exception:  # noqa: BLE001 - a plug-in may raise anything
            self._start_anew()
        if deltas is None:
            # It raises on the batch but on no half of it: an error of the instrument that no event explains.
            together = "an instrument fails on the whole batch though on no part of it"
            refused = frozenset(refusal.line for refusal in self._refusals(body, work))
            culprits |= {
                line: together
                for line, text in enumerate(texts)
                if text.strip(b" \t\r")
                and line not in work.skip
                and line not in refused
                and line not in culprits
            }
            deltas = list(self._deltas(body, work, work.skip | culprits.keys()))
        for line, detail in sorted(culprits.items()):
            type_ = self._type_of(texts[line], work)
            deltas[-1].refusals.append(Refusal(line, Reason.INSTRUMENT_ERROR, detail, type_, texts[line]))
        deltas[-1].refusals.sort(key=lambda refusal: refusal.line)
        return deltas

    def _refusals(self, body: bytes, work: Work) -> list[Refusal]:
        """What is refused before any instrument sees it: nothing is left over that one could raise on."""
        every = frozenset(range(body.count(b"\n") + 1))
        return [refusal for delta in self._deltas(body, work, every) for refusal in delta.refusals]

    def _type_of(self, text: bytes, work: Work) -> str:
        decoded = decode(self._shape(tenant_given=work.tenant is not None), text, self._plan.limits, 0)
        return decoded.groups[0][0].type if decoded.groups else UNKNOWN_TYPE_LABEL


def read_body(body: bytes | FileRange) -> bytes:
    """The bytes of a chunk. Raises `OSError` where a file range is not there any more."""
    if isinstance(body, bytes):
        return body
    with open(body.path, "rb") as file:  # noqa: PTH123 - a descriptor is what pread wants
        data = os.pread(file.fileno(), body.length, body.offset)
    if len(data) != body.length:
        msg = f"{body.path} ends at {body.offset + len(data)}, though {body.offset + body.length} bytes were there"
        raise OSError(msg)
    return data


def _pieces(body: bytes) -> Iterator[tuple[int, int]]:
    """Spans of at most some `PIECE_BYTES` that end after a newline, of much the same size: each costs something."""
    start = 0
    while (rest := len(body) - start) > PIECE_BYTES:
        end = start + rest // -(-rest // PIECE_BYTES)
        cut = body.rfind(b"\n", start, end)
        if cut < 0:
            cut = body.find(b"\n", end)
        end = len(body) if cut < 0 else cut + 1
        yield start, end
        start = end
    if rest:
        yield start, len(body)


def refusal_offsets(body: bytes, lines: Sequence[int]) -> list[int]:
    """Byte offsets in `body` at which the given lines start."""
    ends = np.flatnonzero(np.frombuffer(body, np.uint8) == ord("\n"))
    return [0 if line == 0 else int(ends[line - 1]) + 1 for line in lines]
