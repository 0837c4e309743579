"""The HTTP door: what it takes, what it answers and when, and whom it cuts off."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import select
import socket
import ssl
import sys
import threading
import time
import tracemalloc
from contextlib import ExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import trustme
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evalgauge.collectors import http_tokens
from evalgauge.collectors.cloudevents_http import Form, lines_of
from evalgauge.collectors.http import HttpCollector, HttpConfig
from evalgauge.collectors.http_encoding import gunzip, unzstd
from evalgauge.collectors.http_flow import chunks_of
from evalgauge.collectors.http_tokens import Bucket, Rate
from evalgauge.core.collect import Chunk, InputContext, InputStatus, Stopped, Verdict
from evalgauge.core.errors import ConfigError
from evalgauge.core.web import Refused
from tests.client_http import (
    DEADLINE,
    Answer,
    Door,
    MemorySink,
    event,
    ndjson,
    open_door,
    read_all,
    zipped,
)
from tests.parts.part import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BATCH = "application/cloudevents-batch+json"
STRUCTURED = "application/cloudevents+json"
COUNTS = {"received": 2, "accepted": 2, "duplicate": 0, "rejected": 0}
TOKEN = "tk-0123456789abcdef"  # noqa: S105 - made for the test


@pytest.fixture(scope="module")
def shared() -> Iterator[Door]:
    """Give one door for the tests that leave nothing behind."""
    with open_door() as running:
        yield running


@pytest.fixture
def door(shared: Door) -> Door:
    """Give a door whose sink remembers nothing of earlier tests' chunks."""
    shared.sink.chunks.clear()
    return shared


def refused(answer: Answer, status: int) -> dict[str, object]:
    """Check that an answer is a problem document of this status; gives the document."""
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    document: dict[str, object] = answer.json
    assert document["status"] == status
    assert document["title"]
    return document


# --- What is taken ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "media_type", ["application/x-ndjson", "application/ndjson", "application/jsonl; charset=UTF-8"]
)
def test_lines_pass_as_they_are(door: Door, media_type: str) -> None:
    """Not one event is decoded on the way; even spaces and blank lines stay."""
    body = b'{"id": "%b-1"}\r\n\n  {"id":"%b-2"}' % (media_type.encode(), media_type.encode())
    answer = door.post(body, media_type)
    assert (answer.status, answer.json) == (202, COUNTS)
    assert b"".join(door.sink.bodies) == body


def test_a_structured_event_becomes_one_line(door: Door) -> None:
    """Newlines between tokens become spaces: a newline ends an event."""
    sent = event("structured")
    answer = door.post(json.dumps(sent, indent=2).encode(), STRUCTURED)
    assert answer.json["accepted"] == 1
    assert len(door.sink.lines) == 1
    assert door.sink.events == [sent]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("media_type", [BATCH, "application/json"])
def test_an_array_is_cut_into_its_items(door: Door, indent: int | None, media_type: str) -> None:
    """Items are cut out as bytes, whatever they hold."""
    sent = [event(f"{media_type}-{indent}-{n}", text='a "quoted" \\ ü \n line') for n in range(3)]
    answer = door.post(json.dumps(sent, indent=indent, ensure_ascii=False).encode(), media_type)
    assert answer.json["accepted"] == 3
    assert door.sink.events == sent
    assert len(door.sink.lines) == 3


def test_a_single_object_may_come_as_plain_json(door: Door) -> None:
    """`application/json` is an array or an object."""
    assert door.post(json.dumps(event("plain")).encode(), "application/json").json["accepted"] == 1


def test_the_binary_mode_is_put_together_from_headers_and_body(door: Door) -> None:
    """Attributes are percent-decoded and unquoted as the HTTP binding says; the body becomes `data`."""
    answer = door.post(
        b'{\n "score": 0.5 }',
        "application/json; charset=utf-8",
        ce_specversion="1.0",
        ce_id="caf%C3%A9%20%22%E2%82%AC",
        ce_source='"/with\\"quotes"',
        ce_type="judgment.executed",
        ce_time="2026-01-01T00:00:00Z",
        ce_traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ce_dataschema="https://schemas.example/judgment",
        traceparent="00-11111111111111111111111111111111-1111111111111111-01",
    )
    assert answer.status == 202
    assert door.sink.events == [
        {
            "specversion": "1.0",
            "id": 'café "€',
            "source": '/with"quotes',
            "type": "judgment.executed",
            "time": "2026-01-01T00:00:00Z",
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "dataschema": "https://schemas.example/judgment",
            "data": {"score": 0.5},
        }
    ]


def test_a_binary_event_may_have_no_data(door: Door) -> None:
    """Data is optional in CloudEvents."""
    answer = door.post(b"", None, ce_specversion="1.0", ce_id="empty", ce_source="/s", ce_type="t")
    assert answer.status == 202
    assert "data" not in door.sink.events[0]


