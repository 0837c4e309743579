"""What instruments remember is exact through SIGKILL at any moment."""

from __future__ import annotations

import json
import os
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import every_kind
from tests.kill.keyed import Case, Killed, report, run, side_by_side
from tests.test_elapsed import PACK, Oracle, Samples, Told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Tell

SOAK = os.environ.get("EVALGAUGE_SOAK") == "1"
RUNS = 100 if SOAK else 15
DESK_RUNS = 100 if SOAK else 3
"""What waits at a desk is among all kinds too: here with other clocks."""
KEYS = [f"k{number}" for number in range(5)]
EACH = 4
"""Events in a second of theirs."""
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


def run_desk(seed: int, folder: Path, metrics: int) -> Killed:
    """One metric, of which there are many events."""
    kept: list[Told] = []
    wanted: dict[int, Samples] = {}

    def wrong(text: str, number: int) -> list[str]:
        if number not in wanted:
            oracle = Oracle(arrival=time.time())
            for one in kept[:number]:
                oracle.tell(one)
            wanted[number] = oracle.samples()
        found, expected = shown(text), wanted[number]
        differ = sorted(key for key in found | expected if found.get(key) != expected.get(key))
        return [f"{key}: found {found.get(key)}, expected {expected.get(key)}" for key in differ]

    return run(Case({"desk": PACK}, events(told(seed), kept), GROWS, wrong), seed, folder, metrics)


def written(stream: Iterator[every_kind.Event], kept: list[every_kind.Event]) -> Iterator[Any]:
    """Events as they are written; `kept` has them in the same order."""
    for number, one in enumerate(stream):
        kept.append(one)
        yield one.json(number)


def run_every_kind(seed: int, folder: Path, metrics: int) -> Killed:
    """All kinds at once in one process."""
    rng = random.Random(f"every kind {seed}")  # noqa: S311 - reproducible, no secret
    kept: list[every_kind.Event] = []
    wanted: dict[int, every_kind.Samples] = {}

    def wrong(text: str, number: int) -> list[str]:
        if number not in wanted:
            wanted[number] = every_kind.expected(kept[:number], wide=False)
        return every_kind.wrong(every_kind.shown(text), wanted[number])

    stream = written(every_kind.stream(rng, KEYS, EACH, wide=False), kept)
    return run(Case(every_kind.packs(wide=False), stream, every_kind.GROWS, wrong), seed, folder, metrics)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_what_waits_is_exact_through_sigkill_at_any_moment(tmp_path: Path, tell: Tell) -> None:
    """Times, limits, what was forgotten and what is open equal the oracle's; nothing that only grows ever fell."""
    runs = side_by_side(run_desk, DESK_RUNS, tmp_path)
    tell(report("state by key", runs))
    assert [wrong for one in runs for wrong in one.wrong] == []
    assert all(death.hit_work for one in runs for death in one.deaths)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_every_kind_is_exact_through_sigkill_at_any_moment(tmp_path: Path, tell: Tell) -> None:
    """All that remember at once; each milestone is counted once, and each match; nothing that only grows ever fell."""
    runs = side_by_side(run_every_kind, RUNS, tmp_path)
    tell(report("every kind of state by key", runs))
    assert [wrong for one in runs for wrong in one.wrong] == []
    assert all(death.hit_work for one in runs for death in one.deaths)
