"""Kafka by kafka-python: pure Python, runs everywhere, reads some 150,000 records a second on one core."""

from __future__ import annotations

import logging
import socket
import ssl
import time
import warnings
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from evalgauge.collectors.kafka_bound import Overdue, within
from evalgauge.collectors.kafka_client import LATEST, Partition, Polled, Topic, Unavailable
from evalgauge.collectors.kafka_config import own_options
from evalgauge.collectors.kafka_pure_group import PureMember, running_client
from evalgauge.collectors.kafka_pure_transactions import PureTransactions
from evalgauge.core.errors import ConfigError

with warnings.catch_warnings():
    # It reads its own schemas in a way that Python 3.11 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka
    from kafka import errors
    from kafka.net.compat import KafkaNetClient
    from kafka.net.sasl.oauth import AbstractTokenProvider
    from kafka.protocol.consumer import IsolationLevel

    from evalgauge.collectors.kafka_unpack import quicken

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from evalgauge.collectors.kafka_client import Ownership
    from evalgauge.collectors.kafka_config import KafkaConfig, KafkaSasl, KafkaSecurity
    from evalgauge.collectors.kafka_name import ReplicaName

_log = logging.getLogger(__name__)

_RECORDS = 2000
"""Most records of one poll: enough to spread its cost, few enough for one chunk."""
_CONNECT = 5.0
_REQUEST = 5.0
_CLOSE = 1.0
"""Seconds, each at most."""
_BEYOND = 10.0
"""Seconds beyond its own limit after which a client that is not made is given up."""
_CAUSES = 3.0
"""Seconds that are spent on finding out why brokers do not let us in."""

_OURS = {
    **dict.fromkeys(("bootstrap_servers",), "the input has `bootstrap`"),
    **dict.fromkeys(
        ("group_id", "group_instance_id", "enable_auto_commit", "auto_commit_interval_ms"),
        "positions are committed with the state they belong to",
    ),
    "auto_offset_reset": "the input has `start`",
    "isolation_level": "only what is committed counts",
    "allow_auto_create_topics": "reading never makes a topic",
    **dict.fromkeys(
        ("key_deserializer", "value_deserializer", "kafka_client"), "records are read as they are"
    ),
    **dict.fromkeys(("consumer_timeout_ms", "max_poll_records"), "the input polls as it needs"),
    **dict.fromkeys(
        (
            "security_protocol",
            "ssl_context",
            "ssl_cafile",
            "ssl_certfile",
            "ssl_keyfile",
            "ssl_password",
            "ssl_check_hostname",
            "sasl_mechanism",
            "sasl_plain_username",
            "sasl_plain_password",
            "sasl_oauth_token_provider",
        ),
        "the input has `security`",
    ),
}


class _TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # kafka-python has no types
    """Reads the token again for each connection, since whoever renews it writes the file anew."""

    def __init__(self, sasl: KafkaSasl) -> None:
        super().__init__()
        self._sasl = sasl

    def token(self) -> str:
        return self._sasl.token()

    def extensions(self) -> dict[str, str]:
        return {}


def security_options(security: KafkaSecurity) -> dict[str, Any]:
    """What `security` is in the words of kafka-python. Raises `ConfigError` where a file cannot be read."""
    options: dict[str, Any] = {"security_protocol": security.protocol}
    if (tls := security.tls) is not None:
        options["ssl_check_hostname"] = tls.verify_hostname
        for name, path in (("ca", tls.ca_file), ("cert", tls.cert_file), ("key", tls.key_file)):
            if path is not None:
                if not path.is_file():
                    raise ConfigError(f"security.tls.{name}_file: {path} is no file")
                options[f"ssl_{name}file"] = str(path)
        if tls.key_password is not None:
            options["ssl_password"] = tls.key_password.get_secret_value()
    if (sasl := security.sasl) is not None:
        options["sasl_mechanism"] = sasl.mechanism
        if sasl.mechanism == "OAUTHBEARER":
            sasl.token()
            options["sasl_oauth_token_provider"] = _TokenFile(sasl)
        else:
            options["sasl_plain_username"] = sasl.username
            options["sasl_plain_password"] = sasl.secret()
    return options


