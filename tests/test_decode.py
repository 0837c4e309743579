"""Bytes to events: every reason for which a line is refused, and one verdict whichever way it is read."""

from __future__ import annotations

import gc
import json
import time
import types
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core.columns import Columns
from evalgauge.core.decode import BadEvent, CloudEventsShape, decode
from evalgauge.core.event import Limits, Reason
from evalgauge.core.lines import depth_of, survey, too_deep
from tests.engine_helpers import event, lab, lines, pack_of

if TYPE_CHECKING:
    from evalgauge.core.shape import Decoded

SHAPES = {True: CloudEventsShape(lab().events), False: CloudEventsShape({"lab.run": lab().events["lab.run"]})}
"""Several types, and one alone, which is decoded without a tag."""


def verdict(line: bytes, limits: Limits | None = None, *, several: bool = True) -> tuple[str, str, str]:
    """Reason, type label and sentence of one line; all empty where it is accepted."""
    decoded = decode(SHAPES[several], line, limits or Limits(), 0)
    if decoded.refusals:
        assert sum(len(events) for _, events, _ in decoded.groups) == 0
        one = decoded.refusals[0]
        assert (one.line, one.data) == (0, line.removesuffix(b"\n"))
        return one.reason.value, one.type, one.detail
    return "", "", ""


def one(**changes: Any) -> bytes:
    """A sound event with changes to its envelope; `...` takes an attribute out."""
    found = event(1) | changes
    return json.dumps({key: value for key, value in found.items() if value is not ...}).encode()


def run(**data: Any) -> bytes:
    """A sound event with changes to its data."""
    return lines(event(1, **data))[0]


def raw(number: str, field: str = "took_ms") -> bytes:
    """An event with a number written as it is."""
    return run(**{field: "@"}).replace(b'"@"', number.encode())


