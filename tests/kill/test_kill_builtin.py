"""All built-in packs at once: a process that is killed shows in the end what one shows that was left alone."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from evalgauge.core.demo.evaluations import Evaluations
from evalgauge.core.demo.judgments import Judgments
from evalgauge.core.demo.questions import Questions
from evalgauge.core.demo.servers import Servers
from evalgauge.core.demo.streams import Streams
from evalgauge.core.demo.timeline import Timeline
from evalgauge.core.demo.week import DAY, HOUR
from evalgauge.core.demo.world import PACKS
from tests.kill.keyed import Case, Killed, configuration, report, run, side_by_side
from tests.kill.life import Lives
from tests.kill.run import REST_SECONDS
from tests.oracle import Samples, differences, exposed
from tests.parts.part import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Tell

SOAK = os.environ.get("EVALGAUGE_SOAK") == "1"
RUNS = 100 if SOAK else 3
BACKLOG = 8_000
"""Events that are there at the start: some two hours, so that a sitting ends before the last kill."""
MONDAY = dt.datetime(2025, 3, 3, tzinfo=dt.UTC).timestamp()
_SHOWN = (
    *("judgment_", "ahp_", "qna_", "stream_", "server_"),
    "evalgauge_events_",
    "evalgauge_values_unobserved",
    "evalgauge_input_bytes_total",
)
_GROWS = ("evalgauge_events_", "evalgauge_input_bytes_total", "evalgauge_values_unobserved_total")


def told(seed: int) -> Iterator[Any]:
    """The demo's Tuesday from the morning on, with fewer judgments; what is no JSON is left to the writer."""
    begin = MONDAY + DAY + 8 * HOUR
    workloads = (Judgments(seed, 0.05), Evaluations(seed, MONDAY), Questions(seed, MONDAY))
    rng = random.Random(f"builtin {seed}")  # noqa: S311 - reproducible, no secret
    held: list[Any] = []
    for one in Timeline(*workloads, Streams(seed), Servers(seed)).between(begin, begin + 30 * DAY):
        try:
            event = json.loads(one.line)
        except ValueError:
            continue
        # Some come late, and some twice.
        if rng.random() < 0.02:
            held.append(event)
        else:
            yield event
        if held and rng.random() < 0.02:
            yield held[0]
            if rng.random() < 0.7:
                held.pop(0)


def left_alone(folder: Path, seed: int, number: int) -> Samples:
    """What a process comes to that reads the same log in one life."""
    port = free_port()
    rng = random.Random(f"alone {seed}")  # noqa: S311 - reproducible, no secret
    lives = Lives(folder / "alone", configuration(folder, dict.fromkeys(PACKS, ""), rng, port), 0, port)
    try:
        lives.start()
        lives.wait_ready()
        deadline = time.monotonic() + REST_SECONDS
        before: Samples = {}
        while time.monotonic() < deadline:
            found = exposed(lives.metrics(), *_SHOWN)
            counted = sum(
                value
                for (name, _), value in found.items()
                if name in ("evalgauge_events_accepted_total", "evalgauge_events_rejected_total")
            )
            if counted >= number and found == before:
                break
            before = found
            time.sleep(0.5)
        lives.end()
        return found
    finally:
        lives.abandon()


def run_all(seed: int, folder: Path, metrics: int) -> Killed:
    """One run, and one that is not killed once everything is written."""
    alone: dict[int, Samples] = {}

    def wrong(text: str, number: int) -> list[str]:
        if number not in alone:
            alone[number] = left_alone(folder, seed, number)
        return differences(alone[number], exposed(text, *_SHOWN))

    case = Case(dict.fromkeys(PACKS, ""), told(seed), _GROWS, wrong)
    killed = run(case, f"builtin {seed}", folder, metrics, backlog=BACKLOG)
    (known,) = alone.values()
    stateful = [name for name, _ in known if name.startswith(("ahp_", "qna_"))]
    assert len(stateful) > 50, "little was remembered"
    return killed


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_all_packs_show_what_they_show_without_kills(tmp_path: Path, tell: Tell) -> None:
    """Sample by sample, to the last digit, gauges too."""
    runs = side_by_side(run_all, RUNS, tmp_path)
    tell(report("all built-in packs, against a process that is left alone", runs))
    assert [wrong for one in runs for wrong in one.wrong][:20] == []
    assert all(death.hit_work for one in runs for death in one.deaths)
