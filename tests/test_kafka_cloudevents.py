"""CloudEvents over Kafka: both modes, what headers get wrong, and what no header may do."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine_helpers import Lab, event
from tests.record_helpers import CLOUDEVENTS, EVENTS, SOUP, A, B, Headers, Record, body, judged, lines

if TYPE_CHECKING:
    from pathlib import Path

DATA = {"tenant": "t", "kind": "a", "who": "ann", "took_ms": 7}


def binary(**changed: bytes | str | None) -> list[tuple[str, bytes | None]]:
    """Headers of an event in binary mode; None leaves one out."""
    given_: dict[str, bytes | str | None] = {
        "ce_specversion": "1.0",
        "ce_id": "e1",
        "ce_source": "/s",
        "ce_type": "lab.run",
        "ce_time": "2026-03-01T09:30:00Z",
    }
    given_ |= {name.replace("content_type", "content-type"): value for name, value in changed.items()}
    return [
        (name, value.encode() if isinstance(value, str) else value)
        for name, value in given_.items()
        if value is not None
    ]


def content(type_: str) -> list[tuple[str, bytes | None]]:
    """One header alone."""
    return [("content-type", type_.encode())]


def test_an_event_is_the_same_in_every_mode(tmp_path: Path) -> None:
    """Structured, binary, and plain: equal metrics, exemplars and times included."""
    whole = event(1, **DATA, id="e1", time="2026-03-01T09:30:00Z", traceparent=f"00-{'1' * 32}-{'2' * 16}-01")
    plain = json.dumps(whole).encode()
    trace = whole["traceparent"]
    data = json.dumps(DATA).encode()
    ways = [
        Record(plain),
        Record(plain, content("application/cloudevents+json")),
        Record(
            plain,
            [
                *content('Application/CloudEvents+JSON ; Charset="UTF-8"; x="a;charset=b"'),
                *binary(ce_id="no"),
            ],
        ),
        Record(json.dumps(whole, indent=1).encode(), [("Content-Type", b"application/cloudevents+json")]),
        Record(
            plain,
            [*content("application/json"), ("traceparent", b"of the client"), ("ce", b""), ("ce_", b"")],
        ),
        Record(data, binary(ce_traceparent=trace)),
        Record(
            json.dumps(DATA, indent=2).encode() + b"\n",
            binary(ce_traceparent=trace, content_type="application/json"),
        ),
        Record(
            data,
            [(name.upper(), value) for name, value in binary(ce_traceparent=trace, content_type="text/json")],
        ),
        Record(data, binary(ce_traceparent=trace, content_type="application/x.y+json; charset=utf-8")),
        Record(data, binary(ce_traceparent=trace) * 2),
        Record(data, binary(ce_traceparent=trace, ce_partitionkey="t", ce_sequence="7", ce_dataschema="x:y")),
        Record(
            data,
            [
                *binary(ce_traceparent=trace),
                ("ce_data", b'"x"'),
                ("ce_data_base64", b"eA=="),
                ("ce_é", b"\xff"),
            ],
        ),
    ]
    shown = set()
    for number, way in enumerate(ways):
        (tmp_path / str(number)).mkdir()
        with Lab(tmp_path / str(number)) as bench:
            bench.feed(body(CLOUDEVENTS, way).data)
            bench.engine.commit()
            assert bench.verdicts[0].accepted == 1, bench.verdicts
            shown.add(bench.shown())
    assert len(shown) == 1


def test_attributes_and_data_of_binary_mode_are_taken_as_they_are() -> None:
    """Nothing is percent-decoded; the content type becomes an attribute, and so do extensions."""
    headers = binary(ce_id='100%25 "x"\n', ce_partitionkey="k", content_type="application/json")
    [line] = lines(CLOUDEVENTS, b' {"a": 1.50}\n', headers)
    assert json.loads(line) == {
        "specversion": "1.0",
        "id": '100%25 "x"\n',
        "source": "/s",
        "type": "lab.run",
        "time": "2026-03-01T09:30:00Z",
        "partitionkey": "k",
        "datacontenttype": "application/json",
        "data": {"a": 1.5},
    }
    assert line.endswith(b'"data":{"a": 1.50}}')


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        ("text/plain", b"a \n", {"data": "a \n"}),
        ("text/csv; charset=us-ascii", b"a,b", {"data": "a,b"}),
        ("application/xml", b"<a/>", {"data": "<a/>"}),
        ("image/svg+xml", b"<a/>", {"data": "<a/>"}),
        ("text/plain; charset=latin1", b"\xe9", {"data_base64": "6Q=="}),
        ("application/avro", b"\x00\xff\n", {"data_base64": base64.b64encode(b"\x00\xff\n").decode()}),
        ("application/octet-stream", b"{}", {"data_base64": "e30="}),
        ("nonsense", b"{}", {"data_base64": "e30="}),
        ("application/json", b" ", {}),
        ("text/plain", b"", {}),
        ("application/avro", b"", {}),
        ("application/json", None, {}),
    ],
)
def test_data_that_is_not_json_is_a_text_or_base64(
    type_: str, value: bytes | None, expected: dict[str, Any]
) -> None:
    """As the JSON format of CloudEvents has it."""
    [line] = lines(CLOUDEVENTS, value, binary(content_type=type_))
    found = json.loads(line)
    assert {key: found[key] for key in found if key in {"data", "data_base64"}} == expected
    assert found["datacontenttype"] == type_


RUN = json.dumps(DATA).encode()
WHOLE = json.dumps(event(1, **DATA)).encode()
FAULTS: dict[str, tuple[bytes | None, Headers, str]] = {
    "no id": (RUN, binary(ce_id=None), "bad_id"),
    "an empty id": (RUN, binary(ce_id=""), "bad_id"),
    "a header without a value": (RUN, [*binary(ce_id=None), ("ce_id", None)], "bad_id"),
    "two ids": (RUN, [*binary(), ("ce_id", b"e2"), ("CE_ID", b"e3")], "bad_id"),
    "no source": (RUN, binary(ce_source=None), "missing_field"),
    "no type": (RUN, binary(ce_type=None), "missing_field"),
    "two types": (RUN, [*binary(), ("ce_type", b"lab.opened")], "wrong_type"),
    "a type of nobody": (RUN, binary(ce_type="x"), "unknown_type"),
    "a time that is none": (RUN, binary(ce_time="now"), "bad_time"),
    "no version": (RUN, binary(ce_specversion=None), "not_an_object"),
    "another version": (RUN, binary(ce_specversion="0.3"), "not_an_object"),
    "no data": (b"", binary(), "missing_field"),
    "a tombstone": (None, binary(), "missing_field"),
    "data in a header": (None, [*binary(), ("ce_data", RUN)], "missing_field"),
    "data that is no object": (b"[1]", binary(), "wrong_type"),
    "data that is text": (b"x", binary(content_type="text/plain"), "wrong_type"),
    "data that is bytes": (RUN, binary(content_type="application/avro"), "missing_field"),
    "data that is no JSON": (b"{", binary(), "malformed_json"),
    "data that closes the event": (RUN + b"}", binary(), "malformed_json"),
    "data that adds an attribute": (RUN + b', "id": "forged"', binary(ce_id=None), "malformed_json"),
    "data that adds an event": (RUN + b"}\n" + WHOLE, binary(), "malformed_json"),
    "data that is NDJSON": (RUN + b"\n" + RUN, binary(), "malformed_json"),
    "data with a string over two lines": (RUN.replace(b"nn", b"\n"), binary(), "malformed_json"),
    "data that is not UTF-8": (RUN.replace(b'"t"', b'"\xff"'), binary(), "invalid_utf8"),
    "data that is too deep": (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", binary(), "too_deep"),
    "data that is far too deep": (b"[" * 20_000, binary(), "too_deep"),
    "data in another charset": (
        RUN,
        binary(content_type="application/json; charset=utf-16"),
        "not_an_object",
    ),
    "text that is not UTF-8": (b"\xff", binary(content_type="text/plain"), "invalid_utf8"),
    "an id that is not UTF-8": (RUN, binary(ce_id=b"\xff"), "invalid_utf8"),
    "an id with a surrogate": (RUN, binary(ce_id=b"\xed\xa0\x80"), "invalid_utf8"),
    "a quote that is not UTF-8": (RUN, binary(ce_source=b'"\\\xc3('), "invalid_utf8"),
    "an extension that is not UTF-8": (RUN, binary(ce_nobodyreadsit=b"\xff"), "invalid_utf8"),
    "a content type that is not UTF-8": (
        RUN,
        binary(content_type=b"application/json; x=\xff"),
        "invalid_utf8",
    ),
    "two content types": (
        RUN,
        [*binary(content_type="application/json"), *content("text/plain")],
        "not_an_object",
    ),
    "two content types, one of an event": (
        WHOLE,
        [*content("application/json"), *content("application/cloudevents+json")],
        "not_an_object",
    ),
    "two attributes for it": (
        RUN,
        [*binary(), ("ce_datacontenttype", b"text/plain"), ("ce_datacontenttype", b"application/json")],
        "not_an_object",
    ),
    "a batch": (b"[" + WHOLE + b"]", content("application/cloudevents-batch+json"), "not_an_object"),
    "a batch that is none": (WHOLE, content("application/cloudevents-batch+json"), "not_an_object"),
    "a list in structured mode": (
        b"[" + WHOLE + b"]",
        content("application/cloudevents+json"),
        "not_an_object",
    ),
    "NDJSON in structured mode": (
        WHOLE + b"\n" + WHOLE,
        content("application/cloudevents+json"),
        "malformed_json",
    ),
    "another format": (WHOLE, content("application/cloudevents+avro"), "not_an_object"),
    "no format": (WHOLE, content("application/cloudevents"), "not_an_object"),
    "another format, in bytes": (b"\x00\n\xff", content("application/cloudevents+avro"), "invalid_utf8"),
    "structured in another charset": (
        WHOLE,
        content("application/cloudevents+json; charset=latin1"),
        "not_an_object",
    ),
    "structured with a content type of bad bytes": (
        WHOLE,
        [("content-type", b"application/cloudevents+json\xff")],
        "not_an_object",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_cloudevent_is_refused_alone_and_with_its_reason(tmp_path: Path, name: str) -> None:
    """One line, between neighbours that are accepted, and never an exception."""
    value, headers, reason = FAULTS[name]
    found = body(CLOUDEVENTS, A, Record(value, headers), B)
    assert found.firsts is None
    verdict = judged(tmp_path, found)
    assert [(one.line, str(one.reason)) for one in verdict.exceptions] == [(1, reason)]
    assert verdict.accepted == 2


def test_a_dead_letter_says_what_a_header_got_wrong(tmp_path: Path) -> None:
    """Where the reason cannot: the line begins with a sentence."""
    sentences = []
    for name in (
        "no version",
        "two content types",
        "another format",
        "text that is not UTF-8",
        "data that is no JSON",
    ):
        value, headers, _ = FAULTS[name]
        [line] = lines(CLOUDEVENTS, value, headers)
        sentences.append(json.JSONDecoder().raw_decode(line.decode("latin1")[1:])[0])
    assert sentences == [
        "header `ce_specversion` is missing",
        "header `content-type` has several values",
        "`content-type: application/cloudevents+avro` is not read; use application/cloudevents+json (UTF-8)",
        "the value is text, and not UTF-8",
        "the value is not JSON, as the content type says",
    ]
    with Lab(tmp_path) as bench:
        bench.feed(body(CLOUDEVENTS, Record(RUN, binary(ce_specversion="2"))).data)
        bench.engine.commit()
        [letter] = bench.letters()
    assert json.loads(letter.data)[0] == "header `ce_specversion` must be 1.0"


def test_a_structured_event_without_a_value_is_none() -> None:
    """There is nothing to be refused."""
    for value in (None, b"", b" \n"):
        assert lines(CLOUDEVENTS, value, content("application/cloudevents+json")) == []


NAMES = st.sampled_from(
    [
        "ce_id",
        "ce_type",
        "ce_source",
        "ce_specversion",
        "content-type",
        "CE_ID",
        "ce_data",
        "ce_x",
        "x",
        "ce_",
        "",
    ]
)
TEXTS = st.sampled_from(
    [
        b"1.0",
        b"lab.run",
        b"",
        b"\xff",
        b'"',
        b"application/json",
        b"text/plain",
        b"application/cloudevents+json",
    ]
) | st.binary(max_size=6)


@settings(max_examples=250)
@given(
    st.lists(st.tuples(NAMES, TEXTS | st.none()), max_size=7),
    st.none() | SOUP | st.binary(max_size=8) | st.sampled_from([RUN, WHOLE]),
)
def test_no_header_and_no_value_make_an_event_that_is_not_theirs(
    headers: Headers, value: bytes | None
) -> None:
    """Binary mode gives one line: an object of just these attributes and this data, or no object at all."""
    found = lines(CLOUDEVENTS, value, headers)
    attributes = {
        name.lower()[3:]
        for name, raw in headers
        if name.lower() in {"ce_id", "ce_type", "ce_source", "ce_specversion", "ce_x"} and raw is not None
    }
    types = [raw for name, raw in headers if name == "content-type" and raw is not None]
    if not attributes or any(raw.lstrip().lower().startswith(b"application/cloudevents") for raw in types):
        assert len(found) <= 1 or (not attributes and found == lines(EVENTS, value))
        return
    [line] = found
    if not line.startswith(b"{"):
        return
    try:
        whole = json.loads(line)
    except ValueError:  # the data holds bytes that are no UTF-8, or numbers that Python cannot read
        return
    data, encoded, type_ = (whole.pop(key, None) for key in ("data", "data_base64", "datacontenttype"))
    assert set(whole) == attributes
    assert whole["specversion"] == "1.0"
    for name, known in whole.items():
        given_ = [
            raw.decode() for header, raw in headers if header.lower() == f"ce_{name}" and raw is not None
        ]
        assert set(given_) == ({known} if isinstance(known, str) else set(known))
    assert type_ in {None, *(raw.decode() for raw in types)}
    assert value is None or encoded is None or base64.b64decode(encoded) == value
    assert (
        value is None
        or data is None
        or data in (value.decode(), json.loads(value) if type_ != "text/plain" else None)
    )
