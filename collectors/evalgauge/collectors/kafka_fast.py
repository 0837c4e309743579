"""Kafka by confluent-kafka (librdkafka): reads over a million records a second on one core."""

# librdkafka's own error codes have names that begin with an underscore.
# ruff: noqa: SLF001

from __future__ import annotations

import base64
import json
import logging
import time
import uuid
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # re-exported untold

from evalgauge.collectors.kafka_client import EARLIEST, LATEST, Partition, Polled, Topic, Unavailable
from evalgauge.collectors.kafka_config import own_options
from evalgauge.collectors.kafka_fast_group import FastMember
from evalgauge.collectors.kafka_fast_transactions import FastTransactions
from evalgauge.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from evalgauge.collectors.kafka_client import Ownership
    from evalgauge.collectors.kafka_config import KafkaConfig, KafkaSasl, KafkaSecurity
    from evalgauge.collectors.kafka_name import ReplicaName

_log = logging.getLogger(__name__)

_RECORDS = 1000
"""Most records of one poll: 10,000 are slower, because their messages are out of the caches by then."""
_REQUEST = 5.0
_TOKEN_LIFE = 300.0
"""Seconds until a token is asked for again that does not say when it ends."""

_OURS = {
    **dict.fromkeys(("bootstrap.servers", "metadata.broker.list"), "the input has `bootstrap`"),
    **dict.fromkeys(
        ("group.id", "group.instance.id", "enable.auto.commit", "enable.auto.offset.store"),
        "positions are committed with the state they belong to",
    ),
    "auto.offset.reset": "the input has `start`",
    "isolation.level": "only what is committed counts",
    "allow.auto.create.topics": "reading never makes a topic",
    "enable.partition.eof": "the input needs to know where a partition ends",
    **dict.fromkeys(
        ("error_cb", "log_cb", "stats_cb", "throttle_cb", "oauth_cb", "on_commit", "logger"),
        "a configuration holds no code",
    ),
    **dict.fromkeys(
        (
            "security.protocol",
            "ssl.ca.location",
            "ssl.certificate.location",
            "ssl.key.location",
            "ssl.key.password",
            "ssl.endpoint.identification.algorithm",
            "sasl.mechanism",
            "sasl.mechanisms",
            "sasl.username",
            "sasl.password",
        ),
        "the input has `security`",
    ),
}
_STRAYED = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION}
_PASSING = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}
"""Librdkafka goes on by itself, and the cluster is looked at beside it."""
_NO_LEADER = {
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
}
_SIZES = {"message.max.bytes", "max.partition.fetch.bytes", "fetch.message.max.bytes"}
"""Where one of these is set, answers may have to be larger than we let them be by default."""
_error_of = Message.error
_partition_of = Message.partition
_topic_of = Message.topic
_value_of = Message.value


class _LibraryLog(logging.Logger):
    """Keeps librdkafka's own log for those who ask for it: in an outage it repeats itself, and we say it once."""

    def __init__(self) -> None:
        super().__init__(f"{__name__}.librdkafka")
        self.parent = _log

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name it has in logging
        del level
        return _log.isEnabledFor(logging.DEBUG)


def security_options(security: KafkaSecurity) -> dict[str, Any]:
    """What `security` is in the words of librdkafka. Raises `ConfigError` where a file cannot be read."""
    options: dict[str, Any] = {"security.protocol": security.protocol}
    if (tls := security.tls) is not None:
        options["ssl.endpoint.identification.algorithm"] = "https" if tls.verify_hostname else "none"
        for name, key, path in (
            ("ca", "ssl.ca.location", tls.ca_file),
            ("cert", "ssl.certificate.location", tls.cert_file),
            ("key", "ssl.key.location", tls.key_file),
        ):
            if path is not None:
                if not path.is_file():
                    raise ConfigError(f"security.tls.{name}_file: {path} is no file")
                options[key] = str(path)
        if tls.key_password is not None:
            options["ssl.key.password"] = tls.key_password.get_secret_value()
    if (sasl := security.sasl) is not None:
        options["sasl.mechanism"] = sasl.mechanism
        if sasl.mechanism == "OAUTHBEARER":
            sasl.token()
            options["oauth_cb"] = _token_source(sasl)
        else:
            options["sasl.username"] = sasl.username
            options["sasl.password"] = sasl.secret()
    return options


