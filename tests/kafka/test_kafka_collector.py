"""Collector `kafka` on a real broker, by both clients: from where it reads, and what it does when the log changes."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient, TopicPartition
from pydantic import ValidationError

from evalgauge.collectors import kafka as collector
from evalgauge.collectors.kafka import KafkaCollector
from evalgauge.collectors.kafka_config import KafkaConfig
from evalgauge.core.collect import InputContext, InputStatus
from evalgauge.core.errors import ConfigError, EvalgaugeError
from tests.conformance.sink import MemorySink
from tests.parts.part import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.conftest import MakeTopic
    from tests.parts.kafka import Kafka


def event(n: int, pad: int = 0) -> bytes:
    """One event."""
    return json.dumps({"id": f"e-{n}", "pad": "x" * pad}).encode()


def events(first: int, last: int) -> list[bytes]:
    """Events, first included, last excluded."""
    return [event(n) for n in range(first, last)]


class Log:
    """Writes to topics of a broker, and changes them."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._producer = self._new_producer()

    def _new_producer(self) -> Producer:
        # Without idempotence a retry, such as a new topic may need, puts records behind later ones.
        settings = {
            "message.max.bytes": 8 << 20,
            "linger.ms": 1,
            "enable.idempotence": True,
            "log_level": 0,
        }
        return Producer({"bootstrap.servers": self.bootstrap} | settings)

    def write(self, topic: str, values: Sequence[bytes | None], partition: int = 0, *, time: int = 0) -> None:
        """Produce in order, and wait until the broker has all of it; `time` in milliseconds, 0 for now."""
        for value in values:
            self._producer.produce(topic, value, partition=partition, timestamp=time)
        assert self._producer.flush(60) == 0

    def admin(self) -> KafkaAdminClient:
        """An admin client, to be closed."""
        return KafkaAdminClient(bootstrap_servers=self.bootstrap)

    def create(self, topic: str, partitions: int = 1) -> None:
        """Make a topic; waits while an old one of the same name is still being deleted."""
        wanted = {topic: {"num_partitions": partitions, "replication_factor": 1}}
        with closing(self.admin()) as admin:

            def made() -> bool:
                answer = admin.create_topics(wanted, raise_errors=False)
                return bool(answer["topics"][0]["error_code"] == 0)

            def led() -> bool:
                there = admin.describe_topics([topic])[0]["partitions"]
                return len(there) == partitions and all(one["leader_id"] >= 0 for one in there)

            until(made, f"{topic} to be made")
            until(led, f"{topic} to have leaders")

    def delete(self, topic: str) -> None:
        """Delete a topic."""
        with closing(self.admin()) as admin:
            admin.delete_topics([topic])

    def add_partitions(self, topic: str, count: int) -> None:
        """Grow a topic to so many partitions."""
        with closing(self.admin()) as admin:
            admin.create_partitions({topic: count})
            until(lambda: len(admin.describe_topics([topic])[0]["partitions"]) == count, "the new partitions")
        self._producer = self._new_producer()  # the old one does not know them

    def forget(self, topic: str, before: int, partition: int = 0) -> None:
        """What retention does: delete the records before an offset."""
        with closing(self.admin()) as admin:
            admin.delete_records({TopicPartition(topic, partition): before})


