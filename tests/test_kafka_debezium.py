"""Debezium over Kafka: envelopes of the PostgreSQL connector, and the mappings that the documentation shows."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from evalgauge.collectors.kafka_records import Body
from evalgauge.core.engine import InputRules
from evalgauge.core.pack.loader import load_pack
from tests.engine_helpers import Lab, lab, mapping_of, pack_of
from tests.record_helpers import (
    CLOUDEVENTS,
    DEBEZIUM,
    EVENTS,
    MALFORMED,
    A,
    B,
    Headers,
    Record,
    body,
    documented,
    judged,
    lines,
    reasons,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from evalgauge.core.collect import Verdict

ROW = {
    "id": 4711,
    "tenant": "acme",
    "workflow": "claims",
    "method": "llm",
    "status": "success",
    "confidence": 0.93,
    "took_ms": 812,
    "verdict": "accept",
    "judged_at": "2026-03-01T09:30:00.250000Z",
}


def change(
    op: str, before: Any = None, after: Any = None, *, lsn: int = 24023128, order: int | None = None
) -> dict[str, Any]:
    """A change as the PostgreSQL connector writes it: keys, types and their order."""
    now = 1772357400251
    tail = {"op": op, "ts_ms": now + 126, "ts_us": now * 1000 + 126437, "ts_ns": now * 1_000_000 + 126437210}
    snapshot = op == "r"
    source = {
        "version": "3.0.0.Final",
        "connector": "postgresql",
        "name": "prod",
        "ts_ms": now,
        "snapshot": "first" if snapshot else "false",
        "db": "judging",
        "sequence": f'[null,"{lsn}"]' if snapshot else f'["{lsn - 9}","{lsn}"]',
        "ts_us": now * 1000 + 437,
        "ts_ns": now * 1_000_000 + 437_000,
        "schema": "" if op == "m" else "public",
        "table": "" if op == "m" else "judgments",
        "txId": 555,
        "lsn": lsn,
        "xmin": None,
    }
    transaction = None
    if order is not None and not snapshot:
        transaction = {"id": f"555:{lsn}", "total_order": order, "data_collection_order": order}
    if op == "m":
        return {
            "source": source,
            "transaction": transaction,
            **tail,
            "message": {"prefix": "foo", "content": "Ymfy"},
        }
    return {"before": before, "after": after, "source": source, "transaction": transaction, **tail}


def column(type_: str, field: str, **more: Any) -> dict[str, Any]:
    """One field of a schema of Kafka Connect."""
    return {"type": type_, "optional": True, "field": field, **more}


SCHEMA = {
    "type": "struct",
    "fields": [
        *(
            {
                "type": "struct",
                "fields": [
                    column("int32", "id"),
                    *(
                        column("string", name)
                        for name in ("tenant", "workflow", "method", "status", "verdict")
                    ),
                    column("double", "confidence"),
                    column("int32", "took_ms"),
                    column("string", "judged_at", name="io.debezium.time.ZonedTimestamp", version=1),
                ],
                "optional": True,
                "name": "prod.public.judgments.Value",
                "field": side,
            }
            for side in ("before", "after")
        ),
        {
            "type": "struct",
            "fields": [column("string", "version"), column("int64", "lsn"), column("string", "payload")],
            "optional": False,
            "name": "io.debezium.connector.postgresql.Source",
            "version": 1,
            "field": "source",
        },
        {
            "type": "struct",
            "fields": [
                column("string", "id"),
                column("int64", "total_order"),
                column("int64", "data_collection_order"),
            ],
            "optional": True,
            "name": "event.block",
            "version": 1,
            "field": "transaction",
        },
        column("string", "op"),
        column("int64", "ts_ms"),
    ],
    "optional": False,
    "name": "prod.public.judgments.Envelope",
    "version": 2,
}


def compact(value: Any) -> bytes:
    """JSON as the converter writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def enveloped(value: Any) -> bytes:
    """The same with `schemas.enable=true`."""
    return compact({"schema": SCHEMA, "payload": value})


OPERATIONS = [
    change("r", None, ROW),
    change("c", None, ROW, order=1),
    change("u", {**ROW, "status": "error"}, ROW, order=2),
    change("u", None, ROW),
    change("d", {"id": 4711, "tenant": None}, None, order=3),
    change("t"),
    change("m"),
]


