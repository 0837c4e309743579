"""State by key: its rate beside what remembers nothing, and commits with a million keys of which few changed."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Row, interleaved, ratio

from evalgauge.core import plugins
from evalgauge.core.collect import Chunk
from evalgauge.core.engine import Engine, EngineOptions, InputRules
from evalgauge.core.memory import few_collections
from evalgauge.core.pack.loader import load_pack
from evalgauge.core.selfmetrics import SelfMetrics
from evalgauge.core.sqlite_store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HERE = Path(__file__).parent
_CHUNK = 16_384
_DESKS = 100
_BEGAN = datetime(2024, 1, 1, tzinfo=UTC)
"""Long enough ago that no event is ahead of its arrival, which would hold time back."""


def run(*, quick: bool) -> list[Row]:
    """The engine alone, with its store, in one process: chunks of events in, a commit each second or when asked for."""
    live, count, rounds = (10_000, 100_000, 2) if quick else (100_000, 400_000, 7)
    keys = 100_000 if quick else 1_000_000
    return [*_rates(live, count, rounds), *_commits(keys, keys // 100, 3 if quick else 7)]


def _rates(live: int, count: int, rounds: int) -> Iterator[Row]:
    with contextlib.ExitStack() as stack:
        turns = {}
        for name in ("keyed", "plain"):
            bench = stack.enter_context(_Bench.of(f"{name}_pack.yaml"))
            bench.take(_opened(range(live)))
            bench.engine.commit()
            turns[name] = bench
        dice = random.Random(1)
        chunks = list(_chunks(_mixed(dice, live, count)))
        with few_collections():
            values = interleaved(
                {name: functools.partial(bench.rate, chunks, count) for name, bench in turns.items()}, rounds
            )
    yield Row(
        f"elapsed, progress and pattern on every event, {live:,} keys",
        statistics.median(values["keyed"]),
        "events/s",
        f"{statistics.median(values['plain']):,.0f} two counters and a histogram",
        ratio(values, "keyed", "plain"),
        0.4,
    )


def _commits(keys: int, changed: int, rounds: int) -> Iterator[Row]:
    with _Bench.of("keyed_pack.yaml") as bench, few_collections():
        bench.take(_opened(range(keys)))
        started = time.perf_counter()
        bench.engine.commit()
        whole = time.perf_counter() - started
        dice = random.Random(2)
        for name, draw in (
            ("the most recent", lambda: range(keys - changed, keys)),
            ("drawn uniformly", lambda: dice.sample(range(keys), changed)),
        ):
            times = []
            for _ in range(rounds):
                bench.take(_opened(draw()))
                started = time.perf_counter()
                bench.engine.commit()
                times.append(time.perf_counter() - started)
            took = statistics.median(times)
            yield Row(
                f"commit with {keys:,} keys of which {changed:,} changed, {name}",
                took * 1000,
                "ms",
                f"{whole * 1000:,.0f} ms all of them; {took / whole:.0%} of it",
            )


class _Bench:
    """An engine over a store of its own."""

    def __init__(self, pack: str, folder: Path) -> None:
        own = load_pack("evalgauge").pack
        self.store = SqliteStore(folder)
        self.engine = Engine(
            [load_pack(str(_HERE / pack)).pack, own],
            {"bench": InputRules()},
            plugins.load_all(plugins.INSTRUMENTS),
            self.store,
            SelfMetrics(own),
            EngineOptions(),
        )
        self.engine.restore()

    @classmethod
    @contextlib.contextmanager
    def of(cls, pack: str) -> Iterator[_Bench]:
        """One in a folder that goes with it."""
        with tempfile.TemporaryDirectory() as folder:
            bench = cls(pack, Path(folder))
            try:
                yield bench
            finally:
                bench.store.close()

    def take(self, events: Iterable[bytes]) -> None:
        """Take events in."""
        for body in _chunks(events):
            self._process(body)

    def _process(self, body: bytes) -> None:
        self.engine.process("bench", Chunk("p", body, str, commit=1, arrival=time.time()))

    def rate(self, chunks: list[bytes], count: int) -> float:
        """Events a second of so many events in chunks, with a commit."""
        started = time.perf_counter()
        for body in chunks:
            self._process(body)
        self.engine.commit()
        return count / (time.perf_counter() - started)


def _chunks(events: Iterable[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    for event in events:
        held.append(event)
        if len(held) == _CHUNK:
            yield b"\n".join(held) + b"\n"
            held = []
    if held:
        yield b"\n".join(held) + b"\n"


def _event(number: int, type_: str, case: int, seconds: float) -> bytes:
    time_ = (_BEGAN + timedelta(seconds=seconds)).isoformat()
    data = {
        "case": f"case-{case:08}",
        "desk": f"desk-{case % _DESKS}",
        "cost": case % 150,
        "done": number % 101,
    }
    return json.dumps(
        {"id": str(number), "source": "/b", "type": type_, "time": time_, "data": data}
    ).encode()


def _opened(cases: Iterable[int]) -> Iterator[bytes]:
    for number, case in enumerate(cases):
        yield _event(number, "case.opened", case, 0)


def _mixed(dice: random.Random, live: int, count: int) -> Iterator[bytes]:
    """Cases of those that are live are closed and opened again, time going on."""
    for number in range(count):
        yield _event(number, dice.choice(("case.opened", "case.closed")), dice.randrange(live), number / 1000)
