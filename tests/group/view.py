"""A group as the broker sees it: members, positions, and how far there is to go."""

from __future__ import annotations

import time
from contextlib import suppress

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.kill.feeders import Feeder

_NEXT_LOOK = 0.2


class View:
    """Looks at one group and its topic, over connections of its own."""

    def __init__(self, bootstrap: str, group: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._id = group
        self._topic = topic
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})

    def members(self) -> set[str]:
        """Names of the members that the group has by now, as the broker sees it."""
        described = self._admin.describe_consumer_groups([self._id], request_timeout=30)[self._id].result(60)
        return {str(member.group_instance_id) for member in described.members}

    def ends(self) -> dict[int, int]:
        """Partition → offset after its last record, by now."""
        consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": "nobody", "log_level": 0})
        try:
            partitions = consumer.list_topics(self._topic, timeout=60).topics[self._topic].partitions
            return {
                number: consumer.get_watermark_offsets(TopicPartition(self._topic, number), timeout=60)[1]
                for number in partitions
            }
        finally:
            consumer.close()

    def committed(self) -> dict[int, int]:
        """Partition → offset that the group has committed; empty while its coordinator does not answer."""
        [asked] = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(self._id)]).values()
        with suppress(KafkaException, TimeoutError):
            return {one.partition: one.offset for one in asked.result(60).topic_partitions}
        return {}


class PositionWatcher(Feeder):
    """Looks at the committed positions of a group again and again, and fails when one ever goes back."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view
        self._last: dict[int, int] = {}

    def step(self) -> None:
        """Look once."""
        for partition, offset in self._view.committed().items():
            before = self._last.get(partition, -1)
            assert offset >= before, (
                f"partition {partition} was committed to {before}, and is to {offset} now"
            )
            self._last[partition] = offset
        time.sleep(_NEXT_LOOK)
