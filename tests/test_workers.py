"""Workers: the same results as one process, and an end that loses nothing."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from evalgauge.core.collect import FileRange
from evalgauge.core.deduplicate import Window
from evalgauge.core.engine import EngineOptions, InputRules
from evalgauge.core.instruments import grouping
from evalgauge.core.workers import WorkerFailedError, WorkerPool
from tests.engine_helpers import INPUT, Lab, event, lines, one_by_one

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEADLINE = 60.0


@contextmanager
def pool(bench: Lab, count: int = 2) -> Iterator[WorkerPool]:
    """Workers for the lab's input; ended at the end."""
    workers = WorkerPool({INPUT: bench.engine.plan(INPUT)}, count)
    try:
        yield workers
    finally:
        workers.close()


def absorb(bench: Lab, workers: WorkerPool) -> None:
    """Take the oldest result back and merge it. Raises `WorkerFailedError`."""
    deadline = time.monotonic() + DEADLINE
    while (done := workers.next(0.2)) is None:
        assert time.monotonic() < deadline, "no result came back"
    name, chunk, deltas, worker = done
    bench.engine.absorb(name, chunk, deltas, worker)


def absorb_all(bench: Lab, workers: WorkerPool) -> None:
    """Take everything back, with more work while there is any."""
    while workers:
        absorb(bench, workers)
        chunk = bench.chunk(lines(event(1, who="ann"))[0])
        workers.submit(INPUT, chunk, bench.engine.work(INPUT, chunk))


def stream(count: int) -> list[bytes]:
    """Events of three types with repeats, overflow, exemplars, sums of all sizes, bad lines and blank ones."""
    dice = random.Random(7)  # noqa: S311 - the same stream at every run
    found: list[bytes] = []
    for n in range(count):
        who = dice.choice(["ann", "bob", "cy", "_other", None, f"w{n}"])
        trace = f"00-{dice.randrange(1, 1 << 100):032x}-{n + 1:016x}-01" if dice.random() < 0.1 else None
        type_ = dice.choice(["lab.run", "lab.run", "lab.opened", "lab.closed"])
        data = {"who": who, "level": dice.uniform(-5, 5)}
        if type_ == "lab.run":
            data |= {"kind": dice.choice("abc"), "tenant": dice.choice("tuv"), "took_ms": dice.expovariate(0.01),
                     "cost": dice.choice([0.1, 1e300, 5e-324, 1 / 3])}  # fmt: skip
        time_ = f"2023-01-01T00:00:{dice.randrange(60):02}Z"
        found += lines(event(dice.randrange(count), type_, time=time_, traceparent=trace, **data))
        if dice.random() < 0.01:
            found.append(dice.choice([b"", b"{bad", lines(event(n, kind="z"))[0]]))
    return found


