"""What Kafka records become: lines of their own, whatever stands in them."""

from __future__ import annotations

import json
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalgauge.collectors.kafka_records import Body, RecordFormat, body_of
from tests.record_helpers import (
    CLOUDEVENTS,
    DEBEZIUM,
    EVENTS,
    MALFORMED,
    SOUP,
    A,
    B,
    C,
    Headers,
    an_event,
    body,
    by_record,
    judged,
    lines,
    reasons,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def pretty(*names: str) -> bytes:
    """The same, laid out for people: one object, or a list of several."""
    found = [json.loads(an_event(name)) for name in names]
    return json.dumps(found[0] if len(found) == 1 else found, indent=2).encode()


class Case(NamedTuple):
    """A value, the ids of the events that are accepted of it, and why lines of it are refused, in order."""

    value: bytes | None
    ids: Sequence[str] = ()
    refused: Sequence[str] = ()


VALUES = {
    "one line": Case(A, ["a"]),
    "a newline after it": Case(A + b"\n", ["a"]),
    "space around it": Case(b" \r\n\t" + A + b"\r\n \n", ["a"]),
    "a return after it": Case(A + b"\r", ["a"]),
    "a tombstone": Case(None),
    "empty": Case(b""),
    "space": Case(b" \r\n \n"),
    "laid out": Case(pretty("a"), ["a"]),
    "laid out with returns": Case(pretty("a").replace(b"\n", b"\r\n"), ["a"]),
    "laid out, with bytes that are no UTF-8": Case(
        pretty("a").replace(b'"t"', b'"\xff"'), refused=["invalid_utf8"]
    ),
    "a list of events": Case(pretty("a", "b"), refused=["not_an_object"]),
    "NDJSON": Case(A + b"\n" + B + b"\n" + C, ["a", "b", "c"]),
    "NDJSON that ends its lines": Case(A + b"\r\n" + B + b"\r\n", ["a", "b"]),
    "NDJSON with blank lines": Case(b"\n\n" + A + b"\n \n\n\t" + B + b"\n\n", ["a", "b"]),
    "NDJSON with a bad line": Case(A + b'\n{"id": NaN}\n' + C, ["a", "c"], MALFORMED),
    "NDJSON with a line that is no object": Case(A + b"\n[1]\nnull\n" + C, ["a", "c"], ["not_an_object"] * 2),
    "NDJSON with prose": Case(A + b"\ngo on\n" + C, ["a", "c"], MALFORMED),
    "NDJSON with a line of bad bytes": Case(
        A + b"\n" + B.replace(b'"t"', b'"\xc3("') + b"\n" + C, ["a", "c"], ["invalid_utf8"]
    ),
    "NDJSON with two on a line": Case(A + b"\n" + B + A + b"\n" + C, ["a", "c"], MALFORMED),
    "NDJSON with an open line": Case(A + b'\n{"id":\n' + C, refused=MALFORMED),
    "NDJSON with an open string": Case(A + b'\n{"id": "x}\n' + C, refused=MALFORMED),
    "NDJSON with a line too many closed": Case(A + b"\n" + B + b"}\n" + C, refused=MALFORMED),
    "a list without commas": Case(b"[\n" + A + b"\n" + B + b"\n" + C + b"\n]", refused=MALFORMED),
    "a list that is cut off": Case(b"[\n" + A + b",\n" + B, refused=MALFORMED),
    "one event, then a list laid out": Case(A + b"\n[\n" + B + b"\n]", refused=MALFORMED),
    "two documents laid out": Case(pretty("a") + b"\n" + pretty("b"), refused=MALFORMED),
    "prose, then an event": Case(b"an event:\n" + A, refused=MALFORMED),
    "prose": Case(b"nothing\nto see\nhere", refused=MALFORMED),
    "two on a line": Case(A + B, refused=MALFORMED),
    "two with a return between": Case(A + b"\r" + B, refused=MALFORMED),
    "a string over two lines": Case(A.replace(b"\\n", b"\n"), refused=MALFORMED),
    "a string over two lines of another system": Case(A.replace(b"\\n", b"\r\n"), refused=MALFORMED),
    "a string that holds an event": Case(b'{"x": "}\n' + B + b'\n{"}', refused=MALFORMED),
    "an object that holds an event": Case(b'{"x": {}\n' + B + b"\n{}}", refused=MALFORMED),
    "laid out, cut off": Case(pretty("a")[:-1], refused=MALFORMED),
    "laid out, cut off in a string": Case(pretty("a")[:12], refused=MALFORMED),
    "half a line": Case(A[:-2], refused=MALFORMED),
    "half a line with a newline": Case(b"\n" + A[:-2] + b"\n", refused=MALFORMED),
    "the other half": Case(A[-2:], refused=MALFORMED),
    "the end of a string": Case(b'"}', refused=MALFORMED),
    "the start of a string": Case(b'{"', refused=MALFORMED),
    "no JSON": Case(b"\x00\xff\n\xfe{", refused=["invalid_utf8"]),
    "UTF-16": Case("{}\n".encode("utf-16"), refused=["invalid_utf8"]),
    "a byte order mark": Case(b"\xef\xbb\xbf" + A, refused=MALFORMED),
    "nothing, in JSON": Case(b"null", refused=["not_an_object"]),
    "a backslash": Case(b"\\\n{", refused=MALFORMED),
    "too deep": Case(b'{"a":\n' + b"[" * 40 + b"]" * 40 + b"}", refused=["too_deep"]),
    "far too deep": Case(b"\n[" * 20_000, refused=["too_deep"]),
    "quotes without end": Case(b'{\n"' + b'\\"' * 50_000, refused=MALFORMED),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_becomes_its_events(tmp_path: Path, name: str) -> None:
    """Each accepted, or refused for what is wrong with it; what is broken is one event, not several."""
    case = VALUES[name]
    found = body(EVENTS, case.value)
    taken = lines(EVENTS, case.value)
    verdict = judged(tmp_path, found)
    bad = {one.line for one in verdict.exceptions}
    assert reasons(verdict) == list(case.refused)
    assert verdict.received == len(taken) == len(case.ids) + len(case.refused)
    written = found.data.split(b"\n")
    assert [
        json.loads(line)["id"] for n, line in enumerate(written) if n not in bad and line.strip()
    ] == list(case.ids)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.sampled_from(sorted(VALUES)), max_size=12))
