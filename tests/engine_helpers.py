"""A real engine over a real state folder, and streams of events to put through it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from evalgauge.core.collect import Chunk, Verdict
from evalgauge.core.deadletters import DeadLetterBox, Wanted
from evalgauge.core.document import parse_document
from evalgauge.core.engine import Engine, EngineOptions, InputRules
from evalgauge.core.instruments.active import Active
from evalgauge.core.instruments.consistency import Consistency
from evalgauge.core.instruments.counter import Counter
from evalgauge.core.instruments.deviation import Deviation
from evalgauge.core.instruments.elapsed import Elapsed
from evalgauge.core.instruments.gauge import Gauge
from evalgauge.core.instruments.histogram import Histogram
from evalgauge.core.instruments.pattern import Pattern
from evalgauge.core.instruments.progress import Progress
from evalgauge.core.instruments.window import Window
from evalgauge.core.mapping_check import checked_mapping
from evalgauge.core.pack.check import check_pack
from evalgauge.core.pack.loader import examined_pack, load_pack
from evalgauge.core.selfmetrics import SelfMetrics
from evalgauge.core.sqlite_store import SqliteStore
from evalgauge.exporters import exposition
from evalgauge.exporters.prometheus import PrometheusExporter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from evalgauge.core.families import Family
    from evalgauge.core.instrument import Instrument
    from evalgauge.core.mapping import Mapping as EventMapping
    from evalgauge.core.pack.model import Pack
    from evalgauge.core.store import DeadLetter

KINDS: dict[str, type[Instrument]] = {
    "counter": Counter,
    "gauge": Gauge,
    "histogram": Histogram,
    "elapsed": Elapsed,
    "active": Active,
    "deviation": Deviation,
    "pattern": Pattern,
    "progress": Progress,
    "window": Window,
    "consistency": Consistency,
}
NOON = 1_700_000_000.0
"""When everything happens, unless a test moves the clock."""
INPUT = "in"

LAB = """\
pack: lab
version: 1
title: Lab
events:
  lab.run:
    description: Something was run.
    tenant: tenant
    fields:
      tenant: {type: string, required: true, max_length: 20}
      kind: {type: string, required: true, enum: [a, b, c]}
      who: {type: string}
      took_ms: {type: number, unit: ms}
      cost: {type: number, unit: usd, min: 0}
      count: {type: integer, min: 0, max: 9}
      level: {type: number, unit: "1"}
      ok: {type: boolean}
      blob: {type: any, payload: true}
    quality:
      plausible: {field: took_ms, min: 0, max: 30000}
      blob_there: {field: blob, not_empty: true}
  lab.opened:
    description: A door opened.
    fields:
      who: {type: string}
      level: {type: number, unit: "1"}
  lab.closed:
    description: A door closed.
    fields:
      who: {type: string}
metrics:
  lab_runs:
    type: counter
    help: Runs.
    on: lab.run
    labels: {tenant: tenant, kind: kind, who: {field: who, limit: 3}}
    limit: 8
    exemplars: true
  lab_cost_usd:
    type: counter
    help: Cost.
    on: lab.run
    value: cost
    labels: {who: {field: who, limit: 2, default: nobody}, ok: ok}
  lab_duration_seconds:
    type: histogram
    help: Time.
    on: lab.run
    value: took_ms
    labels: {kind: kind, who: {field: who, limit: 3}}
    buckets: [0.05, 0.1, 1, 30]
  lab_level:
    type: gauge
    help: Level.
    on: [lab.run, lab.opened]
    value: level
    labels: {who: {field: who, limit: 2}}
    across: last
  lab_open_doors:
    type: gauge
    help: Doors that are open.
    on: [lab.opened, lab.closed]
    up: lab.opened
    down: lab.closed
    labels: {who: {field: who, limit: 2}}
    across: sum
  lab_touches:
    type: counter
    help: Anything at all.
    on: [lab.run, lab.opened, lab.closed]
    labels: {who: {field: who, limit: 2}}
    exemplars: true
  lab_violations:
    type: counter
    help: Rules broken.
    on: lab.run
    labels: {who: {field: who, limit: 2}, rule: {quality: rule}}
  lab_records:
    type: counter
    help: Records by validity.
    on: lab.run
    labels: {validity: {quality: validity}, count: {field: count, table: {"1": one, "2": two}, table_default: many}}
  lab_slow:
    type: counter
    help: Slow runs of a known person.
    on: lab.run
    where: {all: [{took_ms: {gt: 100}}, {not: {who: {present: false}}}, {any: [{kind: [a, b]}, {ok: true}]}]}
    labels: {kind: kind}
