"""A group of replicas with scrapers that never stop, and the sum of what all of them show beside the oracle."""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from tests.group.replica import Replica
from tests.group.view import View
from tests.group.watchers import GROWS, PositionWatcher, Watcher
from tests.oracle import Samples, differences, exposed, key
from tests.parts.part import until

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

    from tests.group.feed import Producer
    from tests.oracle import Oracle

KafkaClient = Literal["confluent", "kafka-python"]
Assignment = Literal["cooperative", "eager"]

SOAK = os.environ.get("EVALGAUGE_SOAK") == "1"
INPUT = "judgments"
TYPE = "judgment.executed"
SETTLE_SECONDS = 180.0
"""So long everything sent may take to be counted: a session, a transaction and a restore, on a slow machine."""
_BYTES = key("evalgauge_input_bytes_total", {"input": INPUT})
_ACCEPTED = "evalgauge_events_accepted_total{"


class Settled(NamedTuple):
    """What a group came to when everything sent was counted."""

    events: int
    samples: int
    """That were compared."""
    wrong: list[str]


class Group:
    """Replicas of one group, each with a watcher. Use it with `with`; processes that run at its end are killed."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        folder: Path,
        config: dict[str, Any],
        replicas: int,
        *,
        watch: bool = True,
        grows: tuple[str, ...] = GROWS,
    ) -> None:
        """`config` is that of each replica, `configuration` makes it. Without `watch` nobody scrapes by itself.

        `grows`: how the names begin of what must never fall.
        """
        self.topic = topic
        self.id = f"group-{topic}"
        self.view = View(bootstrap, self.id, topic)
        self._folder = folder
        self._config = config
        self._watch = watch
        self._grows = grows
        self.replicas: dict[str, Replica] = {}
        self.watchers: list[Watcher | PositionWatcher] = []
        if watch:
            self._watch_with(PositionWatcher(View(bootstrap, self.id, topic)))
        for number in range(1, replicas + 1):
            self.add(f"r{number}")

    def add(self, name: str) -> Replica:
        """One more replica, which is not started yet."""
        replica = self.replicas[name] = Replica(name, self._folder / name, self._config)
        if self._watch:
            self._watch_with(Watcher(replica, self._grows))
        return replica

    def _watch_with(self, watcher: Watcher | PositionWatcher) -> None:
        self.watchers.append(watcher)
        watcher.start()

    def __enter__(self) -> Self:
        """Start all replicas, and wait until they are ready."""
        try:
            for one in self.replicas.values():
                one.start()
            self.wait_ready()
        except BaseException:
            self.abandon()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing of it runs on, neither processes nor watchers."""
        self.abandon()

    def abandon(self) -> None:
        """End everything, however it stands."""
        for one in self.replicas.values():
            one.abandon()
        for watcher in self.watchers:
            with suppress(Exception):  # it was told before, or the test has failed by something else
                watcher.finish()
        self.view.close()

    def running(self) -> list[Replica]:
        """The replicas that have a process."""
        return [one for one in self.replicas.values() if one.running]

    def wait_ready(self) -> None:
        """Wait until each that runs says it is ready."""
        for one in self.running():
            one.wait_ready()

    def check(self) -> None:
        """Raise what a watcher has seen fall or go back."""
        for watcher in self.watchers:
            if watcher.error is not None:
                raise watcher.error

    def await_members(self, *names: str, seconds: float = 120) -> None:
        """Wait until exactly these are members."""

        def there() -> bool:
            self.check()
            return self.view.members() == set(names)

        until(there, f"the members of the group to be {sorted(names)}", seconds)

    def await_committed(self, ends: dict[int, int], seconds: float = SETTLE_SECONDS) -> None:
        """Wait until the group has committed all that was there when `ends` was asked for."""

        def done() -> bool:
            self.check()
            committed = self.view.committed()
            return all(committed.get(number, -1) >= end for number, end in ends.items() if end)

        until(done, f"{self.id} to have committed {ends}", seconds)

    def accepted(self) -> int:
        """Events accepted by now, over the replicas that run; -1 while one of them does not show its numbers."""
        return self._total(_ACCEPTED, *self.running())

    def received(self) -> int:
        """The same of all that came in, whatever became of it."""
        return self._total("evalgauge_events_received_total{", *self.running())

    def lost(self) -> int:
        """Events that brokers have lost, as the replicas that run say."""
        return self._total("evalgauge_input_lost_events_total{", *self.running())

    @staticmethod
    def _total(name: str, *replicas: Replica) -> int:
        total = 0
        for one in replicas:
            text = one.metrics()
            if text is None:
                return -1
            rows = (row for row in text.splitlines() if row.startswith(name))
            total += sum(int(float(row.rpartition(" ")[2])) for row in rows)
        return total

    def count_through_a_kill(self, producer: Producer, rng: random.Random) -> Settled:
        """Of two replicas one is killed in the middle of its work, the other goes on with it, and the first is back."""
        producer.start()
        self.replicas["r1"].strike(rng, "in")
        self.await_members("r2")
        self.await_committed(self.view.ends())
        self.replicas["r1"].start()
        self.wait_ready()
        producer.finish()
        return self.settle(producer)

    def settle(self, producer: Producer) -> Settled:
        """Once everything that was sent is counted: whatever is different from the oracle, summed over replicas."""
        for one in self.replicas.values():
            one.check()
        deadline = time.monotonic() + SETTLE_SECONDS
        while (counted := self.accepted()) != producer.sent and time.monotonic() < deadline:
            self.check()
            for one in self.replicas.values():
                one.check()
            time.sleep(0.2)
        expected = expectation(producer.oracle())
        found, silent = self.summed(*GROWS)
        wrong = [f"{one.name} does not show its numbers: {one.complaint()}" for one in silent]
        if counted != producer.sent:
            each = {one.name: self._total(_ACCEPTED, one) for one in self.running()}
            wrong.append(f"{counted} events counted of {producer.sent} sent: {each}")
        # Between the events of a chunk stands a newline, after the last none: so many bytes depend on how it was cut.
        size = found.pop(_BYTES, 0)
        if not producer.bytes - producer.sent <= size <= producer.bytes:
            wrong.append(f"{size} bytes counted of {producer.bytes} sent, newlines included")
        wrong += differences(expected, found)
        if len(wrong) > 10:
            wrong = [*wrong[:10], f"and {len(wrong) - 10} more"]
        return Settled(producer.sent, len(expected), wrong)

    def summed(self, *prefixes: str) -> tuple[Samples, list[Replica]]:
        """Counters and parts of histograms over the replicas that run, and which of them show nothing."""
        total: Samples = {}
        silent = []
        for one in self.running():
            text = one.metrics()
            if text is None:
                silent.append(one)
                continue
            for sample, value in exposed(text, *prefixes).items():
                if sample[0].endswith(("_total", "_bucket", "_sum", "_count")):
                    total[sample] = total.get(sample, 0.0) + value
        return total, silent

    def finish(self) -> int:
        """End all that runs in order, then the watchers; how often they have scraped. Raises what they saw."""
        for one in self.running():
            one.end()
        for watcher in self.watchers:
            watcher.finish()
        return sum(watcher.scrapes for watcher in self.watchers if isinstance(watcher, Watcher))


