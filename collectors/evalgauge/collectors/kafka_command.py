"""`evalgauge kafka`: topics, made for development as events need them."""

from __future__ import annotations

import re
import socket
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from evalgauge.core.commands.options import printable
from evalgauge.core.errors import ConfigError, EvalgaugeError
from evalgauge.core.findings import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kafka import KafkaAdminClient

ANSWER_SECONDS = 10
"""How long a broker may take to answer at all, and a new topic to have its leaders."""
ALREADY_EXISTS = 36
"""Kafka's error code."""
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:]+\]|[^\s,:/\[\]]+):\d{1,5}")


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it is wanted; None and absent settings are left to the broker, and not compared."""

    name: str
    partitions: int | None = None
    replication: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


@click.group(name="kafka", short_help="Make Kafka topics for development.")
def command() -> None:
    """Make Kafka topics for development.

    \b
    evalgauge kafka create judgments --bootstrap 127.0.0.1:9092 --partitions 12
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


def _brokers(context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    """`host:port`, or several with commas."""
    found = [one.strip() for one in value.split(",")]
    for one in found:
        if not _ADDRESS.fullmatch(one):
            raise click.BadParameter(f"`{one}` is not host:port", context, parameter)
    return found


def _settings(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """`key=value`, once each."""
    found: dict[str, str] = {}
    for value in values:
        key, equals, setting = value.partition("=")
        key = key.strip()
        if not (key and equals):
            raise click.BadParameter(f"`{value}` is not key=value", context, parameter)
        if key in found:
            raise click.BadParameter(f"`{key}` is given twice", context, parameter)
        found[key] = setting.strip()
    return found


@command.command(
    epilog="Example: evalgauge kafka create judgments --bootstrap 127.0.0.1:9092 --partitions 12 "
    "--config retention.ms=86400000"
)
@click.argument("topic")
@click.option(
    "--bootstrap",
    required=True,
    callback=_brokers,
    metavar="HOST:PORT[,…]",
    help="Brokers to begin with; those of a development cluster, without TLS and passwords.",
)
@click.option(
    "--partitions",
    type=click.IntRange(1),
    metavar="N",
    help="Number of partitions, the most replicas that can share the work.  [default: the broker's]",
)
@click.option(
    "--replication",
    type=click.IntRange(1),
    metavar="N",
    help="Brokers that each hold a copy.  [default: the broker's]",
)
@click.option(
    "--config",
    "settings",
    multiple=True,
    callback=_settings,
    metavar="KEY=VALUE",
    help="A setting of the topic, such as cleanup.policy=compact. May be given several times.",
)
def create(
    topic: str,
    bootstrap: list[str],
    partitions: int | None,
    replication: int | None,
    settings: dict[str, str],
) -> None:
    """Create TOPIC, and wait until it can be used.

    A topic that is there already as wanted is left as it is, and the exit code is 0. One that differs is left as
    it is, too: what differs is printed, and the exit code is 1. What is not said is left to the broker and not
    compared.
    """
    with connected(bootstrap) as admin:
        click.echo(created(admin, Topic(topic, partitions, replication, settings)))


def created(admin: KafkaAdminClient, wanted: Topic) -> str:
    """Make sure that a topic is there as wanted, and say in one sentence what was found or done.

    Raises `EvalgaugeError` if it is there with other settings, or if the broker refuses to make it.
    """
    # Ask to make it first, and look afterwards: two who make it at once get along, and a look would make the
    # topic of itself on a broker with auto.create.topics.enable.
    request: dict[str, Any] = {"configs": dict(wanted.settings)}
    if wanted.partitions is not None:
        request["num_partitions"] = wanted.partitions
    if wanted.replication is not None:
        request["replication_factor"] = wanted.replication
    [answer] = admin.create_topics({wanted.name: request}, raise_errors=False)["topics"]
    if answer["error_code"] not in {0, ALREADY_EXISTS}:
        why = answer["error_message"] or _error(answer["error_code"])
        raise EvalgaugeError(f"topic `{printable(wanted.name)}` was not created: {printable(why)}")
    _wait(admin, wanted.name)
    there = _found(admin, wanted.name)
    if answer["error_code"] == ALREADY_EXISTS and (found := _differences(wanted, there)):
        lines = "\n".join(f"  {one}" for one in found)
        raise EvalgaugeError(
            f"topic `{wanted.name}` is there already, and not as wanted. It was left as it is:\n{lines}\n"
            "Take another name, ask for what is there, or change the topic with Kafka's own tools."
        )
    what = "created" if answer["error_code"] == 0 else "there already, as wanted"
    return f"topic `{wanted.name}`: {what}: {_described(there)}"


def _wait(admin: KafkaAdminClient, name: str) -> None:
    """Wait until brokers tell clients of a topic; one that has lost a leader is not waited for for ever."""
    from kafka.errors import KafkaTimeoutError  # noqa: PLC0415 - an extra; `connected` has seen that it is there

    with suppress(KafkaTimeoutError):
        admin.wait_for_topics([name], timeout_ms=ANSWER_SECONDS * 1000)


class _Setting(NamedTuple):
    """A setting in force."""

    value: str
    kind: str
    """Its type, as Kafka names it."""
    own: bool
    """Whether it was set on the topic itself."""


class _There(NamedTuple):
    """A topic as it is."""

    partitions: int
    replication: frozenset[int]
    settings: Mapping[str, _Setting]
    """All that a topic can have."""


def _found(admin: KafkaAdminClient, name: str) -> _There:
    from kafka.admin import ConfigResource, ConfigResourceType  # noqa: PLC0415 - as above

    [described] = admin.describe_topics([name])
    if described["error_code"]:
        raise EvalgaugeError(f"topic `{name}` cannot be looked at: {_error(described['error_code'])}")
    resource = ConfigResource(ConfigResourceType.TOPIC, name)
    settings = admin.describe_configs([resource], config_filter="all")["topic"][name]
    return _There(
        len(described["partitions"]),
        frozenset(len(one["replica_nodes"]) for one in described["partitions"]),
        {
            key: _Setting(
                one["value"] or "",
                one.get("config_type", "STRING"),
                one["config_source"] == "DYNAMIC_TOPIC_CONFIG",
            )
            for key, one in settings.items()
        },
    )


def _differences(wanted: Topic, there: _There) -> list[str]:
    """One line for each thing that was asked for and is otherwise."""
    found = []
    if wanted.partitions not in {None, there.partitions}:
        found.append(f"partitions: {there.partitions}, not {wanted.partitions}")
    if wanted.replication is not None and there.replication != {wanted.replication}:
        found.append(f"replication: {_numbers(there.replication)}, not {wanted.replication}")
    for key, value in wanted.settings.items():
        setting = there.settings.get(key)
        if setting is None:
            found.append(f"{key}: the broker knows no such setting. {suggest(key, there.settings)}")
        elif _plain(value, setting.kind) != _plain(setting.value, setting.kind):
            found.append(f"{key}: {setting.value or 'empty'}, not {value or 'empty'}")
    return found


def _described(there: _There) -> str:
    partitions = f"{there.partitions} {'partition' if there.partitions == 1 else 'partitions'}"
    settings = "".join(f", {key}={one.value}" for key, one in sorted(there.settings.items()) if one.own)
    return f"{partitions}, replication {_numbers(there.replication)}{settings}"


def _numbers(found: frozenset[int]) -> str:
    """Usually one: partitions differ while they are moved between brokers."""
    return " or ".join(map(str, sorted(found)))


def _plain(value: str, kind: str) -> object:
    """A setting's value as the broker takes it: `0100` is 100, `TRUE` true, and a list has no order."""
    match kind:
        case "INT" | "LONG" | "SHORT" | "DOUBLE":
            try:
                return Decimal(value)
            except InvalidOperation:
                return value
        case "BOOLEAN":
            return value.lower()
        case "LIST":
            return sorted(one.strip() for one in value.split(","))
    return value


def _error(code: int) -> str:
    from kafka.errors import for_code  # noqa: PLC0415 - as above

    kind = for_code(code)
    return str(getattr(kind, "description", None) or kind.__name__)


@contextmanager
def connected(bootstrap: list[str]) -> Iterator[KafkaAdminClient]:
    """A client that is connected. Raises `EvalgaugeError` where no broker answers, now or in between."""
    try:
        from kafka import KafkaAdminClient  # noqa: PLC0415 - an extra
        from kafka.errors import KafkaError  # noqa: PLC0415
    except ImportError as error:
        msg = "`evalgauge kafka` needs the package kafka-python: pip install 'evalgauge[kafka]'"
        raise ConfigError(msg) from error
    _knock(bootstrap)
    where = ", ".join(bootstrap)
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap,
            bootstrap_timeout_ms=ANSWER_SECONDS * 1000,
            reconnect_backoff_max_ms=500,
            client_id="evalgauge",
        )
    except KafkaError as error:
        raise EvalgaugeError(
            f"what listens at {where} did not answer within {ANSWER_SECONDS} s as a Kafka broker does. Is it one, "
            f"and does that port take connections without TLS and passwords? ({error})"
        ) from error
    with closing(admin):
        try:
            yield admin
        except KafkaError as error:
            raise EvalgaugeError(f"Kafka at {where}: {error}") from error


def _knock(bootstrap: Sequence[str]) -> None:
    """Raise `EvalgaugeError` with each broker's reason if none takes a connection; the client gives none."""
    reasons = []
    for one in bootstrap:
        host, _, port = one.rpartition(":")
        try:
            address = (host.strip("[]"), int(port))
            with socket.create_connection(address, ANSWER_SECONDS / len(bootstrap)):
                return
        except (OSError, OverflowError) as error:
            reasons.append(f"{one}: {getattr(error, 'strerror', None) or error}")
    raise EvalgaugeError(f"no Kafka broker can be reached. {'; '.join(reasons)}")
