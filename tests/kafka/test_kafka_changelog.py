"""A changelog of very many updates: compacted as its settings say, and read back in a time that they bound."""

from __future__ import annotations

import random
import time
import uuid
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from evalgauge.collectors.kafka import open_library
from evalgauge.collectors.kafka_changelog import (
    ESSENTIAL,
    PARTITIONS,
    SETTINGS,
    Owner,
    Reading,
    page_records,
    table_record,
)
from evalgauge.collectors.kafka_config import KafkaConfig
from evalgauge.collectors.kafka_topics import Topic, make_topics
from evalgauge.core.store import TableInfo
from evalgauge.core.table import Page, PageKind
from tests.parts.part import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evalgauge.collectors.kafka_client import Record
    from tests.conftest import Tell
    from tests.parts.kafka import Kafka

UPDATES, PAGES, SIZE = 1_000_000, 800, 250
"""Records; pages of one replica that they are of; bytes of a page."""
OWNER = Owner("replica", "r1")


@pytest.fixture(scope="module")
def filled(kafka: Kafka) -> tuple[KafkaConfig, dict[int, bytes]]:
    """A changelog as a group makes it, after a million updates, and the pages as they were written last."""
    group = f"group-{uuid.uuid4().hex[:8]}"
    config = KafkaConfig.model_validate(
        {"bootstrap": kafka.bootstrap, "topics": "none", "client": "confluent", "group": {"id": group}}
    )
    changelog = f"{group}-changelog"
    make_topics(
        config, "test", [(Topic(changelog, PARTITIONS, 1, SETTINGS), Topic(changelog, settings=ESSENTIAL))]
    )
    last: dict[int, bytes] = {}
    draw = random.Random(1)  # noqa: S311 - no secret

    def records() -> Iterator[Record]:
        yield table_record(changelog, OWNER, TableInfo("meaning", "metric_total"))
        for number in range(UPDATES):
            page = number if number < PAGES else draw.randrange(PAGES)
            last[page] = number.to_bytes(8) + draw.randbytes(SIZE - 8)
            yield from page_records(changelog, OWNER, [("meaning", Page(PageKind.VALUES, page, last[page]))])

    producer = Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 20, "log_level": 0})
    for topic, partition, key, value, _ in records():
        while True:
            try:
                producer.produce(topic, value, key, partition)
                break
            except BufferError:
                producer.poll(0.05)
    assert producer.flush(120) == 0
    return config, last


def restored(config: KafkaConfig, client: str) -> tuple[dict[int, bytes], int, float]:
    """Pages, records that were read for them, and seconds."""
    found = config.model_copy(update={"client": client})
    assert found.group is not None
    library = open_library(found, "test")
    with closing(library.client()) as reader, closing(library.cluster()) as cluster:
        began = time.monotonic()
        with closing(Reading(reader, cluster, [OWNER], found.group.changelog_topic)) as reading:
            while not reading.step(0.2):
                pass
            pages = {page.number: page.data for page in reading.held(OWNER).pages["meaning"]}
            return pages, reading.records, time.monotonic() - began


@pytest.mark.timeout(600)
@pytest.mark.parametrize("client", ["confluent", "kafka-python"])
def test_a_million_updates_are_read_back_by_what_is_left_of_them(
    filled: tuple[KafkaConfig, dict[int, bytes]], client: str, tell: Tell
) -> None:
    """What is left is the newest segment and the state itself, however many updates there were before."""
    config, last = filled
    bound = int(SETTINGS["segment.bytes"]) // SIZE + 2 * PAGES
    assert bound < UPDATES / 3

    def short() -> tuple[dict[int, bytes], int, float] | None:
        found = restored(config, client)
        return found if found[1] <= bound else None

    found = until(short, "the brokers to compact what is old", 240)
    assert found is not None
    pages, records, seconds = found
    assert pages == last
    tell(
        f"changelog, {client}: {len(pages)} pages restored from {records:,} records of {UPDATES:,} that were "
        f"written, {records / seconds:,.0f} records a second"
    )