def expectation(oracle: Oracle) -> Samples:
    """All that replicas must show together of what the oracle has seen, but for the bytes."""
    accepted = oracle.accepted[TYPE]
    expected = oracle.samples() | {
        key("evalgauge_events_accepted_total", {"input": INPUT, "type": TYPE}): accepted,
        key("evalgauge_events_received_total", {"input": INPUT}): accepted,
    }
    for metric, number in oracle.unobserved().items():
        expected[key("evalgauge_values_unobserved_total", {"metric": metric})] = number
    return expected


def configuration(
    rng: random.Random,
    bootstrap: str,
    topic: str,
    *,
    client: KafkaClient = "confluent",
    assignment: Assignment = "cooperative",
    timeout: str = "4s",
    **overrides: Any,
) -> dict[str, Any]:
    """The configuration of a replica, its commit intervals by chance; `timeout` of sessions and transactions."""
    config: dict[str, Any] = {
        "packs": ["judgment"],
        "state": {
            "commit_interval": f"{rng.randrange(100, 500)}ms",
            "min_commit_interval": f"{rng.choice((20, 50, 100))}ms",
        },
        "inputs": {
            INPUT: {
                "type": "kafka",
                "bootstrap": bootstrap,
                "topics": topic,
                "client": client,
                "group": {
                    "id": f"group-{topic}",
                    "assignment": assignment,
                    "session_timeout": timeout,
                    "transaction_timeout": timeout,
                },
            }
        },
    }
    return config | overrides


def told(places: Iterable[str]) -> str:
    """How often each place comes, in words."""
    return ", ".join(f"{number} × {place}" for place, number in sorted(Counter(places).items()))
