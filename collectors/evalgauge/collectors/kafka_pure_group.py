"""A group's member and its transactions by kafka-python; see `kafka_client.Member` and `kafka_client.Transactions`."""

from __future__ import annotations

import contextlib
import queue
import time
import uuid
import warnings
from typing import TYPE_CHECKING, Any

from evalgauge.collectors.kafka_client import (
    Committed,
    GroupTopics,
    Partition,
    Unavailable,
    no_member,
    refused,
    taken_over,
    too_large,
    unstable,
)
from evalgauge.collectors.kafka_orphans import transactional_id
from evalgauge.core.errors import EvalgaugeError

with warnings.catch_warnings():
    # It reads its own schemas in a way that Python 3.11 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import TopicPartition, errors
    from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener, SubscriptionState
    from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
    from kafka.coordinator.assignors.range import RangePartitionAssignor
    from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
    from kafka.coordinator.consumer import ConsumerCoordinator
    from kafka.net.wakeup_notifier import WakeupNotifier
    from kafka.structs import MemberState, OffsetAndMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from evalgauge.collectors.kafka_client import Ownership, Record
    from evalgauge.collectors.kafka_config import KafkaConfig, KafkaGroup

_TURN = 0.05
"""Seconds between two looks at whether the group must be joined again."""
_PATIENCE = 10.0
"""Seconds within which brokers must answer; a transaction has longer where its time-out is longer."""
_CLOSE = 1.0
_MAX_REQUEST = 64 << 20
"""Bytes, far more than any topic takes: how large a record may be is for the topic to say."""
_BATCH = 256 << 10
_TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
_STALE = (errors.CommitFailedError, errors.FencedInstanceIdError)
"""What the group says to the positions of one that is not, or no longer, the member it takes itself for."""


def running_client(*, kafka_client: Callable[..., Any], bootstrap_timeout_ms: int, **options: Any) -> Any:
    """What all objects of kafka-python are made of, with its loop in a thread of its own. Raises `KafkaError`."""
    client = kafka_client(**options)
    client._net.start()  # noqa: SLF001 - as KafkaConsumer does it
    client._manager.bootstrap(bootstrap_timeout_ms)  # noqa: SLF001
    return client


class _Coordinator(ConsumerCoordinator):  # type: ignore[misc]  # kafka-python has no types
    """kafka-python's part in a group, with what it lacks for a static member. All but `__init__` runs in its loop."""

    fenced = False
    _seen: Any = None
    """Topics and their partitions as they were at the last join."""

    async def take_part(self, seconds: float) -> None:
        """Find the group, join it as often as need be, and stay until time is up. Raises `KafkaError`."""
        end = time.monotonic() + seconds
        while True:
            left = int(max(end - time.monotonic(), 0) * 1000)
            if not await self.ensure_coordinator_ready_async(timeout_ms=left):
                return
            if self.need_rejoin() and not await self.ensure_active_group_async(timeout_ms=left):
                return
            self.poll_heartbeat()
            left_seconds = end - time.monotonic()
            if left_seconds <= 0:
                return
            await self._net.sleep(min(left_seconds, _TURN))

    async def positions(self, partitions: Sequence[Any], seconds: float) -> Any:
        """Ask once for committed positions; the library's own way asks again and again without saying why."""
        if not await self.ensure_coordinator_ready_async(timeout_ms=int(seconds * 1000)):
            raise errors.KafkaTimeoutError("the group's coordinator was not found")
        return await self._send_offset_fetch_request(partitions)

    def need_rejoin(self) -> bool:
        # Only a leader looks for new partitions, but a static one that was restarted is not told that it still leads.
        # For any other member joining again changes nothing.
        unwatched = self._assignment_snapshot is None and self._seen != self._metadata_snapshot
        return bool(super().need_rejoin()) or unwatched

    async def _do_join_and_sync_async(self) -> Any:
        self._seen = self._metadata_snapshot
        return await super()._do_join_and_sync_async()

    def reset_generation(self, *args: Any, **kwargs: Any) -> None:
        super().reset_generation(*args, **kwargs)
        # One that is expelled while it joins would otherwise join anew and be left with what it had, as if nobody
        # could have had it in between.
        self.rejoining = False
        # Nor may it tell the group that it owns what may be another's by now: the leader would believe it at once.
        for assignor in self._assignors.values():
            assignor.member_assignment = None

    def _handle_heartbeat_response(self, response: Any, *args: Any) -> Any:
        # It stops its heartbeats then, and tells its log alone.
        if response.error_code == errors.FencedInstanceIdError.errno:
            self.fenced = True
        return super()._handle_heartbeat_response(response, *args)


