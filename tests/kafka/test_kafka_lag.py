"""What a Kafka input says of its lag and of events that it could not read, up to `/metrics`."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient, TopicPartition

from tests.conformance.sink import MemorySink
from tests.kafka.test_kafka_collector import Log, Reading, event, events
from tests.parts.part import until
from tests.running import Running, judgment

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from tests.conftest import MakeTopic
    from tests.parts.kafka import Kafka

SECONDS = 90
GAUGES = (
    "evalgauge_input_lag_events",
    "evalgauge_input_partition_lag_events",
    "evalgauge_input_partition_lag_seconds",
)


def write(bootstrap: str, topic: str, first: int, last: int) -> None:
    """Produce judgments, first included, last excluded."""
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "log_level": 0})
    for number in range(first, last):
        producer.produce(topic, judgment(number), partition=0)
    assert producer.flush(60) == 0


def reader(bootstrap: str, topic: str, folder: Path, client: str = "kafka-python") -> Running:
    """A process that reads the topic and looks at the cluster often."""
    own = {"type": "kafka", "bootstrap": bootstrap, "topics": [topic], "refresh": "100ms", "client": client}
    state = {"folder": str(folder / "state"), "commit_interval": "100ms"}
    return Running(folder, {"packs": ["judgment"], "inputs": {"log": own}, "state": state})


def test_lag_and_lost_events_are_metrics_of_the_process(
    kafka: Kafka, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """Each partition has its own; what retention took is counted; a topic that is deleted leaves no lag behind."""
    topic = make_topic(2)
    run = reader(kafka.bootstrap, topic, tmp_path)
    one = {"input": "log", "partition": f"{topic}/0"}
    write(kafka.bootstrap, topic, 0, 10)
    with run:
        until(lambda: run.sum("judgment_executions_total") == 10, "the first events", SECONDS)
        until(lambda: f'partition="{topic}/1"' in run.get("/metrics").text, "the gauges", SECONDS)
        assert run.sum("evalgauge_input_lost_events_total", input="log") == 0
        until(lambda: run.sum(GAUGES[1], **one) == 0, "no lag", SECONDS)
        assert run.end(SECONDS) == 0
    write(kafka.bootstrap, topic, 10, 30)
    with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin:
        admin.delete_records({TopicPartition(topic, 0): 25})
    with run:
        until(lambda: run.sum("judgment_executions_total") == 15, "what is left", SECONDS)
        until(lambda: run.sum("evalgauge_input_lost_events_total") == 15, "the loss", SECONDS)
        until(lambda: run.sum(GAUGES[0]) == 0 == run.sum(GAUGES[2], **one), "no lag", SECONDS)
        with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin:
            admin.delete_topics([topic])
        until(lambda: not any(name in run.get("/metrics").text for name in GAUGES), "no gauge", SECONDS)
        assert run.sum("evalgauge_input_lost_events_total") == 15


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_what_an_open_transaction_withholds_is_told(
    kafka: Kafka, make_topic: MakeTopic, client: str, tmp_path: Path
) -> None:
    """It is no lag, since nobody may read it, and would be missed by nobody."""
    topic = make_topic(1)
    run = reader(kafka.bootstrap, topic, tmp_path, client)
    writer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic, "log_level": 0})
    writer.init_transactions(SECONDS)
    with run:
        write(kafka.bootstrap, topic, 0, 10)
        until(lambda: run.sum("judgment_executions_total") == 10, "the first events", SECONDS)
        shown = 'evalgauge_input_withheld_seconds{input="log"}'
        until(lambda: f"{shown} 0" in run.get("/metrics").text, "nothing that is withheld", SECONDS)
        writer.begin_transaction()
        writer.produce(topic, judgment(10), partition=0)
        assert writer.flush(SECONDS) == 0
        write(kafka.bootstrap, topic, 11, 20)
        until(lambda: run.sum("evalgauge_input_withheld_seconds") > 1, "what is withheld", SECONDS)
        assert run.sum("judgment_executions_total") == 10
        assert run.sum("evalgauge_input_lag_events") == 0
        writer.commit_transaction(SECONDS)
        until(lambda: run.sum("judgment_executions_total") == 20, "the rest", SECONDS)
        until(lambda: run.sum("evalgauge_input_withheld_seconds") == 0, "nothing that is withheld", SECONDS)


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_brokers_that_are_away_withhold_nothing(
    kafka: Kafka, make_topic: MakeTopic, client: str, tmp_path: Path
) -> None:
    """Though in the last look before that the log went on while its end was asked for."""
    topic = make_topic(1)
    run = reader(kafka.bootstrap, topic, tmp_path, client)
    ended = threading.Event()

    def keep_writing() -> None:
        producer = Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 0, "log_level": 0})
        number = 0
        while not ended.is_set():
            with suppress(BufferError):
                producer.produce(topic, judgment(number), partition=0)
            producer.poll(0.001)
            number += 1
        producer.purge()

    def away(back: Future[None]) -> bool:
        assert run.sum("evalgauge_input_withheld_seconds") == 0
        return not back.done()

    writer = threading.Thread(target=keep_writing)
    with run, ThreadPoolExecutor(1) as beside:
        writer.start()
        try:
            until(lambda: run.sum("judgment_executions_total") > 1_000, "events", SECONDS)
            kafka.kill()
            try:
                until(lambda: "have not answered" in run.get("/").text, "the outage", SECONDS)
            finally:
                back = beside.submit(kafka.restart)
            until(lambda: not away(back), "the broker", SECONDS)
        finally:
            ended.set()
            writer.join()


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_records_that_brokers_lose_unread_are_told_of(kafka: Kafka, topic: str, client: str) -> None:
    """The log is shorter after a crash, as after an unclean election, and the engine had not got so far."""
    log = Log(kafka.bootstrap)
    log.create(topic)
    reading = Reading(kafka.bootstrap, client, topics=[topic])
    reading.sink = MemorySink(room=1, automatic=False)
    name = f"{topic}/0"
    log.write(topic, [event(n, pad=50_000) for n in range(600)])
    reading.start()
    try:
        until(lambda: reading.status.lag_events.get(name, 0) > 300, "events that wait", SECONDS)
        kafka.kill()
        segment = kafka.data / f"{topic}-0" / f"{0:020}.log"
        with segment.open("r+b") as file:
            file.truncate(segment.stat().st_size - 100 * 50_000)
        kafka.restart()
        until(lambda: reading.status.lost_events, "the loss", SECONDS)
        lost = reading.status.lost_events
        assert 100 <= lost < 300
        said = f"up to {lost} events, offsets {600 - lost} to 599, are lost to every metric"
        until(lambda: said in reading.status.note, "the note", SECONDS)
        Log(kafka.bootstrap).write(
            topic, events(1000, 1003)
        )  # the first producer knows that its records are gone
        until(lambda: reading.sink.commit() >= 600 - lost + 3, "what is left", SECONDS)
        assert reading.sink.lines()[-4:] == [event(599 - lost, pad=50_000), *events(1000, 1003)]
        assert reading.status.lost_events == lost
    finally:
        reading.sink.crash()
        reading.stop()
