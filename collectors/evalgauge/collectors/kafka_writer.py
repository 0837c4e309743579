"""Writes the transactions of one replica: each after the one before is over, and none of them twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from evalgauge.collectors.kafka_admin import positions_of
from evalgauge.collectors.kafka_client import Fenced, Partition, Unavailable
from evalgauge.collectors.kafka_hanging import Endings
from evalgauge.core.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from evalgauge.collectors.kafka_client import Committed, Record, Transactions
    from evalgauge.collectors.kafka_config import KafkaConfig
    from evalgauge.collectors.kafka_membership import Membership


class _Last(NamedTuple):
    """A transaction that was written."""

    partitions: set[Partition]
    """In which it has records."""
    committed: bool | None
    """None where that is not known."""


class Writer:
    """Belongs to one thread."""

    def __init__(
        self, config: KafkaConfig, make: Callable[[str], Transactions], name: str, replica: str
    ) -> None:
        """`make` raises `Unavailable`. Connects to nothing yet."""
        assert config.group is not None  # noqa: S101 - for the type checker: there are none without a group
        self._config, self._group, self._name = config, config.group, name
        self._make, self._replica = make, replica
        self._transactions: Transactions | None = None
        self._endings = Endings(config, name)
        self._last: _Last | None = None
        """The last transaction, until it was seen to be over."""
        self._doubtful: dict[Partition, Committed] = {}
        """Positions of a transaction of which it is not known whether it was committed."""
        self.places: dict[Partition, Committed] = {}
        """Partition → what the group holds of it, as far as we know."""

    def adopted(self, partition: Partition, committed: Committed | None) -> None:
        """We begin to read a partition from there."""
        self.places.pop(partition, None)
        if committed is not None:
            self.places[partition] = committed

    def write(
        self,
        records: Callable[[], Iterable[Record]],
        offsets: dict[Partition, Committed],
        membership: Membership,
    ) -> None:
        """Write all of it or nothing. Raises `StoreUnavailableError`, and `FencedError` as `Membership.standing` does.

        Where it raised, the next to be written is the same.
        """
        try:
            self._settle()
            if not self._landed(offsets, membership):
                self._write(records, offsets, membership)
        except (Fenced, Unavailable) as error:
            raise StoreUnavailableError(str(error)) from error
        self.places |= offsets

    def _settle(self) -> None:
        """See to it that the last transaction is over in each partition of it.

        Else what is written next would become a part of it where it is not.
        """
        last, transactions = self._last, self._transactions
        if last is None or transactions is None:
            return
        if last.committed is None:
            # Kept, because whoever begins anew makes the coordinator forget it.
            self._last = last = last._replace(committed=self._endings.committed(transactions.id))
        if last.committed is not True:
            transactions.begin()
        self._endings.confirm(transactions.id, last.partitions, committed=last.committed)
        self._last = None

    def _landed(self, offsets: dict[Partition, Committed], membership: Membership) -> bool:
        """Whether the transaction before, of the same, was committed after all: dead letters would be there twice."""
        if self._doubtful != offsets:
            self._doubtful = {}
            return False
        found = positions_of(self._config, self._name, self._group.id, offsets)
        # Still ours, so that nobody else can have committed the same.
        membership.standing(offsets)
        self._doubtful = {}
        return found == offsets

    def _write(
        self,
        records: Callable[[], Iterable[Record]],
        offsets: dict[Partition, Committed],
        membership: Membership,
    ) -> None:
        if self._transactions is None:
            self._transactions = self._make(self._replica)
        try:
            try:
                self._transact(self._transactions, records(), offsets, membership)
            except Fenced:
                # Every rebalance makes a generation stale, those too that leave us what is ours: only the membership
                # knows, and what is still ours is written with what the group knows us by now.
                self._settle()
                self._transact(self._transactions, records(), offsets, membership)
        except Fenced:
            raise  # none of it was written
        except BaseException:
            # Whatever it was, it goes on to the caller, and the commit may have been asked for before.
            if any(self.places.get(partition) != one for partition, one in offsets.items()):
                self._doubtful = offsets
            raise

    def _transact(
        self,
        transactions: Transactions,
        records: Iterable[Record],
        offsets: dict[Partition, Committed],
        membership: Membership,
    ) -> None:
        standing = membership.standing(offsets)
        written: set[Partition] = set()

        def noted() -> Iterator[Record]:
            for record in records:
                written.add(Partition(record.topic, record.partition))
                yield record

        outcome: bool | None = None
        try:
            transactions.write(noted(), offsets, standing)
            outcome = True
        except Fenced:
            outcome = False  # its commit was never asked for
            raise
        finally:
            self._last = _Last(written, outcome)

    def close(self) -> None:
        """Let go of all connections; what is written next is by another producer."""
        if self._transactions is not None:
            self._transactions.close()
            self._transactions = None
        self._endings.close()
        self._last = None
        self._doubtful = {}
