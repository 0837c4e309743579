"""What every collector does at its seam, over a sink in memory that commits and forgets like the engine."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import pytest

from evalgauge.core.collect import FileRange, InputContext, InputStatus
from evalgauge.core.event import Limits
from tests.conformance.sink import MemorySink, chunk_lines, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.drivers import Driver

LIMIT = Limits().event_bytes
DEAF = 30.0
"""Seconds after which a collector that was told to stop counts as deaf."""


def event(n: int, pad: int = 0) -> bytes:
    """One event as it stands in a line."""
    envelope = {"specversion": "1.0", "id": f"e-{n}", "source": "/test", "type": "judgment.executed"}
    return json.dumps(envelope | {"data": {"n": n, "pad": "x" * pad}}).encode()


def events(first: int, last: int) -> list[bytes]:
    """Events, first included, last excluded."""
    return [event(n) for n in range(first, last)]


def body(lines: list[bytes]) -> bytes:
    """Lines as they are delivered."""
    return b"".join(line + b"\n" for line in lines)


class Station:
    """Runs the collector over a sink; starts it again where the sink's last commit left it."""

    def __init__(self, driver: Driver, sink: MemorySink, max_chunk_bytes: int = 4 << 20) -> None:
        self.driver = driver
        self.sink = sink
        self.status = InputStatus()
        self._max_chunk_bytes = max_chunk_bytes
        self._stop = threading.Event()
        self._thread = threading.Thread()
        self._error: BaseException | None = None

    def start(self) -> None:
        """Start, or start again, from the committed positions."""
        self._stop = threading.Event()
        self.sink.revive()
        positions = json.loads(json.dumps(self.sink.positions))
        context = InputContext(
            "input", positions, self.sink, self._stop, self.status, max_chunk_bytes=self._max_chunk_bytes
        )
        collector = self.driver.collector(self.driver.collector.Config(**self.driver.config()), context)

        def run() -> None:
            try:
                collector.run()
            except BaseException as error:  # noqa: BLE001 - shown by `stop`
                self._error = error

        self._thread = threading.Thread(target=run)
        self._thread.start()
        if self.driver.pushes:
            wait_until(lambda: self.status.note or self._error, "the door never opened")

    def stop(self) -> float:
        """Stop in order, and tell how many seconds that took."""
        asked = time.monotonic()
        self._stop.set()
        self._thread.join(DEAF * 2)
        assert not self._thread.is_alive(), "told to stop, it did not return"
        self.status.note = ""
        if self._error is not None:
            raise self._error
        return time.monotonic() - asked

    def kill(self) -> None:
        """End as if the process had been killed: nothing more is taken, uncommitted chunks are forgotten."""
        self.sink.crash()
        self.stop()

    def arrived(self, count: int) -> None:
        """Wait for so many lines."""
        wait_until(
            lambda: len(self.sink.lines()) >= count, f"{len(self.sink.lines())} of {count} lines arrived"
        )


@pytest.fixture
def sink() -> MemorySink:
    """Commits at once."""
    return MemorySink()


@pytest.fixture
def station(driver: Driver, sink: MemorySink) -> Iterator[Station]:
    """A running collector."""
    station = Station(driver, sink)
    station.start()
    yield station
    station.stop()


def test_events_of_a_partition_arrive_in_order(driver: Driver, station: Station, sink: MemorySink) -> None:
    """However they were cut into deliveries."""
    expected: list[bytes] = []
    for size in (1, 100, 7, 1, 300):
        some = events(len(expected), len(expected) + size)
        assert driver.deliver(body(some))
        expected += some
        station.arrived(len(expected))
    assert sink.lines() == expected
    assert len({chunk.partition for chunk in sink.chunks}) == 1


def test_a_chunk_says_how_it_is_committed(driver: Driver, station: Station, sink: MemorySink) -> None:
    """By a position that JSON can hold, or by an acknowledgement; it says when and where it came from."""
    before = time.time()
    assert driver.deliver(body(events(0, 10)))
    station.arrived(10)
    for chunk in sink.chunks:
        assert (chunk.commit is None) == driver.pushes
        assert (chunk.acknowledge is not None) == driver.pushes
        assert json.loads(json.dumps(chunk.commit)) == chunk.commit
        assert before - 1 <= chunk.arrival <= time.time()
    assert len({where for _, where, _ in sink.committed}) == 10


def test_it_goes_on_where_it_was_stopped(driver: Driver, sink: MemorySink) -> None:
    """Stopped in order in the middle, three times."""
    station = Station(driver, sink, max_chunk_bytes=700)
    for turn in range(3):
        station.start()
        assert driver.deliver(body(events(turn * 50, turn * 50 + 50)))
        station.arrived(turn * 50 + 50)
        station.stop()
    assert sink.lines() == events(0, 150)


def test_what_was_not_committed_comes_again_after_a_kill(driver: Driver) -> None:
    """By itself from a position; from a sender who got no acknowledgement, by being sent again."""
    sink = MemorySink(automatic=False)
    station = Station(driver, sink, max_chunk_bytes=700)
    pending: list[threading.Thread] = []
    station.start()
    if not driver.pushes:
        driver.deliver(body(events(0, 30)))
        wait_until(lambda: len(sink.chunks) >= 3)
        sink.commit()
    kept = len(sink.lines())
    answers: list[bool] = []
    sender = threading.Thread(target=lambda: answers.append(driver.deliver(body(events(30, 60)))))
    sender.start()
    pending.append(sender)
    seen = len(sink.chunks)
    wait_until(lambda: len(sink.chunks) > seen or not driver.pushes)
    station.kill()
    sender.join()
    assert answers == [not driver.pushes], "acknowledged, though it was never committed"
    assert len(sink.lines()) == kept
    station.start()
    if driver.pushes:
        sender = threading.Thread(target=lambda: answers.append(driver.deliver(body(events(0, 60)))))
        sender.start()
    wait_until(lambda: sink.commit() >= 60)
    sender.join()
    station.stop()
    assert answers[-1]
    assert sink.lines() == events(0, 60)


