"""What series cost: rate and memory of one counter with 1k to 1M series, drawn uniformly."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import workload
from benchmarks.measure import Row, interleaved, process_of, ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

    from evalgauge.core.pipeline import Pipeline

_SIZES = (1_000, 10_000, 100_000, 1_000_000)
_OVERSHOOT = 1_400_000
"""Events that may pass before a pipeline looks up from its work."""


def run(*, quick: bool) -> list[Row]:
    """Each size in a process of its own that gives birth to its series first; then they take turns."""
    sizes = _SIZES[:3] if quick else _SIZES
    rounds, turn = (2, 100_000) if quick else (4, 400_000)
    with contextlib.ExitStack() as stack:
        runners = {
            size: stack.enter_context(_Runner.started(size, rounds * (turn + _OVERSHOOT), turn))
            for size in sizes
        }
        values = interleaved({str(size): runner.turn for size, runner in runners.items()}, rounds)
        least = runners[sizes[0]].memory
        rows = []
        for size, runner in runners.items():
            each = (runner.memory - least) / size
            rows.append(
                Row(
                    f"counter with {size:,} series, commits each second",
                    statistics.median(values[str(size)]),
                    "events/s",
                    f"{runner.memory / 2**20:,.0f} MiB resident, {each:,.0f} bytes a series; "
                    f"births {runner.births:,.0f}/s",
                    ratio(values, str(size), str(sizes[0])),
                    0.7 if size == 1_000_000 else None,
                )
            )
    return rows


class _Runner:
    """A process that counts events of one size, a turn at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.births: float = connection.recv()
        """Series born a second."""
        self.memory = 0
        """Most bytes that were resident."""

    @classmethod
    @contextlib.contextmanager
    def started(cls, size: int, count: int, turn: int) -> Iterator[_Runner]:
        """Write the events, start the process and wait until every series is born."""
        with tempfile.TemporaryDirectory() as folder:
            file = workload.write_growth(Path(folder) / "events.ndjson", count, size, seed=2)
            ours, theirs = multiprocessing.Pipe()
            arguments = (folder, file, round(size**0.5) ** 2, turn, theirs)
            process = multiprocessing.get_context("spawn").Process(target=_count, args=arguments, daemon=True)
            process.start()
            theirs.close()
            try:
                yield cls(ours)
            finally:
                ours.close()
                process.join()

    def turn(self) -> float:
        """Events a second of its next turn."""
        self._connection.send(None)
        rate, self.memory = self._connection.recv()
        return float(rate)


def _count(folder: str, file: Path, born: int, turn: int, connection: Connection) -> None:
    inputs = {"growth": {"type": "file", "path": str(file)}}
    with process_of(Path(folder) / "state", packs=[str(workload.GROWTH_PACK)], inputs=inputs) as process:
        pipeline = process.pipeline
        pipeline.start()
        with contextlib.suppress(EOFError):
            pipeline.run(until_done=True, progress=_turns(pipeline, born, turn, connection))
        pipeline.close()
        process.close()


def _turns(pipeline: Pipeline, born: int, turn: int, connection: Connection) -> Callable[[], None]:
    """Called after every chunk: says how fast a turn was, and holds everything up until the next."""
    began: dict[str, Any] = {"time": time.perf_counter(), "events": 0, "next": born}

    def progress() -> None:
        taken = pipeline.engine.taken
        if taken < began["next"]:
            return
        rate = (taken - began["events"]) / (time.perf_counter() - began["time"])
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        connection.send(rate if not began["events"] else (rate, memory))
        connection.recv()
        began.update(time=time.perf_counter(), events=taken, next=taken + turn)

    return progress
