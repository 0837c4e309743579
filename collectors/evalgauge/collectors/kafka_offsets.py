"""Where in the log of a partition reading begins, and what has become of the log since it was last seen."""

from __future__ import annotations

import logging
import math
import time
from datetime import datetime
from typing import TYPE_CHECKING

from evalgauge.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from evalgauge.collectors.kafka_client import Partition, Topic
    from evalgauge.collectors.kafka_config import KafkaConfig
    from evalgauge.collectors.kafka_place import Place
    from evalgauge.collectors.kafka_watch import View
    from evalgauge.core.collect import InputContext

_log = logging.getLogger(__name__)

_NOTES = 3
_LASTING = 30.0
"""Seconds for which a log must be shorter than it was before that is called a loss.

A new leader tells what it knows all copies to have, which may be less than readers were told before, until the others
have asked it for more or are given up.
"""


class Offsets:
    """Belongs to the input's thread. Records that are gone are counted as lost events."""

    def __init__(self, config: KafkaConfig, context: InputContext) -> None:
        self._config = config
        self._context = context
        self.original: set[Partition] | None = None
        """Partitions of the first look: the configured start is theirs, others begin at their first record."""
        self._ends: dict[tuple[Partition, str], int] = {}
        """Where the log of a partition (of the topic of this id) ended when that was last seen."""
        self._shorter: dict[tuple[Partition, str], float] = {}
        """Since when it ends before that, by the monotonic clock; infinite where it does not."""
        self._explained: dict[Partition, str] = {}

    def start(self, partition: Partition, low: int, high: int, view: View, *, added: bool | None) -> int:
        """Where a partition begins that has no position; `added` as the group says, which knows more than we.

        Raises `ConfigError` for an offset past the end.
        """
        start = self._config.start
        if added is None:
            added = (
                self.original is None
                or partition not in self.original
                or self._topic_is_known(partition.topic)
            )
        if added:
            return low
        if self._context.start_at_end or start == "latest":
            return high
        if isinstance(start, datetime):
            return view.starts.get(partition, high)
        if not isinstance(start, dict):
            return low
        offset = start.get(str(partition), low)
        if offset > high:
            raise ConfigError(
                f"input `{self._context.name}`: `start` begins {partition} at offset {offset}, but it ends at {high}"
            )
        if offset < low:
            self._explain(
                partition, f"{partition}: `start` is offset {offset}, but the first that is left is {low}"
            )
        return max(offset, low)

    def _topic_is_known(self, topic: str) -> bool:
        """Another partition of it has a position, so this one was added since."""
        return any(name.rpartition("/")[0] == topic for name in self._context.positions)

    def resume(self, partition: Partition, topic: Topic, place: Place, low: int, high: int) -> int:
        """The offset to go on from, which is the position's unless the log has changed under us."""
        offset = place.offset
        if is_another(place, topic) or (offset > high and not (topic.id and place.topic_id)):
            self._explain(
                partition,
                f"{partition}: the topic was deleted and made again; the new one is read from its first record, "
                f"offset {low} (the old one had been read to {offset})",
            )
            return low
        if offset > high:
            self._explain(
                partition,
                f"{partition}: the brokers have lost records that were read already: read to offset {offset}, but the "
                f"log ends at {high}; going on there. Unclean leader election does this",
            )
            return high
        if offset < low:
            self._explain(
                partition,
                f"{partition}: retention deleted records before they were read: up to {low - offset} events, offsets "
                f"{offset} to {low - 1}, are lost to every metric; going on at {low}",
            )
            self._context.status.lost_events += low - offset
            return low
        return offset

    def see_ends(self, view: View, positions: Mapping[Partition, int]) -> None:
        """Notice logs that have become shorter, and what of them had not been read up to these positions.

        Of partitions without a position nothing is said: another replica reads them.
        """
        now = time.monotonic()
        # Without ids of topics a broker cannot tell a shorter log from a topic that was made again.
        logs = {
            partition: (partition, topic.id)
            for partition in view.ends
            if (topic := view.topics.get(partition.topic)) is not None and topic.id
        }
        self._ends = {log: self._ends.get(log, 0) for log in logs.values()}
        self._shorter = {log: self._shorter.get(log, math.inf) for log in logs.values()}
        for partition, log in logs.items():
            before, end, position = self._ends[log], view.ends[partition], positions.get(partition)
            if position is None:
                # Not read yet, or again: one that was cut off is assigned anew.
                self._ends[log] = max(before, end)
                continue
            first = max(end, position)
            if end < before:
                self._shorter[log] = min(self._shorter[log], now)
                if now - self._shorter[log] < _LASTING:
                    continue
            self._ends[log], self._shorter[log] = end, math.inf
            if first < before:
                self._explain(
                    partition,
                    f"{partition}: the brokers have lost records that were not read yet: up to {before - first} "
                    f"events, offsets {first} to {before - 1}, are lost to every metric. Unclean leader election "
                    f"does this",
                )
                self._context.status.lost_events += before - first

    def _explain(self, partition: Partition, text: str) -> None:
        _log.error("input %s: %s", self._context.name, text)
        self._explained[partition] = f"{text} ({time.strftime('%FT%TZ', time.gmtime())})"

    def told(self) -> Iterator[str]:
        """What happened to the logs in this process's life, newest last."""
        yield from list(self._explained.values())[-_NOTES:]
        if len(self._explained) > _NOTES:
            yield f"and {len(self._explained) - _NOTES} more partitions: see the log"


def is_another(place: Place, topic: Topic) -> bool:
    """The topic is not the one the place was in: it has the name, but another id."""
    return bool(place.topic_id and topic.id and place.topic_id != topic.id)