class PureMember:
    """Takes part in a group by the coordinator of a KafkaConsumer alone: without the rest there is nothing to read.

    It lives in a loop of its own, where a callback that waits would stop heartbeats; so the loop hands callbacks to
    the thread in `poll`, and goes on.
    """

    def __init__(self, client: Any, config: KafkaConfig, ownership: Ownership, replica: str) -> None:
        """Begin in the first `poll`; `client` is a KafkaNetClient whose loop runs."""
        group = config.group
        assert group is not None  # noqa: S101 - for the type checker; only a group has members
        self._group, self._replica, self.ownership = group, replica, ownership
        self._client, self._net = client, client._net  # noqa: SLF001 - the loop is nowhere else
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._raised: BaseException | None = None
        self._owned: set[Partition] = set()
        self._trouble = ""
        subscription = SubscriptionState("none")
        if config.topics is not None:
            subscription.subscribe(topics=config.topics, listener=_Listener(self))
            client.cluster.set_topics(config.topics)
        else:
            subscription.subscribe(pattern=".*", listener=_Listener(self))
            subscription.subscribed_pattern = GroupTopics(config.topic_pattern or "", group)
            client.cluster.need_all_topic_metadata = True
        eager = (RangePartitionAssignor, RoundRobinPartitionAssignor)
        self._coordinator = _Coordinator(
            client,
            subscription,
            group_id=group.id,
            group_instance_id=replica,
            assignors=(CooperativeStickyAssignor,) if group.assignment == "cooperative" else eager,
            session_timeout_ms=int(group.session_timeout * 1000),
            heartbeat_interval_ms=int(min(group.session_timeout / 4, 3) * 1000),
            # Longer than any callback: a member that does not come back from one for so long is given up.
            max_poll_interval_ms=int((2 * group.drain_timeout + 30) * 1000),
            retry_backoff_ms=100,
            request_timeout_ms=client._manager.config["request_timeout_ms"],  # noqa: SLF001
            api_version=client._manager.broker_version,  # noqa: SLF001
            enable_auto_commit=False,
            # Positions of a transaction that may still be aborted are not given, but refused.
            isolation_level="read_committed",
        )

    def poll(self, timeout: float) -> None:
        """Take part in the group, and call back."""
        if self._coordinator.fenced:
            raise taken_over(self._replica, self._group.id)
        started = time.monotonic()
        done = self._net.call_soon_with_future(self._coordinator.take_part, timeout)
        done.add_both(lambda _: self._calls.put(None))
        while (call := self._calls.get()) is not None:
            call()
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised
        if self._coordinator.fenced or isinstance(done.exception, errors.FencedInstanceIdError):
            self._coordinator.fenced = True
            raise taken_over(self._replica, self._group.id)
        if done.exception is None:
            self._trouble = ""
            return
        if not isinstance(done.exception, (errors.KafkaError, OSError)):
            raise done.exception
        self._trouble = _why(done.exception)
        time.sleep(max(timeout - (time.monotonic() - started), 0))

    async def tell(self, what: Callable[[Sequence[Partition]], None], partitions: Iterable[Any]) -> None:
        """Have the thread in `poll` call `what`, and let the loop go on until it has."""
        done = WakeupNotifier(self._net)
        named = {Partition(*tp) for tp in partitions}
        new = what == self.ownership.assigned
        told = sorted(named - self._owned if new else named & self._owned)

        def call() -> None:
            try:
                what(told)
            except BaseException as error:  # noqa: BLE001 - `poll` raises it
                self._raised = error
            finally:
                done.notify()

        if told:
            self._calls.put(call)
            await done()
            self._owned = self._owned | set(told) if new else self._owned - set(told)

    def metadata(self) -> Any:
        """What the group knows us by."""
        found = self._coordinator.group_metadata()
        if self._coordinator.fenced:
            raise taken_over(self._replica, self._group.id)
        if found.generation_id < 0 or not found.member_id:
            raise no_member(self._replica, self._group.id)
        return found

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, Committed | None]:
        """Stable positions."""
        if not partitions:
            return {}
        wanted = [TopicPartition(*one) for one in partitions]
        try:
            found = self._net.run(self._coordinator.positions, wanted, _PATIENCE)
        except errors.UnstableOffsetCommitError as error:
            raise unstable(self._group.id) from error
        except (errors.KafkaError, OSError) as error:
            raise Unavailable(f"positions of group `{self._group.id}`: {_why(error)}") from error
        return {
            one: Committed(found[tp].offset, found[tp].metadata or "") if tp in found else None
            for one, tp in zip(partitions, wanted, strict=True)
        }

    def trouble(self) -> str:
        """What keeps us from being a member."""
        if self._coordinator.state is MemberState.STABLE:
            return ""
        return f"group `{self._group.id}`: {self._trouble or 'waiting for its members to join'}"

    def close(self) -> None:
        """Let go of the connections."""
        self._coordinator._close_heartbeat()  # noqa: SLF001 - all the rest of `close` tells the group
        self._client.close()


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    def __init__(self, member: PureMember) -> None:
        self._member = member

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        await self._member.tell(self._member.ownership.assigned, assigned)

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        await self._member.tell(self._member.ownership.revoked, revoked)

    async def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        await self._member.tell(self._member.ownership.lost, lost)