def test_the_traceparent_of_the_request_is_not_that_of_its_events(door: Door) -> None:
    """The request's own trace is about the delivery, and one request brings many events."""
    door.post(ndjson(event("traced")), traceparent="00-11111111111111111111111111111111-1111111111111111-01")
    assert "traceparent" not in door.sink.events[0]


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", zipped(ndjson(event("gz-1")), ndjson(event("gz-2")))),
        ("x-gzip", zipped(ndjson(event("gz-3"), event("gz-4")))),
        ("identity", ndjson(event("id-1"), event("id-2"))),
        (
            "zstd",
            zstandard.compress(ndjson(event("zs-1")))
            + zstandard.ZstdCompressor(write_content_size=False).compress(ndjson(event("zs-2"))),
        ),
    ],
)
def test_compressed_bodies_of_one_or_several_parts_are_taken(door: Door, encoding: str, body: bytes) -> None:
    """Gzip members and zstd frames may follow each other, as `cat a.gz b.gz` makes them."""
    answer = door.post(body, Content_Encoding=encoding)
    assert (answer.status, answer.json) == (202, COUNTS)


def test_a_chunked_body_is_taken(door: Door) -> None:
    """A sender need not know the length beforehand."""
    connection = door.connect()
    connection.request(
        "POST",
        "/v1/events",
        iter([ndjson(event("c-1")), ndjson(event("c-2"))]),
        {"Content-Type": "application/x-ndjson"},
        encode_chunked=True,
    )
    assert json.loads(connection.getresponse().read()) == COUNTS
    connection.close()


@pytest.mark.parametrize(("body", "media_type"), [(b"[]", BATCH), (b"", "application/x-ndjson")])
def test_an_empty_batch_is_taken_and_is_nothing(door: Door, body: bytes, media_type: str) -> None:
    """CloudEvents allows an empty batch."""
    answer = door.post(body, media_type)
    assert (answer.status, answer.json["received"]) == (202, 0)
    assert door.sink.chunks == []


def test_a_large_body_is_handed_on_in_chunks_and_answered_as_one() -> None:
    """Chunks end at newlines; verdicts count lines from the start of the request."""
    events = [event(f"n{number}", pad="x" * 50) for number in range(100)]
    events[77].pop("id")
    body = ndjson(*events)
    with open_door(max_chunk_bytes=1000) as door:
        answer = door.post(body, Prefer="return=representation")
        assert len(door.sink.chunks) > 10
        assert all(len(part) <= 1000 for part in door.sink.bodies)
        assert b"".join(door.sink.bodies) == body
        assert (answer.json["received"], answer.json["rejected"]) == (100, 1)
        assert [one["index"] for one in answer.json["events"]] == list(range(100))
        assert answer.json["events"][77]["status"] == "rejected"
        lines = door.sink.bodies[-1].count(b"\n")
        assert door.sink.chunks[-1].locate(lines - 1).endswith(", event 99")


def test_a_line_longer_than_a_chunk_stays_whole() -> None:
    """Whether an event is too large is for the engine to say, with a reason."""
    with open_door(max_chunk_bytes=100) as door:
        door.post(ndjson(event("a"), event("b", pad="x" * 500), event("c")))
        assert [one["id"] for one in door.sink.events] == ["a", "b", "c"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(JSON_VALUES, max_size=8), st.sampled_from([None, 0, 3]), st.booleans())
def test_cutting_an_array_changes_no_value(values: list[object], indent: int | None, ascii_: bool) -> None:
    """Whatever the items hold, and however they are set out."""
    body = json.dumps(values, indent=indent, ensure_ascii=ascii_).encode("utf-8", "surrogatepass")
    lines = lines_of(body, Form.ARRAY, 100)
    found = [json.loads(line) for line in lines.body.split(b"\n")] if lines.lines else []
    assert (found, lines.lines) == (values, len(values))


@given(
    st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=20),
    st.integers(1, 40),
)
def test_chunks_are_the_body_cut_at_newlines(texts: list[bytes], most: int) -> None:
    """No line is parted, none is lost, and each chunk knows the number of its first line."""
    body = b"\n".join(texts)
    chunks = list(chunks_of(body, most))
    assert b"".join(part for _, part in chunks) == body
    for number, (first, part) in enumerate(chunks):
        assert first == sum(before.count(b"\n") for _, before in chunks[:number])
        assert len(part) <= most or part.count(b"\n", 0, -1) == 0
        assert part.endswith(b"\n") or number == len(chunks) - 1


def test_a_chunk_says_where_its_events_came_from(door: Door) -> None:
    """A dead letter is found again by the request and the number of the event in it."""
    before = time.time()
    door.post(ndjson(event("w-1"), event("w-2")))
    (chunk,) = door.sink.chunks
    assert chunk.locate(1).startswith("request ")
    assert chunk.locate(1).endswith(", event 1")
    assert before <= chunk.arrival <= time.time()
    assert (chunk.commit, chunk.tenant) == (None, None)


# --- What is answered, and when --------------------------------------------------------------------------


def test_202_comes_after_the_commit_and_not_before(door: Door) -> None:
    """An acknowledged event is durable."""
    door.sink.commits.clear()
    answers: list[Answer] = []
    client = threading.Thread(target=lambda: answers.append(door.post(ndjson(event("durable")))))
    client.start()
    until(lambda: door.sink.chunks, "the chunk")
    client.join(0.1)
    assert not answers
    door.sink.commits.set()
    client.join()
    assert answers[0].status == 202


def test_a_repeated_event_is_counted_as_duplicate(door: Door) -> None:
    """A sender that retries learns that the first try had worked."""
    door.post(ndjson(event("again")))
    assert door.post(ndjson(event("again"))).json == {
        "received": 1,
        "accepted": 0,
        "duplicate": 1,
        "rejected": 0,
    }