BAD = [
    (b"{", "malformed_json", "_unknown", "truncated"),
    (b"nonsense", "malformed_json", "_unknown", "malformed"),
    (one() + one(), "malformed_json", "_unknown", "trailing"),
    (one() + b" x}", "malformed_json", "_unknown", "trailing"),
    (one() + b"\x00", "malformed_json", "_unknown", "trailing"),
    (b"\x00" + one(), "malformed_json", "_unknown", "invalid character"),
    (b"\xef\xbb\xbf" + one(), "malformed_json", "_unknown", "malformed"),
    (run(who="@").replace(b"@", b"a\x00b"), "malformed_json", "_unknown", "invalid character"),
    (run(who="@").replace(b"@", b"a\tb"), "malformed_json", "_unknown", "invalid character"),
    (run(who="@").replace(b"@", rb"\ud800"), "malformed_json", "_unknown", "surrogate"),
    (run(who="@").replace(b"@", rb"\udc00x"), "malformed_json", "_unknown", "surrogate"),
    (raw("NaN"), "malformed_json", "_unknown", "malformed"),
    (raw("Infinity"), "malformed_json", "_unknown", "malformed"),
    (raw("01"), "malformed_json", "_unknown", "malformed"),
    (raw("1,"), "malformed_json", "_unknown", "malformed"),
    (b"{'id':1}", "malformed_json", "_unknown", "malformed"),
    (run(who="@").replace(b"@", b"\xff"), "invalid_utf8", "_unknown", "UTF-8"),
    (run(who="@").replace(b"@", b"\xed\xa0\x80"), "invalid_utf8", "_unknown", "UTF-8"),
    (b"\xff\xfe", "invalid_utf8", "_unknown", "UTF-8"),
    (b"[1]", "not_an_object", "_unknown", "array"),
    (b"[" + one() + b"]", "not_an_object", "_unknown", "array"),
    (b'"text"', "not_an_object", "_unknown", "string"),
    (b"12", "not_an_object", "_unknown", "number"),
    (b"true", "not_an_object", "_unknown", "boolean"),
    (b"null", "not_an_object", "_unknown", "null"),
    (b"{}", "missing_field", "_unknown", "`type` is missing"),
    (one(type=None), "missing_field", "_unknown", "`type` is missing"),
    (one(source=...), "missing_field", "lab.run", "`source` is missing"),
    (one(data=...), "missing_field", "lab.run", "`data` is missing"),
    (one(data=None), "missing_field", "lab.run", "`data` is missing"),
    (run(kind=None), "missing_field", "lab.run", "required field `kind`"),
    (one(type=5), "wrong_type", "_unknown", "`type` is a number"),
    (one(source=5), "wrong_type", "lab.run", "`source` must be a string"),
    (one(source=""), "wrong_type", "lab.run", "`source` must be a string of 1"),
    (one(data=[]), "wrong_type", "lab.run", "`data` is a JSON array"),
    (one(traceparent=7), "wrong_type", "lab.run", "`traceparent` is no string"),
    (run(took_ms="5"), "wrong_type", "lab.run", "field `took_ms` is a JSON string, not a number"),
    (run(took_ms=True), "wrong_type", "lab.run", "field `took_ms` is a JSON boolean, not a number"),
    (run(count=1.5), "wrong_type", "lab.run", "field `count` is a JSON number, not a integer"),
    (run(ok="true"), "wrong_type", "lab.run", "field `ok` is a JSON string, not a boolean"),
    (run(ok=1), "wrong_type", "lab.run", "field `ok` is a JSON number, not a boolean"),
    (run(who={}), "wrong_type", "lab.run", "field `who` is a JSON object, not a string"),
    (run(kind="z"), "not_in_enum", "lab.run", "must be one of a, b, c"),
    (run(kind=""), "not_in_enum", "lab.run", "must be one of a, b, c"),
    (run(cost=-0.1), "out_of_range", "lab.run", "field `cost` is below 0"),
    (run(count=10), "out_of_range", "lab.run", "field `count` is above 9"),
    (run(tenant="x" * 21), "out_of_range", "lab.run", "longer than 20 characters"),
    (raw("1e400"), "out_of_range", "_unknown", "too large"),
    (raw("1" + "0" * 400), "out_of_range", "lab.run", "does not fit"),
    (raw("1" * 1_000_000), "out_of_range", "_unknown", "too large"),
    (raw(str(2**63), "count"), "out_of_range", "lab.run", "does not fit"),
    (raw("-1" + "0" * 400, "count"), "out_of_range", "lab.run", "does not fit"),
    (one(type="no.such"), "unknown_type", "_unknown", "'no.such'"),
    (one(type="x" * 5_000), "unknown_type", "_unknown", "'" + "x" * 100 + "'"),
    (one(id=...), "bad_id", "lab.run", "`id` must be"),
    (one(id=None), "bad_id", "lab.run", "`id` must be"),
    (one(id=""), "bad_id", "lab.run", "`id` must be"),
    (one(id=5), "bad_id", "lab.run", "`id` must be"),
    (one(id="x" * 1025), "bad_id", "lab.run", "`id` must be"),
    (one(time="2024-01-01T00:00:00"), "bad_time", "lab.run", "offset"),
    (one(time="2024-06-30T23:59:60Z"), "bad_time", "lab.run", "rfc 3339|rfc3339"),
    (one(time="0000-01-01T00:00:00Z"), "bad_time", "lab.run", "RFC 3339"),
    (one(time="2023-02-29T00:00:00Z"), "bad_time", "lab.run", "RFC 3339"),
    (one(time="yesterday"), "bad_time", "lab.run", "RFC 3339"),
    (one(time=""), "bad_time", "lab.run", "RFC 3339"),
    (one(time=1_700_000_000), "bad_time", "lab.run", "RFC 3339"),
]  # fmt: skip


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("number", range(len(BAD)))
def test_a_bad_line_is_refused_for_its_reason(number: int, several: bool) -> None:
    """With its declared type or `_unknown`, never with what it says of itself, and a sentence that explains it."""
    line, reason, type_, words = BAD[number]
    found = verdict(line, several=several)
    assert found[:2] == (reason, type_)
    assert any(part.lower() in found[2].lower() for part in words.split("|")) or (
        reason == "malformed_json" and found[2]
    ), found[2]


