"""What series cost: rate and memory of one counter with 1k to 1M series, drawn uniformly."""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

from benchmarks import workload
from benchmarks.measure import Row, process_of


def run(*, quick: bool) -> list[Row]:
    """Each size in a process of its own: events a second once all series are born, and resident memory."""
    rows: list[Row] = []
    first: tuple[float, float] | None = None
    for series in (1_000, 10_000, 100_000) if quick else (1_000, 10_000, 100_000, 1_000_000):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rate, memory, birth = pool.apply(_measure, (series, 300_000 if quick else 3_000_000))
        first = first or (rate, memory)
        each = (memory - first[1]) / series
        text = f"{memory / 2**20:,.0f} MiB resident, {each:,.0f} bytes a series; births {birth:,.0f}/s"
        wanted = 0.7 if series == 1_000_000 else None
        rows.append(
            Row(
                f"counter with {series:,} series, commits each second",
                rate,
                "events/s",
                text,
                rate / first[0],
                wanted,
            )
        )
    return rows


def _measure(series: int, count: int) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory() as folder:
        # Events that name every series once come first; their time is that of the births.
        born = workload.write_growth(Path(folder) / "a.ndjson", 0, series)
        rest = workload.write_growth(Path(folder) / "b.ndjson", count, series, seed=2)
        with process_of(
            Path(folder) / "state",
            packs=[str(workload.GROWTH_PACK)],
            inputs={
                "a": {"type": "file", "path": str(born)},
            },
        ) as process:
            started = time.perf_counter()
            process.run(until_done=True)
            birth = round(series**0.5) ** 2 / (time.perf_counter() - started)
        with process_of(
            Path(folder) / "state",
            packs=[str(workload.GROWTH_PACK)],
            inputs={"b": {"type": "file", "path": str(rest)}},
        ) as process:
            pipeline = process.pipeline
            pipeline.start()
            # The reducer learns its label sets anew after a restart; the file names each of them once first.
            target = round(series**0.5) ** 2
            marks: list[tuple[float, int]] = []
            pipeline.run(
                until_done=True, progress=lambda: marks.append((time.perf_counter(), pipeline.engine.taken))
            )
            marks.append((time.perf_counter(), pipeline.engine.taken))
            pipeline.close()
            process.close()
        warm = [mark for mark in marks if mark[1] >= target] or marks
        (t0, n0), (t1, n1) = (warm[0], warm[-1]) if len(warm) > 1 else (marks[0], marks[-1])
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return (n1 - n0) / (t1 - t0), memory, birth
