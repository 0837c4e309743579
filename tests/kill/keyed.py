"""A process that remembers by key is fed by a log, killed two or three times, and compared with an oracle at rest."""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.kill.feeders import Watcher, Writer
from tests.kill.life import Lives
from tests.kill.run import AIMS, REST_SECONDS
from tests.parts.part import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.kill.life import Death


class Case(NamedTuple):
    """What a process is fed, and what it must come to."""

    packs: Mapping[str, str]
    """Name → text, or no text where the pack is built in."""
    events: Iterator[Any]
    """As they are written, without end."""
    grows: tuple[str, ...]
    """How the names begin of what must never fall."""
    wrong: Callable[[str, int], list[str]]
    """What is wrong with a scrape after so many events."""


class Killed(NamedTuple):
    """What a run came to."""

    deaths: list[Death]
    events: int
    scrapes: int
    wrong: list[str]


def configuration(folder: Path, packs: Mapping[str, str], rng: random.Random, metrics: int) -> dict[str, Any]:
    """Of a process that follows `events.ndjson` in `folder`, in which the packs are written."""
    for name, text in packs.items():
        if text:
            (folder / f"{name}.yaml").write_text(text)
    return {
        "packs": [str(folder / f"{name}.yaml") if text else name for name, text in packs.items()],
        "state": {"commit_interval": f"{rng.randrange(50, 200)}ms", "min_commit_interval": "20ms"},
        # The events are of long ago: where the clock of this machine came in, all of them would be late.
        "engine": {"idle_after": "1d"},
        "inputs": {
            "log": {
                "type": "file",
                "path": str(folder / "events.ndjson"),
                "follow": True,
                "poll_interval": "20ms",
                "unknown_types": "refuse",
            }
        },
        "exporters": {"prometheus": {"type": "prometheus", "listen": f"127.0.0.1:{metrics}"}},
    }


def run(case: Case, seed: object, folder: Path, metrics: int, *, backlog: int = 0) -> Killed:
    """Kill it two or three times; `backlog` events are there before it first starts."""
    rng = random.Random(f"keyed {seed}")  # noqa: S311 - reproducible, no secret
    folder.mkdir(parents=True)
    (folder / "events.ndjson").touch()
    lives = Lives(folder / "lives", configuration(folder, case.packs, rng, metrics), 0, metrics)
    writer = Writer(folder / "events.ndjson", case.events, rng)
    watcher = Watcher(lives.metrics_url, case.grows)
    deaths = []
    try:
        if backlog:
            writer.backlog(backlog)
        lives.start()
        for feeder in (writer, watcher):
            feeder.start()
        for _ in range(rng.choice((2, 3))):
            lives.wait_ready()
            time.sleep(rng.random() * 0.4)
            deaths.append(lives.strike(rng, rng.choice(AIMS)))
            lives.start()
        lives.wait_ready()
        time.sleep(rng.uniform(0.1, 0.4))
        writer.finish()
        number = len(writer.written)
        deadline = time.monotonic() + REST_SECONDS
        while (wrong := case.wrong(lives.metrics(), number)) and time.monotonic() < deadline:
            time.sleep(0.05)
        watcher.finish()
        lives.end()
        found = [f"run {seed}: {one}" for one in wrong]
        return Killed(deaths, number, watcher.scrapes, found)
    finally:
        lives.abandon()


def side_by_side(one: Callable[[int, Path, int], Killed], runs: int, folder: Path) -> list[Killed]:
    """Runs by seed, a few at a time; each has a folder and a port of its own."""
    ports = [free_port() for _ in range(runs)]
    with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as pool:
        return list(pool.map(one, range(runs), [folder / str(seed) for seed in range(runs)], ports))


def report(what: str, runs: list[Killed]) -> str:
    """What runs came to, as it is told."""
    deaths = [death for one in runs for death in one.deaths]
    return (
        f"{what}, killed at random: {len(runs)} runs, {sum(not one.wrong for one in runs)} exact; "
        f"{len(deaths)} kills, {sum(death.hit_work for death in deaths)} of them hit uncommitted work; "
        f"{sum(one.events for one in runs):,} events; {sum(one.scrapes for one in runs):,} scrapes without a fall"
    )
