"""Kafka records as tests write them, and what becomes of them in an engine."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import strategies as st

from evalgauge.collectors.kafka_records import Body, RecordFormat, body_of
from evalgauge.core.engine import InputRules
from tests.engine_helpers import Lab, event

if TYPE_CHECKING:
    from evalgauge.core.collect import Verdict

EVENTS, CLOUDEVENTS, DEBEZIUM = RecordFormat
Headers = Sequence[tuple[str, bytes | None]]
DOCS = (Path(__file__).parent.parent / "docs" / "kafka-records.md").read_text()


class Record(NamedTuple):
    """A value with its headers."""

    value: bytes | None
    headers: Headers = ()


def body(format_: RecordFormat, *records: Record | bytes | None) -> Body:
    """What records become."""
    whole = [one if isinstance(one, Record) else Record(one) for one in records]
    return body_of(format_, [one.value for one in whole], lambda number: whole[number].headers)


def by_record(found: Body, count: int) -> list[list[bytes]]:
    """The lines of each record, blank ones left out, which the engine does as well."""
    lines = found.data.split(b"\n") if found.data else []
    firsts = list(range(count)) if found.firsts is None else found.firsts
    assert len(firsts) == count
    assert found.firsts is not None or len(lines) == count
    records: list[list[bytes]] = [[] for _ in range(count)]
    for number, line in enumerate(lines):
        if line.strip():
            records[bisect_right(firsts, number) - 1].append(line.strip())
    return records


def lines(format_: RecordFormat, value: bytes | None, headers: Headers = ()) -> list[bytes]:
    """The lines of one record."""
    return by_record(body(format_, Record(value, headers)), 1)[0]


def judged(folder: Path, found: Body, rules: InputRules | None = None) -> Verdict:
    """What the engine says of a body."""
    with Lab(folder, rules=rules or InputRules()) as bench:
        bench.feed(found.data)
        bench.engine.commit()
        return bench.verdicts[0]


def reasons(verdict: Verdict) -> list[str]:
    """Why events were refused, in order."""
    return [str(one.reason) for one in verdict.exceptions]


def an_event(name: str) -> bytes:
    """One that the engine accepts, on one line."""
    return json.dumps(event(0, id=name, who='a\n"b"')).encode()


A, B, C = an_event("a"), an_event("b"), an_event("c")
MALFORMED = ["malformed_json"]
PIECES = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"\\",
    b"\n",
    b"\r",
    b",",
    b":",
    b"1",
    b"a",
    b'"k":',
    b"{}",
    b"}\n{",
    b"\xff",
    b" ",
]
SOUP = st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join)


def documented(language: str, containing: str) -> str:
    """The one fenced block of the documentation in a language that contains a text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", DOCS, flags=re.DOTALL | re.MULTILINE)
    [found] = [one for one in blocks if containing in one]
    return str(found)