def _token_source(sasl: KafkaSasl) -> Any:
    def token(_: str) -> tuple[str, float]:
        text = sasl.token()
        return text, _expiry(text)

    return token


def _expiry(token: str) -> float:
    """When a token ends, in seconds since 1970: as it says itself where it is a JWT."""
    try:
        claims = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"])
    except (IndexError, KeyError, TypeError, ValueError):
        return time.time() + _TOKEN_LIFE


def connection_options(config: KafkaConfig, name: str) -> dict[str, Any]:
    """How any object of confluent-kafka connects for this input. Raises `ConfigError`."""
    return {
        "bootstrap.servers": ",".join(config.bootstrap),
        "client.id": f"evalgauge-{name}",
        # By default a broker that was away is tried again after up to 10 s.
        "reconnect.backoff.max.ms": 500,
        "log.connection.close": False,
        "logger": _LibraryLog(),
        **security_options(config.security),
    }


class FastLibrary:
    """Makes clients of confluent-kafka."""

    def __init__(self, config: KafkaConfig, name: str) -> None:
        """Check options without connecting. Raises `ConfigError`."""
        given = own_options(config.client_options, _OURS, "confluent")
        self._config = config
        self._connection = connection_options(config, name)
        self._options = {
            # The client wants a name even where no group is joined.
            "group.id": f"evalgauge-{name}",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # A position outside the log is told to us: going on elsewhere loses events or counts them twice.
            "auto.offset.reset": "error",
            # What an aborted transaction wrote never happened.
            "isolation.level": "read_committed",
            # Markers of transactions are no records: only this tells that one has read past the last of them.
            "enable.partition.eof": True,
            # By default a reader that empties the queue waits a second for more: five times slower.
            "fetch.queue.backoff.ms": 5,
            # Larger answers and more of them ahead are memory made anew each time: a quarter more of it held, and
            # 0.55 instead of 0.28 CPU seconds a million records that the system takes.
            "queued.min.messages": 20_000,
            **({} if _SIZES & set(given) else {"fetch.max.bytes": 4_000_000}),
            **given,
        }
        # The cluster is looked at by another kind of handle, which refuses nothing but is no consumer.
        consumer_only = set(self._options) - set(given)
        self._admin_options = {key: given[key] for key in given if key not in consumer_only}
        self._consumer().close()

    def _consumer(self) -> Consumer:
        try:
            return Consumer(self._connection | self._options)
        except (KafkaException, ValueError, TypeError) as error:
            raise ConfigError(f"librdkafka refuses its settings: {_why(error)}") from error

    def client(self) -> FastClient:
        """Make one; it connects by itself."""
        return FastClient(self._consumer())

    def cluster(self) -> FastCluster:
        """Make one; it connects by itself."""
        return FastCluster(self._connection | self._admin_options)

    def member(self, ownership: Ownership, name: ReplicaName) -> FastMember:
        """Make one; it connects by itself, and joins as it is polled. Raises `ConfigError`."""
        try:
            return FastMember(self._connection | self._admin_options, self._config, ownership, name)
        except (KafkaException, ValueError, TypeError) as error:
            raise ConfigError(f"librdkafka refuses its settings: {_why(error)}") from error

    def transactions(self, replica: str) -> FastTransactions:
        """Make one; it connects with the first write."""
        assert self._config.group is not None  # noqa: S101 - for the type checker; only a group has transactions
        # What only a consumer knows it leaves alone, and says so in its own log.
        return FastTransactions(self._connection | self._admin_options, self._config.group, replica)


