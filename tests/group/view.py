"""A group as the broker sees it: members, positions, and how far there is to go."""

from __future__ import annotations

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient


class View:
    """Looks at one group and its topic, over connections of its own; belongs to one thread."""

    def __init__(self, bootstrap: str, group: str, topic: str) -> None:
        self._id = group
        self._topic = topic
        brokers: dict[str, str | int | float | bool] = {"bootstrap.servers": bootstrap, "log_level": 0}
        self._admin = AdminClient(brokers)
        # It never joins, and may ask for positions all the same: those that no transaction can change any more.
        alone: dict[str, str | int | float | bool] = {
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": "read_uncommitted",
        }
        self._consumer = Consumer(brokers | alone)

    def members(self) -> set[str]:
        """Names of the members that the group has by now."""
        described = self._admin.describe_consumer_groups([self._id], request_timeout=30)[self._id].result(60)
        return {str(member.group_instance_id) for member in described.members}

    def ends(self) -> dict[int, int]:
        """Partition → offset after its last record, by now."""
        return {
            one.partition: self._consumer.get_watermark_offsets(one, timeout=60)[1]
            for one in self._partitions()
        }

    def committed(self) -> dict[int, int]:
        """Partition → offset that the group has committed; empty while its coordinator does not answer."""
        try:
            found = self._consumer.committed(self._partitions(), timeout=30)
        except KafkaException:
            return {}
        return {one.partition: one.offset for one in found if one.error is None and one.offset >= 0}

    def _partitions(self) -> list[TopicPartition]:
        there = self._consumer.list_topics(self._topic, timeout=30).topics[self._topic].partitions
        return [TopicPartition(self._topic, number) for number in there]

    def close(self) -> None:
        """Let go of its connections."""
        self._consumer.close()
