"""De-duplication: exactly the ids within the window, whatever the batches."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core.deduplicate import Deduplicator, Window, cut
from evalgauge.core.engine import EngineOptions, InputRules
from tests.engine_helpers import NOON, Clock, Lab, event

if TYPE_CHECKING:
    from pathlib import Path


def digest(number: int) -> bytes:
    """The digest of event `number`."""
    return number.to_bytes(16, "big")


class Oracle:
    """One id at a time in a queue of (time, id)."""

    def __init__(self, window: Window) -> None:
        self.window, self.held = window, deque[tuple[float, int]]()

    def is_repeat(self, number: int, now: float) -> bool:
        """Whether it is among the last ids that were accepted, none of them too old; if not it is accepted."""
        while self.held and self.held[0][0] < now - self.window.age:
            self.held.popleft()
        if any(number == one for _, one in self.held):
            return True
        self.held.append((now, number))
        if len(self.held) > self.window.ids:
            self.held.popleft()
        return False


BATCHES = st.lists(st.tuples(st.lists(st.integers(0, 12), max_size=14), st.integers(0, 6)), max_size=12)


@settings(max_examples=300)
@given(BATCHES, st.integers(1, 16), st.integers(1, 12), st.sets(st.integers(0, 11)))
def test_repeats_are_those_of_the_plain_queue(
    batches: list[tuple[list[int], int]], ids: int, age: int, restarts: set[int]
) -> None:
    """Windows smaller than a batch, repeats within one, expiry by age, restarts from what a store holds."""
    window = Window(ids, float(age))
    oracle, found, now = Oracle(window), Deduplicator(window), 0.0
    stored: list[tuple[float, bytes]] = []
    for number, (batch, pause) in enumerate(batches):
        now += pause
        digests = [digest(one) for one in batch]
        repeats = found.repeats(digests, now)
        assert repeats == [index for index, one in enumerate(batch) if oracle.is_repeat(one, now)]
        found.accept(now, [one for index, one in enumerate(digests) if index not in repeats])
        assert len(found) <= ids
        if fresh := found.fresh():
            stored.append((now, fresh))
        found.committed()
        assert found.fresh() == b""
        if number in restarts:
            found = Deduplicator(window)
            found.restore(stored)
            assert found.fresh() == b""


def test_an_id_that_ran_out_by_age_and_came_again_is_remembered_after_a_restart() -> None:
    """A store may still hold its older place; when that expires the newer one must stay."""
    found = Deduplicator(Window(10, 60.0))
    found.restore([(0.0, digest(1)), (50.0, digest(1) + digest(2))])
    assert len(found) == 2
    assert found.repeats([digest(1), digest(2)], 70.0) == [0, 1]


def test_fresh_ids_wait_for_a_commit_that_succeeds() -> None:
    """After one that failed they are given again."""
    found = Deduplicator(Window(10, 60.0))
    found.accept(0.0, [digest(1)])
    assert found.fresh() == digest(1)
    found.accept(1.0, [digest(2)])
    assert cut(found.fresh()) == [digest(1), digest(2)]


def test_ids_of_refused_events_are_not_remembered(tmp_path: Path) -> None:
    """A sender mends the event and sends it again under its id."""
    with Lab(tmp_path, rules=InputRules(deduplicate=True)) as bench:
        bad, good = event(1, kind="z"), event(1)
        assert bench.put(bad, good, bad, good).exceptions == bench.verdicts[0].exceptions
        assert [(one.line, one.status) for one in bench.verdicts[0].exceptions] == [
            (0, "rejected"), (2, "rejected"), (3, "duplicate"),
        ]  # fmt: skip
        assert bench.put(bad).rejected == 1
        assert bench.value("lab_runs", "t", "a", "") == 1


def test_the_same_id_of_another_source_is_another_event(tmp_path: Path) -> None:
    """And no two pairs of source and id run together to the same text."""
    with Lab(tmp_path, rules=InputRules(deduplicate=True)) as bench:
        pairs = [("a", "bc"), ("ab", "c"), ("a", "b"), ("1:a", "b"), ("b", "a")]
        events = [event(0, source=source, id=identity) for source, identity in pairs]
        assert bench.put(*events).accepted == 5
        assert bench.put(*events).duplicate == 5


def test_a_window_by_age_and_number_through_the_store(tmp_path: Path) -> None:
    """What ran out counts again; the store forgets it too."""
    clock = Clock()
    options = EngineOptions(window=Window(ids=3, age=60.0))
    rules = InputRules(deduplicate=True)
    with Lab(tmp_path, rules=rules, options=options, clock=clock) as bench:
        bench.put(*(event(n) for n in range(5)))
    with Lab(tmp_path, rules=rules, options=options, clock=clock) as bench:
        assert bench.put(*(event(n) for n in range(5))).duplicate == 0, "0 and 1 push out 2, and so on"
        assert bench.put(event(4), event(3), event(2), event(1)).duplicate == 3
        for n in range(10, 30):
            bench.put(event(n))
        assert bench.store._db.execute("SELECT sum(length(data)) / 16 FROM digests").fetchone()[0] <= 5
        clock.now = NOON + 61
        assert bench.put(event(29)).duplicate == 0
