"""Ends transactions that are over, but still open in a partition.

A broker that ends a transaction writes a marker into each partition of it. One that is left out (Kafka 4.3.1 passes
over partitions that have no leader at that moment, as after a restart, and calls the transaction complete) stays open
there for good: nobody reads past it, or is told the positions in it. The coordinator still knows how the transaction
ended, so that the marker can be written after all. To abort what was committed would tear apart what belongs together.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from re import Pattern

    from evalgauge.collectors.kafka_config import KafkaGroup

_log = logging.getLogger(__name__)

_OFFSETS = "__consumer_offsets"


class _Open(NamedTuple):
    """A transaction as the leader of a partition sees it."""

    at: Any
    """Topic and partition, of kafka-python."""
    producer: int
    epoch: int
    first: int
    """Offset of its first record there."""
    coordinator_epoch: int
    """Of the marker before; an older one is refused."""


def end_hanging(admin: Any, group: KafkaGroup, name: str, ids: Pattern[str]) -> int:
    """End them in the topics of a group, and in its positions where their ids match; how many.

    Raises `kafka.errors.KafkaError`, but for leave that the brokers do not give: then the log says so.
    """
    own = _partitions(admin, [group.changelog_topic, group.dead_letter_topic, group.ids_topic])
    ended = _end(admin, name, own, None)
    return ended + _end(admin, name, _partitions(admin, [_OFFSETS]), ids)


def _end(admin: Any, name: str, partitions: list[Any], ids: Pattern[str] | None) -> int:
    from kafka import errors  # noqa: PLC0415 - an extra, which is there by now

    ended = 0
    try:
        for one, committed in _over(admin, partitions, ids):
            _mark(admin, one, committed=committed)
            ended += 1
            _log.warning(
                "input %s: the brokers had left a transaction open in %s/%s since offset %s, though it was %s; ended",
                *(name, one.at.topic, one.at.partition, one.first, "committed" if committed else "aborted"),
            )
    except errors.AuthorizationError as error:
        _log.warning(
            "input %s: transactions that brokers have left open cannot be ended: %s: %s",
            *(name, type(error).__name__, error),
        )
    return ended


def _partitions(admin: Any, topics: list[str]) -> list[Any]:
    """Those that have a leader, of the topics that are there."""
    from kafka import TopicPartition  # noqa: PLC0415 - an extra, which is there by now

    return [
        TopicPartition(topic["name"], partition["partition_index"])
        for topic in admin.describe_topics(topics)
        if not topic["error_code"]
        for partition in topic["partitions"]
        if not partition["error_code"]
    ]


def _over(admin: Any, partitions: list[Any], ids: Pattern[str] | None) -> Iterable[tuple[_Open, bool]]:
    """Transactions that are open though they are over, and whether they were committed.

    What is open at both looks, with the coordinator asked in between, is either under way or was over before the
    second: its markers are all written when its coordinator calls it complete.
    """
    before = _open(admin, partitions)
    if not before:
        return
    producers = sorted({one.producer for one in before})
    listed = {
        one.transactional_id: one.producer_id
        for of_broker in admin.list_transactions(producer_id_filters=producers).values()
        for one in of_broker
        if ids is None or ids.fullmatch(one.transactional_id)
    }
    described = admin.describe_transactions(list(listed)) if listed else {}
    known = {one.producer_id: one for one in described.values()}
    for one in before & _open(admin, partitions):
        found = known.get(one.producer)
        committed = (
            None if found is None else was_committed(one.epoch, found.state.value, found.producer_epoch)
        )
        if committed is not None:
            yield one, committed


def was_committed(epoch: int, state: str, now: int) -> bool | None:
    """How a transaction of an epoch ended whose producer is in this state and epoch now; None where that is unknown.

    A commit keeps the epoch. The coordinator raises it when it aborts a transaction by itself, because its time is
    up or its id is taken over, and once more for whoever takes over the id. An abort that was asked for keeps it too,
    but after that nobody takes over the id.
    """
    if state == "CompleteCommit":
        return True if now == epoch else None
    if state == "CompleteAbort":
        return False if now - epoch in {0, 1} else None
    if state == "Empty" and now > epoch:
        return now == epoch + 1
    return None


def _open(admin: Any, partitions: list[Any]) -> set[_Open]:
    return {
        _Open(
            at,
            one.producer_id,
            one.producer_epoch,
            one.current_transaction_start_offset,
            one.coordinator_epoch,
        )
        for at, state in admin.describe_producers(partitions).items()
        for one in state.active_producers
        if one.current_transaction_start_offset >= 0
    }


def _mark(admin: Any, one: _Open, *, committed: bool) -> None:
    """Write the marker. kafka-python has a call for those of aborted transactions alone."""
    from kafka.admin import AbortTransactionSpec  # noqa: PLC0415 - an extra, which is there by now

    spec = AbortTransactionSpec(one.at, one.producer, one.epoch, one.coordinator_epoch)
    request = admin._abort_transaction_request(spec)  # noqa: SLF001
    request.markers[0].transaction_result = committed

    async def send() -> None:
        [leader] = await admin._async_get_leader_for_partitions([one.at])  # noqa: SLF001
        response = await admin._manager.send(request, node_id=leader)  # noqa: SLF001
        admin._abort_transaction_process_response(response, spec)  # noqa: SLF001

    admin._manager.run(send)  # noqa: SLF001
