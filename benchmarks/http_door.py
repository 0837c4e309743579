"""The HTTP door: requests answered after their commit, in batches of 1, 100 and 10,000 events."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from benchmarks import workload
from benchmarks.measure import Row, percentile, process_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evalgauge.core.process import Process


def run(*, quick: bool) -> list[Row]:
    """Events a second, and how long an acknowledged request takes; the client is a process of its own."""
    rows = []
    for batch, connections, requests in ((1, 16, 4000), (100, 8, 2000), (10_000, 2, 60)):
        count = max(connections * 2, requests // 5) if quick else requests
        with served() as (process, url, _):
            context = multiprocessing.get_context("spawn")
            with context.Pool(1) as pool:
                seconds, times = pool.apply(_client, (url, batch, connections, count))
            assert _accepted(process) == batch * count
        spread = f"p50 {percentile(times, 0.5) * 1000:.1f} ms, p99 {percentile(times, 0.99) * 1000:.1f} ms a request"
        rows.append(
            Row(
                f"HTTP NDJSON, {batch:,} events a request, {connections} connections",
                batch * count / seconds,
                "events/s",
                spread,
            )
        )
    return rows


@contextmanager
def served(**more: object) -> Iterator[tuple[Process, str, int]]:
    """A running process with an HTTP door and an exporter: the process, the door's URL and the exporter's port."""
    with (
        tempfile.TemporaryDirectory() as folder,
        process_of(
            Path(folder),
            packs=[str(workload.PACK)],
            inputs={"door": {"type": "http", "listen": "127.0.0.1:0"}},
            exporters={"out": {"type": "prometheus", "listen": "127.0.0.1:0"}},
            **more,
        ) as process,
    ):
        thread = threading.Thread(target=process.run, daemon=True)
        thread.start()
        door = process.pipeline.inputs["door"].collector
        end = time.monotonic() + 10
        while not getattr(door, "port", 0) and time.monotonic() < end:
            time.sleep(0.01)
        try:
            yield process, f"http://127.0.0.1:{door.port}/v1/events", process.exporters["out"].port  # type: ignore[attr-defined]
        finally:
            process.end()
            thread.join()


def _accepted(process: Process) -> int:
    (family,) = (f for f in process.families() if f.name == "evalgauge_events_accepted")
    return int(family.values.sum())


def _client(url: str, batch: int, connections: int, count: int) -> tuple[float, list[float]]:
    """Send `count` requests over some connections; seconds in all, and of each."""
    draw = workload.events(batch * count)
    bodies = [b"".join(workload.line(next(draw)) for _ in range(batch)) for _ in range(count)]
    times: list[float] = []

    async def send(session: aiohttp.ClientSession) -> None:
        while bodies:
            body = bodies.pop()
            started = time.perf_counter()
            async with session.post(
                url, data=body, headers={"Content-Type": "application/x-ndjson"}
            ) as answer:
                text = await answer.text()
            assert answer.status == 202, text
            assert json.loads(text)["accepted"] == batch
            times.append(time.perf_counter() - started)

    async def main() -> float:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:
            started = time.perf_counter()
            await asyncio.gather(*(send(session) for _ in range(connections)))
            return time.perf_counter() - started

    return asyncio.run(main()), times