def test_one_bad_event_does_not_spoil_its_batch(door: Door) -> None:
    """The others count, and the answer names the bad one."""
    answer = door.post(ndjson(event("good-1")) + b"{oops\n" + ndjson(event("good-2")))
    assert answer.status == 202
    assert (answer.json["accepted"], answer.json["rejected"]) == (2, 1)
    assert answer.json["refusals"] == [
        {"index": 1, "status": "rejected", "reason": "malformed_json", "detail": "no JSON"}
    ]


def test_each_events_verdict_is_told_on_request(door: Door) -> None:
    """`Prefer: return=representation`; blank lines are no events, but they count as lines."""
    door.post(ndjson(event("v-0")))
    body = ndjson(event("v-0")) + b"\n" + ndjson(event("v-1")) + b"[]\n"
    answer = door.post(body, Prefer='respond-async, return="representation"; x=1')
    assert answer.headers["Preference-Applied"] == "return=representation"
    assert answer.json["events"] == [
        {"index": 0, "status": "duplicate"},
        {"index": 2, "status": "accepted"},
        {"index": 3, "status": "rejected", "reason": "not_an_object", "detail": "no object"},
    ]


def test_verdicts_of_many_events_are_told_too(door: Door) -> None:
    """They are put together beside the event loop."""
    answer = door.post(ndjson(*(event(f"many-{n}") for n in range(5000))), Prefer="return=representation")
    assert len(answer.json["events"]) == 5000


def test_a_minimal_answer_leaves_the_refusals_out(door: Door) -> None:
    """`Prefer: return=minimal`: counts alone."""
    answer = door.post(ndjson(event("m-1")) + b"{\n", Prefer="return=minimal")
    assert answer.json == {"received": 2, "accepted": 1, "duplicate": 0, "rejected": 1}


def test_400_when_every_event_was_refused(door: Door) -> None:
    """The problem document holds the counts and the first few refusals."""
    document = refused(door.post(b"{}\n" * 20), 400)
    assert (document["received"], document["accepted"], document["rejected"]) == (20, 0, 20)
    assert [one["index"] for one in document["refusals"]] == [0, 1, 2, 3, 4]  # type: ignore[attr-defined]
    assert document["refusals"][0]["reason"] == "missing_field"  # type: ignore[index]


@pytest.mark.parametrize(
    ("body", "media_type", "encoding"),
    [
        (b'[{"id":"1"},', BATCH, None),
        (b'{"id":"1"}', BATCH, None),
        (b"[]x", "application/json", None),
        (b"", "application/json", None),
        (b"7", "application/json", None),
        (b'"text"', STRUCTURED, None),
        (b"[{}]", STRUCTURED, None),
        (b'{"a":1} {"b":2}', STRUCTURED, None),
        (b"[" * 100_000, "application/json", None),
        (b'[{"a":' + b"[" * 100_000, "application/json", None),
        (b"no gzip", "application/x-ndjson", "gzip"),
        (zipped(b"{}\n")[:-4], "application/x-ndjson", "gzip"),
        (zipped(b"{}\n") + b"garbage", "application/x-ndjson", "gzip"),
        (b"", "application/x-ndjson", "gzip"),
        (zipped(b"") * 200, "application/x-ndjson", "gzip"),
        (b"no zstd", "application/x-ndjson", "zstd"),
        (zstandard.compress(b"{}\n")[:-2], "application/x-ndjson", "zstd"),
        (zstandard.compress(b"{}\n") + b"garbage", "application/x-ndjson", "zstd"),
        (b"", "application/x-ndjson", "zstd"),
        (zstandard.compress(b"") * 2000, "application/x-ndjson", "zstd"),
    ],
)
def test_400_when_the_body_cannot_be_read(
    door: Door, body: bytes, media_type: str, encoding: str | None
) -> None:
    """Nothing of such a body is taken."""
    headers = {"Content_Encoding": encoding} if encoding else {}
    document = refused(door.post(body, media_type, **headers), 400)
    assert document["detail"]
    assert door.sink.chunks == []


@pytest.mark.parametrize(
    "headers",
    [
        {"ce_id": "1", "ce_source": "/s", "ce_type": "t"},
        {"ce_specversion": "0.3", "ce_id": "1", "ce_source": "/s", "ce_type": "t"},
        {"ce_specversion": "1.0", "ce_id": "%ff", "ce_source": "/s", "ce_type": "t"},
        {"ce_specversion": "1.0", "ce_id": "1", "ce_bad_name": "x"},
        {"ce_specversion": "1.0", "ce_id": "1", "ce_data": "{}"},
        {"ce_specversion": "1.0", "ce_id": "1", "CE_ID": "2"},
    ],
)
def test_400_when_the_attributes_of_a_binary_event_are_wrong(door: Door, headers: dict[str, str]) -> None:
    """An attribute cannot be given twice, nor smuggle in the data."""
    refused(door.post(b"{}", "application/json", **headers), 400)
    assert door.sink.chunks == []


def test_400_when_binary_data_is_more_than_one_value(door: Door) -> None:
    """Otherwise the body could write attributes of the envelope."""
    answer = door.post(b'1,"id":"other"', "application/json", ce_specversion="1.0", ce_id="1")
    refused(answer, 400)
    assert door.sink.chunks == []


@pytest.mark.parametrize(
    "start",
    [
        b"NONSENSE\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
    ],
)
def test_400_when_it_is_no_http(door: Door, start: bytes) -> None:
    """What aiohttp itself refuses is a problem document too."""
    with door.raw() as client:
        client.sendall(start)
        said = read_all(client)
    assert b" 400 " in said.split(b"\r\n")[0]
    assert b"application/problem+json" in said
    assert json.loads(said.split(b"\r\n\r\n")[1])["status"] == 400