def connection_options(config: KafkaConfig, name: str) -> dict[str, Any]:
    """How any object of kafka-python connects for this input. Raises `ConfigError`."""
    return {
        "bootstrap_servers": config.bootstrap,
        "client_id": f"evalgauge-{name}",
        # By default a broker that was away is tried again after up to 30 s; with this it is back in under one.
        "reconnect_backoff_max_ms": 500,
        # An idle poll sleeps this long, so that it is part of the latency of what comes next.
        "retry_backoff_ms": 20,
        # Both are blocking; whoever waits for them looks at nothing else meanwhile.
        "bootstrap_timeout_ms": int(_CONNECT * 1000),
        "request_timeout_ms": int(_REQUEST * 1000),
        **security_options(config.security),
    }


class PureLibrary:
    """Makes clients of kafka-python."""

    def __init__(self, config: KafkaConfig, name: str) -> None:
        """Check options without connecting. Raises `ConfigError`."""
        given = own_options(config.client_options, _OURS, "kafka-python")
        known = kafka.KafkaConsumer.DEFAULT_CONFIG
        if unknown := sorted(set(given) - set(known)):
            raise ConfigError(
                f"client_options: kafka-python has no setting `{unknown[0]}`; its names are those of KafkaConsumer, "
                "such as fetch_max_bytes"
            )
        self._options = connection_options(config, name) | given
        self._config = config
        quiet()
        if find_spec("crc32c") is None:
            _log.warning(
                "without the package crc32c kafka-python reads some 30,000 records a second, with it 150,000: "
                "pip install 'evalgauge[kafka]'"
            )

    def client(self) -> PureClient:
        """Connect. Raises `Unavailable`."""
        options = {
            "group_id": None,
            "enable_auto_commit": False,
            # A position outside the log is told to us: going on elsewhere loses events or counts them twice.
            "auto_offset_reset": "none",
            # What an aborted transaction wrote never happened.
            "isolation_level": "read_committed",
            "allow_auto_create_topics": False,
            # Its own metrics cost some 5 % of the time, and nobody reads them.
            "metrics_enabled": False,
            # A long poll must end before the request does: the defaults are 500 ms and 30 s.
            "fetch_max_wait_ms": 500,
            **self._options,
        }
        consumer = self._made(kafka.KafkaConsumer, options)
        if not quicken(consumer):
            _log.warning(
                "kafka-python %s reads at half the speed of the versions known here", kafka.__version__
            )
        return PureClient(consumer)

    def cluster(self) -> PureCluster:
        """Connect. Raises `Unavailable`."""
        known = kafka.KafkaAdminClient.DEFAULT_CONFIG
        options = {key: value for key, value in self._options.items() if key in known}
        return PureCluster(self._made(kafka.KafkaAdminClient, options))

    def member(self, ownership: Ownership, name: ReplicaName) -> PureMember:
        """Connect; it joins as it is polled. Raises `Unavailable`."""
        options = {
            **self._options,
            # New topics and new partitions are found so often.
            "metadata_max_age_ms": int(self._config.refresh * 1000),
            "allow_auto_create_topics": False,
        }
        return PureMember(self._made(running_client, options), self._config, ownership, name)

    def transactions(self, replica: str) -> PureTransactions:
        """Make one; it connects with the first write."""
        known = kafka.KafkaProducer.DEFAULT_CONFIG
        shared = {key: value for key, value in self._options.items() if key in known}
        assert self._config.group is not None  # noqa: S101 - for the type checker; only a group has transactions
        return PureTransactions(
            lambda options: self._made(kafka.KafkaProducer, shared | options), self._config.group, replica
        )

    def _made(self, kind: Any, options: dict[str, Any]) -> Any:
        return connected(kind, options, self._options)