@pytest.mark.parametrize("value", OPERATIONS, ids=[one["op"] for one in OPERATIONS])
def test_a_change_is_its_payload_with_the_schema_taken_off(value: dict[str, Any]) -> None:
    """Byte for byte, for every operation; without a schema it is left alone."""
    assert lines(DEBEZIUM, compact(value)) == [compact(value)]
    assert lines(DEBEZIUM, enveloped(value)) == [compact(value)]
    assert lines(DEBEZIUM, json.dumps({"payload": value, "schema": SCHEMA}, indent=2).encode()) != []
    [line] = lines(DEBEZIUM, json.dumps({"payload": value, "schema": None}, indent=2).encode())
    assert json.loads(line) == value


def test_a_tombstone_is_no_event_however_it_is_written() -> None:
    """Today's converter writes nothing, an older one the word."""
    found = body(DEBEZIUM, compact(OPERATIONS[4]), None, b"null", b'{"schema":null,"payload":null}', b"", A)
    assert found.firsts == [0, 1, 1, 1, 1, 1]
    assert body(DEBEZIUM, A, b"null") == Body(A, [0, 1])


@pytest.mark.parametrize(
    "value",
    [
        compact(change("c", None, {**ROW, "payload": {"schema": 1}})),
        compact({"schema": "s", "payload": {"a": 1}, "id": 3}),
        compact({"payload": {"a": 1}}),
        b'{"schema": {}, "payload": {"a": 1}',
        b'{"schema": {}, "payload": {"a": NaN}}',
        b'{"schema": {"a": "x\ny"}, "payload": {"a": 1}}',
        b'{"schema": {}, "payload": {"a": "\n"}}',
        b'{"schema": ' + b"[" * 20_000 + b', "payload": {}}',
        b'["schema", "payload"]',
        b'"payload"',
    ],
)
def test_what_is_no_change_with_a_schema_stays_as_it_is(value: bytes) -> None:
    """A column may be called payload, and what is broken is refused whole."""
    assert lines(DEBEZIUM, value) == [value.replace(b"\n", b"\r")]


def test_a_value_holds_one_change_and_never_several(tmp_path: Path) -> None:
    """What would be NDJSON among events is one line here, which the engine refuses."""
    found = body(DEBEZIUM, A, A + b"\n" + B, A)
    assert found.firsts is None
    assert reasons(judged(tmp_path, found)) == MALFORMED


def test_a_payload_that_is_not_utf8_is_refused_as_such(tmp_path: Path) -> None:
    """Bytes are never mended."""
    value = b'{"schema":{},"payload":' + A.replace(b'"t"', b'"\xff"') + b"}"
    assert reasons(judged(tmp_path, body(DEBEZIUM, value))) == ["invalid_utf8"]


def every_change() -> str:
    """The documented mapping in which updates are events as well."""
    text = documented("yaml", "mapping: judgments_table")
    for line in documented("yaml", "u: judgment.executed}}").splitlines():
        key = line.partition(":")[0]
        text, count = re.subn(rf"^{key}: .*$", line, text, flags=re.MULTILINE)
        assert count == 1
    return text


def row(number: int) -> dict[str, Any]:
    """The row of one judgment."""
    return {
        "id": number,
        "tenant": f"t{number % 3}",
        "workflow": "claims",
        "method": ("rule", "llm", "hybrid")[number % 3],
        "status": ("success", "error", "timeout", "success")[number % 4],
        "confidence": None if number % 7 == 0 else number / 100,
        "took_ms": number * 137 % 40_000,
        "verdict": "" if number % 11 == 0 else "accept",
        "judged_at": f"2026-03-01T09:{number % 60:02}:00.250000Z",
    }


def plain(row_: dict[str, Any]) -> bytes:
    """The same judgment as an event of the pack."""
    data = {
        "tenant_id": row_["tenant"],
        "workflow_id": row_["workflow"],
        "method_used": row_["method"],
        "status": row_["status"],
        "confidence_score": row_["confidence"],
        "execution_time_ms": row_["took_ms"],
        "input_data": "not captured",
        "final_result": row_["verdict"],
    }
    envelope = {
        "specversion": "1.0",
        "id": f"judgments:{row_['id']}",
        "source": "prod",
        "type": "judgment.executed",
    }
    return compact({**envelope, "time": row_["judged_at"], "data": data})


def judgments(folder: Path, found: Sequence[Body], rules: InputRules) -> tuple[bytes, list[Verdict]]:
    """What pack `judgment` shows after these chunks, and what became of them."""
    folder.mkdir()
    with Lab(folder, packs=[load_pack("judgment").pack], rules=rules) as bench:
        for one in found:
            bench.feed(one.data)
        bench.engine.commit()
        return bench.shown(), bench.verdicts


