"""A group's member by kafka-python; see `kafka_client.Member`."""

from __future__ import annotations

import queue
import time
import warnings
from typing import TYPE_CHECKING, Any

from evalgauge.collectors.kafka_client import (
    Committed,
    Partition,
    Standing,
    TopicPattern,
    Unavailable,
    no_member,
    taken_over,
    unstable,
)

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
    from kafka.structs import MemberState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from evalgauge.collectors.kafka_client import Ownership
    from evalgauge.collectors.kafka_config import KafkaConfig
    from evalgauge.collectors.kafka_name import ReplicaName

_TURN = 0.05
"""Seconds between two looks at whether the group must be joined again."""
_ANSWER = 1.0
"""Seconds until a question that was not answered is asked again."""
_POSITIONS = 3.0
"""Seconds; longer waits are only for transactions to end, which may take minutes."""


def running_client(*, kafka_client: Callable[..., Any], bootstrap_timeout_ms: int, **options: Any) -> Any:
    """What all objects of kafka-python are made of, with its loop in a thread of its own. Raises `KafkaError`."""
    client = kafka_client(**options)
    client._net.start()  # noqa: SLF001 - as KafkaConsumer does it
    client._manager.bootstrap(bootstrap_timeout_ms)  # noqa: SLF001
    return client


class _Coordinator(ConsumerCoordinator):  # type: ignore[misc]  # kafka-python has no types
    """kafka-python's part in a group, with what it lacks for a static member. All but `__init__` runs in its loop."""

    fenced = False
    """The brokers said that another process has our name."""
    trouble = ""
    _seen: Any = None
    """Topics and their partitions as they were at the last join."""

    async def take_part(self) -> None:
        """Find the group, and join it as often as need be, until another process is said to have our name."""
        while not self.fenced:
            try:
                if not await self.ensure_coordinator_ready_async(timeout_ms=int(_ANSWER * 1000)):
                    self.trouble = "the brokers do not say who coordinates it"
                elif self.need_rejoin():
                    # A leader that does not know its topics yet would give out nothing, and rebalance again.
                    await self._manager.wait_for(self._cluster.request_update(), int(_ANSWER * 1000))
                    await self.ensure_active_group_async()
                else:
                    self.trouble = ""
                    self._maybe_start_heartbeat_loop()
            except errors.FencedInstanceIdError:
                self.fenced = True
            except (errors.KafkaError, OSError) as error:
                self.trouble = _why(error)
                await self._net.sleep(_ANSWER)
            await self._net.sleep(_TURN)

    async def positions(self, partitions: Sequence[Any], seconds: float) -> Any:
        """Committed positions, as soon as no transaction is about to change them; else `UnstableOffsetCommitError`.

        The library's own way asks on in the same manner, but does not say why it has no answer.
        """
        end = time.monotonic() + seconds
        while True:
            if not await self.ensure_coordinator_ready_async(timeout_ms=int(seconds * 1000)):
                raise errors.KafkaTimeoutError("the brokers do not say who coordinates it")
            try:
                return await self._send_offset_fetch_request(partitions)
            except errors.UnstableOffsetCommitError:
                if time.monotonic() > end:
                    raise
            await self._net.sleep(_TURN)

    async def forget(self) -> None:
        """Who we were in the group, and that another was said to have our name; `take_part` has ended."""
        self.fenced = False
        self.reset_generation()

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

    def __init__(self, client: Any, config: KafkaConfig, ownership: Ownership, name: ReplicaName) -> None:
        """Begin in the first `poll`; `client` is a KafkaNetClient whose loop runs."""
        group = config.group
        assert group is not None  # noqa: S101 - for the type checker; only a group has members
        self._group, self._name, self.ownership = group, name, ownership
        self._client, self._net = client, client._net  # noqa: SLF001 - the loop is nowhere else
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._takes_part = False
        """False until the name is known to be ours, at first and again."""
        self._part: Any = None
        self._raised: BaseException | None = None
        self._owned: set[Partition] = set()
        subscription = SubscriptionState("none")
        if config.topics is not None:
            subscription.subscribe(topics=config.topics, listener=_Listener(self))
            client.cluster.set_topics(config.topics)
        else:
            subscription.subscribe(pattern=".*", listener=_Listener(self))
            subscription.subscribed_pattern = TopicPattern(config.topic_pattern or "", group)
            client.cluster.need_all_topic_metadata = True
        eager = (RangePartitionAssignor, RoundRobinPartitionAssignor)
        self._coordinator = _Coordinator(
            client,
            subscription,
            group_id=group.id,
            group_instance_id=name.replica,
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
        end = time.monotonic() + timeout
        self._see_to_name()
        while True:
            # Otherwise we are taken for stuck, and leave.
            self._coordinator.heartbeat.poll()
            try:
                call = self._calls.get(timeout=max(end - time.monotonic(), 0))
            except queue.Empty:
                break
            call()
            raised, self._raised = self._raised, None
            if raised is not None:
                raise raised
        if self._part is not None and self._part.exception is not None:
            raise self._part.exception

    def _see_to_name(self) -> None:
        """Join as long as it is ours; once the brokers say that it is another's, find out."""
        if self._takes_part and self._coordinator.fenced:
            self._takes_part = False
            self._name.doubt()
        ended = self._part is None or self._part.is_done
        if not self._takes_part and ended and self._name.is_ours():
            self._takes_part = True
            self._net.run(self._coordinator.forget)
            self._part = self._net.call_soon_with_future(self._coordinator.take_part)
        if self._name.taken:
            raise taken_over(self._name.replica, self._group.id)

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

    def metadata(self) -> Standing:
        """What the group knows us by."""
        found = self._coordinator.group_metadata()
        if self._name.taken:
            raise taken_over(self._name.replica, self._group.id)
        if self._coordinator.fenced or found.generation_id < 0 or not found.member_id:
            raise no_member(self._name.replica, self._group.id)
        return Standing(found.member_id, found)

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, Committed | None]:
        """Stable positions."""
        if not partitions:
            return {}
        wanted = [TopicPartition(*one) for one in partitions]
        try:
            found = self._net.run(self._coordinator.positions, wanted, _POSITIONS)
        except errors.UnstableOffsetCommitError as error:
            raise unstable(self._group.id) from error
        except (errors.KafkaError, OSError) as error:
            raise Unavailable(f"positions of group `{self._group.id}`: {_why(error)}") from error
        return {
            one: Committed.told(found[tp].offset, found[tp].metadata) if tp in found else None
            for one, tp in zip(partitions, wanted, strict=True)
        }

    def trouble(self) -> str:
        """What keeps us from being a member."""
        if self._name.doubted:
            return f"group `{self._group.id}`: {self._name.trouble}"
        if self._coordinator.state is MemberState.STABLE and not self._coordinator.trouble:
            return ""
        return f"group `{self._group.id}`: {self._coordinator.trouble or 'waiting for its members to join'}"

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


def _why(error: BaseException) -> str:
    name = type(error).__name__.removesuffix("Error")
    text = str(error).strip()
    return text if name in text else f"{name}: {text}" if text else name
