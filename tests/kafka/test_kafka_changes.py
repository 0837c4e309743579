"""A topic of Debezium's envelopes, read from a real broker, gives the metrics of the plain events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer

from evalgauge.core.config import load_config
from evalgauge.core.process import Process
from tests.record_helpers import documented
from tests.test_kafka_debezium import change, compact, enveloped, plain, row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.conftest import MakeTopic
    from tests.parts.kafka import Kafka

ROWS = [row(number) for number in range(1, 500)]


def written(kafka: Kafka, topic: str, values: Sequence[bytes | None]) -> str:
    """The topic, with these records."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(60) == 0
    return topic


def counted(folder: Path, kafka: Kafka, topic: str, **reading: Any) -> dict[tuple[str, tuple[str, ...]], Any]:
    """What pack `judgment` counts of a topic: (family, labels) → value."""
    source = {"type": "kafka", "bootstrap": kafka.bootstrap, "topics": topic, "until": "end", **reading}
    config = load_config(None, {}, state__folder=str(folder), packs=["judgment"], inputs={"events": source})
    process = Process(config)
    try:
        pipeline = process.pipeline
        pipeline.start()
        pipeline.run(until_done=True)
        pipeline.engine.commit()
        return {
            (family.name, labels): value
            for family in process.families()
            if family.name.startswith("judgment_")
            for labels, value in zip(family.series, family.values.tolist(), strict=False)
        }
    finally:
        process.pipeline.close()
        process.close()


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
@pytest.mark.parametrize("write", [compact, enveloped])
def test_a_topic_of_envelopes_gives_the_metrics_of_the_plain_events(
    kafka: Kafka, make_topic: MakeTopic, tmp_path: Path, client: str, write: Any
) -> None:
    """Snapshot, inserts, updates, deletes with their tombstones and messages, with and without schemas."""
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(documented("yaml", "mapping: judgments_table"), encoding="utf-8")
    values: list[bytes | None] = []
    for number, one in enumerate(ROWS):
        values.append(write(change("r" if number < 100 else "c", None, one, lsn=1000 + number, order=number)))
        if number % 5 == 0:
            values.append(write(change("u", one, {**one, "status": "error"})))
        if number % 9 == 0:
            values += [write(change("d", {"id": one["id"]}, None)), None, write(change("m"))]
    envelopes = written(kafka, make_topic(), values)
    events = written(kafka, make_topic(), [plain(one) for one in ROWS])
    found = counted(
        tmp_path / "envelopes", kafka, envelopes, client=client, format="debezium", mapping=str(mapping)
    )
    expected = counted(tmp_path / "events", kafka, events, client=client)
    assert found == expected
    total = sum(value for (name, _), value in found.items() if name == "judgment_executions")
    assert total == len(ROWS)