class Reading:
    """Runs the collector over a sink that keeps positions, as an engine does."""

    def __init__(self, bootstrap: str, client: str, **config: Any) -> None:
        self.sink = MemorySink()
        self.status = InputStatus()
        self.at_end = False
        self._config = {"bootstrap": bootstrap, "client": client, "refresh": 0.1} | config
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.error: BaseException | None = None
        self.max_chunk_bytes = 4 << 20
        self.idle = True
        """What the engine says of itself."""

    def start(self, **config: Any) -> None:
        """Start, or start again from the committed positions."""
        self._stop = threading.Event()
        self.status = InputStatus()
        self._config |= config
        context = InputContext(
            "in",
            json.loads(json.dumps(self.sink.positions)),
            self.sink,
            self._stop,
            self.status,
            start_at_end=self.at_end,
            max_chunk_bytes=self.max_chunk_bytes,
            engine_idle=lambda: self.idle,
        )
        reader = KafkaCollector(KafkaConfig(**self._config), context)

        def run() -> None:
            try:
                reader.run()
            except BaseException as error:  # noqa: BLE001 - looked at by the test
                self.error = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def ready(self) -> None:
        """Wait until it says that events can come in."""
        until(lambda: self.error or not self.status.not_ready, "the input to be ready", 90)
        assert self.error is None

    def arrived(self, count: int, seconds: float = 90) -> None:
        """Wait for so many lines, and for no more."""
        try:
            until(lambda: self.error or len(self.sink.lines()) >= count, f"{count} lines", seconds)
        except AssertionError as error:
            raise AssertionError(f"{len(self.sink.lines())} of {count} lines; {self.status}") from error
        assert self.error is None
        assert len(self.sink.lines()) == count

    def ended(self) -> None:
        """Wait for its own end."""
        assert self._thread is not None
        self._thread.join(90)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        """Stop it, and tell of an error it ended with."""
        self._stop.set()
        if self._thread is not None:
            self.ended()
            self._thread = None
        if self.error is not None:
            error, self.error = self.error, None
            raise error


@pytest.fixture(params=["kafka-python", "confluent"])
def client(request: pytest.FixtureRequest) -> str:
    """Each client in turn."""
    return str(request.param)


@pytest.fixture
def log(kafka: Kafka) -> Log:
    """The shared broker, to write to."""
    return Log(kafka.bootstrap)


@pytest.fixture
def reading(kafka: Kafka, client: str, topic: str) -> Iterator[Reading]:
    """A collector of one topic, which is not there yet; not started."""
    one = Reading(kafka.bootstrap, client, topics=[topic])
    yield one
    one.stop()


# -- order and place --------------------------------------------------------------------------------------


def test_events_of_each_partition_arrive_in_order(log: Log, topic: str, reading: Reading) -> None:
    """Partitions are streams of their own, named topic/number."""
    log.create(topic, 3)
    for number in range(3):
        log.write(topic, events(number * 5000, number * 5000 + 3000), number)
    reading.start()
    reading.arrived(9000)
    for number in range(3):
        assert reading.sink.lines(f"{topic}/{number}") == events(number * 5000, number * 5000 + 3000)


