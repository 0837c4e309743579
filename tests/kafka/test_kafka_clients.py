"""The two clients behind their seam, on a real broker: what one does, the other does too."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from evalgauge.collectors.kafka_client import EARLIEST, LATEST, Partition, Unavailable
from evalgauge.collectors.kafka_config import KafkaConfig
from evalgauge.collectors.kafka_fast import FastLibrary
from evalgauge.collectors.kafka_pure import PureLibrary
from tests.parts.part import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from evalgauge.collectors.kafka_client import Batch, Client, Cluster
    from evalgauge.collectors.kafka_store import Library
    from tests.conftest import MakeTopic
    from tests.parts.kafka import Kafka

LIBRARIES: list[Callable[[KafkaConfig, str], Library]] = [PureLibrary, FastLibrary]


@pytest.fixture(params=LIBRARIES, ids=["kafka-python", "confluent"])
def library(request: pytest.FixtureRequest, kafka: Kafka) -> Library:
    """Each library in turn."""
    made: Library = request.param(KafkaConfig(bootstrap=[kafka.bootstrap], topics=["any"]), "in")
    return made


@pytest.fixture
def client(library: Library) -> Iterator[Client]:
    """A client that reads nothing yet."""
    with closing(library.client()) as one:
        yield one


@pytest.fixture
def cluster(library: Library) -> Iterator[Cluster]:
    """Something to look with."""
    with closing(library.cluster()) as one:
        yield one


@pytest.fixture
def producer(kafka: Kafka) -> Producer:
    """A producer that is not transactional."""
    return Producer(
        {"bootstrap.servers": kafka.bootstrap, "linger.ms": 1, "enable.idempotence": True, "log_level": 0}
    )


def write(producer: Producer, at: Partition, first: int, last: int) -> None:
    """Records that hold their number."""
    for n in range(first, last):
        producer.produce(at.topic, b"%d" % n, partition=at.number)
    assert producer.flush(30) == 0


def read(client: Client, count: int, seconds: float = 30) -> list[Batch]:
    """Poll until so many records have come."""
    found: list[Batch] = []

    def enough() -> bool:
        polled = client.poll(0.1)
        assert not polled.strayed
        assert not polled.trouble
        found.extend(polled.batches)
        return sum(len(batch.values) for batch in found) >= count

    until(enough, f"{count} records", seconds)
    return found


def numbers(batches: list[Batch], at: Partition) -> list[int]:
    """What `write` wrote to a partition."""
    return [int(value or b"") for batch in batches if batch.partition == at for value in batch.values]


def test_a_batch_has_all_of_its_records(client: Client, producer: Producer, make_topic: MakeTopic) -> None:
    """Offsets, values, keys, headers and times, in order; a tombstone's value is None."""
    at = Partition(make_topic(), 0)
    before = int(time.time() * 1000)
    producer.produce(at.topic, b"one", key=b"k", headers=[("a", b"1"), ("a", b"2"), ("none", None)])
    producer.produce(at.topic, None, key=b"gone")
    producer.produce(at.topic, b"", timestamp=1234)
    producer.flush(30)
    client.assign({at: 0})
    batches = read(client, 3)
    assert {batch.partition for batch in batches} == {at}
    assert [value for batch in batches for value in batch.values] == [b"one", None, b""]
    assert [offset for batch in batches for offset in batch.offsets] == [0, 1, 2]
    assert list(chain.from_iterable(batch.keys() for batch in batches)) == [b"k", b"gone", None]
    first, _, last = (time_ for batch in batches for time_ in batch.timestamps())
    assert before <= first <= time.time() * 1000
    assert last == 1234
    assert list(batches[0].headers(0)) == [("a", b"1"), ("a", b"2"), ("none", b"")]
    headers = [list(batch.headers(i)) for batch in batches for i in range(len(batch.values))]
    assert headers[1:] == [[], []]
    assert batches[-1].epoch == 0
    assert client.position(at) == 3