@pytest.mark.parametrize("write", [compact, enveloped])
@pytest.mark.parametrize("deduplicate", [False, True])
def test_debezium_gives_the_same_metrics_as_plain_events(
    tmp_path: Path, write: Any, deduplicate: bool
) -> None:
    """By the documented mapping: inserts and snapshot rows are events, what else is in the topic is passed over."""
    pack = load_pack("judgment").pack
    rows = [row(number) for number in range(1, 200)]
    mapping = mapping_of(documented("yaml", "mapping: judgments_table"), pack)
    values: list[bytes | None] = []
    for number, one in enumerate(rows):
        values.append(write(change("r" if number < 50 else "c", None, one, lsn=1000 + number, order=number)))
        if number % 5 == 0:
            values += [write(change("u", None, {**one, "status": "error"})), write(change("u", one, one))]
        if number % 9 == 0:
            values += [
                write(change("d", {"id": one["id"]}, None)),
                None,
                write(change("t")),
                write(change("m")),
            ]
    if deduplicate:  # the connector was killed, and writes its last changes again; then takes a snapshot
        values += values[-60:]
        values += [write(change("r", None, one, lsn=9000)) for one in rows]
    cuts = [values[start : start + 70] for start in range(0, len(values), 70)]
    shown, verdicts = judgments(
        tmp_path / "debezium",
        [body(DEBEZIUM, *cut) for cut in cuts],
        InputRules(mapping, deduplicate, ignore_unknown_types=True),
    )
    expected, _ = judgments(
        tmp_path / "plain", [body(EVENTS, *map(plain, rows))], InputRules(deduplicate=deduplicate)
    )
    assert sum(one.accepted for one in verdicts) == len(rows)
    assert shown == expected
    assert b'judgment_executions_total{tenant="t1"' in shown


def test_every_change_counts_where_the_documented_ids_say_so(tmp_path: Path) -> None:
    """Rows of one COPY share a place in the log, so do both halves of a change of the key; a repeat counts once."""
    pack = load_pack("judgment").pack
    rules = InputRules(mapping_of(every_change(), pack), deduplicate=True, ignore_unknown_types=True)
    values = [
        compact(change("c", None, row(1), lsn=7)),
        compact(change("c", None, row(2), lsn=7)),
        compact(change("u", None, row(1), lsn=8)),
        compact(change("u", None, row(1), lsn=9)),
        compact(change("d", {"id": 1}, None, lsn=10)),
        None,
        compact(change("c", None, row(3), lsn=10)),
    ]
    _, [verdict] = judgments(tmp_path / "state", [body(DEBEZIUM, *values, *values)], rules)
    assert (verdict.accepted, verdict.duplicate) == (5, 5)


WITHDRAWN = """\
pack: withdrawals
version: 1
title: Withdrawals
events:
  judgment.withdrawn:
    description: A judgment was taken back.
    fields:
      judgment: {type: integer, required: true}
metrics:
  judgments_withdrawn: {type: counter, help: Judgments taken back., on: judgment.withdrawn}
"""


def test_deletes_are_events_with_the_key_of_the_row_as_it_was(tmp_path: Path) -> None:
    """By the documented type and id; a repeat counts once, and so does a delete whose key comes again later."""
    packs = [load_pack("judgment").pack, pack_of(WITHDRAWN)]
    text = documented("yaml", "mapping: judgments_table")
    for line in documented("yaml", "first:").splitlines():
        text, count = re.subn(rf"^{line.partition(':')[0]}: .*$", line, text, flags=re.MULTILINE)
        assert count == 1
    text += "  judgment.withdrawn: {judgment: before.id}\n"
    values = [
        compact(change("c", None, row(1), lsn=7)),
        compact(change("u", None, row(1), lsn=8)),
        compact(change("d", {"id": 1, "tenant": None}, None, lsn=9)),
        None,
        compact(change("c", None, row(1), lsn=10)),
        compact(change("d", {"id": 1, "tenant": None}, None, lsn=11)),
    ]
    with Lab(tmp_path, packs=packs, rules=InputRules(mapping_of(text, *packs), deduplicate=True)) as bench:
        bench.feed(body(DEBEZIUM, *values, *values).data)
        bench.engine.commit()
        assert (bench.verdicts[0].accepted, bench.verdicts[0].duplicate) == (5, 5)
        assert bench.value("judgments_withdrawn") == 2


