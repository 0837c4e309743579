"""Collector `kafka`: events from the topics of a Kafka cluster, each partition from its committed position on."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, ClassVar

from evalgauge.collectors.kafka_caretaker import Caretaker
from evalgauge.collectors.kafka_chunks import FULL_BYTES, PartitionReader
from evalgauge.collectors.kafka_client import Partition, Polled, Unavailable
from evalgauge.collectors.kafka_config import KafkaConfig
from evalgauge.collectors.kafka_handover import Handover
from evalgauge.collectors.kafka_keys import KeyCheck
from evalgauge.collectors.kafka_letterbox import KafkaLetterBox
from evalgauge.collectors.kafka_offsets import Offsets, is_another
from evalgauge.collectors.kafka_place import Place, place_of
from evalgauge.collectors.kafka_share import Arrival, Share
from evalgauge.collectors.kafka_store import KafkaStore, Library
from evalgauge.collectors.kafka_watch import View, Watch
from evalgauge.core.collect import Chunk, InputContext, PartitionPages, Stopped
from evalgauge.core.errors import ConfigError, EvalgaugeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from evalgauge.collectors.kafka_client import Client, Topic

_log = logging.getLogger(__name__)

_POLL = 0.2
"""Seconds of an idle poll; also how soon a stop is noticed."""
_PATIENCE = 1.0
"""Seconds without room after which partitions are paused and polled on; until then waiting is cheaper.