@pytest.mark.parametrize("deduplicate", [True, False])
def test_events_counted_singly_give_what_gathered_ones_give(
    tmp_path: Path, deduplicate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A metric of many series is not gathered before it is merged; nobody may see a difference."""
    rules, options = InputRules(deduplicate=deduplicate), EngineOptions(window=Window(ids=300))
    found = stream(900)
    with one_by_one(tmp_path / "one", found, rules=rules, options=options) as oracle:
        expected, counted = oracle.shown(), oracle.counted()
    monkeypatch.setattr(grouping, "MANY_SERIES", 2)
    dice = random.Random(4)  # noqa: S311 - the same cuts at every run
    with Lab(tmp_path / "singly", rules=rules, options=options) as bench:
        at = 0
        while at < len(found):
            size = dice.choice([1, 5, 60, 200])
            bench.feed(b"".join(line + b"\n" for line in found[at : at + size]))
            at += size
            if dice.random() < 0.2:
                bench.engine.commit()
        bench.engine.commit()
        assert (bench.shown(), bench.counted()) == (expected, counted)


def test_workers_give_what_one_process_gives(tmp_path: Path) -> None:
    """With repeats taken out again, small chunks done here between bulk ones, and ranges of a file."""
    rules, options = InputRules(deduplicate=True), EngineOptions(window=Window(ids=300))
    found = stream(900)
    with one_by_one(tmp_path / "one", found, rules=rules, options=options) as oracle:
        expected, counted = oracle.shown(), oracle.counted()
        duplicates = sum(verdict.duplicate for verdict in oracle.verdicts)
        assert duplicates > 50
    path = tmp_path / "events.ndjson"
    dice = random.Random(3)  # noqa: S311 - the same cuts at every run
    with (
        Lab(tmp_path / "two", rules=rules, options=options) as bench,
        pool(bench) as workers,
        path.open("wb") as file,
    ):
        at = 0
        while at < len(found):
            size = dice.choice([1, 5, 60, 200])
            body = b"".join(line + b"\n" for line in found[at : at + size])
            at += size
            chunk = bench.chunk(body)
            if size < 50:
                while workers:
                    absorb(bench, workers)
                bench.engine.process(INPUT, chunk)
            else:
                if dice.random() < 0.5:
                    chunk.body = FileRange(str(path), file.tell(), len(body))
                    file.write(body)
                    file.flush()
                while workers.full:
                    absorb(bench, workers)
                workers.submit(INPUT, chunk, bench.engine.work(INPUT, chunk))
            if dice.random() < 0.2:
                bench.engine.commit()
        while workers:
            absorb(bench, workers)
        bench.engine.commit()
        assert bench.shown() == expected
        assert bench.counted() == counted
        assert sum(verdict.duplicate for verdict in bench.verdicts) == duplicates
        assert not workers.waits_for(INPUT)


def test_a_worker_that_is_killed_ends_the_run_and_a_restart_goes_on(tmp_path: Path) -> None:
    """Nothing that was not given back is counted, and everything is after the restart."""
    body = b"\n".join(lines(*(event(n, who="ann") for n in range(3_000))))
    with Lab(tmp_path) as bench, pool(bench) as workers:
        chunks = [bench.chunk(body) for _ in range(4)]
        workers.submit(INPUT, chunks[0], bench.engine.work(INPUT, chunks[0]))
        absorb(bench, workers)
        bench.engine.commit()
        for chunk in chunks[1:]:
            workers.submit(INPUT, chunk, bench.engine.work(INPUT, chunk))
        process = workers._workers[1]._process
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(DEADLINE)
        with pytest.raises(WorkerFailedError, match=r"worker 1 failed on p: the process"):
            absorb_all(bench, workers)
    with Lab(tmp_path) as again:
        assert again.positions == {("in", "p"): len(body)}
        again.feed(body)
        again.engine.commit()
        assert again.value("lab_touches", "ann") == 6_000


def test_a_file_that_is_gone_and_a_plan_that_cannot_start_are_told(tmp_path: Path) -> None:
    """The first as the error it is, for the input to judge; nobody waits for ever."""
    with Lab(tmp_path) as bench, pool(bench, 1) as workers:
        chunk = bench.chunk(b"")
        chunk.body = FileRange(str(tmp_path / "gone"), 0, 10)
        workers.submit(INPUT, chunk, bench.engine.work(INPUT, chunk))
        with pytest.raises(FileNotFoundError):
            absorb(bench, workers)
        chunk = bench.chunk(lines(event(1))[0])
    with Lab(tmp_path / "other") as bench:
        plans = {INPUT: bench.engine.plan(INPUT)}
        object.__setattr__(plans[INPUT], "limits", None)
        workers = WorkerPool(plans, 1)
        chunk = bench.chunk(lines(event(1))[0])
        workers.submit(INPUT, chunk, bench.engine.work(INPUT, chunk))
        with pytest.raises(WorkerFailedError, match=r"worker 0 failed on p: .*AttributeError"):
            absorb(bench, workers)
        workers.close()
        assert workers._workers[0]._process.exitcode == 0
