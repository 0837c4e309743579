"""What a group has begun to read: marks in its changelog, each written with the first position of a partition.

Brokers delete the positions of a group that has had no members for long, people delete them by mistake. The counts are
still there then, and to begin such a partition anew would count it twice; the mark tells it from one that is new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from evalgauge.collectors.kafka_changelog import Owner, key_of
from evalgauge.collectors.kafka_client import Record
from evalgauge.core.errors import StateError

if TYPE_CHECKING:
    from evalgauge.collectors.kafka_changelog import Reading
    from evalgauge.collectors.kafka_client import Partition, Topic

BEGUN = Owner("group", "begun")


class _Mark(msgspec.Struct, frozen=True):
    partitions: int
    """How many the topic had."""


def begun_record(changelog: str, partition: Partition, topic_id: str, partitions: int) -> Record:
    """The mark that a partition is begun, of a topic with so many."""
    key = key_of(BEGUN, _name(partition, topic_id))
    return Record(changelog, BEGUN.slot, key, msgspec.json.encode(_Mark(partitions)))


class Begun:
    """What a reading of `BEGUN` says."""

    def __init__(self, reading: Reading) -> None:
        """Raises `StateError` for a mark that cannot be read."""
        self._marks: dict[str, int] = {}
        try:
            for (name,), value in reading.records_of(BEGUN).items():
                self._marks[str(name)] = msgspec.json.decode(value, type=_Mark).partitions
        except (msgspec.DecodeError, ValueError) as error:
            raise StateError(
                f"the changelog holds a mark of a partition that cannot be read: {error}"
            ) from error

    def has(self, partition: Partition, topic: Topic) -> bool:
        """Whether a partition was begun; False where the brokers have no ids to tell a topic from an older one."""
        return bool(topic.id) and _name(partition, topic.id) in self._marks

    @staticmethod
    def lost(partition: Partition, group: str) -> StateError:
        """A partition was begun, and the group has no position of it."""
        return StateError(
            f"group {group} has no position of {partition}, though its changelog holds what was counted of it: "
            "brokers delete positions of a group that is away for longer than offsets.retention.minutes. To begin "
            "anew would count twice. With all replicas stopped, and their sessions over, set the position after the "
            "last record that was counted (kafka-consumer-groups.sh --reset-offsets), or begin with another group "
            "and changelog"
        )

    def added(self, partition: Partition, topic: Topic) -> bool | None:
        """Whether the partition, or its topic, came after the group had begun; None where it had not."""
        known = {name: count for name, count in self._marks.items() if _topic(name) == partition.topic}
        same = [count for name, count in known.items() if name.endswith(f"@{topic.id}")]
        if same:
            return partition.number >= min(same)
        return True if known else None


def _name(partition: Partition, topic_id: str) -> str:
    return f"{partition}@{topic_id}"


def _topic(name: str) -> str:
    return name.rpartition("@")[0].rpartition("/")[0]