GOOD = [
    one(), b" \t" + one() + b" \r", one() + b"\n", one() + b"\r\n",
    one(time=None, traceparent=None, subject="s", specversion="1.0"),
    one(time="0001-01-01T00:00:00+14:00"), one(time="9999-12-31T23:59:59.999999-14:00"), one(id="x" * 1024),
    run(blob="{[{[" * 500), run(blob=[[]]), run(unknown={"a": [None]}), run(took_ms=1e308), run(took_ms=-1),
    raw("1e-400"), raw("-0"), raw("0." + "1" * 10_000), run(who=""), run(who="\U0001f600\u2028"), run(tenant="ü" * 20),
    run(unknown="@").replace(b"@", b"\xff"), run(unknown="@").replace(b'"@"', b"1e400"),
    run(who="@").replace(b"@", rb"\ud83d\ude00"),
    b'{"id":"1","id":"2",' + one()[1:],
]  # fmt: skip


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("number", range(len(GOOD)))
def test_a_good_line_is_accepted(number: int, several: bool) -> None:
    """However odd it looks; what stands in fields that nobody declares is nobody's business."""
    assert verdict(GOOD[number], several=several) == ("", "", "")


def test_a_line_too_large_or_too_deep_is_refused_before_anything_is_made_of_it() -> None:
    """The limit itself is allowed; brackets within strings have no depth."""
    assert verdict(one(), Limits(event_bytes=len(one()))) == ("", "", "")
    assert verdict(one(), Limits(event_bytes=len(one()) - 1))[:2] == ("too_large", "_unknown")
    for tail in (b"", b"\n", b"\n\n\n", b"\n" + one() + b"\n\n"):
        deep = run(unknown=[[[1]]]) + tail
        assert [one.reason for one in decode(SHAPES[True], deep, Limits(depth=4), 0).refusals] == [
            Reason.TOO_DEEP
        ]
        assert decode(SHAPES[True], deep, Limits(depth=5), 0).refusals == []
    assert verdict(run(unknown="[{" * 99 + '"' + "[{" * 99), Limits(depth=2)) == ("", "", "")
    deep = b"[" * 100_000 + b"]" * 100_000
    assert verdict(run(blob="@").replace(b'"@"', deep))[:2] == ("too_deep", "_unknown")
    assert verdict(run(blob="@").replace(b'"@"', deep), Limits(depth=1 << 30))[0] == "too_deep"
    assert verdict(run(blob=7).replace(b"7", deep[:300] + b"7" + deep[-300:]), Limits(depth=1 << 30)) == (
        "",
        "",
        "",
    )


def test_no_line_takes_long_to_measure() -> None:
    """Quotes that never close must not be tried again and again: that took hours for one event."""
    started = time.perf_counter()
    assert depth_of(b"{" + rb"\"" * 500_000 + b"{" * 50) == 1
    assert depth_of(b'{"' + rb"\"" * 500_000 + b"{" * 50 + b'"[]}') == 2
    assert depth_of(b'{"a\\') == 1
    assert time.perf_counter() - started < 30