def connected(kind: Any, options: dict[str, Any], connection: dict[str, Any] | None = None) -> Any:
    """An object of kafka-python, which connects as it is made. Raises `Unavailable` and `ConfigError`.

    `connection`: where `options` do not say it, how it connects.
    """
    networks: list[Any] = []

    def network(**settings: Any) -> Any:
        networks.append(KafkaNetClient(**settings))
        return networks[0]

    _HEARD.last = ""
    try:
        # A broker that takes a connection and is silent while TLS begins is waited for without an end.
        limit = options.get("bootstrap_timeout_ms", 0) / 1000 + _BEYOND
        return within(limit, lambda: kind(**options, kafka_client=network))
    except BaseException as error:
        # What could not connect is left behind with its thread, which would go on trying for ever.
        for one in networks:
            # Where the call that is given up still waits in it, closing ends that wait, and raises RuntimeError.
            with suppress(Overdue, RuntimeError):
                within(_CLOSE, one.close)
        if isinstance(error, Overdue):
            raise Unavailable(_cause(connection or options) or str(error)) from error
        if isinstance(error, errors.KafkaConfigurationError):
            raise ConfigError(f"kafka-python refuses its settings: {error}") from error
        if isinstance(error, errors.KafkaTimeoutError):
            raise Unavailable(_cause(connection or options) or _HEARD.last or _why(error)) from error
        if isinstance(error, errors.KafkaError | OSError):
            raise Unavailable(_why(error)) from error
        raise


def _cause(options: dict[str, Any]) -> str:
    """Why none of the brokers lets us in; kafka-python says only that none did."""
    found: list[str] = []
    end = time.monotonic() + _CAUSES
    for address in options["bootstrap_servers"]:
        if time.monotonic() > end:
            break
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        try:
            with socket.create_connection((host, int(port)), timeout=_CLOSE) as plain:
                if "SSL" in options["security_protocol"]:
                    context = ssl.create_default_context(cafile=options.get("ssl_cafile"))
                    context.check_hostname = options["ssl_check_hostname"]
                    with context.wrap_socket(plain, server_hostname=host):
                        pass
        except OSError as error:
            found.append(f"{address}: {error.strerror or error}")
    return "; ".join(dict.fromkeys(found))


class PureBatch:
    """Records of one partition as kafka-python has them."""

    __slots__ = ("_records", "epoch", "offsets", "partition", "values")

    def __init__(self, partition: Partition, records: list[Any]) -> None:
        self.partition = partition
        self._records = records
        self.values: list[bytes | None] = [record.value for record in records]
        first, last = records[0].offset, records[-1].offset
        self.offsets: Sequence[int] = (
            range(first, last + 1)
            if last - first == len(records) - 1
            else [record.offset for record in records]
        )
        epoch = records[-1].leader_epoch
        self.epoch: int | None = epoch if epoch is not None and epoch >= 0 else None

    @property
    def newest(self) -> int:
        """The time of the last record, in milliseconds."""
        time: int = self._records[-1].timestamp
        return time

    def headers(self, index: int) -> Sequence[tuple[str, bytes]]:
        """The headers of record `index`."""
        return [(name, value or b"") for name, value in self._records[index].headers]

    def keys(self) -> list[bytes | None]:
        """The key of each record."""
        return [record.key for record in self._records]

    def timestamps(self) -> list[int]:
        """The time of each record, in milliseconds."""
        return [record.timestamp for record in self._records]


