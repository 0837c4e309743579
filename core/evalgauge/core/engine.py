"""The engine: takes chunks in stream order, keeps all state, and makes it durable together with positions.

One thread calls `process` (or `prepare` and `absorb`) and `commit`; any thread may call `families`.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from evalgauge.core.collect import Chunk, EventVerdict, Verdict
from evalgauge.core.decode import event_types
from evalgauge.core.deduplicate import DIGEST, Window, cut
from evalgauge.core.departed import Frozen
from evalgauge.core.emission import body
from evalgauge.core.errors import UNDECODABLE, EvalgaugeError
from evalgauge.core.event import Limits, Reason, Refusal
from evalgauge.core.flight import FlightRecorder, Phase
from evalgauge.core.instrument import Declared, Instrument
from evalgauge.core.partitions import Partitions, ReducerSlots, load
from evalgauge.core.reduce import Delta, Plan, Reducer, Work
from evalgauge.core.selfmetrics import PROCESS, SelfMetrics
from evalgauge.core.store import Commit, DeadLetter, DeadLetterLimits, Store, TableInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from evalgauge.core.collect import Departed, PartitionPages, Position
    from evalgauge.core.emission import Emission
    from evalgauge.core.families import Family
    from evalgauge.core.instruments.grouping import Slots
    from evalgauge.core.mapping import Mapping as EventMapping
    from evalgauge.core.pack.event_model import EventSpec
    from evalgauge.core.pack.model import Pack
    from evalgauge.core.table import StateTable

log = logging.getLogger(__name__)

_generations = itertools.count(1)
"""Of engines in this process: an exporter keeps what it rendered of one, and must not take it for another's."""
_TORN = "a chunk was taken in only in part: restart, and everything goes on at the last commit"

_SCRAPE = 10.0
"""Seconds that a scrape may take, by Prometheus' default. The time of what it brings is that of its beginning."""

_INTERNAL = ""
"""Stands for the input of internal events; no input has an empty name."""
_ANY_SIZE = 1 << 40

OWN_REDUCER = -1
"""Stands for the reducer in the engine's own process; workers count from 0."""


@dataclass(frozen=True, slots=True)
class InputRules:
    """How the events of one input are judged."""

    mapping: EventMapping | None = None
    deduplicate: bool = False
    ignore_unknown_types: bool = False
    """Events of undeclared types are counted and passed over instead of refused."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What holds for all inputs."""

    limits: Limits = field(default_factory=Limits)
    window: Window = field(default_factory=Window)
    dead_letters: DeadLetterLimits = field(default_factory=DeadLetterLimits)
    keep: str = "bytes"
    """What a dead letter keeps of the event: `bytes`, `redacted` or `reason`."""
    max_letter_bytes: int = 64 << 10


