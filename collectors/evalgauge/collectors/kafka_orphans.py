"""Ends transactions that members of a group left open when they were killed.

Until such a transaction ends nobody is told the positions it may have changed, and nobody reads past what it wrote.
The brokers end it when its time-out is over, and look for that once in ten seconds only; whoever waits for it need
not. To take over its transactional id aborts it at once. Should its process be alive after all, nothing wrong comes of
it: its transaction fails and is written again.
"""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Any

from evalgauge.collectors.kafka_admin import asked, group_of
from evalgauge.collectors.kafka_client import Unavailable
from evalgauge.collectors.kafka_hanging import end_hanging

if TYPE_CHECKING:
    from evalgauge.collectors.kafka_config import KafkaConfig

_log = logging.getLogger(__name__)
_PAUSE = 2.0
"""Seconds between two looks."""
_PATIENCE_MS = 5000
_ANSWER = 30.0
"""Seconds that all of a look may take."""
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def transactional_id(group: str, replica: str, life: str) -> str:
    """The id of the transactions of one process life, a UUID.

    Neither names of groups nor of replicas have a slash: no other group's id looks like one of ours.
    """
    return f"{group}/{replica}/{life}"


def transactional_ids(group: str, replica: str | None = None) -> re.Pattern[str]:
    """What ids of a group look like, of one replica or of any; its group 1 is the replica's name."""
    return re.compile(f"{re.escape(group)}/({'.+' if replica is None else re.escape(replica)})/{_UUID}")


class Orphans:
    """Looks for them, now and then. Belongs to one thread at a time."""

    def __init__(self, config: KafkaConfig, name: str, replica: str) -> None:
        assert config.group is not None  # noqa: S101 - for the type checker: there are none without a group
        self._config, self._group, self._name, self._replica = config, config.group, name, replica
        self._pattern = transactional_ids(self._group.id)
        self._looked = -_PAUSE

    def settle(self, *, own: bool = False) -> int:
        """End what is open of replicas that are no members; with `own`, of earlier lives of ours. How many.

        And what brokers have left open by mistake, whoever wrote it.

        Does nothing if it was called a moment ago, and nothing where the brokers do not answer or do not let us: then
        they end it themselves, later.
        """
        if time.monotonic() - self._looked < _PAUSE:
            return 0
        try:
            return asked(self._config, self._name, lambda admin: self._settle(admin, own=own), _ANSWER)
        except Unavailable as error:
            _log.info("input %s: open transactions of the group cannot be looked at: %s", self._name, error)
            return 0
        finally:
            self._looked = time.monotonic()

    def _settle(self, admin: Any, *, own: bool) -> int:
        live = self._members(admin)
        live = live - {self._replica} if own else live | {self._replica}
        listed = admin.list_transactions(state_filters=["Ongoing"])
        found = [
            one.transactional_id
            for of_broker in listed.values()
            for one in of_broker
            if (owner := self._owner(one.transactional_id)) is not None and owner not in live
        ]
        try:
            for one in found:
                self._end(one)
                _log.info(
                    "input %s: ended the transaction that %s had left open", self._name, self._owner(one)
                )
        finally:
            hanging = end_hanging(admin, self._group, self._name, self._owner, live | {self._replica})
        return len(found) + hanging

    def _end(self, transactional: str) -> None:
        import kafka  # noqa: PLC0415 - an extra, which is there by now

        from evalgauge.collectors.kafka_pure import connected, connection_options  # noqa: PLC0415

        options = connection_options(self._config, self._name)
        ours = {"transactional_id": transactional, "max_block_ms": _PATIENCE_MS, "metrics_enabled": False}
        producer = connected(kafka.KafkaProducer, options | ours)
        try:
            producer.init_transactions()
        finally:
            producer.close(timeout=1)

    def _owner(self, transactional: str) -> str | None:
        """The replica whose transaction it is; None if it is not of this group."""
        match = self._pattern.fullmatch(transactional)
        return None if match is None else match[1]

    def _members(self, admin: Any) -> set[str]:
        """Replicas that the group has as members."""
        members = group_of(admin, self._group.id).members
        return {one["group_instance_id"] for one in members if one.get("group_instance_id")}
