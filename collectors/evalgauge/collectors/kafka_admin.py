"""What a group asks of its brokers beside reading and writing. Always by kafka-python, whichever client reads."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from evalgauge.collectors.kafka_bound import Overdue, within
from evalgauge.collectors.kafka_client import Committed, Partition, Unavailable
from evalgauge.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from evalgauge.collectors.kafka_config import KafkaConfig

_UNKNOWN = "[Error 69]"
"""How it tells GROUP_ID_NOT_FOUND."""
_T = TypeVar("_T")
ANSWER_SECONDS = 20.0
"""That brokers have to answer one question, connecting included."""
_CLOSE = 2.0


@contextmanager
def administering(config: KafkaConfig, name: str) -> Iterator[Any]:
    """A KafkaAdminClient for an input. Raises `ConfigError` without the library, else `Unavailable`."""
    try:
        import kafka  # noqa: PLC0415 - an extra
        from kafka import errors  # noqa: PLC0415

        from evalgauge.collectors.kafka_pure import connected, connection_options, quiet  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "topics and groups are looked after by the package kafka-python: pip install 'evalgauge[kafka]'"
        ) from error
    quiet()
    try:
        admin = connected(kafka.KafkaAdminClient, connection_options(config, name))
    except ConfigError as error:
        # Files of keys and tokens are read anew, and may be away while they are renewed.
        raise Unavailable(str(error)) from error
    try:
        yield admin
    except (errors.KafkaError, OSError) as error:
        raise Unavailable(f"{type(error).__name__}: {error}") from error
    finally:
        admin.close()


def asked(config: KafkaConfig, name: str, what: Callable[[Any], _T], seconds: float = ANSWER_SECONDS) -> _T:
    """What is found by an admin client of its own. Raises `Unavailable`, and `ConfigError` without the library."""
    connected: list[Any] = []

    def ask() -> _T:
        with administering(config, name) as admin:
            connected.append(admin)
            return what(admin)

    try:
        return within(seconds, ask)
    except Overdue:
        # Not every wait of this client has an end of its own; without its connections it has.
        for admin in connected:
            with suppress(Overdue):
                within(_CLOSE, admin.close)
        raise


class Described(NamedTuple):
    """A group as kafka-python describes it."""

    stable: bool
    """Whether it is settled who has what."""
    members: list[dict[str, Any]]


def group_of(admin: Any, group: str) -> Described:
    """A group, without members where it is unknown. Raises `Unavailable` where the brokers do not know yet."""
    described = admin.describe_groups([group])[group]
    if described["error"] and described["error"].startswith(_UNKNOWN):
        return Described(stable=True, members=[])  # its last member is gone, and its positions with it
    if described["error"]:  # no answer is not the answer that nobody is there
        raise Unavailable(f"group {group} cannot be looked at: {described['error']}")
    return Described(described["group_state"] == "Stable", list(described["members"]))


def assigned_of(admin: Any, group: str) -> dict[str, list[Partition]]:
    """Member → partitions it has now, none while the group settles who has what; named by replica where it is one.

    Raises `Unavailable`.
    """
    found = {}
    for member in group_of(admin, group).members:
        assignment = member["member_assignment"]
        assigned = assignment.get("assigned_partitions") if isinstance(assignment, dict) else None
        partitions = [
            Partition(str(one["topic"]), int(number))
            for one in assigned or ()
            for number in one["partitions"]
        ]
        found[str(member["group_instance_id"] or member["member_id"])] = sorted(partitions)
    return found


def positions_of(
    config: KafkaConfig, name: str, group: str, partitions: Iterable[Partition]
) -> dict[Partition, Committed]:
    """Positions that a group has committed, by partition. Raises `Unavailable`."""
    wanted = {group: [tuple(one) for one in partitions]}
    found = asked(config, name, lambda admin: admin.list_group_offsets(wanted))[group]
    return {
        Partition(at.topic, at.partition): Committed.told(one.offset, one.metadata)
        for at, one in found.items()
    }
