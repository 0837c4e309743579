"""Topics, made as they are wanted, and compared with that where they are there already."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, NamedTuple

from evalgauge.collectors.kafka_admin import ANSWER_SECONDS, asked
from evalgauge.core.commands.options import printable
from evalgauge.core.errors import EvalgaugeError
from evalgauge.core.findings import suggest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kafka import KafkaAdminClient

    from evalgauge.collectors.kafka_config import KafkaConfig

_log = logging.getLogger(__name__)

TOPIC_SECONDS = 10
"""How long a new topic may take to have its leaders."""
MAKING_SECONDS = ANSWER_SECONDS + 2 * TOPIC_SECONDS
"""How long it may take to make one and to look at it."""
ALREADY_EXISTS = 36
"""Kafka's error code."""
_UNKNOWN = 3
"""Where a broker knows no such topic."""
_PAUSE = 0.1
_MAY_NOT = {29, 31}
"""Its codes where we may not create: TOPIC_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it is wanted; None and absent settings are left to the broker, and not compared."""

    name: str
    partitions: int | None = None
    replication: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    at_least: int | None = None
    """Partitions that one which is there already must have."""


def created(admin: KafkaAdminClient, wanted: Topic, compared: Topic | None = None) -> str:
    """Make sure that a topic is there as wanted, and say in one sentence what was found or done.

    One that is there is compared with `wanted`, or with `compared`, where less is essential than is best. Raises
    `EvalgaugeError` if it is there with other settings, or if the broker refuses to make it.
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
        refusal = EvalgaugeError(f"topic `{printable(wanted.name)}` was not created: {printable(why)}")
        if answer["error_code"] not in _MAY_NOT:
            raise refusal
        # Somebody who may has perhaps made it.
        try:
            there = _found(admin, wanted.name)
        except EvalgaugeError:
            raise refusal from None
    else:
        _wait(admin, wanted.name)
        there = _found(admin, wanted.name)
    if answer["error_code"] and (found := _differences(compared or wanted, there)):
        lines = "\n".join(f"  {one}" for one in found)
        raise EvalgaugeError(
            f"topic `{wanted.name}` is there already, and not as wanted. It was left as it is:\n{lines}\n"
            "Take another name, ask for what is there, or change the topic with Kafka's own tools."
        )
    what = "created" if answer["error_code"] == 0 else "there already, as wanted"
    return f"topic `{wanted.name}`: {what}: {_described(there)}"


def _wait(admin: KafkaAdminClient, name: str) -> None:
    """Wait until brokers tell clients of a topic; one that has lost a leader is not waited for for ever."""
    from kafka.errors import KafkaTimeoutError  # noqa: PLC0415 - an extra; whoever made the client has seen that it is there

    with suppress(KafkaTimeoutError):
        admin.wait_for_topics([name], timeout_ms=TOPIC_SECONDS * 1000)


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

    end = time.monotonic() + TOPIC_SECONDS
    # A new topic is not known to every broker at once, and each is asked in turn.
    while (described := admin.describe_topics([name])[0])[
        "error_code"
    ] == _UNKNOWN and time.monotonic() < end:
        time.sleep(_PAUSE)
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
    if wanted.at_least is not None and there.partitions < wanted.at_least:
        found.append(f"partitions: {there.partitions}, at least {wanted.at_least} are needed")
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


def make_topics(config: KafkaConfig, name: str, wanted: Sequence[tuple[Topic, Topic]]) -> None:
    """Make the topics that a group needs and that are not there: each as is best, and as is essential.

    Raises `Unavailable` where the brokers do not answer, and `EvalgaugeError` where one cannot serve.
    """

    def make(admin: Any) -> None:
        for best, essential in wanted:
            _log.info("input %s: %s", name, created(admin, best, essential))

    asked(config, name, make, MAKING_SECONDS * len(wanted))
