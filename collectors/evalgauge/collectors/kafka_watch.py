"""Looks at the cluster again and again, beside the reading: topics, where partitions begin and end, its health."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol

from evalgauge.collectors.kafka_client import EARLIEST, LATEST, Partition, TopicPattern, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from evalgauge.collectors.kafka_client import Client, Cluster, Topic
    from evalgauge.collectors.kafka_config import KafkaConfig

_log = logging.getLogger(__name__)
_RETRY = 0.5
"""Seconds between two looks at a cluster that does not answer."""
_END = 2.0


class Library(Protocol):
    """Makes the two objects of a client library."""

    def client(self) -> Client:
        """A reader. Raises `Unavailable`."""

    def cluster(self) -> Cluster:
        """Something to look with. Raises `Unavailable`."""


@dataclass(frozen=True, slots=True)
class View:
    """What was seen at one look; where the cluster did not answer, what was seen last, and why it did not."""

    number: int = 0
    """Of the look, ascending."""
    topics: dict[str, Topic] = field(default_factory=dict)
    begins: dict[Partition, int] = field(default_factory=dict)
    """Offset of the first record, as it was when the partition was first seen, or since `Watch.ask_again`."""
    ends: dict[Partition, int] = field(default_factory=dict)
    """Offset after the last record that may be read; a partition without a leader is left out."""
    starts: dict[Partition, int] = field(default_factory=dict)
    """Offset of the first record from the configured time on, where there is one."""
    withheld: dict[Partition, float] = field(default_factory=dict)
    """Seconds that an open transaction was seen to hold the end where it is, though more was written."""
    trouble: str = ""
    """Why the cluster did not answer; empty while it does."""
    since: float = 0.0
    """Unix time it has not answered since."""


class _Standing(NamedTuple):
    """The end of a partition that has more behind it, and when it was first and last seen so (monotonic)."""

    end: int
    since: float
    seen: float


class Watch:
    """Keeps `view` up to date, from a thread of its own."""

    def __init__(self, library: Library, config: KafkaConfig, name: str) -> None:
        self.view = View()
        """The newest; replaced as a whole, never changed."""
        self._library = library
        self._config = config
        self._name = name
        self._pattern = (
            None if config.topic_pattern is None else TopicPattern(config.topic_pattern, config.group)
        )
        self._time = int(config.start.timestamp() * 1000) if isinstance(config.start, datetime) else None
        self._changed = threading.Condition()
        self._asked: set[Partition] = set()
        self._hurry = False
        self._ended = False
        self._looks = 0
        self._cluster: Cluster | None = None
        self._standing: dict[Partition, _Standing] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Look while the block runs."""
        thread = threading.Thread(target=self._run, name=f"{self._name}-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            # In the middle of a request that nobody answers it ends by itself a little later.
            thread.join(_END)

    def wait(self, known: View, timeout: float) -> None:
        """Wait until there is another view than `known`, or time is up."""
        with self._changed:
            self._changed.wait_for(lambda: self.view is not known, timeout)

    def ask_again(self, partitions: Iterable[Partition]) -> int:
        """See soon where these begin now; the number of the first view that shows it."""
        with self._changed:
            self._asked.update(partitions)
            self._hurry = True
            self._changed.notify_all()
            return self._looks + 1

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    if self._ended:
                        return
                    self._looks += 1
                    asked, self._asked = self._asked, set()
                    self._hurry = False
                view = self._look(asked)
                self._log_change(view)
                with self._changed:
                    self.view = view
                    self._changed.notify_all()
                    pause = _RETRY if view.trouble else self._config.refresh
                    self._changed.wait_for(lambda: self._ended or self._hurry, pause)
        finally:
            if self._cluster is not None:
                self._cluster.close()

    def _log_change(self, view: View) -> None:
        if view.trouble and not self.view.trouble:
            _log.warning("input %s: the brokers do not answer: %s", self._name, view.trouble)
        elif self.view.trouble and not view.trouble:
            away = time.time() - self.view.since
            _log.warning("input %s: the brokers answer again, after %.0f s", self._name, away)

    def _look(self, asked: set[Partition]) -> View:
        last = self.view
        try:
            return self._seen(last, asked)
        except Unavailable as error:
            trouble = str(error)
        except Exception as error:  # noqa: BLE001 - a library may raise anything, and looking must go on
            _log.debug("input %s: the cluster cannot be looked at", self._name, exc_info=True)
            trouble = f"{type(error).__name__}: {error}"
        with self._changed:
            self._asked |= asked
        return View(
            self._looks,
            last.topics,
            last.begins,
            last.ends,
            last.starts,
            last.withheld,
            trouble or "it does not answer",
            last.since or time.time(),
        )

    def _seen(self, last: View, asked: set[Partition]) -> View:
        if self._cluster is None:
            self._cluster = self._library.cluster()
        cluster = self._cluster
        found = cluster.topics(self._config.topics)
        if self._pattern is not None:
            found = {name: topic for name, topic in found.items() if self._pattern.match(name)}
        partitions = [Partition(name, number) for name, topic in found.items() for number in topic.partitions]
        ends = cluster.offsets(dict.fromkeys(partitions, LATEST))
        same = {
            name for name, topic in found.items() if name in last.topics and last.topics[name].id == topic.id
        }
        kept = {
            one: last.begins[one]
            for one in ends
            if one in last.begins and one.topic in same and one not in asked
        }
        new = ends.keys() - kept.keys()
        begins = kept | cluster.offsets(dict.fromkeys(new, EARLIEST))
        starts = {one: offset for one, offset in last.starts.items() if one in kept}
        if self._time is not None:
            starts |= cluster.offsets(dict.fromkeys(new, self._time))
        withheld = self._held_back(ends, cluster.written(sorted(ends)), same)
        return View(self._looks, found, begins, ends, starts, withheld)

    def _held_back(
        self, ends: dict[Partition, int], written: dict[Partition, int], same: set[str]
    ) -> dict[Partition, float]:
        """What is written between the two questions looks so for one look; then the end has moved on."""
        now, before = time.monotonic(), self._standing
        # Of a partition without a leader nothing is said, which ends no transaction.
        self._standing = {
            one: held
            for one, held in before.items()
            if one.topic in same and not (one in ends and one in written)
        }
        for one, end in ends.items():
            if written.get(one, end) > end:
                known = before.get(one)
                if known is None or known.end != end or one.topic not in same:
                    known = _Standing(end, now, now)
                self._standing[one] = known._replace(seen=now)
        return {one: held.seen - held.since for one, held in self._standing.items() if held.seen > held.since}