class PureTransactions:
    """Writes by a KafkaProducer, whose blocking calls are taken apart: they have no time-out."""

    def __init__(self, make: Callable[[dict[str, Any]], Any], group: KafkaGroup, replica: str) -> None:
        """`make` connects a producer of these options; it raises `Unavailable`."""
        self._make, self._group, self._replica = make, group, replica
        self._patience = max(_PATIENCE, group.transaction_timeout)
        self._options = {
            "transactional_id": transactional_id(group.id, replica, str(uuid.uuid4())),
            "transaction_timeout_ms": int(group.transaction_timeout * 1000),
            # The producer sleeps that long between each two requests of a transaction; by default 100 ms.
            "retry_backoff_ms": 1,
            "delivery_timeout_ms": int(self._patience * 1000),
            "max_block_ms": int(self._patience * 1000),
            "max_request_size": _MAX_REQUEST,
            "batch_size": _BATCH,
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
        }
        self._producer: Any = None

    def write(self, records: Iterable[Record], offsets: Mapping[Partition, Committed], metadata: Any) -> None:
        """One transaction."""
        if not offsets:
            raise ValueError("a transaction without an offset fences nobody")
        if self._producer is None:
            self._producer = self._connected()
        end = time.monotonic() + self._patience
        try:
            self._transact(records, offsets, metadata, end)
        except _STALE as error:
            self._abort()
            raise refused(self._replica, self._group.id, _why(error)) from error
        except (errors.KafkaError, OSError, ValueError) as error:
            self._discard()
            raise Unavailable(f"a transaction of group `{self._group.id}` failed: {_why(error)}") from error
        except EvalgaugeError:
            self._abort()
            raise
        except BaseException:
            self._discard()
            raise

    def _transact(
        self, records: Iterable[Record], offsets: Mapping[Partition, Committed], metadata: Any, end: float
    ) -> None:
        self._manager.begin_transaction()
        sent = [(self._sent(record), record) for record in records]
        positions = {
            TopicPartition(*at): OffsetAndMetadata(one.offset, one.metadata, -1)
            for at, one in offsets.items()
        }
        self._wait(self._manager.send_offsets_to_transaction(positions, metadata), end)
        # Every record must be there before the commit is asked for: a producer that mends its own epoch while it
        # commits would call committed what the broker has aborted.
        for future, record in sent:
            try:
                future.get(timeout=max(end - time.monotonic(), 0))
            except _TOO_LARGE as error:
                raise too_large(record) from error
        self._wait(self._manager.begin_commit(), end)

    @property
    def _manager(self) -> Any:
        return self._producer._transaction_manager  # noqa: SLF001 - see the class

    def _sent(self, record: Record) -> Any:
        try:
            return self._producer.send(
                record.topic, record.value, record.key, list(record.headers), record.partition
            )
        except _TOO_LARGE as error:
            raise too_large(record) from error

    def _wait(self, result: Any, end: float) -> None:
        """Until the broker has answered a step. Raises what it said, or KafkaTimeoutError."""
        self._producer._sender.wakeup()  # noqa: SLF001
        if not result.wait(timeout_ms=max(end - time.monotonic(), 0) * 1000):
            raise errors.KafkaTimeoutError(f"the brokers did not answer within {self._patience:g} s")

    def _abort(self) -> None:
        try:
            self._wait(self._manager.begin_abort(), time.monotonic() + _CLOSE)
        except errors.KafkaError:
            self._discard()

    def _connected(self) -> Any:
        producer = self._make(self._options)
        try:
            producer.init_transactions()
        except errors.KafkaError as error:
            _end(producer)
            raise Unavailable(
                f"transactions of group `{self._group.id}` cannot begin: {_why(error)}"
            ) from error
        return producer

    def _discard(self) -> None:
        producer, self._producer = self._producer, None
        _end(producer)

    def close(self) -> None:
        """Let go of the connections."""
        if self._producer is not None:
            self._discard()


def _end(producer: Any) -> None:
    """Stop it at once. One that is fenced and goes on would knock out its successor."""
    producer._sender.force_close()  # noqa: SLF001 - its own `close` sends first what it holds
    producer._sender.join(_CLOSE)  # noqa: SLF001
    with contextlib.suppress(errors.KafkaError):
        producer.close(timeout=0)


def _why(error: BaseException) -> str:
    name = type(error).__name__.removesuffix("Error")
    text = str(error).strip()
    return text if name in text else f"{name}: {text}" if text else name