def test_a_value_adds_nothing_to_its_neighbours_and_takes_nothing_from_them(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    """The engine accepts and refuses of each record what it would alone, and the line says which record it is."""
    cases = [VALUES[name] for name in names]
    found = body(EVENTS, *(case.value for case in cases))
    verdict = judged(tmp_path_factory.mktemp("lab"), found)
    firsts = list(range(len(cases))) if found.firsts is None else found.firsts
    accepted: list[list[str]] = [[] for _ in cases]
    refused: list[list[str]] = [[] for _ in cases]
    bad = {one.line: str(one.reason) for one in verdict.exceptions}
    for number, line in enumerate(found.data.split(b"\n") if found.data else []):
        record = bisect_right(firsts, number) - 1
        if number in bad:
            refused[record].append(bad[number])
        elif line.strip():
            accepted[record].append(json.loads(line)["id"])
    assert accepted == [list(case.ids) for case in cases]
    assert refused == [list(case.refused) for case in cases]


@settings(max_examples=200)
@given(
    st.lists(SOUP | st.none() | st.sampled_from([A, A + b"\n" + B]), max_size=8),
    st.sampled_from(RecordFormat),
)
def test_whatever_the_bytes_lines_are_of_their_record_alone(
    values: list[bytes | None], format_: RecordFormat
) -> None:
    """In a batch a value becomes the lines that it becomes alone."""
    found, alone = body(format_, *values), [body(format_, value) for value in values]
    assert by_record(found, len(values)) == [lines(format_, value) for value in values]
    # To the byte, for the place of a line in the partition's stream must not depend on how the stream is cut.
    assert found.data == b"\n".join(one.data for one in alone if one.firsts is None or one.data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(st.text(max_size=3), JSON, min_size=1, max_size=4)


@settings(max_examples=60)
@given(st.lists(OBJECT, min_size=1, max_size=4), st.booleans(), st.sampled_from([b"\n", b"\r\n", b"\n \n"]))
def test_ndjson_is_its_lines_byte_for_byte(found: list[Any], escape: bool, ends: bytes) -> None:
    """Whatever their strings hold."""
    written = [json.dumps(one, ensure_ascii=escape).encode() for one in found]
    assert lines(EVENTS, ends.join(written) + ends) == written


@settings(max_examples=60)
@given(OBJECT, st.integers(1, 4), st.booleans())
def test_a_document_laid_out_is_one_line_with_the_same_meaning(value: Any, indent: int, escape: bool) -> None:
    """In every format, for none takes it for several events."""
    text = json.dumps(value, indent=indent, ensure_ascii=escape).encode()
    for format_ in RecordFormat:
        [line] = lines(format_, text)
        assert json.loads(line) == value


@settings(max_examples=150)
@given(OBJECT, st.data())
def test_a_document_that_was_damaged_is_one_line_that_is_no_json(value: Any, data: st.DataObject) -> None:
    """A byte is lost, the rest is lost, or a newline gets into a string: nothing of it is taken for an event."""
    text = json.dumps(value, indent=1)
    place = data.draw(st.integers(1, len(text) - 1))
    damaged = data.draw(
        st.sampled_from([text[:place] + text[place + 1 :], text[:place], f"{text[:place]}\n{text[place:]}"])
    )
    try:
        json.loads(damaged)
    except ValueError:
        for format_ in RecordFormat:
            [line] = lines(format_, damaged.encode())
            with pytest.raises(ValueError):  # noqa: PT011 - json's own
                json.loads(line)


def test_lines_stand_as_they_came_where_nothing_is_to_do() -> None:
    """The usual case: no value is looked at, and no header asked for."""

    def never(number: int) -> Headers:
        raise AssertionError(number)

    for format_ in (EVENTS, DEBEZIUM):
        assert body_of(format_, [A, B + b" ", A], never) == Body(A + b"\n" + B + b" \n" + A, None)
        assert body_of(format_, [], never) == Body(b"", None)


def test_positions_move_on_over_records_without_a_line() -> None:
    """Tombstones at either end and between, beside NDJSON."""
    found = body(EVENTS, None, A + b"\n" + B, b"", None, C, b"")
    assert found.firsts == [0, 0, 2, 2, 2, 3]
    assert by_record(found, 6) == [[], [A, B], [], [], [C], []]
    assert body(EVENTS, None, b"") == Body(b"", [0, 0])


def test_without_headers_of_cloudevents_a_record_is_what_it_is_among_events() -> None:
    """NDJSON included, and whatever other headers there are."""
    for headers in (
        [],
        [("content-type", b"application/json")],
        [("content-type", b"text/plain")] * 2,
        [("content-type", b"text/plain"), ("content-type", b"text/csv")],
        [("content-type", b"\xff"), ("id", b"x"), ("ce-id", b"x")],
    ):
        for case in VALUES.values():
            assert lines(CLOUDEVENTS, case.value, headers) == lines(EVENTS, case.value)
