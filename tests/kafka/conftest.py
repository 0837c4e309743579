"""A running broker that all tests of this folder share, and topics of their own on it."""

from __future__ import annotations

import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

import pytest
from kafka import KafkaAdminClient

from tests.parts import kafka as kafka_part

if TYPE_CHECKING:
    from collections.abc import Iterator


def _fresh() -> str:
    return f"topic-{uuid.uuid4().hex[:12]}"


class MakeTopic(Protocol):
    """What the fixture `make_topic` gives: call it for a new topic on the shared broker."""

    def __call__(self, partitions: int = 1, **config: str) -> str:
        """Create a topic and return its name; in names of `config`, `_` stands for a dot."""


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka_part.Kafka]:
    """Return a broker that runs for the whole session. A test that kills it starts it again, or has its own."""
    with kafka_part.Kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def topic() -> str:
    """Return the name of a topic that nobody has used; the broker creates none by itself."""
    return _fresh()


@pytest.fixture
def make_topic(kafka: kafka_part.Kafka) -> MakeTopic:
    """Create topics on the shared broker."""

    def make(partitions: int = 1, **config: str) -> str:
        name = _fresh()
        settings = {key.replace("_", "."): value for key, value in config.items()}
        with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin:
            wanted = {"num_partitions": partitions, "replication_factor": 1, "configs": settings}
            admin.create_topics({name: wanted}, wait_for_metadata=True)
        return name

    return make