def test_deletes_can_be_events_with_ids_of_the_transaction(tmp_path: Path) -> None:
    """`before` has their key, and no path of the id leads through `after`."""
    text = """\
mapping: doors
version: 1
type: {field: op, table: {c: lab.opened, d: lab.closed}}
id: {fields: [transaction.id, transaction.total_order]}
time: {field: source.ts_ms, format: unix_ms}
source: {field: source.table}
data:
  lab.opened: {who: after.id}
  lab.closed: {who: before.id}
"""
    with Lab(tmp_path, rules=InputRules(mapping_of(text, lab()), deduplicate=True)) as bench:
        values = [
            compact(change("c", None, {"id": 1}, order=1)),
            compact(change("c", None, {"id": 2}, order=2)),
            compact(change("d", {"id": 2, "who": None}, None, order=3)),
            None,
        ]
        bench.feed(body(DEBEZIUM, *values, *values).data)
        bench.engine.commit()
        assert (bench.verdicts[0].accepted, bench.verdicts[0].duplicate) == (3, 3)
        assert bench.value("lab_open_doors", "1") == 1
        assert bench.value("lab_open_doors", "2") == 0


def test_operations_that_are_no_events_are_of_no_type(tmp_path: Path) -> None:
    """Passed over and counted by default, refused where the input says so."""
    pack = load_pack("judgment").pack
    mapping = mapping_of(documented("yaml", "mapping: judgments_table"), pack)
    found = [body(DEBEZIUM, *map(compact, OPERATIONS))]
    _, [refused] = judgments(tmp_path / "refuse", found, InputRules(mapping))
    assert reasons(refused) == ["unknown_type"] * 5
    _, [ignored] = judgments(tmp_path / "ignore", found, InputRules(mapping, ignore_unknown_types=True))
    assert (ignored.accepted, ignored.rejected) == (2, 0)


def test_what_the_documentation_shows_is_accepted(tmp_path: Path) -> None:
    """The change by the mapping beside it, with the columns that it names; the event in binary mode."""
    pack = load_pack("judgment").pack
    shown = json.loads(documented("json", '"op"'))
    assert shown == change("c", None, ROW, order=1) | {key: shown[key] for key in ("ts_ms", "ts_us", "ts_ns")}
    assert list(shown["source"]) == list(change("c")["source"])
    mapping = mapping_of(documented("yaml", "mapping: judgments_table"), pack)
    _, [verdict] = judgments(
        tmp_path / "change", [body(DEBEZIUM, documented("json", '"op"').encode())], InputRules(mapping)
    )
    assert verdict.accepted == 1
    head, _, value = documented("text", "ce_type").partition("\n\n")
    headers: Headers = [
        (name, text.encode()) for name, _, text in (line.partition(": ") for line in head.splitlines())
    ]
    _, [verdict] = judgments(
        tmp_path / "binary", [body(CLOUDEVENTS, Record(value.encode(), headers))], InputRules()
    )
    assert verdict.accepted == 1


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"took_ms": "MzA="}, "mapping_failed"),
        ({"took_ms": {"scale": 2, "value": "MzA="}}, "mapping_failed"),
        ({"confidence": "NaN"}, "mapping_failed"),
        ({"judged_at": 1772357400250000}, "bad_time"),
        ({"tenant": None}, "missing_field"),
    ],
)
def test_what_the_converter_encoded_is_refused_and_not_guessed(
    tmp_path: Path, columns: dict[str, Any], reason: str
) -> None:
    """As the documentation says of columns."""
    pack = load_pack("judgment").pack
    mapping = mapping_of(documented("yaml", "mapping: judgments_table"), pack)
    value = compact(change("c", None, {**ROW, **columns}))
    _, [verdict] = judgments(tmp_path / "state", [body(DEBEZIUM, value)], InputRules(mapping))
    assert reasons(verdict) == [reason]


@pytest.mark.parametrize(("format_", "at"), [("unix_us", 1772357400250000), ("unix_ms", 1772357400250)])
def test_a_timestamp_without_a_zone_is_a_number_that_a_mapping_reads(
    tmp_path: Path, format_: str, at: int
) -> None:
    """In the unit of the column's precision."""
    pack = load_pack("judgment").pack
    text = documented("yaml", "mapping: judgments_table")
    text = text.replace("{field: after.judged_at}", f"{{field: after.judged_at, format: {format_}}}")
    shown, _ = judgments(
        tmp_path / "number",
        [body(DEBEZIUM, compact(change("c", None, {**ROW, "judged_at": at})))],
        InputRules(mapping_of(text, pack)),
    )
    expected, _ = judgments(tmp_path / "plain", [body(EVENTS, plain(ROW))], InputRules())
    assert shown == expected
