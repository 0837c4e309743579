"""What a key is: text whatever a mapping reads, apart for each tenant, and never longer than state should hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from evalgauge.core.collect import Chunk
from evalgauge.core.engine import InputRules
from tests.engine_helpers import INPUT, NOON, Lab, event, lines, mapping_of, pack_of
from tests.test_partitions import Log, Replica

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


def test_ids_of_any_length_are_told_apart_and_state_holds_no_more_of_them_than_of_others(
    tmp_path: Path,
) -> None:
    """Of a long one its beginning and a digest."""
    long = "x" * 900_000
    with Lab(tmp_path, [DESK]) as bench:

        def put(type_: str, who: str, second: int) -> None:
            time = f"2023-11-10T10:00:{second:02}Z"
            bench.put(event(second, type_, time=time, firm="f", who=who))

        put("desk.asked", long + "1", 0)
        put("desk.asked", long + "2", 1)
        assert bench.store.size() < 900_000
        put("desk.answered", long + "2", 2)
        assert pairs(bench) == {"f": 1}
        assert bench.value("desk_answer_open", "f") == 1


def test_events_whose_labels_a_limit_of_the_replica_changes_are_counted() -> None:
    """Each of two partitions is within it, both together are not; an event counts once."""
    limited = DESK.model_copy(
        update={
            "metrics": {
                "desk_answer_seconds": DESK.metrics["desk_answer_seconds"].model_copy(update={"limit": 2})
            }
        }
    )
    replica = Replica(Log(), "r", pack=limited)
    for partition, firms in (("t/0", "ab"), ("t/1", "acc")):
        replica.adopt(partition)
        told = [
            event(number, "desk.asked", firm=firm, who=f"{number}", time="2023-11-10T10:00:00Z")
            for number, firm in enumerate(firms)
        ]
        body = b"".join(line + b"\n" for line in lines(*told))
        replica.engine.process(INPUT, Chunk(partition, body, str, commit=1, arrival=NOON))
    replica.engine.commit()
    overflow = next(
        one for one in replica.engine.families() if one.name == "evalgauge_series_overflow_events"
    )
    assert dict(zip(overflow.series, overflow.values.tolist(), strict=True)) == {("desk_answer_seconds",): 2}