def test_records_are_grouped_by_partition_of_several_topics(
    client: Client, producer: Producer, make_topic: MakeTopic
) -> None:
    """Each in its order."""
    places = [Partition(name, number) for name in (make_topic(2), make_topic(2)) for number in (0, 1)]
    for shift, at in enumerate(places):
        write(producer, at, shift * 1000, shift * 1000 + 700)
    client.assign(dict.fromkeys(places, 0))
    batches = read(client, 2800)
    for shift, at in enumerate(places):
        assert numbers(batches, at) == list(range(shift * 1000, shift * 1000 + 700))


def test_one_partition_moves_and_the_others_stay_where_they_are(
    client: Client, producer: Producer, make_topic: MakeTopic
) -> None:
    """Assigned while reading, assigned anew, and dropped."""
    name = make_topic(2)
    one, two = Partition(name, 0), Partition(name, 1)
    write(producer, one, 0, 10)
    write(producer, two, 100, 110)
    client.assign({one: 4})
    assert numbers(read(client, 6), one) == [4, 5, 6, 7, 8, 9]
    client.assign({two: 8})
    assert numbers(read(client, 2), two) == [108, 109]
    client.assign({two: 5})
    assert numbers(read(client, 5), two) == [105, 106, 107, 108, 109]
    client.drop([two])
    write(producer, two, 110, 120)
    write(producer, one, 10, 12)
    batches = read(client, 2)
    assert (numbers(batches, one), numbers(batches, two)) == ([10, 11], [])


def test_a_position_outside_the_log_is_told_once_and_not_read_from(
    client: Client, producer: Producer, make_topic: MakeTopic
) -> None:
    """Until it is assigned again; the other partition is read meanwhile."""
    name = make_topic(2)
    one, two = Partition(name, 0), Partition(name, 1)
    write(producer, one, 0, 5)
    write(producer, two, 0, 5)
    client.assign({one: 99, two: 0})
    strayed: list[Partition] = []
    found: list[Batch] = []

    def both() -> bool:
        polled = client.poll(0.1)
        strayed.extend(polled.strayed)
        found.extend(polled.batches)
        return bool(strayed) and len(numbers(found, two)) == 5

    until(both, "one to stray and the other to be read")
    for _ in range(3):
        assert not client.poll(0.1).strayed
    assert strayed == [one]
    assert client.position(one) is None
    client.assign({one: 3})
    assert numbers(read(client, 2), one) == [3, 4]


def test_only_what_is_committed_is_read_and_markers_are_passed_over(
    client: Client, cluster: Cluster, kafka: Kafka, make_topic: MakeTopic
) -> None:
    """The position reaches the end, though markers of transactions stand there that are no records."""
    at = Partition(make_topic(), 0)
    settings = {"transactional.id": f"of-{at.topic}", "linger.ms": 1, "log_level": 0}
    producer = Producer({"bootstrap.servers": kafka.bootstrap} | settings)
    producer.init_transactions(30)
    for turn, end in enumerate([producer.commit_transaction, producer.abort_transaction] * 2):
        producer.begin_transaction()
        write(producer, at, turn * 10, turn * 10 + 3)
        end(30)
    client.assign({at: 0})
    batches = read(client, 6)
    assert numbers(batches, at) == [0, 1, 2, 20, 21, 22]
    assert [offset for batch in batches for offset in batch.offsets] == [0, 1, 2, 8, 9, 10]
    end_offset = cluster.offsets({at: LATEST})[at]
    assert end_offset == 16

    def at_end() -> bool:
        assert not client.poll(0.1).batches
        return client.position(at) == end_offset

    until(at_end, "the position to reach the end")


def test_paused_it_polls_and_brings_nothing(
    client: Client, producer: Producer, make_topic: MakeTopic
) -> None:
    """A partition that is assigned meanwhile waits too; nothing is lost by it."""
    name = make_topic(2)
    one, two = Partition(name, 0), Partition(name, 1)
    write(producer, one, 0, 5)
    client.assign({one: 0})
    assert numbers(read(client, 5), one) == [0, 1, 2, 3, 4]
    client.pause()
    write(producer, one, 5, 8)
    write(producer, two, 0, 3)
    client.assign({two: 0})
    for _ in range(5):
        assert not client.poll(0.1).batches
    client.resume()
    batches = read(client, 6)
    assert (numbers(batches, one), numbers(batches, two)) == ([5, 6, 7], [0, 1, 2])