class FastBatch:
    """Records of one partition as confluent-kafka has them."""

    __slots__ = ("_messages", "epoch", "offsets", "partition", "values")

    def __init__(self, partition: Partition, messages: list[Any]) -> None:
        self.partition = partition
        self._messages = messages
        self.values: list[bytes | None] = list(map(_value_of, messages))
        first, last = messages[0].offset(), messages[-1].offset()
        self.offsets: Sequence[int] = (
            range(first, last + 1)
            if last - first == len(messages) - 1
            else [message.offset() for message in messages]
        )
        self.epoch: int | None = messages[-1].leader_epoch()

    @property
    def newest(self) -> int:
        """The time of the last record, in milliseconds."""
        time: int = self._messages[-1].timestamp()[1]
        return time

    def headers(self, index: int) -> Sequence[tuple[str, bytes]]:
        """The headers of record `index`."""
        return [(name, value or b"") for name, value in self._messages[index].headers() or ()]

    def keys(self) -> list[bytes | None]:
        """The key of each record."""
        return [message.key() for message in self._messages]

    def timestamps(self) -> list[int]:
        """The time of each record, in milliseconds."""
        return [message.timestamp()[1] for message in self._messages]


class FastClient:
    """Reads by a Consumer; see `kafka_client.Client`."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._positions: dict[Partition, int] = {}
        self._paused = False
        self._only_topic = ""

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        """Read these too, or from there."""
        self.drop(offsets.keys() & self._positions.keys())
        self._consumer.incremental_assign([TopicPartition(*at, offset) for at, offset in offsets.items()])
        self._positions |= offsets
        self._count_topics()
        if self._paused:
            self.pause()

    def drop(self, partitions: Iterable[Partition]) -> None:
        """Read these no more."""
        gone = [partition for partition in partitions if partition in self._positions]
        if gone:
            self._consumer.incremental_unassign([TopicPartition(*at) for at in gone])
            for partition in gone:
                del self._positions[partition]
            self._count_topics()

    def _count_topics(self) -> None:
        topics = {partition.topic for partition in self._positions}
        self._only_topic = topics.pop() if len(topics) == 1 else ""

    def poll(self, timeout: float) -> Polled:
        """Records, waiting for the first."""
        # `consume` waits until it has all it was asked for or time is up: what is there is taken without waiting.
        messages = self._consumer.consume(_RECORDS, 0)
        if not messages and timeout > 0:
            first = self._consumer.poll(timeout)
            if first is None:
                return Polled()
            messages = [first, *self._consumer.consume(_RECORDS - 1, 0)]
        polled = Polled()
        if any(map(_error_of, messages)):
            messages = self._without_errors(messages, polled)
        if messages:
            polled.batches = [
                FastBatch(partition, some)
                for partition, some in self._by_partition(messages).items()
                if partition in self._positions
            ]
            for batch in polled.batches:
                # The end, which may come with the last records, lies after the marker of their transaction.
                known = self._positions[batch.partition]
                self._positions[batch.partition] = max(known, batch.offsets[-1] + 1)
        return polled

    def _by_partition(self, messages: list[Any]) -> dict[Partition, list[Any]]:
        """Messages come in long runs of one partition; a topic's name costs as much as all else together."""
        numbers = list(map(_partition_of, messages))
        if self._only_topic and numbers.count(numbers[0]) == len(numbers):
            return {Partition(self._only_topic, numbers[0] or 0): messages}
        found: dict[Partition, list[Any]] = {}
        for number, run in groupby(messages, _partition_of):
            if self._only_topic:
                found.setdefault(Partition(self._only_topic, number or 0), []).extend(run)
            else:
                for topic, some in groupby(run, _topic_of):
                    found.setdefault(Partition(topic or "", number or 0), []).extend(some)
        return found

    def _without_errors(self, messages: list[Any], polled: Polled) -> list[Any]:
        good = []
        for message in messages:
            error = message.error()
            if error is None:
                good.append(message)
                continue
            partition = Partition(message.topic() or "", message.partition() or 0)
            code = error.code()
            if code == KafkaError._PARTITION_EOF:
                if partition in self._positions:
                    self._positions[partition] = max(self._positions[partition], message.offset())
            elif code in _STRAYED:
                polled.strayed.append(partition)
            elif code not in _PASSING:
                polled.trouble = f"{partition}: {error.str()}"
        # What came of it before the error is not kept either: it is read again from where it is assigned next.
        self.drop(polled.strayed)
        return good

    def position(self, partition: Partition) -> int | None:
        """The next offset it would read."""
        return self._positions.get(partition)

    def pause(self) -> None:
        """Bring nothing until `resume`."""
        self._paused = True
        self._consumer.pause([TopicPartition(*at) for at in self._positions])

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        self._consumer.resume([TopicPartition(*at) for at in self._positions])

    def close(self) -> None:
        """Let go of connections and threads."""
        self._consumer.close()