def test_of_what_is_held_back_the_largest_goes_first_and_nothing_waits_for_long(
    log: Log, topic: str, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the engine is busy chunks fill up, within a bound for all partitions together."""
    held = 20_000
    monkeypatch.setattr(collector, "_HELD_BYTES", held)
    monkeypatch.setattr(collector, "_OLDEST", 1e9)
    log.create(topic, 4)
    written = [events(number * 5000, number * 5000 + 500 * (number + 1)) for number in range(4)]
    for number, some in enumerate(written):
        log.write(topic, some, number)
    size = sum(len(line) + 1 for some in written for line in some)
    assert size > 3 * held
    reading.idle = False
    reading.start()

    def sizes() -> list[int]:
        bodies = (chunk.body for chunk in reading.sink.chunks)
        return [len(body) for body in bodies if isinstance(body, bytes) and body]

    until(lambda: size - sum(sizes()) <= held, "all but what may be held back", 90)
    assert min(sizes()) > held / 4
    assert sum(sizes()) < size
    monkeypatch.setattr(collector, "_OLDEST", 0.1)
    reading.arrived(sum(map(len, written)))
    for number, some in enumerate(written):
        assert reading.sink.lines(f"{topic}/{number}") == some


def test_it_goes_on_at_the_exact_record_after_a_restart(log: Log, topic: str, reading: Reading) -> None:
    """Also after a stop that came between two commits, and with another client's words for the topic's id."""
    log.create(topic)
    log.write(topic, events(0, 500))
    reading.max_chunk_bytes = 2000
    for turn in range(4):
        reading.start(client=["kafka-python", "confluent"][turn % 2])
        reading.arrived(500 + turn * 100)
        log.write(topic, events(500 + turn * 100, 600 + turn * 100))
        reading.stop()
    reading.start()
    reading.arrived(900)
    assert reading.sink.lines() == events(0, 900)
    assert reading.sink.positions[f"{topic}/0"]["offset"] == 900
    assert not reading.status.note


def test_bytes_before_it_are_the_place_of_an_event_without_an_id(
    log: Log, topic: str, reading: Reading
) -> None:
    """However the log was cut into chunks, and over a restart."""
    log.create(topic)
    log.write(topic, events(0, 300))
    reading.max_chunk_bytes = 700
    reading.start()
    reading.arrived(300)
    reading.stop()
    log.write(topic, events(300, 400))
    reading.max_chunk_bytes = 5000
    reading.start()
    reading.arrived(400)
    place = 0
    for chunk in reading.sink.chunks:
        assert isinstance(chunk.body, bytes)
        assert chunk.base == place
        place += len(chunk.body)
    assert place == sum(len(line) + 1 for line in events(0, 400))


def test_a_record_of_several_lines_names_offset_and_line(log: Log, topic: str, reading: Reading) -> None:
    """Tombstones and empty records hold no event, and are passed over."""
    log.create(topic)
    log.write(topic, [event(0), None, event(1) + b"\n" + event(2), b"", event(3)])
    reading.start()
    reading.arrived(4)
    assert [where for _, where, _ in reading.sink.committed] == [
        "offset 0",
        "offset 2 line 1",
        "offset 2 line 2",
        "offset 4",
    ]
    assert reading.sink.positions[f"{topic}/0"]["offset"] == 5


def test_tombstones_alone_move_the_position(log: Log, topic: str, reading: Reading) -> None:
    """Or they would be read again at every start."""
    log.create(topic)
    log.write(topic, [None, None])
    reading.start()
    until(lambda: reading.sink.positions.get(f"{topic}/0", {}).get("offset") == 2, "the position after them")
    assert reading.sink.lines() == []


def test_a_huge_record_arrives_whole_and_alone(
    log: Log, client: str, kafka: Kafka, make_topic: MakeTopic
) -> None:
    """Larger than a chunk may be, and than what a client fetches at once."""
    name = make_topic(max_message_bytes=str(8 << 20))
    log.write(name, [event(0), event(1, pad=5 << 20), event(2)])
    reading = Reading(kafka.bootstrap, client, topics=[name])
    reading.max_chunk_bytes = 1 << 20
    reading.start()
    reading.arrived(3)
    reading.stop()
    assert reading.sink.lines() == [event(0), event(1, pad=5 << 20), event(2)]


# -- where it starts --------------------------------------------------------------------------------------


def test_latest_counts_only_what_comes_after_the_first_start(log: Log, topic: str, reading: Reading) -> None:
    """Where it began is committed at once: what comes to an idle partition while we are down is not skipped."""
    log.create(topic, 2)
    log.write(topic, events(0, 10), 0)
    log.write(topic, events(10, 20), 1)
    reading.start(start="latest")
    reading.ready()
    log.write(topic, events(20, 22), 0)
    reading.arrived(2)
    reading.stop()
    log.write(topic, events(22, 24), 1)
    reading.start()
    reading.arrived(4)
    assert reading.sink.lines() == events(20, 24)


def test_after_lost_state_it_begins_at_the_end_if_asked(log: Log, topic: str, reading: Reading) -> None:
    """`on_state_loss: end` stands above `start`."""
    log.create(topic)
    log.write(topic, events(0, 10))
    reading.at_end = True
    reading.start()
    reading.ready()
    log.write(topic, events(10, 12))
    reading.arrived(2)
    assert reading.sink.lines() == events(10, 12)


def test_a_time_begins_at_the_first_record_from_then_on(log: Log, topic: str, reading: Reading) -> None:
    """By the records' own times; a partition without any so late begins at its end."""
    log.create(topic, 2)
    log.write(topic, events(0, 10), 0)
    log.write(topic, events(10, 20), 1)
    written = time.time()
    until(lambda: time.time() > written + 0.01, "the clock to move on")
    then = datetime.now(UTC)
    log.write(topic, events(20, 30), 0)
    reading.start(start=then.isoformat())
    reading.ready()
    log.write(topic, events(30, 31), 1)
    reading.arrived(11)
    assert reading.sink.lines(f"{topic}/0") == events(20, 30)
    assert reading.sink.lines(f"{topic}/1") == events(30, 31)


def test_offsets_begin_there_and_other_partitions_at_their_first(
    log: Log, topic: str, reading: Reading
) -> None:
    """Named as topic/number."""
    log.create(topic, 2)
    log.write(topic, events(0, 10), 0)
    log.write(topic, events(10, 20), 1)
    reading.start(start={f"{topic}/1": 7})
    reading.arrived(13)
    assert reading.sink.lines(f"{topic}/0") == events(0, 10)
    assert reading.sink.lines(f"{topic}/1") == events(17, 20)


def test_an_offset_that_is_not_there_is_an_error(log: Log, topic: str, reading: Reading) -> None:
    """Beyond the end it is a slip of the pen, and so is a partition that does not exist."""
    log.create(topic)
    reading.start(start={f"{topic}/0": 7})
    reading.ended()
    with pytest.raises(ConfigError, match=r"at offset 7, but it ends at 0"):
        reading.stop()
    reading.start(start={f"{topic}/3": 7})
    reading.ended()
    with pytest.raises(ConfigError, match=r"names topic-\w+/3, but that topic has 1 partitions"):
        reading.stop()


def test_until_end_reads_what_is_there_and_ends(log: Log, topic: str, reading: Reading) -> None:
    """Empty partitions too; a second run from the committed positions finds nothing."""
    log.create(topic, 3)
    log.write(topic, events(0, 3000), 1)
    reading.start(until="end")
    reading.ended()
    assert reading.sink.lines() == events(0, 3000)
    assert sum(reading.status.lag_events.values()) == 0
    reading.start()
    reading.ended()
    assert len(reading.sink.lines()) == 3000


def test_until_end_of_a_topic_that_is_not_there_is_an_error(topic: str, reading: Reading) -> None:
    """There is nothing to wait for."""
    reading.start(until="end")
    reading.ended()
    with pytest.raises(EvalgaugeError, match=f"topic {topic} does not exist"):
        reading.stop()


# -- topics and partitions that come ----------------------------------------------------------------------


def test_a_topic_that_is_not_there_yet_is_waited_for(log: Log, topic: str, reading: Reading) -> None:
    """Not ready until it is; it is never made by asking for it; then it is read from its first record."""
    reading.start(start="latest")
    until(lambda: reading.status.not_ready == f"topic {topic} does not exist", "it to say what is missing")
    with closing(log.admin()) as admin:
        assert topic not in {one["name"] for one in admin.describe_topics()}
    log.create(topic)
    log.write(topic, events(0, 5))
    reading.arrived(5)
    until(lambda: not reading.status.not_ready, "it to be ready")


def test_a_pattern_matches_whole_names_and_takes_topics_that_come(
    log: Log, topic: str, kafka: Kafka, client: str
) -> None:
    """Their first record included; names that only contain it are left alone."""
    reading = Reading(kafka.bootstrap, client, topic_pattern=rf"{topic}\.\w+")
    reading.start(start="latest")
    until(lambda: "no topic matches" in reading.status.note, "the note")
    assert not reading.status.not_ready
    for name in (f"{topic}.one", f"{topic}.two", f"x{topic}.one", f"{topic}.one.more"):
        log.create(name)
        log.write(name, [event(0)])
    reading.arrived(2)
    until(lambda: not reading.status.note, "the note to go")
    log.write(f"x{topic}.one", [event(1)])
    log.write(f"{topic}.two", [event(1)])
    reading.arrived(3)
    reading.stop()
    assert {chunk.partition for chunk in reading.sink.chunks} == {f"{topic}.one/0", f"{topic}.two/0"}


def test_a_new_partition_is_read_from_its_first_record(log: Log, topic: str, reading: Reading) -> None:
    """While running, and when it came while we were down; whatever `start` says, for its records are all new."""
    log.create(topic)
    log.write(topic, events(0, 3))
    reading.start(start="latest")
    reading.ready()
    log.add_partitions(topic, 2)
    log.write(topic, events(3, 6), 1)
    reading.arrived(3)
    reading.stop()
    log.add_partitions(topic, 3)
    log.write(topic, events(6, 9), 2)
    reading.start()
    reading.arrived(6)
    assert reading.sink.lines() == events(3, 9)


# -- a log that changes under us --------------------------------------------------------------------------


def test_records_deleted_before_they_were_read_are_told_of(
    log: Log, topic: str, reading: Reading, caplog: pytest.LogCaptureFixture
) -> None:
    """Retention ran past the position while we were down: how many, and which."""
    log.create(topic)
    log.write(topic, events(0, 10))
    reading.start()
    reading.arrived(10)
    reading.stop()
    log.write(topic, events(10, 30))
    log.forget(topic, 25)
    with caplog.at_level(logging.ERROR):
        reading.start()
        reading.arrived(15)
    assert reading.sink.lines()[10:] == events(25, 30)
    said = "up to 15 events, offsets 10 to 24, are lost to every metric; going on at 25"
    until(lambda: said in reading.status.note, "the note")
    assert said in caplog.text
    assert reading.status.lost_events == 15
    reading.stop()
    reading.start()
    log.write(topic, events(30, 31))
    reading.arrived(16)
    assert not reading.status.note
    assert reading.status.lost_events == 0


def test_records_deleted_while_we_read_are_told_of(log: Log, topic: str, reading: Reading) -> None:
    """The engine was behind, and the log did not wait."""
    log.create(topic)
    log.write(topic, events(0, 10))
    reading.start()
    reading.arrived(10)
    reading.sink._room = 0  # the engine takes no more
    big = [event(n, pad=100_000) for n in range(10, 110)]
    log.write(topic, big)
    log.forget(topic, 110)
    log.write(topic, events(110, 112))
    reading.sink._room = None
    reading.sink.commit()
    until(lambda: event(111) in reading.sink.lines(), "the newest event")
    numbers = [json.loads(line)["id"] for line in reading.sink.lines()]
    assert len(numbers) == len(set(numbers))
    if len(numbers) < 112:  # else the client had fetched all of them already
        until(lambda: "are lost to every metric" in reading.status.note, "the note")
    assert reading.status.lost_events == 112 - len(numbers)


def test_a_topic_made_again_is_read_from_its_first_record(log: Log, topic: str, reading: Reading) -> None:
    """While we run: the old position means nothing in the new topic, and the note says so."""
    log.create(topic)
    log.write(topic, events(0, 10))
    reading.start()
    reading.arrived(10)
    log.delete(topic)
    until(lambda: "does not exist" in reading.status.not_ready, "it to notice")
    log.create(topic)
    log.write(topic, events(10, 13))
    reading.arrived(13)
    assert reading.sink.lines() == events(0, 13)
    until(lambda: "deleted and made again" in reading.status.note, "the note")
    starts = [chunk.base for chunk in reading.sink.chunks]
    assert starts == sorted(starts)


def test_a_topic_made_again_while_we_were_down_is_known_by_its_id(
    log: Log, topic: str, reading: Reading
) -> None:
    """Even if it has grown past the old position, where its offset would look right."""
    log.create(topic)
    log.write(topic, events(0, 10))
    reading.start()
    reading.arrived(10)
    reading.stop()
    log.delete(topic)
    log.create(topic)
    log.write(topic, events(10, 40))
    reading.start()
    reading.arrived(40)
    assert reading.sink.lines() == events(0, 40)
    assert "deleted and made again" in reading.status.note


def test_a_shorter_log_of_an_unknown_topic_is_read_anew(log: Log, topic: str, reading: Reading) -> None:
    """A position of a broker without topic ids: an end before it can only be another topic's."""
    log.create(topic)
    log.write(topic, events(0, 3))
    reading.sink.positions[f"{topic}/0"] = {"offset": 10, "bytes": 500}
    reading.start()
    reading.arrived(3)
    assert "deleted and made again" in reading.status.note


def test_a_log_cut_short_is_gone_on_from_at_its_end(log: Log, topic: str, reading: Reading) -> None:
    """The same topic ends before our position: what is there was counted, and must not be again."""
    log.create(topic)
    log.write(topic, events(0, 3))
    reading.start()
    reading.arrived(3)
    reading.stop()
    reading.sink.positions[f"{topic}/0"]["offset"] = 10
    reading.start()
    until(lambda: "the log ends at 3; going on there" in reading.status.note, "the note")
    log.write(topic, events(3, 5))
    reading.arrived(5)


# -- brokers that come and go -----------------------------------------------------------------------------


def test_a_broker_that_dies_and_returns_loses_and_repeats_nothing(
    log: Log, kafka: Kafka, topic: str, reading: Reading
) -> None:
    """The note says so while it lasts, and it goes on without a hand."""
    log.create(topic, 2)
    log.write(topic, events(0, 100), 0)
    reading.start()
    reading.arrived(100)
    kafka.kill()
    until(lambda: "have not answered since" in reading.status.note, "the note", 60)
    assert not reading.status.not_ready
    kafka.restart()
    log.write(topic, events(100, 200), 0)
    log.write(topic, events(200, 250), 1)
    reading.arrived(250)
    assert reading.sink.lines(f"{topic}/0") == events(0, 200)
    until(lambda: not reading.status.note, "the note to go", 60)


def test_brokers_may_come_after_us(client: str) -> None:
    """Nobody is there: not ready, saying where it looks; and it stops when told to."""
    reading = Reading("127.0.0.1:9", client, topics=["t"])
    reading.start()
    until(lambda: "no broker has answered yet at 127.0.0.1:9: " in reading.status.not_ready, "it to say so")
    assert "Connection refused" in reading.status.not_ready
    reading.stop()


# -- back-pressure and lag --------------------------------------------------------------------------------


def test_while_the_engine_is_behind_the_lag_still_grows(log: Log, topic: str, reading: Reading) -> None:
    """Long enough to be paused; then everything arrives once."""
    log.create(topic)
    reading.max_chunk_bytes = 2000
    reading.sink = MemorySink(room=1, automatic=False)
    log.write(topic, events(0, 1000))
    reading.start()
    reading.ready()
    until(lambda: reading.sink.chunks, "the first chunk")
    log.write(topic, events(1000, 6000))
    until(lambda: reading.status.lag_events[f"{topic}/0"] > 2000, "the lag of what came since", 90)
    age = reading.status.lag_seconds[f"{topic}/0"]
    until(lambda: reading.status.lag_seconds[f"{topic}/0"] > age, "the age of what waits to grow", 90)
    assert len(reading.sink.chunks) == 1
    until(lambda: reading.sink.commit() >= 6000, "all events")
    assert reading.sink.lines() == events(0, 6000)
    until(lambda: reading.status.lag_events[f"{topic}/0"] == 0, "the lag to go")
    assert reading.status.lag_seconds[f"{topic}/0"] == 0


def test_the_age_of_what_waits_is_that_of_the_records_not_of_our_start(
    log: Log, topic: str, reading: Reading
) -> None:
    """They are an hour old, and more than the client brings at once, of which the engine takes no more."""
    log.create(topic)
    log.write(topic, events(0, 6000), time=int(time.time() - 3600) * 1000)
    reading.max_chunk_bytes = 2000
    reading.sink = MemorySink(room=1, automatic=False)
    reading.start()
    until(lambda: reading.status.lag_seconds.get(f"{topic}/0", 0) >= 3600, "the age of what waits", 90)
    until(lambda: reading.sink.commit() >= 6000, "all events", 90)
    until(lambda: reading.status.lag_seconds[f"{topic}/0"] == 0, "nothing to wait any more", 90)


# -- configuration ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "exactly one of `topics` and `topic_pattern`"),
        ({"topics": ["a"], "topic_pattern": "b"}, "exactly one of `topics` and `topic_pattern`"),
        ({"topic_pattern": "("}, "no regular expression"),
        ({"topics": "a b"}, "String should match pattern"),
        ({"topics": "a", "bootstrap": "localhost"}, "String should match pattern"),
        ({"topics": "a", "start": {"b/0": 1}}, "`start` names `b/0`, but `topics` does not"),
        ({"topics": "a", "start": {"0": 1}}, "write it as topic/number"),
        ({"topics": "a", "start": "1700000000"}, "write a time like"),
        ({"topics": "a", "start": "2999-01-01T00:00:00Z"}, "lies in the future"),
        ({"topics": "a", "start": "2020-01-01T00:00:00"}, "should have timezone info"),
        ({"topics": "a", "start": "latest", "until": "end"}, "leave nothing to read"),
        ({"topics": "a", "security": {"tls": {"cert_file": "x"}}}, "need each other"),
        ({"topics": "a", "security": {"sasl": {"mechanism": "PLAIN"}}}, "takes a `username`"),
        (
            {"topics": "a", "security": {"sasl": {"mechanism": "OAUTHBEARER", "username": "u"}}},
            "takes a `token_file`",
        ),
        ({"topics": "a", "topic": "b"}, "Extra inputs are not permitted"),
        ({"topics": "a", "group": "g"}, "Input should be a valid dictionary"),
        ({"topics": "a", "group": {"id": "g"}, "until": "end"}, "is for a single reader"),
    ],
)
def test_what_cannot_be_meant_is_an_error(config: dict[str, Any], message: str) -> None:
    """And says what to write instead."""
    with pytest.raises(ValidationError) as caught:
        KafkaConfig.model_validate({"bootstrap": "localhost:9092"} | config)
    assert message in str(caught.value)