def test_a_required_payload_that_is_null_is_missing() -> None:
    """`null` is absent, whatever the type."""
    pack = pack_of(
        """\
pack: shop
version: 1
title: Shop
events:
  shop.sold:
    description: Sold.
    fields: {basket: {type: any, required: true, payload: true}, size: {type: integer, min: 0.5}}
metrics:
  shop_sales: {type: counter, help: Sales., on: shop.sold}
"""
    )
    shape = CloudEventsShape(pack.events)

    def accepted(data: dict[str, Any]) -> bool:
        line = lines({"id": "1", "source": "s", "type": "shop.sold", "data": data})[0]
        decoded = decode(shape, line, Limits(), 0)
        if decoded.refusals:
            return False
        from evalgauge.core.columns import Columns  # noqa: PLC0415 - only here

        reader, events, rows = decoded.groups[0]
        bad = reader.check is not None and bool(reader.check(Columns(reader, events, rows, {}, 0.0)).any())
        assert bad == (shape.explain(line) is not None)
        return not bad

    baskets: list[Any] = [None, "", {}, [1], 0, False]
    assert [accepted({"basket": basket}) for basket in baskets] == [False, *[True] * 5]
    assert not accepted({})
    assert [accepted({"basket": 1, "size": size}) for size in (0, 1, None)] == [False, True, True]


