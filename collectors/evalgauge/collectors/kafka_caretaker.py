"""Retires replicas that have not been heard of for a stated time; only the keeper does, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from evalgauge.collectors.kafka_client import Unavailable
from evalgauge.collectors.kafka_retire import Brokers, Changelog, Retiring
from evalgauge.collectors.kafka_retired import LOOK_SECONDS, when
from evalgauge.core.errors import EvalgaugeError

if TYPE_CHECKING:
    from evalgauge.collectors.kafka_config import KafkaConfig
    from evalgauge.collectors.kafka_store import Library

_log = logging.getLogger(__name__)
ABSENT_SECONDS = 600.0
"""A replica must be seen absent for so long, or for `retire_after` if that is less.

One that had nothing to commit for days would else be retired while it is only restarted.
"""


class Caretaker:
    """Looks after the replicas while it is on duty. `on_duty` and `close` belong to one thread."""

    def __init__(self, config: KafkaConfig, name: str, library: Library, replica: str) -> None:
        """`name` is the input's, `replica` who we are. Does nothing without `retire_after`."""
        assert config.group is not None  # noqa: S101 - for the type checker
        self._config, self._name, self._library, self._group = config, name, library, config.group
        self._age = config.group.retire_after or 0.0
        self._by = f"replica {replica} (`retire_after`)"
        self._ended: threading.Event | None = None

    def on_duty(self, *, keeper: bool) -> None:
        """Whether we are the keeper; returns at once."""
        if keeper and self._age and self._ended is None:
            self._ended = threading.Event()
            watch = _Watch(self._config, self._name, self._library, self._by, self._ended)
            threading.Thread(target=watch.run, name=f"{self._name}-caretaker", daemon=True).start()
        if not keeper:
            self.close()

    def close(self) -> None:
        """End soon."""
        if self._ended is not None:
            self._ended.set()
            self._ended = None


class _Watch:
    """One time on duty."""

    def __init__(
        self, config: KafkaConfig, name: str, library: Library, by: str, ended: threading.Event
    ) -> None:
        assert config.group is not None  # noqa: S101 - for the type checker
        self._config, self._name, self._library, self._group = config, name, library, config.group
        self._age = config.group.retire_after or 0.0
        self._retiring = Retiring(config, name, library, by)
        self._ended = ended
        self._commits: dict[str, float] = {}
        """Replica that is not retired → Unix time of its last commit, or when it was last seen as a member."""
        self._absent: dict[str, float] = {}
        """Replica → monotonic time since when it was seen absent."""
        self._read_at = 0.0
        self._trouble = ""

    def run(self) -> None:
        """Look until we are not the keeper any more; what fails is tried again."""
        pause = min(LOOK_SECONDS, self._age / 4)
        while not self._ended.is_set():
            try:
                self._look()
                self._trouble = ""
            except (Unavailable, EvalgaugeError) as error:
                if str(error) != self._trouble:
                    _log.warning("input %s: looking for replicas that have left: %s", self._name, error)
                self._trouble = str(error)
            except Exception:  # noqa: BLE001 - a library may raise anything, and the group must go on
                _log.exception("input %s: looking for replicas that have left failed", self._name)
            self._ended.wait(pause)

    def _look(self) -> None:
        members = Brokers(self._config, self._name).members()
        # All of the changelog is much to read. Whatever is not known yet has committed since, so it is young.
        if time.monotonic() >= self._read_at:
            self._read()
        now, clock = time.time(), time.monotonic()
        for name in self._commits:
            if name in members:
                self._commits[name] = now
                self._absent.pop(name, None)
            else:
                self._absent.setdefault(name, clock)
        if not any(self._is_gone(name, clock) for name in self._absent):
            return
        self._read()  # one that was here between two looks has committed since
        for name in sorted(self._absent):
            if self._is_gone(name, clock) and not self._ended.is_set():
                mark = self._retiring.retire(name)
                _log.warning(
                    "input %s: replica %s is no member, and has not been heard of since %s: retired for good, by %s",
                    self._name,
                    name,
                    when(self._commits.pop(name)),
                    mark.by,
                )
                del self._absent[name]

    def _is_gone(self, name: str, clock: float) -> bool:
        absent = clock - self._absent.get(name, clock)
        return (
            name in self._commits
            and time.time() - self._commits[name] >= self._age
            and absent >= min(self._age, ABSENT_SECONDS)
        )

    def _read(self) -> None:
        with Changelog(self._group, self._library) as changelog:
            found = changelog.replicas(self._ended.is_set)
            marks = changelog.marks()
        if self._ended.is_set():
            return
        self._read_at = time.monotonic() + self._age
        commits = {
            name: max(one.said.time, self._commits.get(name, 0.0))
            for name, one in found.items()
            if one.said is not None and not (name in marks and marks[name].settled)
        }
        self._commits = commits
        self._absent = {name: since for name, since in self._absent.items() if name in commits}
