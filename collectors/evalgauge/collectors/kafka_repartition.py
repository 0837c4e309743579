"""`evalgauge kafka repartition`: a topic copied to another one, whose records are keyed by a field of their events.

What is copied and how far is committed in one transaction, so that each record is copied once through any crash.
"""

from __future__ import annotations

import sys
import time
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from evalgauge.collectors.kafka import open_library
from evalgauge.collectors.kafka_admin import asked
from evalgauge.collectors.kafka_client import EARLIEST, LATEST, Fenced, Partition, TopicPattern, Unavailable
from evalgauge.collectors.kafka_config import KafkaConfig
from evalgauge.collectors.kafka_keys import field_reader, record_texts
from evalgauge.collectors.kafka_records import RecordFormat, body_of
from evalgauge.collectors.kafka_sender import Identity, Outgoing, open_sender
from evalgauge.collectors.kafka_topics import MAKING_SECONDS, Topic, created
from evalgauge.core.commands import options
from evalgauge.core.config import load_config
from evalgauge.core.errors import ConfigError, EvalgaugeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from evalgauge.collectors.kafka_client import Batch, Client, Cluster
    from evalgauge.collectors.kafka_sender import Sender
    from evalgauge.collectors.kafka_store import Library

_RECORDS = 20_000
_SECONDS = 0.5
"""What one transaction holds at most, and how long it gathers."""
_BYTES = 32 << 20
_POLL = 0.2
_TRANSACTION_TIMEOUT = 30.0
_PATIENCE = 60.0
"""Seconds without any progress after which it ends, if it is not to follow."""
_RETRY = 1.0
_LOOK = 5.0
"""Seconds between two looks for new partitions while it follows."""
_MASK = 0xFFFFFFFF


@click.command(
    name="repartition",
    short_help="Copy a topic to one that is keyed by a field of its events.",
    epilog="Example: evalgauge kafka repartition judgments judgments-by-tenant --key tenant_id "
    "--bootstrap 127.0.0.1:9092",
)
@click.argument("source")
@click.argument("target")
@click.option(
    "--key",
    "field",
    required=True,
    metavar="FIELD",
    help="The field of an event's data whose text becomes the key; or source, or subject.",
)
@click.option(
    "--bootstrap",
    metavar="HOST:PORT[,…]",
    help="Brokers to begin with, which take connections without TLS and passwords. Overrides --config.",
)
@options.config
@click.option(
    "--partitions",
    type=click.IntRange(1),
    metavar="N",
    help="Partitions of TARGET, if it is made.  [default: as many as SOURCE has]",
)
@click.option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
def repartition(  # noqa: PLR0913, PLR0917 - they belong together
    source: str,
    target: str,
    field: str,
    bootstrap: str | None,
    config_path: Path | None,
    partitions: int | None,
    *,
    follow: bool,
) -> None:
    """Copy SOURCE to TARGET so that all events with the same FIELD are in one partition, in their order.

    The key of each record becomes the text of that field, and its partition the one that Kafka's own producers give to
    that key. Value, headers and time stay. TARGET is made if it is not there. Each record is copied once: when this is
    killed, call it again, and it goes on where it was.

    Brokers, TLS, passwords and client are those of an input of kafka in --config, or --bootstrap names brokers.
    """
    if source == target:
        raise click.UsageError("a topic cannot be copied to itself: give TARGET another name")
    if bootstrap is not None:
        config = _plain(bootstrap, source, target)
    else:
        found = _configured(config_path, source, target)
        topics = _plain(found.bootstrap, source, target).topics  # which checks the names
        config = found.model_copy(update={"topics": topics, "topic_pattern": None, "group": None})
    copy = Copy(config, source, target, field, follow=follow)
    try:
        click.echo(copy.make_target(partitions))
        copy.run()
    except KeyboardInterrupt:
        if not follow:
            raise
    finally:
        copy.close()
        click.echo(copy.summary())


def _plain(bootstrap: str | list[str], *topics: str) -> KafkaConfig:
    client = "confluent" if find_spec("confluent_kafka") is not None else "kafka-python"
    try:
        return KafkaConfig.model_validate({"bootstrap": bootstrap, "topics": list(topics), "client": client})
    except ValidationError as error:
        first = error.errors()[0]
        raise click.UsageError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _configured(path: Path | None, *topics: str) -> KafkaConfig:
    """What the configuration says of Kafka; where inputs differ, the one that reads one of these topics."""
    if path is None:
        raise click.UsageError("say with --bootstrap or --config where the brokers are")
    found = [one for one in load_config(path).inputs.values() if isinstance(one, KafkaConfig)]
    if not found:
        raise ConfigError(f"{path} has no input of type kafka")
    if any((one.bootstrap, one.security) != (found[0].bootstrap, found[0].security) for one in found):
        raise ConfigError(
            f"{path} has inputs of several Kafka clusters: name one that has inputs of this one only"
        )
    return next((one for one in found if any(_reads(one, topic) for topic in topics)), found[0])