def test_brokers_and_topics_may_be_text() -> None:
    """As an environment variable gives them."""
    config = KafkaConfig.model_validate({"bootstrap": "a:1, [::1]:2", "topics": "x,y"})
    assert config.bootstrap == ["a:1", "[::1]:2"]
    assert config.topics == ["x", "y"]


@pytest.mark.parametrize(
    ("client", "option", "message"),
    [
        ("kafka-python", "group_id", "positions are committed with the state they belong to"),
        ("kafka-python", "sasl_mechanism", "the input has `security`"),
        ("kafka-python", "fetch.min.bytes", "kafka-python has no setting `fetch.min.bytes`"),
        ("confluent", "enable.auto.commit", "positions are committed with the state they belong to"),
        ("confluent", "ssl.ca.location", "the input has `security`"),
        ("confluent", "fetch_min_bytes", "fetch_min_bytes"),
    ],
)
def test_settings_of_the_client_that_are_ours_or_nobodys_are_refused(
    client: str, option: str, message: str
) -> None:
    """By name, before anything runs."""
    reading = Reading("127.0.0.1:9", client, topics=["t"], client_options={option: 1})
    with pytest.raises(ConfigError, match=message):
        reading.start()


@pytest.mark.parametrize("option", ["message.max.bytes", "max.partition.fetch.bytes"])
def test_larger_records_can_be_asked_for(option: str) -> None:
    """What we set by default does not stand in the way."""
    reading = Reading("127.0.0.1:9", "confluent", topics=["t"], client_options={option: 10_000_000})
    reading.start()
    reading.stop()


@pytest.mark.parametrize(
    ("client", "module", "extra"),
    [
        ("kafka-python", "kafka", "evalgauge[kafka]"),
        ("confluent", "confluent_kafka", "evalgauge[kafka-fast]"),
    ],
)
def test_a_client_that_is_not_installed_names_its_extra(
    client: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than a bare ImportError."""
    for name in [name for name in sys.modules if name.startswith("evalgauge.collectors.kafka_")]:
        if name.endswith(("_pure", "_fast")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    reading = Reading("127.0.0.1:9", client, topics=["t"])
    with pytest.raises(ConfigError) as caught:
        reading.start()
    assert f"pip install '{extra}'" in str(caught.value)
