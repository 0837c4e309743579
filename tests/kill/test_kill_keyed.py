"""What instruments remember is exact through SIGKILL at any moment."""

from __future__ import annotations

import json
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.kill.feeders import Watcher, Writer
from tests.kill.life import Lives
from tests.kill.run import AIMS, REST_SECONDS
from tests.parts.part import free_port
from tests.test_elapsed import PACK, Oracle, Samples, Told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Tell
    from tests.kill.life import Death

SOAK = os.environ.get("EVALGAUGE_SOAK") == "1"
RUNS = 100 if SOAK else 15
GROWS = (
    "desk_answer_seconds",
    "desk_answer_limits",
    "desk_answer_expired",
    "desk_answer_unmatched",
    "desk_answer_evicted",
)


def told(seed: int) -> Iterator[Told]:
    """A desk with more who ask than it can remember, some who never get an answer, and clocks that disagree."""
    rng = random.Random(seed)  # noqa: S311 - reproducible, no secret
    number = 0
    while True:
        number += 1
        yield Told(
            rng.choice(["asked", "asked", "answered", "closed", "opened"]),
            f"who-{rng.randrange(9)}",
            rng.choice("ab"),
            number + rng.choice([0, 0, 0, -4, -30, 9, -1000]),
        )


def events(stream: Iterator[Told], kept: list[Told]) -> Iterator[Any]:
    """They as they are written; `kept` has them in the same order."""
    for number, one in enumerate(stream):
        kept.append(one)
        yield json.loads(one.line(number))


def shown(text: str) -> Samples:
    """What a scrape says of the metric, but for zeros."""
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.value and one.name.startswith("desk_answer")
    }


def run(seed: int, folder: Path, metrics: int) -> tuple[list[Death], int, str]:
    """Kill it two or three times; the deaths, how many events there were, and what was wrong at the end."""
    rng = random.Random(f"keyed {seed}")  # noqa: S311 - reproducible, no secret
    folder.mkdir(parents=True)
    pack, log = folder / "desk.yaml", folder / "events.ndjson"
    pack.write_text(PACK)
    log.touch()
    config = {
        "packs": [str(pack)],
        "state": {"commit_interval": f"{rng.randrange(50, 200)}ms", "min_commit_interval": "20ms"},
        # The events are of long ago: where the clock of this machine came in, all of them would be late.
        "engine": {"idle_after": "1d"},
        "inputs": {
            "log": {
                "type": "file",
                "path": str(log),
                "follow": True,
                "poll_interval": "20ms",
                "unknown_types": "refuse",
            }
        },
        "exporters": {"prometheus": {"type": "prometheus", "listen": f"127.0.0.1:{metrics}"}},
    }
    lives = Lives(folder / "lives", config, 0, metrics)
    kept: list[Told] = []
    writer = Writer(log, events(told(seed), kept), rng)
    watcher = Watcher(lives.metrics_url, GROWS)
    deaths = []
    try:
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
        oracle = Oracle(arrival=time.time())
        for one in kept[: len(writer.written)]:
            oracle.tell(one)
        expected = oracle.samples()
        deadline = time.monotonic() + REST_SECONDS
        while (found := shown(lives.metrics())) != expected and time.monotonic() < deadline:
            time.sleep(0.05)
        watcher.finish()
        lives.end()
        wrong = {
            key: (found.get(key), expected.get(key))
            for key in found | expected
            if found.get(key) != expected.get(key)
        }
        return deaths, len(writer.written), f"run {seed}: found and expected: {wrong}" if wrong else ""
    finally:
        lives.abandon()


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_what_waits_is_exact_through_sigkill_at_any_moment(tmp_path: Path, tell: Tell) -> None:
    """Times, limits, what was forgotten and what is open equal the oracle's; nothing that only grows ever fell."""
    ports = [free_port() for _ in range(RUNS)]
    with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as pool:
        reports = list(pool.map(run, range(RUNS), [tmp_path / str(seed) for seed in range(RUNS)], ports))
    deaths = [death for found, _, _ in reports for death in found]
    tell(
        f"state by key, killed at random: {len(reports)} runs, {sum(not wrong for *_, wrong in reports)} exact; "
        f"{len(deaths)} kills, {sum(death.hit_work for death in deaths)} of them hit uncommitted work; "
        f"{sum(count for _, count, _ in reports):,} events"
    )
    assert [wrong for *_, wrong in reports if wrong] == []
    assert all(death.hit_work for death in deaths)
