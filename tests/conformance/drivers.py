"""One small driver for each collector: how the suite brings events to it."""

from __future__ import annotations

import gzip
import http.client
import os
import shutil
import socket
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

from confluent_kafka import Producer
from kafka import KafkaAdminClient

from evalgauge.collectors.file import FileCollector
from evalgauge.collectors.http import HttpCollector
from evalgauge.collectors.kafka import KafkaCollector

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from evalgauge.core.collect import Collector
    from tests.parts.kafka import Kafka


class Driver(Protocol):
    """What a collector must provide to be held to the suite."""

    kind: str
    """The name of its entry point."""
    collector: type[Collector]
    pushes: bool

    def config(self) -> dict[str, Any]:
        """The input's configuration, without `type`; the same before and after a restart."""

    def deliver(self, body: bytes) -> bool:
        """Bring these bytes, one event a line, while the collector runs.

        True once they are safe: written to the log, or acknowledged by the collector. False if it said no, or
        said nothing because it died; they may be delivered again then.
        """


class GrowingFile:
    """A file that is written on."""

    kind = "file"
    collector: type[Collector] = FileCollector
    pushes = False

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.ndjson"
        self.path.touch()

    def config(self) -> dict[str, Any]:
        """Follow it."""
        return {"path": str(self.path), "follow": True, "poll_interval": 0.01, "rotate_wait": 0}

    def deliver(self, body: bytes) -> bool:
        """Append."""
        with self.path.open("ab") as file:
            file.write(body)
        return True


class RotatedFile(GrowingFile):
    """A log that is rotated before each delivery, by renaming, with compression or by copying, in turn."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._turn = 0

    def config(self) -> dict[str, Any]:
        """Follow it by a glob that matches the rotated names too."""
        return super().config() | {"path": f"{self.path}*"}

    def deliver(self, body: bytes) -> bool:
        """Rotate, then append."""
        if self.path.stat().st_size:
            self._rotate()
        return super().deliver(body)

    def _rotate(self) -> None:
        self._turn += 1
        rotated = self.path.with_name(f"{self.path.name}.{self._turn:04}")
        if self._turn % 3 == 0:
            shutil.copy(self.path, rotated)
            os.truncate(self.path, 0)
            return
        self.path.rename(rotated)
        if self._turn % 3 == 1:
            packed = rotated.with_name(f"{rotated.name}.gz")
            packed.write_bytes(gzip.compress(rotated.read_bytes()))
            shutil.copystat(rotated, packed)
            rotated.unlink()
        self.path.touch()


class PackedFile(GrowingFile):
    """A compressed file to which each delivery adds a gzip member."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.ndjson.gz"
        self.path.touch()

    def deliver(self, body: bytes) -> bool:
        """Append a member."""
        return super().deliver(gzip.compress(body))


class HttpDoor:
    """Requests with NDJSON bodies."""

    kind = "http"
    collector: type[Collector] = HttpCollector
    pushes = True

    def __init__(self, folder: Path) -> None:
        del folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])

    def config(self) -> dict[str, Any]:
        """Listen on a port that stays."""
        return {"listen": f"127.0.0.1:{self._port}", "drain_timeout": 1.0, "commit_timeout": 5.0}

    def deliver(self, body: bytes) -> bool:
        """POST."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("POST", "/v1/events", body, {"Content-Type": "application/x-ndjson"})
            return connection.getresponse().status == http.HTTPStatus.ACCEPTED
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class KafkaTopic:
    """A topic of one partition, one event a record, read by kafka-python."""

    part = "kafka"
    """The fixture that gives the server it needs."""
    kind = "kafka"
    collector: type[Collector] = KafkaCollector
    pushes = False
    client = "kafka-python"

    def __init__(self, folder: Path, broker: Kafka) -> None:
        del folder
        self._bootstrap = broker.bootstrap
        self._topic = f"conformance-{uuid.uuid4().hex[:12]}"
        # The suite brings events of three times the engine's limit, and the broker's own limit is one mebibyte.
        room = {"max.message.bytes": str(8 << 20)}
        with closing(KafkaAdminClient(bootstrap_servers=self._bootstrap)) as admin:
            wanted = {"num_partitions": 1, "replication_factor": 1, "configs": room}
            admin.create_topics({self._topic: wanted}, wait_for_metadata=True)
        self._producer = Producer(
            {
                "bootstrap.servers": self._bootstrap,
                "message.max.bytes": 8 << 20,
                "linger.ms": 1,
                "enable.idempotence": True,  # or a retry puts records behind later ones
                "log_level": 0,
            }
        )

    def config(self) -> dict[str, Any]:
        """Read the topic from its first record."""
        return {
            "bootstrap": self._bootstrap,
            "topics": [self._topic],
            "client": self.client,
            "refresh": 0.2,
        }

    def deliver(self, body: bytes) -> bool:
        """Produce, and wait until the broker has it all."""
        for line in body.removesuffix(b"\n").split(b"\n"):
            while True:
                try:
                    self._producer.produce(self._topic, line)
                except BufferError:
                    self._producer.flush(1)
                else:
                    break
        return self._producer.flush(30) == 0


class KafkaTopicFast(KafkaTopic):
    """The same, read by confluent-kafka."""

    client = "confluent"


DRIVERS: Sequence[Callable[..., Driver]] = (
    GrowingFile,
    RotatedFile,
    PackedFile,
    HttpDoor,
    KafkaTopic,
    KafkaTopicFast,
)
"""Add a collector's driver here, and it is held to everything below this folder.

It is called with a folder of its own, and, if it has a `part`, with what the fixture of that name gives.
"""
