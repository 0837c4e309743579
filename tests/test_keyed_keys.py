"""What a key is: text whatever a mapping reads, and apart for each tenant."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from evalgauge.core.engine import InputRules
from tests.engine_helpers import Lab, mapping_of, pack_of

if TYPE_CHECKING:
    from pathlib import Path

DESK = pack_of("""\
pack: desk
version: 1
title: Desk
events:
  desk.asked:
    description: Somebody asked.
    tenant: firm
    fields: {firm: {type: string}, who: {type: string, required: true}}
  desk.answered:
    description: Somebody answered.
    tenant: firm
    fields: {firm: {type: string}, who: {type: string, required: true}}
metrics:
  desk_answer_seconds:
    type: elapsed
    help: Time to an answer.
    begin: desk.asked
    end: desk.answered
    key: who
    labels: {firm: firm}
    buckets: [10]
""")
MAPPING = {
    "mapping": "rows",
    "version": 1,
    "type": {"field": "kind", "table": {"q": "desk.asked", "a": "desk.answered"}},
    "id": {"from": "position"},
    "time": {"field": "at", "format": "unix"},
    "source": {"constant": "rows"},
    "data": {one: {"firm": "firm", "who": "row.id"} for one in ("desk.asked", "desk.answered")},
}


def row(kind: str, id_: Any, at: int, firm: str = "f") -> dict[str, Any]:
    """A row of a table."""
    return {"kind": kind, "row": {"id": id_}, "at": 1_700_000_000 + at, "firm": firm}


def pairs(bench: Lab) -> dict[str, int]:
    """Pairs by firm."""
    family = next(one for one in bench.families() if one.name == "desk_answer_seconds")
    assert family.buckets is not None
    counts = family.buckets.sum(axis=1).tolist()
    return {labels[0]: count for labels, count in zip(family.series, counts, strict=False) if count}


def test_a_number_and_its_text_are_one_key_and_survive_a_restart(tmp_path: Path) -> None:
    """Rows of a database have numbers for ids; `true` and `1` stay apart."""
    rules = InputRules(mapping_of(json.dumps(MAPPING), DESK))
    with Lab(tmp_path, [DESK], rules) as bench:
        yes: Any = json.loads("true")
        bench.put(row("q", 17, 0), row("q", "18", 0), row("q", yes, 0))
    with Lab(tmp_path, [DESK], rules) as bench:
        bench.put(row("a", "17", 5), row("a", 18, 5), row("a", 1, 5))
        assert pairs(bench) == {"f": 2}
        assert bench.value("desk_answer_open", "f") == 1


def test_nobody_answers_another_tenants_question(tmp_path: Path) -> None:
    """Ids of two tenants may be equal, by chance or on purpose."""
    rules = InputRules(mapping_of(json.dumps(MAPPING), DESK))
    with Lab(tmp_path, [DESK], rules) as bench:
        bench.put(row("q", "1", 0, "ours"), row("a", "1", 1, "theirs"))
        assert pairs(bench) == {}
        bench.put(row("a", "1", 5, "ours"))
        assert pairs(bench) == {"ours": 1}