"""


class Clock:
    """A clock that goes only when a test moves it."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        """Unix time."""
        return self.now


def pack_of(text: str) -> Pack:
    """A sound pack from its text."""
    document = parse_document(text, "pack.yaml")
    examined = examined_pack(document)
    assert examined.model is not None
    problems = [*examined.problems, *check_pack(document, examined.model, (), examined.broken)]
    assert problems == [], "\n".join(map(str, problems))
    return examined.model


def mapping_of(text: str, *packs: Pack) -> EventMapping:
    """A sound mapping from its text."""
    return checked_mapping(parse_document(text, "mapping.yaml"), packs)


@cache
def own_pack() -> Pack:
    """The pack of the process's own metrics."""
    return load_pack("evalgauge").pack


@cache
def lab() -> Pack:
    """Every instrument and every kind of label, with limits that a few events reach."""
    return pack_of(LAB)


def event(number: int | str, type_: str = "lab.run", /, **data: Any) -> dict[str, Any]:
    """An event in the envelope; `lab.run` has its required fields unless `data` says otherwise."""
    envelope: dict[str, Any] = {
        key: data.pop(key) for key in ("time", "traceparent", "source", "id") if key in data
    }
    if type_ == "lab.run":
        data = {"tenant": "t", "kind": "a"} | data
    return {"id": f"e{number}", "source": "/s", "type": type_, "data": data, **envelope}


def lines(*events: Any) -> list[bytes]:
    """Events as lines of JSON; bytes stay as they are."""
    return [one if isinstance(one, bytes) else json.dumps(one).encode() for one in events]


@dataclass
class Lab:
    """An engine over the state in `folder`; leaving the context closes the store without a commit."""

    folder: Path
    packs: Sequence[Pack] = ()
    rules: InputRules = field(default_factory=InputRules)
    options: EngineOptions = field(default_factory=EngineOptions)
    clock: Clock = field(default_factory=Clock)
    kinds: Mapping[str, type[Instrument]] = field(default_factory=lambda: KINDS)
    place: int = 0
    """Bytes of the stream that were fed."""

    def __post_init__(self) -> None:
        """Open the store and take the state back."""
        self.store = SqliteStore(self.folder)
        self.metrics = SelfMetrics(own_pack())
        packs = [*(self.packs or [lab()]), own_pack()]
        self.engine = Engine(
            packs, {INPUT: self.rules}, self.kinds, self.store, self.metrics, self.options, clock=self.clock
        )
        self.positions = self.engine.restore()
        self.verdicts: list[Verdict] = []

    def __enter__(self) -> Self:
        """Give the lab."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.store.close()

    def chunk(self, body: bytes, *, tenant: str | None = None, arrival: float = NOON) -> Chunk:
        """The next chunk of the one partition `p`; its position is the byte after it."""
        base = self.place
        self.place += len(body)
        return Chunk(
            partition="p",
            body=body,
            locate=lambda line: f"{base}+{line}",
            commit=self.place,
            tenant=tenant,
            base=base,
            arrival=arrival,
            acknowledge=self.verdicts.append,
        )

    def feed(self, body: bytes, *, tenant: str | None = None, arrival: float = NOON) -> None:
        """Process one chunk."""
        self.engine.process(INPUT, self.chunk(body, tenant=tenant, arrival=arrival))

    def put(self, *events: Any, tenant: str | None = None, arrival: float = NOON) -> Verdict:
        """Feed events as one chunk, commit, and return the verdict."""
        self.feed(b"".join(line + b"\n" for line in lines(*events)), tenant=tenant, arrival=arrival)
        self.engine.commit()
        return self.verdicts[-1]

    def families(self) -> list[Family]:
        """Families of the packs, without the engine's own counters."""
        return [one for one in self.engine.families() if not one.name.startswith("evalgauge_")]

    def shown(self) -> bytes:
        """Text 0.0.4, then OpenMetrics for the exemplars; birth times left out, for they are commit times."""
        families = self.families()
        return PrometheusExporter.render(families) + exposition.render(
            families, openmetrics=True, created=False
        )

    def counted(self) -> dict[tuple[str, ...], int]:
        """What the engine counted of itself: (name, labels…) → count; bytes left out, for blank ones are no events."""
        return {
            (family.name, *labels): int(value)
            for family in self.engine.families()
            if family.name.startswith("evalgauge_") and family.name != "evalgauge_input_bytes"
            for labels, value in zip(family.series, family.values.tolist(), strict=False)
        }

    def value(self, name: str, *labels: str) -> float:
        """The value of one series, 0 where there is none."""
        family = next(one for one in self.engine.families() if one.name == name)
        found = dict(zip(family.series, family.values.tolist(), strict=False))
        return float(found.get(labels, 0))

    def letters(self) -> list[DeadLetter]:
        """Dead letters that are committed, oldest first."""
        box = DeadLetterBox(self.folder)
        try:
            return list(box.letters(Wanted()))
        finally:
            box.close()


def one_by_one(folder: Path, stream: Iterable[bytes], **options: Any) -> Lab:
    """What a stream comes to when every line is a chunk of its own: the oracle of all cuts."""
    bench = Lab(folder, **options)
    for line in stream:
        bench.feed(line + b"\n")
    bench.engine.commit()
    return bench
