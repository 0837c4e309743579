"""How things are measured: rates of a whole pipeline, medians over interleaved rounds, and rows of a table."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalgauge.core.config import load_config
from evalgauge.core.process import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from evalgauge.core.families import Family


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, with what it is compared with."""

    name: str
    value: float
    unit: str
    beside: str = ""
    ratio: float | None = None
    wanted: float | None = None
    """The ratio that is aimed at."""

    def cells(self) -> list[str]:
        """The row of the table."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}×"
        wanted = "" if self.wanted is None else f"≥ {self.wanted:g}×"
        verdict = (
            ""
            if self.ratio is None or self.wanted is None
            else ("reached" if self.ratio >= self.wanted else "MISSED")
        )
        return [self.name, f"{self.value:,.4g} {self.unit}", self.beside, ratio, wanted, verdict]


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a pipeline took."""

    events: int
    seconds: float
    """Wall clock from the first byte read to the last commit; start of the processes left out."""
    cpu: float
    """CPU seconds of all its processes in that time."""
    families: Sequence[Family]

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds


@contextlib.contextmanager
def process_of(folder: Path, **config: Any) -> Iterator[Process]:
    """A process that is built but not started."""
    yield Process(load_config(None, {}, state__folder=str(folder), state__on_state_loss="replay", **config))


def replayed(
    files: Sequence[Path],
    pack: Path,
    *,
    workers: int = 1,
    deduplicate: bool = False,
    mapping: Path | None = None,
) -> Run:
    """Count files from nothing, with a commit each second, by the real collector, engine and store."""
    reading: dict[str, Any] = {
        "type": "file",
        "path": [str(file) for file in files],
        "deduplicate": deduplicate,
    }
    if mapping is not None:
        reading["mapping"] = str(mapping)
    with (
        tempfile.TemporaryDirectory() as folder,
        process_of(
            Path(folder), packs=[str(pack)], inputs={"bench": reading}, engine__workers=workers
        ) as process,
    ):
        gc.collect()
        pipeline = process.pipeline
        pipeline.start()
        before, started = _cpu(), time.perf_counter()
        pipeline.run(until_done=True)
        pipeline.engine.commit()
        seconds = time.perf_counter() - started
        own = _cpu() - before
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        families = list(process.families())
        pipeline.close()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        process.close()
    cpu = own + (after.ru_utime + after.ru_stime) - (children.ru_utime + children.ru_stime)
    received = next(f for f in families if f.name == "evalgauge_events_accepted")
    return Run(int(received.values.sum()), seconds, cpu, families)


def _cpu() -> float:
    times = os.times()
    return times.user + times.system


def interleaved(candidates: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Values of each candidate, one of each in every round, so that a slow spell of the machine hits all alike.

    Neighbours share most of a spell; every other round is taken backwards, so that none is always the later one.
    """
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds):
        for name in [*candidates][:: -1 if number % 2 else 1]:
            found[name].append(candidates[name]())
            print(
                f"  round {number + 1}/{rounds} {name}: {found[name][-1]:,.4g}", file=sys.stderr, flush=True
            )
    return found


def ratio(values: dict[str, list[float]], name: str, beside: str) -> float:
    """Median over the rounds of one candidate's value divided by another's of the same round."""
    return statistics.median(a / b for a, b in zip(values[name], values[beside], strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