def test_a_poll_returns_as_soon_as_there_is_something(
    client: Client, producer: Producer, make_topic: MakeTopic
) -> None:
    """It does not wait for a full batch."""
    at = Partition(make_topic(), 0)
    client.assign({at: 0})
    client.poll(1)
    started = time.monotonic()
    write(producer, at, 0, 1)
    polled = client.poll(20)
    assert time.monotonic() - started < 10
    assert numbers(list(polled.batches), at) == [0]


def test_nothing_assigned_is_nothing_read(client: Client) -> None:
    """And no error."""
    assert not client.poll(0.01).batches
    assert client.position(Partition("any", 0)) is None


def test_topics_are_found_by_name_and_never_made(cluster: Cluster, make_topic: MakeTopic, topic: str) -> None:
    """What is not there is left out; all of them are those that are not internal."""
    name = make_topic(3)
    found = cluster.topics([name, topic])
    assert found.keys() == {name}
    assert found[name].partitions == (0, 1, 2)
    everything = cluster.topics(None)
    assert everything[name] == found[name]
    assert topic not in everything
    assert "__consumer_offsets" not in everything


def test_both_write_the_id_of_a_topic_alike(kafka: Kafka, make_topic: MakeTopic) -> None:
    """It is part of positions, which outlive a change of the client."""
    name = make_topic()
    config = KafkaConfig(bootstrap=[kafka.bootstrap], topics=["any"])
    ids = set()
    for make in LIBRARIES:
        with closing(make(config, "in").cluster()) as cluster:
            ids.add(cluster.topics([name])[name].id)
    assert len(ids) == 1
    assert len(ids.pop()) == 36


def test_offsets_are_found_by_time(cluster: Cluster, producer: Producer, make_topic: MakeTopic) -> None:
    """Beyond the last record that is the end; a partition that is not there is left out, and spoils nothing."""
    at = Partition(make_topic(2), 0)
    empty, absent = Partition(at.topic, 1), Partition(at.topic, 7)
    for n in range(10):
        producer.produce(at.topic, b"", partition=0, timestamp=1000 * (n + 1))
    producer.flush(30)
    assert cluster.offsets({at: EARLIEST, empty: EARLIEST}) == {at: 0, empty: 0}
    assert cluster.offsets({at: LATEST, empty: LATEST, absent: LATEST}) == {at: 10, empty: 0}
    assert cluster.offsets({at: 4500, empty: 4500}) == {at: 4, empty: 0}
    assert cluster.offsets({at: 99_000, empty: 0}) == {at: 10, empty: 0}
    assert cluster.offsets({}) == {}


@pytest.mark.parametrize("make", LIBRARIES, ids=["kafka-python", "confluent"])
def test_a_cluster_that_is_not_there_is_unavailable(make: Callable[[KafkaConfig, str], Library]) -> None:
    """Whether that is found out in connecting or in asking."""
    library = make(KafkaConfig(bootstrap=["127.0.0.1:9"], topics=["any"]), "in")
    with pytest.raises(Unavailable) as caught:
        library.cluster().topics(["any"])
    assert str(caught.value)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("what", ["cluster", "transactions"])
@pytest.mark.parametrize("make", LIBRARIES, ids=["kafka-python", "confluent"])
def test_a_broker_that_takes_connections_and_says_nothing_is_unavailable(
    make: Callable[[KafkaConfig, str], Library], what: str, tls: bool
) -> None:
    """In a time that is bounded, and no thread goes on waiting for it."""
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = KafkaConfig.model_validate(
            {
                "bootstrap": f"127.0.0.1:{silent.getsockname()[1]}",
                "topics": "any",
                "group": {"id": "any", "transaction_timeout": "5s", "session_timeout": "6s"},
                "security": {"tls": {}} if tls else {},
            }
        )
        library = make(config, "in")
        found: list[str] = []

        def look() -> None:
            try:
                if what == "cluster":
                    library.cluster().topics(["any"])
                else:
                    with closing(library.transactions("r1")) as transactions:
                        transactions.begin()
            except Unavailable as error:
                found.append(str(error))

        threading.Thread(target=look, daemon=True).start()
        until(lambda: found, "it to be given up", 60)
        assert found[0]
        until(lambda: set(threading.enumerate()) <= before, "its threads to end", 30)