def test_400_when_the_framing_of_the_body_is_broken(door: Door) -> None:
    """A chunk without a length."""
    with door.raw() as client:
        client.sendall(
            b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        client.sendall(b"zz\r\n")
        assert b" 400 " in client.recv(1000).split(b"\r\n")[0]


def test_404_for_another_path(door: Door) -> None:
    """There is one door."""
    refused(door.post(b"{}", path="/v2/events"), 404)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_405_names_the_method_that_works(door: Door, method: str) -> None:
    """Allow: POST."""
    answer = door.post(b"", method=method)
    refused(answer, 405)
    assert answer.headers["Allow"] == "POST"


def test_411_when_the_length_is_not_declared(door: Door) -> None:
    """Neither Content-Length nor chunks: HTTP says that there is no body, which is not meant."""
    with door.raw() as client:
        client.sendall(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\r\n")
        assert b" 411 " in client.recv(1000).split(b"\r\n")[0]


@pytest.mark.parametrize(
    ("body", "headers", "media_type"),
    [
        (b"x" * 2000, {}, "application/x-ndjson"),
        (gzip.compress(b"{}\n" * 10_000, mtime=0), {"Content_Encoding": "gzip"}, "application/x-ndjson"),
        (zstandard.compress(b"{}\n" * 10_000), {"Content_Encoding": "zstd"}, "application/x-ndjson"),
        (gzip.compress(b"x" * 3_000, mtime=0), {"Content_Encoding": "gzip"}, "application/x-ndjson"),
        (b"{}\n" * 11, {}, "application/x-ndjson"),
        (b"{}\n" * 10 + b"{}", {}, "application/x-ndjson"),
        (b"[" + b",".join([b"{}"] * 11) + b"]", {}, "application/json"),
        (b"[" + b",".join([b"0"] * 400) + b"]", {}, "application/json"),
    ],
)
def test_413_for_too_much(body: bytes, headers: dict[str, str], media_type: str) -> None:
    """Too many bytes as sent, too many inflated, too many events."""
    with open_door(max_body=1000, max_inflated=2000, max_events=10) as door:
        refused(door.post(body, media_type, **headers), 413)
        assert door.sink.chunks == []
        assert door.post(ndjson(event("fits"))).status == 202


def test_413_for_a_chunked_body_that_does_not_end() -> None:
    """The limit holds for what arrives, whatever is declared; the client sees the answer while it still sends."""
    with open_door(max_body=100_000) as door, door.raw() as client:
        client.sendall(
            b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(20):
            client.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        assert b" 413 " in client.recv(1000).split(b"\r\n")[0]


def test_413_without_sending_the_body_when_the_client_asks_first() -> None:
    """`Expect: 100-continue` is answered by the header alone; a request that is welcome gets its 100."""
    with open_door(max_body=1000) as door:
        with door.raw() as client:
            client.sendall(
                b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n"
            )
            assert client.recv(1000).startswith(b"HTTP/1.1 413 ")
        with door.raw() as client:
            body = ndjson(event("asked"))
            head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            client.sendall(head.encode() + b"Content-Type: application/jsonl\r\nExpect: 100-continue\r\n\r\n")
            assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(body)
            assert client.recv(1000).startswith(b"HTTP/1.1 202 ")


def test_a_bomb_costs_no_memory() -> None:
    """Inflating stops at the limit: 64 MiB of zeros in some kilobytes take a few megabytes."""
    for inflate, bomb in (
        (gunzip, gzip.compress(bytes(64 << 20), 9, mtime=0)),
        (unzstd, zstandard.compress(bytes(64 << 20))),
    ):
        tracemalloc.start()
        with pytest.raises(Refused) as refusal:
            inflate(bomb, 1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert refusal.value.response.status == 413
        assert peak < 16 << 20


def test_a_body_may_be_as_large_as_the_limit_and_not_a_byte_more() -> None:
    """Limits are inclusive."""
    for inflate, packed in (
        (gunzip, zipped(b"x" * 500, b"y" * 500)),
        (unzstd, zstandard.compress(b"x" * 1000)),
    ):
        assert len(inflate(packed, 1000)) == 1000
        with pytest.raises(Refused):
            inflate(packed, 999)


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
def test_zstd_gives_back_what_went_in(size: int) -> None:
    """Frames of incompressible data are fed in many small steps."""
    data = os.urandom(size)
    packed = zstandard.compress(data[: size // 2]) + zstandard.compress(data[size // 2 :])
    assert unzstd(packed, size) == data


@pytest.mark.parametrize(
    ("media_type", "headers", "header", "says"),
    [
        ("text/plain", {}, "Accept", "application/x-ndjson"),
        (None, {}, "Accept", "application/x-ndjson"),
        ("application/json; charset=iso-8859-1", {}, "Accept", "application/json"),
        ("application/cloudevents+avro", {}, "Accept", STRUCTURED),
        ("text/plain", {"ce_specversion": "1.0", "ce_id": "1"}, "Accept", "application/json"),
        ("application/json", {"Content_Encoding": "br"}, "Accept-Encoding", "gzip, zstd"),
        ("application/json", {"Content_Encoding": "gzip, gzip"}, "Accept-Encoding", "gzip, zstd"),
    ],
)
def test_415_says_what_would_be_taken(
    door: Door, media_type: str | None, headers: dict[str, str], header: str, says: str
) -> None:
    """Another content type, character set or content encoding."""
    answer = door.post(b"{}", media_type, **headers)
    refused(answer, 415)
    assert says in answer.headers[header]


def test_415_names_the_missing_extra(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `zstandard` only gzip is offered."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    answer = door.post(b"{}", Content_Encoding="zstd")
    assert "evalgauge[zstd]" in str(refused(answer, 415)["detail"])
    assert answer.headers["Accept-Encoding"] == "gzip"


def test_431_for_a_header_that_is_too_long(door: Door) -> None:
    """Whoever can connect could fill the memory otherwise."""
    refused(door.post(b"{}", X_Long="x" * 10_000), 431)


# --- Who may send ----------------------------------------------------------------------------------------


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Door]:
    """Give a door with three senders; the token of `rotated` stands in `tmp_path / "token"`."""
    (tmp_path / "token").write_text("old-0123456789\n")
    tokens = [
        {"name": "app", "token": TOKEN, "tenant": "acme"},
        {"name": "gone", "token": "gone-0123456789", "disabled": True},
        {"name": "rotated", "token_file": str(tmp_path / "token")},
    ]
    with open_door(tokens=tokens) as running:
        yield running


@pytest.mark.parametrize(
    "header",
    [None, "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer", f"Bearer {TOKEN}x", "Bearer \u00ff"],
)
def test_401_without_a_known_token(guarded: Door, header: str | None) -> None:
    """The answer says how to do it, and not what was wrong with the token."""
    answer = guarded.post(b"{}", **({"Authorization": header} if header else {}))
    document = refused(answer, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert TOKEN not in str(document)
    assert guarded.sink.chunks == []


def test_a_token_brings_its_tenant(guarded: Door) -> None:
    """The scheme's name knows no case."""
    assert guarded.post(ndjson(event("t")), Authorization=f"bearer {TOKEN}").status == 202
    assert guarded.sink.chunks[0].tenant == "acme"


def test_403_for_a_sender_that_is_disabled(guarded: Door) -> None:
    """It is known, so that 401 would make it look for its token."""
    refused(guarded.post(b"{}", Authorization="Bearer gone-0123456789"), 403)


def test_403_when_every_event_names_another_tenant(guarded: Door) -> None:
    """A single one among others is refused alone."""
    authorization = f"Bearer {TOKEN}"
    document = refused(guarded.post(ndjson(event("f-1", tenant="other")), Authorization=authorization), 403)
    assert document["refusals"][0]["reason"] == "foreign_tenant"  # type: ignore[index]
    mixed = guarded.post(ndjson(event("f-2", tenant="other"), event("f-3")), Authorization=authorization)
    assert (mixed.status, mixed.json["rejected"]) == (202, 1)


def test_a_token_file_is_read_again_when_it_changes(
    guarded: Door, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two lines are two tokens, so that a sender can be moved without a gap; a missing file changes nothing."""

    def status(token: str) -> int:
        return guarded.post(ndjson(event(token)), Authorization=f"Bearer {token}").status

    assert status("old-0123456789") == 202
    assert status("new-0123456789") == 401
    (tmp_path / "token").write_text("old-0123456789\nnew-0123456789\n")
    until(lambda: status("new-0123456789") == 202, "the new token")
    assert status("old-0123456789") == 202
    (tmp_path / "token").write_text("new-0123456789\n")
    until(lambda: status("old-0123456789") == 401, "the end of the old token")
    (tmp_path / "token").unlink()
    until(lambda: status("new-0123456789") == 202 and "cannot be read" in caplog.text, "the warning")
    assert status("new-0123456789") == 202


def test_429_for_a_tenant_above_its_rate() -> None:
    """Events count, not requests; two tokens of a tenant share its limit, and another tenant has its own."""
    rate = {"events_per_second": 0.5, "burst": 10}
    tokens = [
        {"name": "a1", "token": "a1-token", "tenant": "a", "rate": rate},
        {"name": "a2", "token": "a2-token", "tenant": "a", "rate": rate},
        {"name": "b", "token": "b-token", "tenant": "b", "rate": rate},
    ]
    with open_door(tokens=tokens) as door:

        def send(token: str, first: int, count: int) -> Answer:
            body = ndjson(*(event(f"{token}-{n}") for n in range(first, first + count)))
            return door.post(body, Authorization=f"Bearer {token}-token")

        assert send("a1", 0, 6).status == 202
        answer = send("a2", 0, 6)
        refused(answer, 429)
        assert 1 <= int(answer.headers["Retry-After"]) <= 4
        assert send("a2", 0, 4).status == 202
        assert send("b", 0, 25).status == 202, "a batch above the burst is let in when the burst is full"
        answer = send("b", 25, 1)
        refused(answer, 429)
        assert int(answer.headers["Retry-After"]) > 20, "and is paid for afterwards"
        assert len(door.sink.lines) == 35


def test_a_rate_holds_in_the_long_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of the batches: 100 events a second are 100 events a second."""
    now = [0.0]
    monkeypatch.setattr(http_tokens, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for size in (1, 7, 50, 333):
        now[0] = 0.0
        bucket = Bucket(Rate(events_per_second=100, burst=50))
        passed = 0
        while now[0] < 60:
            wait = bucket.wait(size)
            passed += 0 if wait else size
            now[0] += wait + 1e-9
        assert passed == pytest.approx(60 * 100 + 50, abs=2 * max(size, 50))


def test_events_that_were_turned_away_do_not_count_against_the_rate() -> None:
    """503 is the server's affair, not the tenant's."""
    rate = {"events_per_second": 0.1, "burst": 5}
    with open_door(tokens=[{"name": "a", "token": "a", "rate": rate}]) as door:
        body = ndjson(*(event(f"{n}") for n in range(5)))
        door.sink.full = True
        assert door.post(body, Authorization="Bearer a").status == 503
        door.sink.full = False
        assert door.post(body, Authorization="Bearer a").status == 202


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"listen": "0.0.0.0:0"}, "let everybody in"),
        ({"listen": ":0"}, "all interfaces"),
        ({"tokens": [{"name": "a", "token": "x"}, {"name": "b", "token": "x"}]}, "`a` and `b` are the same"),
        ({"tokens": [{"name": "a", "token": "x"}, {"name": "a", "token": "y"}]}, "called `a`"),
        ({"tokens": [{"name": "a", "token_file": "/nowhere/token"}]}, "/nowhere/token cannot be read"),
        (
            {
                "tokens": [
                    {"name": "a", "token": "x", "tenant": "t", "rate": {"events_per_second": 1, "burst": 1}},
                    {"name": "b", "token": "y", "tenant": "t", "rate": {"events_per_second": 2, "burst": 1}},
                ]
            },
            "two different rates",
        ),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused_at_start(config: dict[str, object], says: str) -> None:
    """Before anything listens."""
    sink = MemorySink()
    context = InputContext("door", {}, sink, threading.Event(), InputStatus())
    with pytest.raises(ConfigError, match=says):
        HttpCollector(HttpConfig.model_validate(config), context)
    sink.close()


@pytest.mark.parametrize(
    "config",
    [
        {"lissten": "127.0.0.1:1"},
        {"listen": "8080"},
        {"path": "v1"},
        {"tokens": [{"name": "a"}]},
        {"tokens": [{"name": "a", "token": "x", "token_file": "y"}]},
        {"tokens": [{"name": "a", "token": " "}]},
        {"max_body": 0},
        {"tls": {"cert_file": "a"}},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(config: dict[str, object]) -> None:
    """Unknown keys are errors, too."""
    with pytest.raises(ValidationError):
        HttpConfig.model_validate(config)


def test_tokens_are_not_shown() -> None:
    """A configuration may end in a log."""
    assert TOKEN not in repr(HttpConfig.model_validate({"tokens": [{"name": "a", "token": TOKEN}]}))


# --- TLS -------------------------------------------------------------------------------------------------


def test_events_come_in_over_tls_with_a_client_certificate(tmp_path: Path) -> None:
    """A client without one does not get past the handshake; then no token is needed beyond loopback."""
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = {
        "cert_file": str(tmp_path / "server.pem"),
        "key_file": str(tmp_path / "server.pem"),
        "client_ca_file": str(tmp_path / "ca.pem"),
        "client_auth_type": "RequireAndVerifyClientCert",
    }
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    stranger = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    authority.issue_cert("app@example.org").configure_cert(client)
    with open_door(client_tls=client, tls=tls) as door:
        assert door.post(ndjson(event("secret"))).status == 202
        assert door.context.status.note.startswith("https://")
        door.tls = stranger
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            door.post(ndjson(event("stranger")))
        assert [one["id"] for one in door.sink.events] == ["secret"]


# --- Who is cut off --------------------------------------------------------------------------------------

HEAD = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"


def dribble(client: socket.socket, data: bytes, pause: float, *, times: int = 1000) -> None:
    """Send a byte at a time until the other side has enough."""
    for number in range(times):
        try:
            client.sendall(data[number % len(data)].to_bytes())
        except OSError:
            return
        if select.select([client], [], [], pause)[0]:
            return


def test_408_for_a_header_that_comes_too_slowly() -> None:
    """A byte now and then does not help: the deadline is for the whole header."""
    with open_door(header_timeout="400ms") as door, door.raw() as client:
        start = time.monotonic()
        dribble(client, HEAD, 0.05)
        said = read_all(client)
        assert 0.3 < time.monotonic() - start < DEADLINE / 2
        assert said.startswith(b"HTTP/1.1 408 ")
        assert json.loads(said.split(b"\r\n\r\n")[1])["status"] == 408


def test_408_for_a_later_header_that_comes_too_slowly() -> None:
    """On a connection that waits for its next request the time begins with the first byte."""
    body = ndjson(event("first"))
    whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with open_door(header_timeout="400ms", idle_timeout="30s") as door, door.raw() as client:
        client.sendall(whole)
        assert client.recv(1000).startswith(b"HTTP/1.1 202 ")
        time.sleep(0.8)
        start = time.monotonic()
        client.sendall(HEAD)
        assert read_all(client).startswith(b"HTTP/1.1 408 ")
        assert 0.3 < time.monotonic() - start < DEADLINE / 2


def test_a_connection_that_waits_too_long_is_closed() -> None:
    """Quietly: there is no request to answer."""
    body = ndjson(event("one"))
    with open_door(idle_timeout="300ms") as door, door.raw() as client:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert client.recv(1000).startswith(b"HTTP/1.1 202 ")
        assert client.recv(1000) == b""


def test_408_for_a_body_that_comes_too_slowly() -> None:
    """Each `min_rate` bytes buy a second, and a byte now and then buys nothing."""
    with open_door(body_timeout="400ms", min_rate="1KiB") as door, door.raw() as client:
        start = time.monotonic()
        client.sendall(HEAD + b"Content-Length: 500000\r\n\r\n")
        dribble(client, b"{}\n", 0.05)
        answer = client.recv(1000)
        assert 0.3 < time.monotonic() - start < DEADLINE / 2
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"Connection: close" in answer
        assert door.sink.chunks == []


def test_a_body_that_keeps_the_least_rate_may_take_its_time() -> None:
    """A large batch over a thin line is not a slow client."""
    part = ndjson(event("thin", pad="x" * 500))
    with open_door(body_timeout="1s", min_rate="100B") as door, door.raw() as client:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % (4 * len(part)))
        for _ in range(4):
            time.sleep(0.4)
            client.sendall(part)
        assert client.recv(1000).startswith(b"HTTP/1.1 202 ")


def test_slow_clients_do_not_hold_up_others() -> None:
    """Two hundred connections dribble, and an honest sender does not notice."""
    with open_door(header_timeout="5s") as door, ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(door.raw()).sendall(HEAD)
        slowest = 0.0
        for number in range(50):
            start = time.monotonic()
            assert door.post(ndjson(event(f"honest-{number}"))).status == 202
            slowest = max(slowest, time.monotonic() - start)
        assert slowest < 5  # or they would have waited for the others' time-out


def test_503_for_one_connection_too_many() -> None:
    """The ones that are open go on; when one closes there is room again."""
    with open_door(max_connections=2) as door:
        with door.raw() as first, door.raw() as second:
            for client in (first, second):
                client.sendall(HEAD + b"Content-Length: 0\r\n\r\n")
                assert client.recv(1000).startswith(b"HTTP/1.1 202 ")
            answer = door.post(b"{}")
            refused(answer, 503)
            assert answer.headers["Retry-After"]
            with door.raw() as slow:  # whoever has not sent all yet gets the answer too, and no reset
                slow.sendall(HEAD + b"Content-Length: 20\r\n\r\n")
                assert slow.recv(1, socket.MSG_PEEK)
                for _ in range(2):
                    slow.sendall(b"1234567890")
                assert read_all(slow).startswith(b"HTTP/1.1 503 ")
            first.sendall(HEAD + b"Content-Length: 0\r\n\r\n")
            assert first.recv(1000).startswith(b"HTTP/1.1 202 ")
        until(lambda: door.post(ndjson(event("room"))).status == 202, "room for another connection")


def test_large_bodies_do_not_hold_up_small_ones() -> None:
    """They are inflated and cut in another thread."""
    large = gzip.compress(
        b"[" + b",".join([json.dumps(event("l", pad="x" * 1000)).encode()] * 30_000) + b"]", 1
    )
    with open_door() as door:
        clients = [
            threading.Thread(
                target=door.post, args=(large, "application/json"), kwargs={"Content_Encoding": "gzip"}
            )
            for _ in range(2)
        ]
        for client in clients:
            client.start()
        waits = []
        began = time.monotonic()
        connection = door.connect()
        while any(client.is_alive() for client in clients):
            start = time.monotonic()
            connection.request("GET", "/nothing")
            connection.getresponse().read()
            waits.append(time.monotonic() - start)
        connection.close()
        assert len(waits) > 10
        assert sorted(waits)[len(waits) // 2] < (time.monotonic() - began) / 10


# --- Back-pressure and the end ---------------------------------------------------------------------------


def unavailable(answer: Answer) -> None:
    """Check for 503 with a time to come back at."""
    refused(answer, 503)
    assert int(answer.headers["Retry-After"]) >= 1


def test_503_while_the_engine_is_behind() -> None:
    """The sender keeps its events, and sends them again."""
    with open_door() as door:
        door.sink.full = True
        unavailable(door.post(ndjson(event("later"))))
        door.sink.full = False
        assert door.post(ndjson(event("later"))).json["accepted"] == 1


def test_503_when_the_commit_does_not_come_in_time() -> None:
    """Not known to be durable: the sender repeats, and ids make that harmless."""
    with open_door(commit_timeout="200ms") as door:
        door.sink.commits.clear()
        answer = door.post(ndjson(event("late")))
        unavailable(answer)
        assert "ids" in answer.json["detail"]
        door.sink.commits.set()
        until(lambda: door.post(ndjson(event("late"))).json.get("duplicate") == 1, "the duplicate")


def test_503_when_the_commit_failed() -> None:
    """The reason is told."""
    with open_door() as door:
        door.sink.failure = "the disk is full"
        answer = door.post(ndjson(event("lost")))
        unavailable(answer)
        assert "the disk is full" in answer.json["detail"]


def test_503_when_one_chunk_of_several_failed() -> None:
    """A request is durable as a whole, or repeated as a whole."""
    with open_door(max_chunk_bytes=200) as door:
        judge = door.sink._judge
        verdicts: list[Verdict] = []

        def third_fails(chunk: Chunk) -> Verdict:
            verdicts.append(judge(chunk))
            return Verdict(error="no room") if len(verdicts) == 3 else verdicts[-1]

        door.sink._judge = third_fails  # type: ignore[method-assign]
        unavailable(door.post(ndjson(*(event(f"{n}") for n in range(10)))))


def test_the_rest_of_a_request_waits_for_room() -> None:
    """Its first chunk may be durable already, so the others are not turned away at once."""
    with open_door(max_chunk_bytes=200) as door:
        take = door.sink.offer
        turned_away: list[Chunk] = []

        def every_other(chunk: Chunk) -> bool:
            if door.sink.chunks and len(turned_away) < len(door.sink.chunks):
                turned_away.append(chunk)
                return False
            return take(chunk)

        door.sink.offer = every_other  # type: ignore[method-assign]
        assert door.post(ndjson(*(event(f"{n}") for n in range(10)))).json["accepted"] == 10
        assert len(turned_away) > 2


def test_503_when_too_much_is_under_way() -> None:
    """Many large requests together may not fill the memory; a single one always fits."""
    body = ndjson(event("big", pad="x" * 5000))
    with open_door(max_pending=8000) as door:
        door.sink.commits.clear()
        answers: list[Answer] = []
        client = threading.Thread(target=lambda: answers.append(door.post(body)))
        client.start()
        until(lambda: door.sink.chunks, "the first request")
        unavailable(door.post(body))
        door.sink.commits.set()
        client.join()
        assert answers[0].status == 202
        assert door.post(body * 3).status == 202


def test_503_when_the_engine_has_ended() -> None:
    """`offer` may say so by an exception."""
    with open_door() as door:

        def ended(chunk: Chunk) -> bool:
            raise Stopped(chunk.partition)

        door.sink.offer = ended  # type: ignore[method-assign]
        unavailable(door.post(ndjson(event("too-late"))))


def test_the_end_waits_for_requests_in_flight_and_turns_away_new_ones() -> None:
    """What is in flight gets its answer from the commit; what is new gets 503 and a closed connection."""
    with open_door() as door:
        waiting = door.connect()
        waiting.request("POST", "/v1/events", b"", {"Content-Type": "application/x-ndjson"})
        assert waiting.getresponse().read()
        door.sink.commits.clear()
        answers: list[Answer] = []
        client = threading.Thread(target=lambda: answers.append(door.post(ndjson(event("in-flight")))))
        client.start()
        until(lambda: door.sink.chunks, "the chunk")
        door.stop()
        until(lambda: door.post(b"").status == 503, "the first refusal")
        waiting.request("POST", "/v1/events", ndjson(event("new")), {"Content-Type": "application/x-ndjson"})
        response = waiting.getresponse()
        assert (response.status, response.headers["Connection"]) == (503, "close")
        assert response.headers["Retry-After"]
        response.read()
        waiting.close()
        assert door.thread.is_alive()
        door.sink.commits.set()
        client.join()
        door.thread.join(5)
        assert not door.thread.is_alive()
        assert answers[0].status == 202
        assert [one["id"] for one in door.sink.events] == ["in-flight"]
        with pytest.raises(ConnectionRefusedError):
            door.post(b"")


def test_the_end_does_not_wait_for_ever() -> None:
    """A commit that never comes is given up after `drain_timeout`."""
    with open_door(drain_timeout="200ms") as door:
        door.sink.commits.clear()
        connection = door.connect()
        connection.request(
            "POST", "/v1/events", ndjson(event("never")), {"Content-Type": "application/jsonl"}
        )
        until(lambda: door.sink.chunks, "the chunk")
        door.stop()
        door.thread.join(8)
        assert not door.thread.is_alive()
        connection.close()
        door.sink.commits.set()


def test_a_client_that_leaves_does_not_disturb(door: Door) -> None:
    """It may go in the middle of its body, or before its answer."""
    with door.raw() as client:
        client.sendall(HEAD + b"Content-Length: 1000\r\n\r\nhalf")
    door.sink.commits.clear()
    with door.raw() as client:
        body = ndjson(event("left"))
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: door.sink.chunks, "the chunk")
    door.sink.commits.set()
    assert door.post(ndjson(event("stayed"))).status == 202


def test_pipelined_requests_are_answered_in_order(door: Door) -> None:
    """One connection, three requests at once."""
    bodies = [ndjson(event("p-1")), b"{\n", ndjson(event("p-2"))]
    with door.raw() as client:
        client.sendall(b"".join(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies))
        said = b""
        while said.count(b"HTTP/1.1 ") < 3:
            said += client.recv(1 << 16)
        assert [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", said)] == [202, 400, 202]


def test_many_senders_at_once_all_get_their_answer() -> None:
    """Each event is acknowledged once, whatever commits together."""
    with open_door() as door:
        statuses: list[int] = []

        def send(sender: int) -> None:
            connection = door.connect()
            for number in range(50):
                connection.request(
                    "POST",
                    "/v1/events",
                    ndjson(event(f"{sender}-{number}")),
                    {"Content-Type": "application/jsonl"},
                )
                response = connection.getresponse()
                statuses.append(response.status)
                assert json.loads(response.read())["accepted"] == 1
            connection.close()

        senders = [threading.Thread(target=send, args=(sender,)) for sender in range(16)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        assert statuses == [202] * 800
        assert len(door.sink.lines) == 800


def test_the_status_says_where_it_listens_and_what_came(door: Door) -> None:
    """For the status page."""
    assert door.context.status.note == f"http://127.0.0.1:{door.port}/v1/events"
    door.post(ndjson(event("status")))
    until(lambda: "requests" in door.context.status.positions.get("push", ""), "the status")