class Engine:
    """State of all packs, and the way of a chunk into it."""

    def __init__(  # noqa: PLR0913, PLR0917 - they belong together
        self,
        packs: Sequence[Pack],
        inputs: Mapping[str, InputRules],
        kinds: Mapping[str, type[Instrument]],
        store: Store,
        metrics: SelfMetrics,
        options: EngineOptions,
        recorder: FlightRecorder | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._packs = packs
        self._inputs = inputs
        self._store = store
        self._metrics = metrics
        self._options = options
        self._recorder = recorder
        self._clock = clock
        self._types = event_types(packs)
        every = {name: spec for pack in packs for name, spec in pack.events.items()}
        self._internal = {name: spec for name, spec in every.items() if spec.internal}
        self._pack_of = {type_: pack.pack for pack in packs for type_ in pack.events}
        self.declared = tuple(_declared(packs, every))
        self.instruments = [kinds[one.spec.type](one) for one in self.declared]
        self._kinds: dict[str, type[Instrument]] = {
            one.spec.type: kinds[one.spec.type] for one in self.declared
        }
        self._reducers: dict[str, Reducer] = {}
        self._slots: dict[tuple[int, str], ReducerSlots] = {}
        self._partitions = Partitions(
            self.declared, self.instruments, options.window, moving=store.by_partition
        )
        self._tables: dict[str, tuple[str, StateTable]] = {}
        for one, instrument in zip(self.declared, self.instruments, strict=True):
            self._tables |= {table.meaning: (one.name, table) for table in instrument.tables}
        self._tables |= {table.meaning: (name, table) for name, table in self._partitions.staying()}
        self._durable = metrics.durable()
        for name, counter in self._durable.items():
            self._tables[counter.table.meaning] = (name, counter.table)
        self._frozen = Frozen(self._fresh)
        self._frozen_with = ""
        """The partition that what is frozen is shown with."""
        self._known_tables: set[str] = set()
        self._dropped: list[str] = []
        self._positions: dict[tuple[str, str], Position] = {}
        self._letters: list[DeadLetter] = []
        self._acknowledgements: list[tuple[Callable[[Verdict], None], Verdict]] = []
        self._lock = threading.Lock()
        self._torn = False
        self._generation = next(_generations)
        self.uncommitted = 0
        """Events taken in since the last commit."""
        self.taken = 0
        """Events taken in since the start."""
        self.positioned: set[str] = set()
        """Inputs of which a position was committed since the start."""
        self.dirty = False
        """Something waits for a commit."""
        self.last_commit = 0.0
        self.lost = ""

    def restore(self) -> dict[tuple[str, str], Position]:
        """Take back the last checkpoint; returns (input, partition) → position. Raises `StateError`."""
        moving = self._partitions.meanings()
        remembers = any(rules.deduplicate for rules in self._inputs.values())
        restored = self._store.restore(self._tables, moving, self._options.window.age if remembers else 0.0)
        known = {info.meaning: info for info in restored.tables}
        for meaning, (name, table) in self._tables.items():
            load(name, table, restored.pages.get(meaning, []))
        self._known_tables = known.keys() & self._tables.keys()
        self._dropped = [meaning for meaning in known if meaning not in self._tables]
        kept = {known[meaning].metric for meaning in self._known_tables}
        for meaning in self._dropped:
            name = known[meaning].metric
            declared = any(name == metric for metric, _ in self._tables.values())
            why = (
                "its declaration has another meaning now, it restarts at zero"
                if declared
                else "no pack declares it now"
            )
            if name not in kept:
                log.warning("metric %s: state dropped: %s", name, why)
        if not self._partitions.moving:
            self._partitions.of("").deduplicator.restore(restored.digests)
        self.last_commit = restored.last_commit or self._clock()
        self._metrics.set("evalgauge_last_commit_timestamp_seconds", self.last_commit)
        self._set_uncommitted(0)
        self.lost = restored.lost
        self.dirty = bool(self._dropped)
        return restored.positions

    def has(self, partition: str) -> bool:
        """Whether events of this partition are ours to count."""
        return self._partitions.has(partition)

    def adopt(self, partition: str, pages: PartitionPages) -> None:
        """A partition is ours from now on, with the state it comes with. Raises `StateError`."""
        state = self._partitions.restored(partition, pages)
        with self._lock:
            self._partitions.put(partition, state)
        for slots in self._slots.values():
            slots.drop(partition)  # if it was ours before, as a topic that was made again is

    def release(self, partition: str) -> None:
        """It is ours no more, and all of it is committed: what is shown of it vanishes."""
        with self._lock:
            self._partitions.drop(partition)
            if partition == self._frozen_with:
                self._frozen.clear()
        for slots in self._slots.values():
            slots.drop(partition)

    def show_departed(self, partition: str, departed: Mapping[str, Departed]) -> None:
        """Show the totals of these replicas, which left for good, and of no others, until `partition` is released."""
        found = self._frozen.drawn(departed, next(_generations))
        with self._lock:
            self._frozen.show(found)
            self._frozen_with = partition

    def _fresh(self) -> Iterator[tuple[str, Instrument]]:
        """Every metric that a replica's tables are of, with an instrument of it that is empty."""
        for one, instrument in zip(self.declared, self.instruments, strict=True):
            if instrument.tables:
                yield one.name, self._kinds[one.spec.type](one)
        yield from self._metrics.durable().items()

    def plan(self, name: str) -> Plan:
        """What a reducer of this input does, here or in a worker."""
        types, mapping, limits = self._types, None, self._options.limits
        if name == _INTERNAL:
            types, limits = self._internal, Limits(event_bytes=_ANY_SIZE)
        else:
            mapping = self._inputs[name].mapping
        return Plan(types, self.declared, self._kinds, mapping, limits, self._store.seed)

    def work(self, name: str, chunk: Chunk) -> Work:
        """The reducing that a chunk needs."""
        chunk.arrival = chunk.arrival or self._clock()
        return Work(
            chunk.body,
            chunk.base,
            chunk.partition,
            chunk.arrival,
            chunk.tenant,
            self._inputs[name].deduplicate,
        )

    def process(self, name: str, chunk: Chunk) -> None:
        """Reduce a chunk here and absorb it. Raises `OSError` where a file range cannot be read."""
        self.absorb(name, chunk, self._reducer(name).reduce(self.work(name, chunk)), OWN_REDUCER)

    def _reducer(self, name: str) -> Reducer:
        reducer = self._reducers.get(name)
        if reducer is None:
            reducer = self._reducers[name] = Reducer(self.plan(name))
        return reducer

    def absorb(self, name: str, chunk: Chunk, deltas: list[Delta], reducer: int) -> None:
        """Merge what a chunk came to, in stream order, by whichever reducer. It is durable with the next commit.

        After any error nothing can be committed any more: half of a chunk without its position would count twice.
        """
        if self._torn:
            raise EvalgaugeError(_TORN)
        try:
            self._absorb(name, chunk, deltas, reducer)
        except BaseException:
            self._torn, self.dirty = True, False
            raise

    def _absorb(self, name: str, chunk: Chunk, deltas: list[Delta], reducer: int) -> None:
        self._note(Phase.WORKING)
        repeats: list[int] = []
        if self._inputs[name].deduplicate:
            deltas, reducer, repeats = self._without_repeats(name, chunk, deltas, reducer)
        received = sum(delta.received for delta in deltas)
        exceptions = [EventVerdict(line, "duplicate") for line in repeats]
        for delta in deltas:
            self._merge(name, chunk, delta, reducer)
            exceptions += self._refuse(name, chunk, delta)
        ignored = received - sum(sum(delta.accepted.values()) for delta in deltas) - len(exceptions)
        self._count("evalgauge_events_received", (name,), received)
        self._count("evalgauge_events_duplicated", (name,), len(repeats))
        self._count("evalgauge_events_ignored", (name,), ignored)
        if chunk.commit is not None:
            self._positions[name, chunk.partition] = chunk.commit
        if chunk.acknowledge is not None:
            verdict = Verdict(
                received=received,
                accepted=sum(sum(delta.accepted.values()) for delta in deltas),
                duplicate=len(repeats),
                rejected=len(exceptions) - len(repeats),
                exceptions=tuple(sorted(exceptions, key=lambda verdict: verdict.line)),
            )
            self._acknowledgements.append((chunk.acknowledge, verdict))
        self._set_uncommitted(self.uncommitted + received)
        self.taken += received
        if received:
            self._partitions.of(chunk.partition).heard = self._clock()
        self.dirty = True
        self._note(Phase.IDLE)

    def _without_repeats(
        self, name: str, chunk: Chunk, deltas: list[Delta], reducer: int
    ) -> tuple[list[Delta], int, list[int]]:
        now = self._clock()
        digests = [digest for delta in deltas for digest in cut(delta.digests)]
        deduplicator = self._partitions.of(chunk.partition).deduplicator
        found = deduplicator.repeats(digests, now)
        if not found:
            deduplicator.accept(now, digests)
            return deltas, reducer, []
        lines = [line for delta in deltas for line in delta.digest_lines.tolist()]
        repeats = sorted(lines[index] for index in found)
        received = sum(delta.received for delta in deltas)
        # What was reduced counts the repeats, so it is thrown away and reduced again without them, here.
        for delta in deltas:
            self._discard(name, chunk.partition, delta, reducer)
        work = self.work(name, chunk)
        again = Work(
            work.body,
            work.base,
            work.partition,
            work.arrival,
            work.tenant,
            digests=False,
            skip=frozenset(repeats),
        )
        deltas = self._reducer(name).reduce(again)
        assert sum(delta.received for delta in deltas) == received  # noqa: S101 - for the type checker, and against a fault of the caller
        gone = set(found)
        deduplicator.accept(now, [digest for index, digest in enumerate(digests) if index not in gone])
        return deltas, OWN_REDUCER, repeats

    def _local(self, name: str, partition: str, delta: Delta, reducer: int) -> list[Slots]:
        slots = self._slots.get((reducer, name))
        if slots is None or slots.generation != delta.generation:
            slots = ReducerSlots(delta.generation, self.instruments, self._partitions)
            self._slots[reducer, name] = slots
        return slots.of(partition)

    def _discard(self, name: str, partition: str, delta: Delta, reducer: int) -> None:
        for one, slots in zip(delta.metrics, self._local(name, partition, delta, reducer), strict=True):
            if one is not None:
                slots.announce(one.groups)

    def _merge(self, name: str, chunk: Chunk, delta: Delta, reducer: int) -> None:
        emitted = self._merge_metrics(name, chunk.partition, delta, reducer)
        if emitted:
            self._merge_internal(name, chunk, emitted)
        state = self._partitions.of(chunk.partition)
        if state.clock is not None:
            state.clock.advance(delta.clock)
        for type_, count in delta.accepted.items():
            self._count("evalgauge_events_accepted", (name, type_), count)
        self._count("evalgauge_input_bytes", (name,), delta.size)
        if delta.newest:
            self._metrics.set("evalgauge_input_lag_seconds", max(0.0, self._clock() - delta.newest), (name,))

    def _merge_internal(self, name: str, chunk: Chunk, emitted: Sequence[Emission]) -> None:
        """Count internal events, before time goes on: they see the time of the events that they were found at."""
        found, clock = body(emitted)
        inner = Chunk(chunk.partition, found, lambda line: f"internal event {line}", arrival=chunk.arrival)
        work = Work(found, 0, chunk.partition, chunk.arrival, clock=clock)
        for delta in self._reducer(_INTERNAL).reduce(work):
            self._merge_metrics(_INTERNAL, chunk.partition, delta, OWN_REDUCER)
            for type_, count in delta.accepted.items():
                self._count("evalgauge_events_emitted", (type_,), count)
            self._refuse(name, inner, delta)  # an instrument that raises: no other is possible

    def _merge_metrics(self, name: str, partition: str, delta: Delta, reducer: int) -> list[Emission]:
        state = self._partitions.of(partition)
        local = self._local(name, partition, delta, reducer)
        emitted: list[Emission] = []
        for place, one in enumerate(delta.metrics):
            if one is not None:
                local[place].announce(one.groups)
                declared = self.declared[place]
                try:
                    merged = self.instruments[place].merge(one, local[place], state.parts.get(place))
                except Exception:
                    log.exception("metric %s cannot take in events of %s", declared.name, partition or name)
                    raise
                self._count("evalgauge_series_overflow_events", (declared.name,), merged.overflowed)
                self._count("evalgauge_values_unobserved", (declared.name,), merged.unobserved)
                self._count("evalgauge_events_late", (declared.name,), merged.late)
                emitted += merged.emitted
        return emitted

    def _refuse(self, name: str, chunk: Chunk, delta: Delta) -> list[EventVerdict]:
        verdicts = []
        tally: Counter[tuple[str, str, str]] = Counter()
        passed_over = Reason.UNKNOWN_TYPE if self._inputs[name].ignore_unknown_types else None
        for refusal in delta.refusals:
            if refusal.reason is passed_over:
                continue
            reason, detail = str(refusal.reason), refusal.detail
            if refusal.reason is Reason.INSTRUMENT_ERROR and self._options.keep != "bytes":
                detail = detail.partition(":")[0]  # what an exception says may quote the event
            tally[name, refusal.type, reason] += 1
            verdicts.append(EventVerdict(refusal.line, "rejected", refusal.reason, detail))
            self._letters.append(
                DeadLetter(
                    time=chunk.arrival,
                    input=name,
                    partition=chunk.partition,
                    position=chunk.locate(refusal.line),
                    type=refusal.type,
                    reason=reason,
                    detail=detail,
                    pack=self._pack_of.get(refusal.type, ""),
                    data=(data := self._kept(name, refusal)),
                    tenant=chunk.tenant,
                    kept="cut"
                    if self._options.keep == "bytes" and len(data) < len(refusal.data)
                    else self._options.keep,
                    size=len(refusal.data),
                )
            )
        for labels, count in tally.items():
            self._count("evalgauge_events_rejected", labels, count)
        return verdicts

    def _kept(self, name: str, refusal: Refusal) -> bytes:
        if self._options.keep == "bytes":
            return refusal.data[: self._options.max_letter_bytes]
        # Where payload stands in another shape only its mapping knows, and that could not read the event.
        if self._options.keep == "redacted" and self._inputs[name].mapping is None:
            return redacted(refusal.data, self._types.get(refusal.type))[: self._options.max_letter_bytes]
        return b""

    def commit(self) -> None:
        """Make everything absorbed durable, show it, and acknowledge it.

        Raises what the store raises; then nothing is shown, nothing is lost, and the call can be repeated.
        Raises `EvalgaugeError` where a chunk was absorbed only in part: then only a restart helps.
        """
        if self._torn:
            raise EvalgaugeError(_TORN)
        now = max(self._clock(), self.last_commit)
        self._note(Phase.COMMITTING)
        started = time.perf_counter()
        self._partitions.settle()
        commit = self._checkpoint(now)
        try:
            dropped = self._store.commit(commit, self._options.dead_letters)
        except BaseException:
            self._metrics.add("evalgauge_commits", 1, ("failure",))
            self._note(Phase.WORKING)
            raise
        self._note(Phase.COMMITTED)
        with self._lock:
            for _, table in self._tables.values():
                table.publish()
            for _, table in self._partitions.tables():
                table.publish()
        self.positioned.update(name for name, _ in self._positions)
        self._known_tables.update(info.meaning for info in commit.tables)
        self._partitions.committed()
        self._dropped, self._positions, self._letters = [], {}, []
        acknowledgements, self._acknowledgements = self._acknowledgements, []
        self._set_uncommitted(0)
        self.dirty, self.last_commit = False, now
        for cause, count in dropped.items():
            self._count("evalgauge_dead_letters_dropped", (cause,), count)
        self._metrics.add("evalgauge_commits", 1, ("success",))
        self._metrics.observe("evalgauge_commit_duration_seconds", time.perf_counter() - started)
        self._metrics.set("evalgauge_last_commit_timestamp_seconds", now)
        self._metrics.set("evalgauge_deduplication_ids", self._partitions.ids())
        for acknowledge, verdict in acknowledgements:
            try:
                acknowledge(verdict)
            except Exception:
                log.exception("an acknowledgement failed; its sender will send again")
        self._note(Phase.IDLE)

    def _checkpoint(self, now: float) -> Commit:
        """Everything that changed since the last commit."""
        commit = Commit(
            time=now, dropped=self._dropped, positions=self._positions, dead_letters=self._letters
        )
        # Not just the last commit: it may be long ago, and out of the range in which a rule looks for a series' zero.
        before = max(self.last_commit, now - _SCRAPE)
        for meaning, (metric, table) in self._tables.items():
            if table.dirty():
                if meaning not in self._known_tables:
                    commit.tables.append(TableInfo(meaning, metric))
                commit.pages += ((meaning, page) for page in table.pages(now, before))
        for partition, table in self._partitions.tables():
            if table.dirty():
                pages = table.pages(now, before)
                commit.partition_pages += ((partition, table.meaning, page) for page in pages)
        commit.digests = self._partitions.fresh()
        most = max(map(len, commit.digests.values()), default=0)
        commit.digests_kept = self._options.window.ids + most // DIGEST
        commit.digests_since = now - self._options.window.age
        return commit

    def pass_time(self, after: float, quiet: Callable[[str], bool]) -> None:
        """Where nothing came of a partition for `after` seconds, and it is `quiet`, its time follows the clock."""
        now = self._clock()
        for partition, state in self._partitions.items():
            if state.clock is None or self._torn:
                continue
            state.heard = state.heard or now
            if now - state.heard >= after and quiet(partition):
                state.clock.advance(round((now - after) * 1e6))
                state.heard = now
                self.dirty = True

    def abandon(self) -> None:
        """Commit nothing more, and acknowledge nothing."""
        self._set_uncommitted(0)
        self._torn, self.dirty = True, False
        self._acknowledgements = []
        self._note(Phase.IDLE)

    def _set_uncommitted(self, events: int) -> None:
        self.uncommitted = events
        self._metrics.set("evalgauge_uncommitted_events", events)

    @property
    def waiting(self) -> bool:
        """A sender waits for an acknowledgement."""
        return bool(self._acknowledgements)

    def families(self) -> list[Family]:
        """What the last commit made durable, in the order of the packs; from any thread."""
        with self._lock:
            durable = [
                one for counter in self._durable.values() for one in counter.families(self._generation)
            ]
            found = [one for place in range(len(self.declared)) for one in self._families(place)] + durable
            return self._frozen.beside(found)

    def _families(self, place: int) -> Sequence[Family]:
        come_and_go = self._partitions.moving and place in self._partitions.kept
        generation = next(_generations) if come_and_go else self._generation
        return self.instruments[place].families(generation, self._partitions.all_of(place))

    def series(self) -> dict[str, tuple[int, int]]:
        """Metric → (series in use, limit)."""
        found = {}
        for place, one in enumerate(self.declared):
            own = self.instruments[place].index()
            held = [part.index() for part in self._partitions.all_of(place)] if own is None else [own]
            found[one.name] = (sum(len(each.series) for each in held), one.spec.limit * max(len(held), 1))
        return found

    def _count(self, name: str, labels: tuple[str, ...], amount: int) -> None:
        if amount:
            self._durable[name].add(labels, amount)

    def _note(self, phase: Phase) -> None:
        if self._recorder is not None:
            self._recorder.note(phase, self.uncommitted)


def _declared(packs: Sequence[Pack], types: Mapping[str, EventSpec]) -> list[Declared]:
    return [
        Declared(pack.pack, name, spec, {type_: types[type_] for type_ in spec.on})
        for pack in packs
        for name, spec in pack.metrics.items()
        if spec.on != [PROCESS]
    ]


def redacted(data: bytes, spec: EventSpec | None) -> bytes:
    """An event's bytes with payload fields taken out; empty where that cannot be done safely."""
    try:
        event = msgspec.json.decode(data)
    except UNDECODABLE:
        return b""
    if spec is None or not isinstance(event, dict) or not isinstance(event.get("data"), dict):
        return b""
    # Only single values: no other key has a list or an object, so what is in one may be anything.
    declared = {name for name, one in spec.fields.items() if not one.payload}
    known = {key: value for key, value in event["data"].items() if key in declared and _is_scalar(value)}
    outer = {key: event[key] for key in ("id", "source", "type", "time") if _is_scalar(event.get(key))}
    return msgspec.json.encode({**outer, "data": known})


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float)