class FastCluster:
    """Looks by an AdminClient; see `kafka_client.Cluster`."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._heard = ""
        """The last that librdkafka complained of: why requests time out, which is all that these say themselves."""
        self._admin = AdminClient(options | {"error_cb": self._hear})

    def _hear(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._heard = error.str()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            self._admin.poll(0)  # calls `_hear`
            why = self._heard if error.args[0].code() in _PASSING else ""
            raise Unavailable(why or _why(error)) from error
        self._heard = ""

    def topics(self, names: Sequence[str] | None) -> dict[str, Topic]:
        """The topics that exist."""
        self._admin.poll(0)  # serves its log
        found = {}
        with self._asking():
            if names is None:
                names = list(self._admin.list_topics(timeout=_REQUEST).topics)
                internal_too = False
            else:
                internal_too = True
            asked = TopicCollection(list(names))
            described = self._admin.describe_topics(asked, request_timeout=_REQUEST) if names else {}
            for name, one in _results(described):
                if internal_too or not one.is_internal:
                    numbers = sorted(partition.id for partition in one.partitions)
                    found[name] = Topic(_uuid(str(one.topic_id)), tuple(numbers))
        return found

    def offsets(self, at: Mapping[Partition, int]) -> dict[Partition, int]:
        """Offsets by time."""
        found = self._asked(at)
        if later := {partition: LATEST for partition, offset in found.items() if offset < 0}:
            found |= self._asked(later)
        return found

    def written(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """The offset after everything written."""
        return self._asked(dict.fromkeys(partitions, LATEST), IsolationLevel.READ_UNCOMMITTED)

    def _asked(
        self, at: Mapping[Partition, int], isolation: IsolationLevel = IsolationLevel.READ_COMMITTED
    ) -> dict[Partition, int]:
        if not at:
            return {}
        wanted = {TopicPartition(*partition): _spec(time_) for partition, time_ in at.items()}
        with self._asking():
            answer = self._admin.list_offsets(wanted, isolation_level=isolation, request_timeout=_REQUEST)
            return {Partition(tp.topic, tp.partition): one.offset for tp, one in _results(answer)}

    def close(self) -> None:
        """It ends with its last reference."""


def _spec(time_: int) -> OffsetSpec:
    kinds: Any = OffsetSpec  # without types of its own
    known = {EARLIEST: kinds.earliest(), LATEST: kinds.latest()}
    return cast("OffsetSpec", known.get(time_) or kinds.for_timestamp(time_))


def _results(futures: Mapping[Any, Future[Any]]) -> list[tuple[Any, Any]]:
    """What each future holds; what has no leader now, or is not there, is left out. Raises `KafkaException`."""
    found = []
    for key, future in futures.items():
        try:
            found.append((key, future.result()))
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER:
                raise
    return found


def _uuid(text: str) -> str:
    """A topic id as the other client writes it; empty where there is none."""
    try:
        identity = uuid.UUID(bytes=base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        return ""
    return str(identity) if identity.int else ""


def _why(error: BaseException) -> str:
    if error.args and isinstance(error.args[0], KafkaError):
        return str(error.args[0].str())
    return str(error)
