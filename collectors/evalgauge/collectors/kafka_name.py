"""Whose a replica's name in its group is: of two processes that bear it the brokers know the younger alone.

A client may take its name from itself. librdkafka gives its membership up when its coordinator was away for longer than
the session, and joins as a new member; a heartbeat of the old one that still lay in a queue is then answered as if
somebody else had the name, which ends the client (https://github.com/confluentinc/librdkafka/issues/3437). Nothing that
brokers tell of a member says which process it is: its client id and its host stay those of the first that had the name.
But a member behind which nobody is ends with its session. So before a process gives its name up, it waits for that.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from evalgauge.collectors.kafka_admin import asked, group_of
from evalgauge.collectors.kafka_client import Unavailable

if TYPE_CHECKING:
    from evalgauge.collectors.kafka_config import KafkaConfig

_log = logging.getLogger(__name__)

_AGAIN = 1.0
"""Seconds between two looks at the group, and before the first: it shows what it was told a moment ago."""
_SLACK = 3.0
"""Seconds beyond the session, after which the brokers have let a dead member go."""


class ReplicaName:
    """The name that the members of a process bear in its group, one after the other: a doubt outlives the member."""

    def __init__(self, config: KafkaConfig, replica: str) -> None:
        group = config.group
        assert group is not None  # noqa: S101 - for the type checker; only a group has members
        self._config, self._group, self.replica = config, group, replica
        self.doubted = self.taken = False
        """Whether the brokers said that somebody else has it, and whether somebody has."""
        self.trouble = ""
        """What keeps us from knowing."""
        self._look_at = 0.0
        self._holder: str | None = None
        self._since = 0.0
        """Seconds on the monotonic clock: since then the group is at rest with this holder of the name."""

    def doubt(self) -> None:
        """The brokers said that somebody else has it. From now on we must not take part in the group."""
        self.doubted, self._holder = True, None
        self.trouble = f"the brokers say that another process is replica `{self.replica}`"
        self._look_at = time.monotonic() + _AGAIN
        _log.warning("group %s: %s; waiting for its session to end", self._group.id, self.trouble)

    def is_ours(self) -> bool:
        """Whether nobody else has it. In doubt it looks now and then, for as long as the brokers take to answer."""
        now = time.monotonic()
        if not self.doubted:
            return not self.taken
        if now < self._look_at:
            return False
        self._look_at = now + _AGAIN
        try:
            found = asked(self._config, "group", lambda admin: group_of(admin, self._group.id))
        except Unavailable as error:
            self._holder = None
            _log.info("group %s: %s", self._group.id, error)
            return False
        holders = [one["member_id"] for one in found.members if one["group_instance_id"] == self.replica]
        if not holders:
            self.doubted = False
            _log.warning("group %s: nobody else is replica %s: joined anew", self._group.id, self.replica)
            return True
        # While a group settles who has what, nobody's session ends.
        if not found.stable or holders[0] != self._holder:
            self._holder, self._since = holders[0] if found.stable else None, now
        elif now - self._since > self._group.session_timeout + _SLACK:
            self.doubted, self.taken = False, True
        return False