@pytest.mark.parametrize(
    "line", [run(kind="z"), run(took_ms="5"), one(type="no.such"), b"[1]", b"{]}", run()[:-9]]
)
def test_what_was_found_holds_nothing_of_how(line: bytes) -> None:
    """An exception that is kept keeps its frames, and these a whole piece, until the collector of cycles comes by."""

    def held() -> int:
        return sum(isinstance(one, BadEvent | types.TracebackType) for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = held()
        refusals = decode(SHAPES[True], b"\n".join([run(), line, run()]), Limits(), 0).refusals
        assert (len(refusals), held()) == (1, before)
    finally:
        gc.enable()


# However lines stand together

PIECES = st.sampled_from(
    [one(), run(kind="b", who="ann"), lines(event(2, "lab.closed"))[0], b"", b"  ", b"\r", b"{", b"}", b"[]", b"{}",
     b'{"a":[{}', b"{}]}", b'{"a":"', b'"}', b"\xff", one() + b"\r", b" " + one(), one() + one(), one()[:-1], b",",
     run(kind="z"), run(took_ms="5"), run(unknown=[[[[1]]]]), one(id="x" * 900), raw("1e400"), one(time="no"),
     one(type="no.such"), run(who="@").replace(b"@", b"\xff"), b"{" + b" " * 400 + b"}", b"{" * 6]
)  # fmt: skip


def told(decoded: Decoded) -> tuple[int, list[tuple[int, str, bytes]], list[tuple[int, Reason, str, str]]]:
    """All that a decoding says: how many, what was accepted on which line, what was refused and why."""
    accepted = [
        (line, reader.type, msgspec.json.encode([one.id, one.source]))
        for reader, events, rows in decoded.groups
        for one, line in zip(events, rows.tolist(), strict=True)
    ]
    refused = [(one.line, one.reason, one.type, one.detail) for one in decoded.refusals]
    return decoded.received, sorted(accepted), refused


@settings(max_examples=250)
@given(st.lists(PIECES, max_size=40), st.booleans(), st.booleans(), st.sampled_from([b"\n", b"\r\n"]))
def test_a_piece_is_judged_as_its_lines_are(
    parts: list[bytes], several: bool, last: bool, end: bytes
) -> None:
    """The clean way and the careful way agree, whatever stands beside a line."""
    limits = Limits(event_bytes=600, depth=5)
    shape = SHAPES[several]
    body = end.join(parts) + (end if last else b"")
    received, accepted, refused = told(decode(shape, body, limits, 100))
    expected: tuple[int, list[Any], list[Any]] = (0, [], [])
    for number, line in enumerate(body.split(b"\n"), 100):
        count, good, bad = told(decode(shape, line, limits, number))
        expected = (expected[0] + count, expected[1] + good, expected[2] + bad)
    assert (received, accepted, refused) == expected
    assert received == len(accepted) + len(refused)


@settings(max_examples=100)
@given(
    st.lists(
        st.sampled_from([one(), b"{}", b'{"a":{}', b'{"b":[{}', b"{}]}", b"}", b'{"c":"}', b'{"}']),
        max_size=12,
    )
)
def test_values_that_are_no_lines_are_never_taken_for_lines(parts: list[bytes]) -> None:
    """`{…}{…}` on one line, or an object over several: as many values as lines prove nothing by themselves."""
    decoded = decode(SHAPES[True], b"\n".join(parts), Limits(), 0)
    good = [number for number, part in enumerate(parts) if part == one()]
    assert [line for _, _, rows in decoded.groups for line in rows.tolist()] == good
    assert [refusal.line for refusal in decoded.refusals] == [n for n in range(len(parts)) if n not in good]


ODD = run(blob="@").replace(b'"@"', b'"caf\xe9"')
"""A sound event with a payload that nobody reads, in another character set."""


@pytest.mark.parametrize(
    "neighbours",
    [
        [run(), run() + run()],
        [run(kind="`$[0]`")],
        [run(), run(), run(kind=f"`$[{'9' * 5_000}]`")],
        [one(type=f"(byte {'9' * 5_000})")],
        [run(who="@").replace(b"@", b"caf\xe9"), run()],
        [run()[:-1], run()],
        [b"[1]"],
    ],
    ids=[
        "two on a line",
        "quotes a place",
        "quotes a long place",
        "quotes a byte",
        "same bytes",
        "open",
        "array",
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_neighbours_do_not_decide_whether_an_event_is_good(neighbours: list[bytes], first: bool) -> None:
    """A line near a fault is judged as it would be alone; what an error message quotes of an event leads nowhere."""
    together = [ODD, *neighbours] if first else [*neighbours, ODD]
    for ending in (b"\n", b" \n", b"\r\n"):
        decoded = decode(SHAPES[True], b"".join(line + ending for line in together), Limits(), 0)
        alone = [verdict(line) for line in together]
        refused = {number: (reason, type_) for number, (reason, type_, _) in enumerate(alone) if reason}
        assert {one.line: (one.reason.value, one.type) for one in decoded.refusals} == refused
        assert together.index(ODD) not in refused


NESTED = st.recursive(
    st.integers(0, 9) | st.sampled_from(["[", "{[", ""]), lambda inner: st.lists(inner, max_size=3)
)


@given(st.lists(NESTED, max_size=12), st.integers(1, 5))
def test_lines_that_are_too_deep_are_found_among_others(values: list[object], depth: int) -> None:
    """However many brackets their neighbours have, and whatever stands in strings."""
    texts = [json.dumps({"a": value}).encode() for value in values]
    body, limits = b"".join(text + b"\n" for text in texts), Limits(depth=depth)
    found = too_deep(body, survey(body, limits), limits, 0)
    assert found == [line for line, value in enumerate(values) if 1 + levels(value) > depth]


def levels(value: object) -> int:
    """How deep lists lie in one another."""
    return 1 + max(map(levels, value), default=0) if isinstance(value, list) else 0


def test_many_bad_lines_together_take_no_more_each_than_a_few() -> None:
    """Whoever looks for the place to go on from the beginning of the piece takes minutes here, not seconds."""
    started = time.process_time()
    assert len(decode(SHAPES[True], b"{}\n" * 200_000, Limits(), 0).refusals) == 200_000
    assert time.process_time() - started < 30


@settings(max_examples=60)
@given(
    st.lists(
        st.none()
        | st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30))])),
        min_size=1,
        max_size=5,
    )
)
def test_times_are_right_to_the_microsecond(times: list[datetime | None]) -> None:
    """In whatever year and zone; an event without one has that of its arrival."""
    shape = CloudEventsShape(dict(lab().events))
    told = lines(*(event(n, **({} if t is None else {"time": t.isoformat()})) for n, t in enumerate(times)))
    events = shape.events(b"".join(line + b"\n" for line in told), len(told)) or []
    ((reader, some, numbers),) = shape.group(events, np.arange(len(events)), [])
    found = Columns(reader, some, numbers, {}, 5.5).times().tolist()
    epoch, microsecond = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
    assert found == [5_500_000 if one is None else (one - epoch) // microsecond for one in times]