librdkafka throws away what it has fetched of a paused partition.
"""
_PAUSED_POLL = 0.05
_BUSY_POLL = 0.005
_TURN = 0.02
"""Seconds of one turn with the engine, and what a last poll takes besides."""
_LINGER = 0.05
"""Seconds that a partition with little to read waits at most for those with much."""
_REST = 0.5
"""Seconds that the engine is left alone at most, however long it was busy."""
_TROUBLE_SHOWN = 10.0
"""Seconds that a complaint of the client is shown after it was last heard."""
_WITHHELD_SHOWN = 300.0
"""Seconds that a transaction in a partition may be open before it is worth a word."""
_HELD_BYTES = 32 << 20
"""Most that is kept of all partitions in chunks that are not full: a thousand of them would come to a gigabyte."""
_OLDEST = 3.0
"""Seconds that records wait at most for a chunk to fill: a partition with little must not wait for those with much."""
_UNTIL_END_PATIENCE = 30.0
"""Seconds within which the brokers must answer where reading is to end."""


def open_library(config: KafkaConfig, name: str) -> Library:
    """The client library the input asks for. Raises `ConfigError` where it is not installed."""
    wanted = {"kafka-python": "kafka", "confluent": "kafka-fast"}[config.client]
    try:
        if config.client == "confluent":
            from evalgauge.collectors.kafka_fast import FastLibrary  # noqa: PLC0415 - an extra

            return FastLibrary(config, name)
        from evalgauge.collectors.kafka_pure import PureLibrary  # noqa: PLC0415 - an extra

        return PureLibrary(config, name)
    except ImportError as error:
        package = "confluent-kafka" if config.client == "confluent" else "kafka-python"
        msg = f"input `{name}`: reading Kafka needs the package {package}: pip install 'evalgauge[{wanted}]' ({error})"
        raise ConfigError(msg) from error


class KafkaCollector:
    """Reads topics as the only reader: every partition is ours, and positions are committed with the state.

    A chunk holds whole records of one partition. Its position is the next offset, with the topic's id, so that a
    topic that was deleted and made again is not taken for the old one. Everything the cluster may do while we read
    (brokers go, partitions come, retention runs past us) is explained in the input's note and then gone on from.
    """

    Config: ClassVar[type[BaseModel]] = KafkaConfig
    pushes: ClassVar[bool] = False

    @staticmethod
    def open_store(config: KafkaConfig, name: str, replica: str) -> KafkaStore | None:
        """In a group state is kept in Kafka. Raises `ConfigError`."""
        return None if config.group is None else KafkaStore(config, open_library(config, name), name, replica)

    @staticmethod
    def open_letters(config: KafkaConfig, name: str) -> KafkaLetterBox | None:
        """In a group refused events are kept in a topic. Raises `ConfigError`."""
        return None if config.group is None else KafkaLetterBox(config, open_library(config, name), name)

    def __init__(self, config: KafkaConfig, context: InputContext) -> None:
        """Check what can be checked without connecting. Raises `ConfigError`."""
        self._config = config
        self._context = context
        self._library = open_library(config, context.name)
        self._watch = Watch(self._library, config, context.name)
        self._handover = Handover(context.sink, 2 * min(FULL_BYTES, context.max_chunk_bytes), context.name)
        self._client: Client | None = None
        self._view = self._watch.view
        self._readers: dict[Partition, PartitionReader] = {}
        self._pending: dict[Partition, float] = {}
        """Partitions with records in no chunk yet, and since when; the oldest first."""
        self._flushed = 0.0
        self._took: float | None = 0.0
        """Seconds that the engine took for what was handed over last; None while it is at it."""
        self._places: dict[str, Place] = {}
        """Where partitions were left that are not read now: from the run before, strayed, or of a deleted topic."""
        self._not_before: dict[Partition, int] = {}
        """The number of the first view that may be believed about a partition that strayed, or has become ours."""
        self._offsets = Offsets(config, context)
        self._share: Share | None = None
        """In a group."""
        self._begun: dict[Partition, Arrival] = {}
        """Partitions of the group that we read, or would read if they were there, as they came."""
        self._given_up: set[Partition] = set()
        """Partitions that go to another member; the engine has their last chunk, or will have."""
        self._goal: dict[Partition, int] = {}
        self._keys = None if config.keyed_by is None else KeyCheck(config.keyed_by, config.format)
        self._paused = False
        self._trouble = ("", 0.0)
        context.status.not_ready = "no broker has answered yet"

    def run(self) -> None:
        """Read until stopped, or to the end if `until: end`.

        Raises ConfigError for a start that a partition does not have, and, with `until: end`, EvalgaugeError where
        brokers or topics are not there.
        """
        self._places = {name: Place.of(position) for name, position in self._context.positions.items()}
        if isinstance(store := self._context.store, KafkaStore):
            self._share = Share(
                store, Caretaker(self._config, self._context.name, self._library, store.replica)
            )
        try:
            with self._watch.running():
                self._read()
        except Stopped:
            _log.debug("input `%s`: the engine takes no more", self._context.name)
        finally:
            if self._share is not None:
                self._share.close()
            self._handover.close()
            self._tell()
            if self._client is not None:
                self._client.close()

    def _read(self) -> None:
        stop = self._context.stop
        started = time.monotonic()
        while not stop.is_set():
            if self._share is not None:
                self._follow(self._share)
            if self._watch.view is not self._view:
                self._adopt(self._watch.view)
            if self._config.until == "end" and self._at_goal(time.monotonic() - started):
                return
            if self._client is None or not self._readers:
                self._watch.wait(
                    self._view, _BUSY_POLL if self._share is not None and self._share.busy else _POLL
                )
                continue
            self._step(self._client)

    def _step(self, client: Client) -> None:
        """Read what is there. Full chunks are handed over; others once nothing more is there and the engine waits.

        So chunks grow with the load: while the engine is busy they fill, and while it is not nothing is held back.
        """
        if not self._room(client):
            self._take(client.poll(_PAUSED_POLL))
            return
        more = self._read_on(client)
        wanted = self._handover.wait_empty(0) and self._context.engine_idle()
        if wanted and self._took is None:
            self._took = time.monotonic() - self._flushed
        # While the engine is at it we look often, to know how long it takes.
        waiting = _BUSY_POLL if self._pending or self._took is None else _POLL
        if not more and not (wanted and self._pending):
            polled = client.poll(waiting)
            self._take(polled)
            more = bool(polled.batches)
        if wanted and self._pending:
            since = time.monotonic() - self._flushed
            # Many small chunks cost the engine as much as large ones: half of its time stays free, for more to come.
            rest = min(2 * (self._took or 0.0), _REST)
            if since > rest and (not more or since > _LINGER):
                self._flush()
        self._hand_over_the_oldest()

    def _read_on(self, client: Client) -> bool:
        """Take in what has come, in a turn of ours; whether there may be more."""
        with self._context.turns.turn():
            end = time.monotonic() + _TURN
            while time.monotonic() < end:
                polled = client.poll(0)
                self._take(polled)
                if not polled.batches:
                    return False
                if not self._handover.wait(0):
                    break
        return True

    def _room(self, client: Client) -> bool:
        """Wait for room a while; pause where that takes longer, and read on once there is room again."""
        if self._handover.wait(0 if self._paused else _PATIENCE):
            if self._paused:
                client.resume()
                self._paused = False
            return True
        if not self._paused:
            client.pause()
            self._paused = True
        return False

    def _take(self, polled: Polled) -> None:
        for batch in polled.batches:
            reader = self._readers.get(batch.partition)
            if reader is not None:
                if self._keys is not None:
                    self._keys.see(batch)
                for chunk in reader.add(batch):
                    self._handover.put(chunk)
                    self._pending.pop(batch.partition, None)
                if reader.pending:
                    self._pending.setdefault(batch.partition, time.monotonic())
        self._hold_no_more_than(_HELD_BYTES)
        if polled.trouble:
            if self._trouble[0] != polled.trouble:
                _log.warning("input %s: %s", self._context.name, polled.trouble)
            self._trouble = (polled.trouble, time.monotonic())
        if polled.strayed:
            self._leave(polled.strayed)
            number = self._watch.ask_again(polled.strayed)
            self._not_before |= dict.fromkeys(polled.strayed, number)

    def _hand_over(self, partition: Partition) -> None:
        del self._pending[partition]
        self._handover.put(self._readers[partition].take())

    def _hand_over_the_oldest(self) -> None:
        while self._pending:
            partition, since = next(iter(self._pending.items()))
            if time.monotonic() - since < _OLDEST:
                return
            self._hand_over(partition)

    def _hold_no_more_than(self, limit: int) -> None:
        """Hand over the largest of the chunks that are not full, while they come to more."""
        sizes = {partition: self._readers[partition].size for partition in self._pending}
        total = sum(sizes.values())
        while total > limit:
            largest = max(sizes, key=sizes.__getitem__)
            total -= sizes.pop(largest)
            self._hand_over(largest)

    def _flush(self) -> None:
        for partition in list(self._pending):
            self._hand_over(partition)
        self._flushed = time.monotonic()
        self._took = None

    def _leave(self, partitions: list[Partition]) -> None:
        """Read these no more; remember the place after what was handed over."""
        for partition in partitions:
            reader = self._readers.pop(partition, None)
            self._pending.pop(partition, None)
            if reader is not None:
                self._places[str(partition)] = reader.place
            self._context.status.positions.pop(str(partition), None)
            self._context.status.lag_events.pop(str(partition), None)
            self._context.status.lag_seconds.pop(str(partition), None)
            self._context.status.withheld_seconds.pop(str(partition), None)

    # -- what the group says ------------------------------------------------------------------------------

    def _follow(self, share: Share) -> None:
        """Begin with partitions that have become ours, hand over the last of those that go."""
        if new := share.step(self._view.topics):
            # Whoever had them may have read further than the log went when we looked last.
            self._not_before |= dict.fromkeys(new, self._watch.ask_again(new))
        if (news := share.departed()) is not None:
            partition, departed = news
            self._handover.put(Chunk(str(partition), b"", str, arrival=time.time(), departed=departed))
        for partition in share.leaving():
            if partition not in self._given_up:
                self._given_up.add(partition)
                self._give_up(share, partition)

    def _give_up(self, share: Share, partition: Partition) -> None:
        reader = self._readers.get(partition)
        if reader is not None and self._client is not None:
            self._client.drop([partition])
            self._leave([partition])
        self._places.pop(str(partition), None)
        self._begun.pop(partition, None)

        def done() -> None:
            self._given_up.discard(partition)
            share.let_go(partition)

        self._handover.put(Chunk(str(partition), b"", str, arrival=time.time(), release=done))

    # -- what the cluster has -----------------------------------------------------------------------------

    def _adopt(self, view: View) -> None:
        """Begin with partitions that are new, leave those that are gone."""
        self._view = view
        if not view.trouble:
            if self._client is None and not self._connect():
                return
            assert self._client is not None  # noqa: S101 - for the type checker
            if self._offsets.original is None and not self._first_look(view):
                return
            gone = [
                partition
                for partition, reader in self._readers.items()
                if partition.topic not in view.topics
                or partition.number not in view.topics[partition.topic].partitions
                or is_another(reader.place, view.topics[partition.topic])
            ]
            if gone:
                self._client.drop(gone)
                self._leave(gone)
            self._offsets.see_ends(
                view, {partition: self._position(partition) for partition in self._readers}
            )
            offsets: dict[Partition, int] = {}
            for name, topic in view.topics.items():
                for partition in (Partition(name, number) for number in topic.partitions):
                    if (
                        partition not in self._readers
                        and partition in view.ends
                        and partition in view.begins
                        and view.number >= self._not_before.get(partition, 0)
                        and (offset := self._begin(partition, topic, view)) is not None
                    ):
                        offsets[partition] = offset
            if offsets:
                self._client.assign(offsets)
        self._tell()

    def _connect(self) -> bool:
        try:
            self._client = self._library.client()
        except Unavailable as error:
            self._context.status.not_ready = f"the brokers cannot be read from: {error}"
            return False
        return True

    def _first_look(self, view: View) -> bool:
        """See what is there before anything is read; False where its end is not known yet and is needed."""
        there = {
            Partition(name, number) for name, topic in view.topics.items() for number in topic.partitions
        }
        if self._config.until == "end":
            missing = self._missing(view)
            if missing or not there:
                raise EvalgaugeError(f"input `{self._context.name}`: {missing or self._no_match()}")
            if leaderless := sorted(there - view.ends.keys()):
                self._context.status.not_ready = f"partition {leaderless[0]} has no leader"
                return False
            self._goal = dict(view.ends)
        if isinstance(self._config.start, dict):
            for name in self._config.start:
                topic = view.topics.get(Partition.named(name).topic)
                if topic is not None and Partition.named(name) not in there:
                    raise ConfigError(
                        f"input `{self._context.name}`: `start` names {name}, but that topic has "
                        f"{len(topic.partitions)} partitions, counted from 0"
                    )
        self._offsets.original = there
        return True

    def _begin(self, partition: Partition, topic: Topic, view: View) -> int | None:
        """The offset to read a partition from; makes its reader and commits a beginning that is new.

        None where it is not ours.
        """
        low, high = view.begins[partition], view.ends[partition]
        arrival = None
        if self._share is not None:
            arrival = self._arrival(self._share, partition, topic)
            if arrival is None:
                return None
        known = self._places.pop(str(partition), None)
        if known is None:
            added = None if arrival is None else arrival.added
            offset, place = self._offsets.start(partition, low, high, view, added=added), Place(0)
        else:
            offset, place = self._offsets.resume(partition, topic, known, low, high), known
        reader = PartitionReader(
            partition,
            Place(offset, place.bytes, topic.id, place.leader_epoch if offset == place.offset else None),
            self._config.format,
            self._context.max_chunk_bytes,
        )
        if arrival is not None and self._share is not None:
            if not self._share.begin(partition, arrival, len(topic.partitions)):
                return None
            self._begun[partition] = arrival._replace(pages=None)
            self._readers[partition] = reader
            self._handover.put(reader.begin(arrival.pages))
            return offset
        self._readers[partition] = reader
        if known is None or known.offset != offset or known.topic_id != topic.id:
            self._handover.put(reader.begin())
        return offset

    def _arrival(self, share: Share, partition: Partition, topic: Topic) -> Arrival | None:
        """What a partition comes with that is ours; None if it is not, or its state is not known yet."""
        begun = self._begun.get(partition)
        if (
            begun is not None
        ):  # it strayed, or its topic was made again: then what was known of the old one is gone
            pages = None if begun.topic_id == topic.id else PartitionPages({}, [])
            return begun._replace(committed=None, topic_id=topic.id, pages=pages, added=True)
        arrival = share.ready.get(partition)
        if arrival is None or arrival.topic_id != topic.id:
            return None
        if arrival.committed is not None:
            self._places[str(partition)] = place_of(arrival.committed)
        return arrival

    def _position(self, partition: Partition) -> int:
        """The offset that is read next."""
        reader = self._readers.get(partition)
        if reader is None:
            known = self._places.get(str(partition))
            return 0 if known is None else known.offset
        # Past the markers of transactions, which are no records to wait for.
        return max(reader.place.offset, (self._client and self._client.position(partition)) or 0)

    # -- the end ------------------------------------------------------------------------------------------

    def _at_goal(self, waited: float) -> bool:
        """Everything that was there at the start is with the engine. Raises EvalgaugeError where nobody answers."""
        if self._offsets.original is None:
            if waited > _UNTIL_END_PATIENCE:
                why = self._view.trouble or self._context.status.not_ready
                raise EvalgaugeError(
                    f"input `{self._context.name}`: {', '.join(self._config.bootstrap)} cannot be read: {why}"
                )
            return False
        client = self._client
        if client is None or self._pending:
            return False
        for partition, end in list(self._goal.items()):
            position = client.position(partition)
            if partition in self._readers and (position is None or position < end):
                return False
            if partition not in self._readers and partition in self._view.ends:
                return False
        return self._handover.wait_empty(_POLL)

    # -- what it says of itself ---------------------------------------------------------------------------

    def _tell(self) -> None:
        view, status = self._view, self._context.status
        if self._keys is not None:
            status.key_mismatches = self._keys.mismatches
        for partition, reader in self._readers.items():
            name = str(partition)
            status.positions[name] = f"offset {reader.place.offset}"
            if partition in view.ends:
                position = reader.place.offset if reader.pending else self._position(partition)
                status.lag_events[name] = max(0, view.ends[partition] - position)
            if status.lag_events.get(name):
                status.lag_seconds[name] = max(0.0, time.time() - reader.read_to)
            else:
                reader.read_to = time.time()
                status.lag_seconds[name] = 0.0
            status.withheld_seconds[name] = view.withheld.get(partition, 0.0)
        status.holds_time = bool(view.trouble)
        missing = "" if self._offsets.original is None else self._missing(view)
        if not view.trouble:
            status.not_ready = missing or ("" if self._share is None else self._share.trouble)
        elif self._offsets.original is None:
            brokers = ", ".join(self._config.bootstrap)
            status.not_ready = f"no broker has answered yet at {brokers}: {view.trouble}"
        status.note = "; ".join([*self._passing(view, missing), *self._offsets.told()])

    def _passing(self, view: View, missing: str) -> Iterator[str]:
        """What is wrong at the moment."""
        if view.trouble:
            since = time.strftime("%FT%TZ", time.gmtime(view.since))
            yield f"the brokers have not answered since {since}: {view.trouble}"
        if missing:
            yield missing
        elif self._config.topic_pattern is not None and not view.trouble and not view.topics:
            yield self._no_match()
        held = sorted(
            one
            for one, seconds in view.withheld.items()
            if one in self._readers and seconds > _WITHHELD_SHOWN
        )
        if held:
            others = f" and of {len(held) - 1} more" if held[1:] else ""
            yield (
                f"a transaction has been open for {view.withheld[held[0]]:.0f} s in {held[0]}{others}: what was "
                "written after it began cannot be read"
            )
        if self._trouble[0] and time.monotonic() - self._trouble[1] < _TROUBLE_SHOWN:
            yield self._trouble[0]

    def _missing(self, view: View) -> str:
        missing = [name for name in self._config.topics or () if name not in view.topics]
        if not missing:
            return ""
        return f"topic{'s' if missing[1:] else ''} {', '.join(missing)} {'do' if missing[1:] else 'does'} not exist"

    def _no_match(self) -> str:
        return f"no topic matches {self._config.topic_pattern}"