def test_poison_is_handed_on_untouched_at_its_place(
    driver: Driver, station: Station, sink: MemorySink
) -> None:
    """Judging is the engine's: what is around it must arrive."""
    poison = [
        b'{"id": "half',
        b"\xff\xfe\xfd",
        b"[1, 2]",
        b"null",
        b'{"id": 1}{"id": 2}',
        b"[" * 100,
        b"\x00",
    ]
    mixed = events(0, 20)
    for at, line in enumerate(poison):
        mixed.insert(at * 3, line)
    assert driver.deliver(body(mixed))
    station.arrived(len(mixed))
    assert sink.lines() == mixed


def test_an_empty_batch_is_nothing(driver: Driver, station: Station, sink: MemorySink) -> None:
    """Neither an error nor an event, and the next ones arrive."""
    driver.deliver(b"")
    driver.deliver(b"\n\n \n")
    assert driver.deliver(body(events(0, 3)))
    station.arrived(3)
    assert sink.lines() == events(0, 3)


def test_a_large_batch_is_cut_at_lines(driver: Driver, sink: MemorySink) -> None:
    """No chunk is above the bound, none ends inside an event, none is lost."""
    station = Station(driver, sink, max_chunk_bytes=10_000)
    station.start()
    assert driver.deliver(body(events(0, 2000)))
    station.arrived(2000)
    station.stop()
    assert sink.lines() == events(0, 2000)
    for chunk in sink.chunks:
        length = chunk.body.length if isinstance(chunk.body, FileRange) else len(chunk.body)
        assert length <= 10_000
        assert all(line.startswith(b"{") and line.endswith(b"}") for _, line in chunk_lines(chunk))


def test_an_oversized_event_is_left_to_the_engine_to_refuse(
    driver: Driver, station: Station, sink: MemorySink
) -> None:
    """It arrives at its place, longer than the limit, whole or cut; those around it arrive whole."""
    giant = event(1, pad=LIMIT * 3)
    assert driver.deliver(body([event(0), giant, event(2)]))
    station.arrived(3)
    first, second, third = sink.lines()
    assert (first, third) == (event(0), event(2))
    assert len(second) > LIMIT
    assert giant.startswith(second)


def test_it_waits_while_there_is_no_room(driver: Driver) -> None:
    """Back-pressure: nothing is dropped, nothing is read far ahead, and nothing comes twice."""
    sink = MemorySink(room=1, automatic=False)
    station = Station(driver, sink, max_chunk_bytes=2000)
    station.start()
    answers: list[bool] = []
    sender = threading.Thread(target=lambda: answers.append(driver.deliver(body(events(0, 100)))))
    sender.start()
    wait_until(lambda: sink.chunks)
    assert len(sink.chunks) == 1
    wait_until(lambda: sink.commit() >= 100)
    sender.join()
    station.stop()
    assert answers == [True]
    assert sink.lines() == events(0, 100)


def test_it_stops_soon_when_told_to(driver: Driver, sink: MemorySink) -> None:
    """Idle, right after the start, and after work."""
    station = Station(driver, sink)
    station.start()
    assert station.stop() < DEAF
    station.start()
    assert driver.deliver(body(events(0, 5)))
    station.arrived(5)
    assert station.stop() < DEAF


def test_a_failed_commit_is_no_acknowledgement(driver: Driver, station: Station, sink: MemorySink) -> None:
    """The sender is told so, sends again, and is told yes then."""
    if not driver.pushes:
        pytest.skip("reads from a position: there is nobody to tell")
    del station
    sink.fail_commits = 1
    assert not driver.deliver(body(events(0, 3)))
    assert driver.deliver(body(events(0, 3)))
    assert sink.lines() == events(0, 3)


def test_positions_of_events_are_the_same_however_they_are_read(driver: Driver) -> None:
    """They are ids of events that have none: unique, and stable over chunks and restarts."""
    if driver.pushes:
        pytest.skip("what is pushed has no position, and an id from one is refused")
    found: list[list[tuple[str, int, str, bytes]]] = []
    sinks = MemorySink(), MemorySink()
    first = Station(driver, sinks[0], max_chunk_bytes=900)
    first.start()
    for turn in range(5):
        assert driver.deliver(body(events(turn * 30, turn * 30 + 30)))
        first.arrived(turn * 30 + 30)
        if turn % 2:
            first.stop()
            first.start()
    first.stop()
    for chunk in sinks[0].chunks:
        start, lines = chunk.base, []
        for where, line in chunk_lines(chunk):
            lines.append((chunk.partition, start, where, line))
            start += len(line) + 1
        found.append(lines)
    flat = [one for lines in found for one in lines]
    assert [line for *_, line in flat] == events(0, 150)
    starts = [start for _, start, _, _ in flat]
    assert starts == sorted(set(starts))
    assert len({where for _, _, where, _ in flat}) == 150
