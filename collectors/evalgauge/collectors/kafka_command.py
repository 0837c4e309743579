"""`evalgauge kafka`: topics, made for development as events need them, and the replicas of a group."""

from __future__ import annotations

import re
import socket
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import click

from evalgauge.collectors.kafka_repartition import repartition
from evalgauge.collectors.kafka_replicas import replicas, retire
from evalgauge.collectors.kafka_topics import Topic, created
from evalgauge.core.errors import ConfigError, EvalgaugeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kafka import KafkaAdminClient

ANSWER_SECONDS = 10
"""How long a broker may take to answer at all."""
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:]+\]|[^\s,:/\[\]]+):\d{1,5}")


@click.group(name="kafka", short_help="Make and copy topics; show and retire the replicas of a group.")
def command() -> None:
    """Make and copy Kafka topics; show and retire the replicas of a group.

    \b
    evalgauge kafka create judgments --bootstrap 127.0.0.1:9092 --partitions 12
    evalgauge kafka replicas --config evalgauge.yaml
    evalgauge kafka retire r3 --config evalgauge.yaml
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


command.add_command(repartition)
command.add_command(replicas)
command.add_command(retire)


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
