"""A million distinct values in one label: series stay within the limit, sums exact, memory bounded."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.oracle import Samples, exposed, key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Tell

EVENTS = 1_000_000
LIMIT = 500
MOST_TIMES_CLEAN = 10
"""The most memory that an attacked process may use, as a multiple of one that is not."""
PROGRAM = Path(sys.executable).with_name("evalgauge")
_MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""A small process between: one that is started by a large one begins with that one's peak."""
KINDS = ("a", "b", "c")
PACK = f"""
pack: attacked
version: 1
title: One label that anybody can write
events:
  attacked.seen:
    description: Somebody came by.
    fields:
      who: {{type: string, required: true, max_length: 64}}
      kind: {{type: string, required: true, enum: [a, b, c]}}
      cost: {{type: number, required: true, min: 0, unit: "1"}}
metrics:
  attacked:
    type: counter
    help: Visits.
    on: attacked.seen
    labels: {{who: {{field: who, limit: {LIMIT}}}, kind: kind}}
  attacked_cost:
    type: histogram
    help: What a visit cost.
    on: attacked.seen
    value: cost
    labels: {{who: {{field: who, limit: {LIMIT}}}}}
    buckets: [1, 10, 100]
  attacked_cost_sum_of_all:
    type: counter
    help: What all visits cost, without a limit of its own for the label but with one for the metric.
    on: attacked.seen
    value: cost
    limit: 100
    labels: {{who: {{field: who, limit: 100000}}, kind: kind}}
"""


class Visit(NamedTuple):
    """One event, as far as it matters."""

    who: str
    kind: str
    cost: float


def visits(distinct: int, events: int = EVENTS) -> Iterator[Visit]:
    """Visits; every thousandth calls itself `_other`, the rest go round `distinct` names.

    Costs are multiples of 1/4, so that plain floats add them up without an error.
    """
    for number in range(events):
        who = "_other" if number % 1000 == 999 else f"visitor-{number * 7919 % distinct}"
        yield Visit(who, KINDS[number % 3], number % 800 / 4)


def _lines(distinct: int, events: int) -> Iterator[bytes]:
    block = []
    for number, (who, kind, cost) in enumerate(visits(distinct, events)):
        block.append(
            f'{{"id":"{number}","source":"s","type":"attacked.seen",'
            f'"data":{{"who":"{who}","kind":"{kind}","cost":{cost}}}}}\n'
        )
        if len(block) == 10_000:
            yield "".join(block).encode()
            block = []


class Replayed(NamedTuple):
    """What a replay gave."""

    text: str
    megabytes: float
    """Resident memory of its largest process at most."""


def _replay(folder: Path, distinct: int, workers: int, events: int = EVENTS) -> Replayed:
    """Pipe the visits into `evalgauge replay`."""
    pack, out = folder / "attacked.yaml", folder / f"{distinct}-{workers}.prom"
    pack.write_text(PACK, encoding="utf-8")
    command = [
        sys.executable,
        "-c",
        _MEASURED,
        str(PROGRAM),
        "replay",
        "-",
        "--pack",
        str(pack),
        "--workers",
        str(workers),
        "--out",
        str(out),
    ]
    said = folder / "said"
    with said.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout, suppress(BrokenPipeError), process.stdin:
        for block in _lines(distinct, events):
            process.stdin.write(block)
        process.stdin.close()
        kilobytes = process.stdout.read()
    assert process.wait() == 0, said.read_text(encoding="utf-8")
    return Replayed(out.read_text(encoding="utf-8"), int(kilobytes) / 1024)


@pytest.fixture(scope="module")
def expected() -> Samples:
    """What the attack must come to, counted directly: the first `LIMIT` names keep theirs, all others are one."""
    counted: Counter[tuple[str, str]] = Counter()
    costs: defaultdict[str, float] = defaultdict(float)
    within: Counter[tuple[str, str]] = Counter()
    known: set[str] = set()
    for who, kind, cost in visits(EVENTS):
        if who != "_other" and len(known) < LIMIT:
            known.add(who)
        shown = who if who in known else "_other"
        counted[shown, kind] += 1
        costs[shown] += cost
        for bound in ("1.0", "10.0", "100.0", "inf"):
            within[shown, bound] += cost <= float(bound)
    samples: Samples = {
        key("attacked_total", {"who": who, "kind": kind}): count for (who, kind), count in counted.items()
    }
    for who, cost in costs.items():
        samples[key("attacked_cost_sum", {"who": who})] = cost
        samples[key("attacked_cost_count", {"who": who})] = within[who, "inf"]
    for (who, bound), count in within.items():
        samples[key("attacked_cost_bucket", {"who": who, "le": bound})] = count
    return samples


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """Workers → megabytes of a run with few names; how many events there are is nothing to the memory."""
    folder = tmp_path_factory.mktemp("clean")
    return {workers: _replay(folder, 50, workers, 200_000).megabytes for workers in (1, 2)}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_million_label_values_cost_one_series_more_than_the_limit(
    tmp_path: Path,
    workers: int,
    expected: Samples,
    clean: dict[int, float],
    tell: Tell,
) -> None:
    """What is over the limit is counted under `_other`, to the last event and digit, beside a literal `_other`."""
    attacked = _replay(tmp_path, EVENTS, workers)
    found = exposed(attacked.text, "attacked")
    whos = {dict(labels).get("who") for name, labels in found if name == "attacked_total"}
    assert len(whos) == LIMIT + 1
    total = {name: value for name, value in found.items() if name[0] == "attacked_cost_sum_of_all_total"}
    assert {name: found[name] for name in found.keys() - total.keys()} == expected
    # At the metric's own limit every label without an enum gives way at once: one series more for each kind.
    assert len(total) <= 100 + len(KINDS)
    assert sum(total.values()) == sum(cost for _, _, cost in visits(EVENTS))
    ratio = attacked.megabytes / clean[workers]
    tell(
        f"{EVENTS:,} label values, {workers} worker(s): {len(whos)} values shown; largest process "
        f"{attacked.megabytes:.0f} MB, with 50 values {clean[workers]:.0f} MB ({ratio:.1f} times)"
    )
    assert ratio < MOST_TIMES_CLEAN