class PureClient:
    """Reads by a KafkaConsumer; see `kafka_client.Client`."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._assigned: set[Partition] = set()
        self._paused = False

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        """Read these too, or from there."""
        self._assigned |= offsets.keys()
        self._set()
        for partition, offset in offsets.items():
            self._consumer.seek(_tp(partition), offset)
        if self._paused:
            self.pause()

    def drop(self, partitions: Iterable[Partition]) -> None:
        """Read these no more."""
        self._assigned -= set(partitions)
        self._set()

    def _set(self) -> None:
        self._consumer.assign([_tp(partition) for partition in self._assigned])

    def poll(self, timeout: float) -> Polled:
        """Records, waiting for the first."""
        if not self._assigned:
            time.sleep(timeout)
            return Polled()
        try:
            found = self._consumer.poll(timeout_ms=int(timeout * 1000), max_records=_RECORDS)
        except (errors.OffsetOutOfRangeError, errors.LogTruncationError) as error:
            strayed = _partitions_of(error) & self._assigned
            self.drop(strayed)
            return Polled(strayed=sorted(strayed), trouble="" if strayed else _why(error))
        except (errors.KafkaError, OSError) as error:
            # It asks again by itself; most of these come and go with a broker.
            retriable = isinstance(error, errors.RetriableError | OSError)
            return Polled(trouble="" if retriable else _why(error))
        return Polled([PureBatch(Partition(*at), records) for at, records in found.items() if records])

    def position(self, partition: Partition) -> int | None:
        """The next offset it would read."""
        if partition not in self._assigned:
            return None
        try:
            offset: int | None = self._consumer.position(_tp(partition), timeout_ms=0)
        except errors.KafkaError:
            return None
        return offset

    def pause(self) -> None:
        """Bring nothing until `resume`."""
        self._paused = True
        self._consumer.pause(*map(_tp, self._assigned))

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        self._consumer.resume(*map(_tp, self._assigned))

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close(autocommit=False, timeout_ms=int(_CLOSE * 1000))


class PureCluster:
    """Looks by a KafkaAdminClient; see `kafka_client.Cluster`."""

    def __init__(self, admin: Any) -> None:
        self._admin = admin

    def topics(self, names: Sequence[str] | None) -> dict[str, Topic]:
        """The topics that exist."""
        try:
            described = self._admin.describe_topics(None if names is None else list(names))
        except (errors.KafkaError, OSError) as error:
            raise Unavailable(_why(error)) from error
        found = {}
        for one in described:
            kind = errors.for_code(one["error_code"])
            if kind in {errors.UnknownTopicOrPartitionError, errors.LeaderNotAvailableError}:
                continue
            if kind is not errors.NoError:
                raise Unavailable(f"topic {one['name']}: {_words(kind)}")
            if names is None and one["is_internal"]:
                continue
            numbers = sorted(partition["partition_index"] for partition in one["partitions"])
            identity = one["topic_id"]
            found[one["name"]] = Topic("" if identity is None else str(identity), tuple(numbers))
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
        self, at: Mapping[Partition, int], isolation: Any = IsolationLevel.READ_COMMITTED
    ) -> dict[Partition, int]:
        if not at:
            return {}
        wanted = {_tp(partition): time_ for partition, time_ in at.items()}
        try:
            answer = self._admin.list_partition_offsets(
                wanted, isolation_level=isolation, timeout_ms=int(_REQUEST * 1000)
            )
        except (errors.KafkaError, OSError) as error:
            if len(at) == 1:
                if isinstance(error, errors.UnknownTopicOrPartitionError | errors.InvalidMetadataError):
                    return {}
                raise Unavailable(_why(error)) from error
            if not isinstance(error, errors.UnknownTopicOrPartitionError | errors.InvalidMetadataError):
                raise Unavailable(_why(error)) from error
            # One partition without a leader spoils the answer for all: find it by halves.
            names = sorted(at)
            middle = len(names) // 2
            halves = ({name: at[name] for name in half} for half in (names[:middle], names[middle:]))
            return {
                partition: offset
                for half in halves
                for partition, offset in self._asked(half, isolation).items()
            }
        return {Partition(*tp): found.offset for tp, found in answer.items()}

    def close(self) -> None:
        """Let go of the connections."""
        self._admin.close()


def _tp(partition: Partition) -> Any:
    return kafka.TopicPartition(*partition)


def _partitions_of(error: Exception) -> set[Partition]:
    return (
        {Partition(*tp) for tp in error.args[0]} if error.args and isinstance(error.args[0], dict) else set()
    )


def _why(error: BaseException) -> str:
    text = str(error).strip()
    name = _words(type(error))
    return text if name in text else f"{name}: {text}" if text else name


def _words(kind: type[BaseException]) -> str:
    return kind.__name__.removesuffix("Error")


class _Heard(logging.Filter):
    """Remembers why a first connection failed, which kafka-python tells its log alone."""

    last = ""

    def filter(self, record: logging.LogRecord) -> bool:
        if str(record.msg).startswith("Bootstrap connection to %s failed") and isinstance(record.args, tuple):
            why = record.args[1]
            # A wrong password says more than the time-out of the last try, which had no time left.
            if not self.last or isinstance(why, errors.SaslAuthenticationFailedError):
                self.last = str(why)
        return _log.isEnabledFor(logging.DEBUG)


_HEARD = _Heard()


def quiet() -> None:
    """Keep its own log for those who ask for it: in an outage it says the same twice a second, and we say it once."""
    connecting = logging.getLogger("kafka.net.manager")
    connecting.addFilter(_HEARD)
    for log, level in ((logging.getLogger("kafka"), logging.CRITICAL), (connecting, logging.WARNING)):
        if log.level == logging.NOTSET:
            log.setLevel(level)