def _reads(config: KafkaConfig, topic: str) -> bool:
    if config.topics is not None:
        return topic in config.topics
    return TopicPattern(config.topic_pattern or "", config.group).match(topic)


class Copy:
    """One copying of a topic."""

    def __init__(self, config: KafkaConfig, source: str, target: str, field: str, *, follow: bool) -> None:
        """Connect to nothing yet."""
        self._config, self._source, self._target, self._field = config, source, target, field
        self._follow = follow
        self._read = field_reader(field)
        self._name = f"evalgauge-repartition-{source}-{target}"
        self._identity = Identity(self._name, _TRANSACTION_TIMEOUT, self._name)
        self._library: Library | None = None
        self._cluster: Cluster | None = None
        self._client: Client | None = None
        self._sender: Sender | None = None
        self._goal: dict[Partition, int] | None = None
        """Where it ends if it does not follow: what was there when it began."""
        self._numbers: tuple[int, ...] = ()
        """Partitions of the source that are read."""
        self._width = 0
        """Partitions of the target."""
        self._looked = 0.0
        self._copied = self._kept = 0
        self._lost: dict[Partition, int] = {}
        """Records that were gone before they could be copied, at most."""

    def make_target(self, partitions: int | None) -> str:
        """See that there is a source, and a target with so many partitions. Raises `EvalgaugeError`."""
        self._library = open_library(self._config, "repartition")
        there = self._topics()
        if self._source not in there:
            raise EvalgaugeError(f"there is no topic `{self._source}` at {', '.join(self._config.bootstrap)}")
        if self._target not in there:
            partitions = partitions or len(there[self._source].partitions)
        wanted = Topic(self._target, partitions)
        try:
            said = asked(self._config, self._name, lambda admin: created(admin, wanted), MAKING_SECONDS)
        except Unavailable as error:
            raise EvalgaugeError(f"Kafka at {', '.join(self._config.bootstrap)}: {error}") from error
        self._width = len(self._topics()[self._target].partitions)
        return said

    def _topics(self) -> dict[str, Any]:
        assert self._library is not None  # noqa: S101 - for the type checker
        try:
            if self._cluster is None:
                self._cluster = self._library.cluster()
            return self._cluster.topics([self._source, self._target])
        except Unavailable as error:
            raise EvalgaugeError(f"Kafka at {', '.join(self._config.bootstrap)}: {error}") from error

    def run(self) -> None:
        """Copy. Raises `EvalgaugeError`, after which it may be called anew in another process."""
        progress = time.monotonic()
        told = ""
        while True:
            copied = self._copied
            try:
                self._begin()
                self._work()
            except Unavailable as error:
                if self._copied > copied:
                    progress = time.monotonic()
                if not self._follow and time.monotonic() - progress > _PATIENCE:
                    raise EvalgaugeError(
                        f"Kafka at {', '.join(self._config.bootstrap)}: {error}. Call this again to go on from what "
                        "is copied"
                    ) from error
                if str(error) != told:
                    click.echo(f"tried again: {error}", err=True)
                told = str(error)
                time.sleep(_RETRY)
            except Fenced as error:
                raise EvalgaugeError(
                    f"another `evalgauge kafka repartition {self._source} {self._target}` has begun, and goes on from "
                    "what this one has copied"
                ) from error
            else:
                return

    def _begin(self) -> None:
        """Be the only one that copies, and find where to go on. Raises `Unavailable` and `EvalgaugeError`."""
        assert self._library is not None  # noqa: S101 - for the type checker
        assert self._cluster is not None  # noqa: S101 - both are made with the target
        if self._sender is None:
            self._sender = open_sender(self._config, "repartition", self._identity)
        self._sender.begin()
        topic = self._cluster.topics([self._source]).get(self._source)
        if topic is None:
            raise Unavailable(f"topic {self._source} is not there")
        self._numbers = topic.partitions
        self._looked = time.monotonic()
        partitions = [Partition(self._source, number) for number in topic.partitions]
        begins = self._cluster.offsets(dict.fromkeys(partitions, EARLIEST))
        ends = self._cluster.offsets(dict.fromkeys(partitions, LATEST))
        if missing := sorted(set(partitions) - (begins.keys() & ends.keys())):
            raise Unavailable(f"partition {missing[0]} has no leader")
        committed = self._sender.committed(partitions)
        if self._goal is None:
            self._goal = ends
        for one, offset in committed.items():
            if offset > ends[one]:
                group = self._identity.group
                raise EvalgaugeError(
                    f"{one} was copied up to offset {offset}, but ends at {ends[one]}: the topic was made again, or "
                    f"has lost records. To copy it from its beginning, into a new target, delete group `{group}`: "
                    f"kafka-consumer-groups.sh --delete --group {group}"
                )
            if offset < begins[one]:
                self._lost[one] = begins[one] - offset
                click.echo(
                    f"{one}: retention removed offsets {offset} to {begins[one] - 1} before they were copied",
                    err=True,
                )
        if self._client is not None:
            self._client.close()
        self._client = self._library.client()
        self._client.assign({one: max(committed.get(one, 0), begins[one]) for one in partitions})

    def _work(self) -> None:
        """Copy until the goal, or until there are other partitions, for which all begins anew."""
        assert self._client is not None  # noqa: S101 - for the type checker, as the others here
        assert self._sender is not None  # noqa: S101
        assert self._goal is not None  # noqa: S101
        goal = self._goal
        while True:
            if not self._follow and all(
                (self._client.position(one) or 0) >= end for one, end in goal.items()
            ):
                return
            batches = self._gather(self._client)
            if batches:
                offsets = {batch.partition: batch.offsets[-1] + 1 for batch in batches}
                counted = [0, 0]
                self._sender.write(self._records(batches, counted), offsets)
                self._copied += counted[0]
                self._kept += counted[1]
            if self._follow and time.monotonic() - self._looked > _LOOK:
                self._look()

    def _look(self) -> None:
        assert self._cluster is not None  # noqa: S101 - for the type checker
        self._looked = time.monotonic()
        topic = self._cluster.topics([self._source]).get(self._source)
        if topic is not None and topic.partitions != self._numbers:
            self._begin()

    def _gather(self, client: Client) -> list[Batch]:
        """What one transaction copies; nothing where nothing comes for a while. Raises `Unavailable`."""
        found: list[Batch] = []
        records = size = 0
        end = time.monotonic() + _SECONDS
        while records < _RECORDS and size < _BYTES and time.monotonic() < end:
            polled = client.poll(_POLL)
            if polled.trouble:
                raise Unavailable(polled.trouble)
            if polled.strayed:
                raise Unavailable(f"{polled.strayed[0]}: what was to be copied next is not there any more")
            if not polled.batches:
                break
            for batch in polled.batches:
                found.append(batch)
                records += len(batch.values)
                size += sum(map(len, filter(None, batch.values)))
        return found

    def _records(self, batches: Sequence[Batch], counted: list[int]) -> Iterator[Outgoing]:
        """The records of a transaction; counts them, and those that keep their key."""
        for batch in batches:
            headers = [batch.headers(index) for index in range(len(batch.values))]
            body = body_of(RecordFormat.CLOUDEVENTS, batch.values, headers.__getitem__)
            texts = record_texts(self._read, body, len(batch.values))
            counted[0] += len(texts)
            counted[1] += texts.count(None)
            for text, key, value, some, stamp in zip(
                texts, batch.keys(), batch.values, headers, batch.timestamps(), strict=True
            ):
                by = key if text is None else text
                at = batch.partition.number % self._width if by is None else partition_of(by, self._width)
                yield Outgoing(self._target, at, by, value, some, max(stamp, 0))

    def summary(self) -> str:
        """What was done, in a sentence."""
        text = f"{self._copied:,} records copied from `{self._source}` to `{self._target}`"
        if self._kept:
            text += f"; {self._kept:,} of them have no `{self._field}`, and kept their key"
        if self._lost:
            text += f"; up to {sum(self._lost.values()):,} were removed by retention before"
        return text

    def close(self) -> None:
        """Let go of connections and threads."""
        for one in (self._client, self._sender, self._cluster):
            if one is not None:
                one.close()
        sys.stdout.flush()


@lru_cache(maxsize=1 << 16)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Kafka's own producers give to a key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """MurmurHash2 of 32 bits with the seed that Kafka has; unsigned."""
    m = 0x5BD1E995
    whole = len(data) & ~3
    h = 0x9747B28C ^ len(data)
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & _MASK
        k = (k ^ k >> 24) * m & _MASK
        h = (h * m & _MASK) ^ k
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & _MASK
    h = (h ^ h >> 13) * m & _MASK
    return h ^ h >> 15
