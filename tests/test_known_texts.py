"""A decoder that knows texts gives what the plain one gives, and is left as soon as a text is new."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core import known_texts, reduce
from evalgauge.core.columns import Columns
from evalgauge.core.decode import CloudEventsShape, decode
from evalgauge.core.event import Limits
from evalgauge.core.known_texts import KnownTexts
from evalgauge.core.mapped import MappedShape
from evalgauge.core.pack.event_model import EventSpec
from tests.engine_helpers import Lab, event, lab, lines, mapping_of, one_by_one

if TYPE_CHECKING:
    from pathlib import Path

    from evalgauge.core.shape import Shape

MAPPING = """\
mapping: foreign
version: 1
time: {from: arrival}
type: {constant: lab.run}
id: {field: uid}
source: {field: from}
data:
  lab.run:
    tenant: {field: whose.tenant}
    kind: {field: k, table: {A: a, B: b, C: c}}
    who: {field: whose.name}
    took_ms: {field: took}
"""

TEXTS = st.text(max_size=6) | st.sampled_from(["", "a", "ä", "\0", '"', "\\", "\u2028", "a" * 200])


@pytest.fixture(autouse=True)
def every_piece_teaches(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few its events."""
    monkeypatch.setattr(known_texts, "FEWEST_EVENTS", 1)


def body_of(found: list[bytes]) -> bytes:
    """Lines as one body."""
    return b"".join(line + b"\n" for line in found)


def read(shape: Shape, events: list[Any]) -> list[Any]:
    """What is read of events of one type: ids, sources, the values and label texts of each field."""
    ((reader, found, numbers),) = shape.group(events, np.arange(len(events)), [])
    columns = Columns(reader, found, numbers, {}, 0.0)
    fields = []
    for name, spec in lab().events["lab.run"].fields.items():
        fields.append(columns.raw(name))
        if spec.type == "string":
            codes, texts = columns.codes(name)
            fields.append([texts[code] for code in codes.tolist()])
    return [columns.ids(), columns.sources(), *fields]


@settings(max_examples=60)
@given(st.lists(st.lists(st.one_of(TEXTS, st.none()), min_size=1, max_size=5), min_size=1, max_size=14))
def test_known_or_not_the_events_are_equal(pieces: list[list[str | None]]) -> None:
    """Empty texts, escapes, surrogates of JSON, texts that come and stay, and one more that comes late."""
    types = dict(lab().events)
    native = CloudEventsShape(types)
    foreign = MappedShape(mapping_of(MAPPING, lab()), types, CloudEventsShape(types))
    stream: list[list[str | None]] = [*pieces, *([pieces[0]] * 8), ["new"], pieces[0]]
    for who in stream:
        told = lines(*(event(n, who=name, source=f"/{name}" if name else "/s") for n, name in enumerate(who)))
        own = lines(
            *(
                {"uid": n, "from": name or 1, "k": "A", "whose": {"tenant": "t", "name": name}, "took": n}
                for n, name in enumerate(who)
            )
        )
        for shape, found in ((native, told), (foreign, own)):
            events = shape.events(body_of(found), len(found))
            expected = [shape.decode(line) for line in found]
            assert events is not None
            assert read(shape, events) == read(shape, expected)


def test_texts_are_one_object_once_they_are_known() -> None:
    """That is what it is for: an event brings no copy of them."""
    shape = CloudEventsShape(dict(lab().events))
    body = body_of(lines(event(1, who="somebody"), event(2, who="somebody")))
    for _ in range(known_texts.STEADY + 1):
        shape.events(body, 2)
    one, two = shape.events(body, 2) or []
    assert one.data.f_who is two.data.f_who
    assert one.source is two.source


def test_a_piece_with_a_bad_line_teaches_and_is_decoded_as_others_are() -> None:
    """What is refused costs the others nothing of what is known; a text that is new is taken and learnt."""
    shape = CloudEventsShape(dict(lab().events))
    bad = b'{"id": 1}\n'

    def decoded(*who: str) -> list[Any]:
        body = body_of(lines(*(event(number, who=name) for number, name in enumerate(who)))) + bad
        found = decode(shape, body, Limits(), 0)
        assert [one.line for one in found.refusals] == [len(who)]
        ((reader, events, numbers),) = found.groups
        assert Columns(reader, events, numbers, {}, 0.0).raw("who") == list(who)
        return events

    for _ in range(known_texts.STEADY + 1):
        decoded("ann", "bob")
    one, two = decoded("ann", "ann")
    assert one.data.f_who is two.data.f_who
    knowing = shape.decoder()
    decoded("ann", "cid", "bob")
    assert shape.decoder() is not knowing
    for _ in range(2 * known_texts.STEADY + 1):
        decoded("cid")
    one, two = decoded("cid", "cid")
    assert one.data.f_who is two.data.f_who


def test_few_events_teach_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece must be large enough to repay it."""
    monkeypatch.setattr(known_texts, "FEWEST_EVENTS", 3)
    shape = CloudEventsShape(dict(lab().events))
    found = lines(*(event(number, who="somebody") for number in range(3)))
    for expected, taught in ((False, found[:2]), (True, found)):
        for _ in range(known_texts.STEADY + 1):
            shape.events(body_of(taught), len(taught))
        assert (shape._known._knowing is not None) is expected


def test_a_field_of_too_many_texts_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others stay known."""
    monkeypatch.setattr(known_texts, "MOST_TEXTS", 3)
    shape = CloudEventsShape(dict(lab().events))
    for number in range(12):
        found = lines(*(event(n, who=f"w{number}-{n}", tenant="t") for n in range(3)))
        assert len(shape.events(body_of(found), 3) or []) == 3
    known = shape._known
    assert known._knowing is not None
    assert ("lab.run", "who") not in known._texts
    assert known._texts["lab.run", "tenant"] == {"t"}


def test_a_decoder_that_was_built_too_early_waits_longer_the_next_time() -> None:
    """So that a field that goes on growing costs little."""
    built: list[Any] = []
    plain = msgspec.json.Decoder(dict[str, str])

    def build(texts: Any) -> msgspec.json.Decoder[Any]:
        built.append(texts)
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
            dict.__class_getitem__((str, known_texts.known(str, texts["a"])))
        )
        return decoder

    known: KnownTexts[str] = KnownTexts(plain, lambda events: [("a", [one["a"] for one in events])], build)
    places = []
    for number in range(200):
        text = str(number // 20)
        before = len(built)
        assert known.events(json.dumps({"a": text}).encode(), 1) == [{"a": text}]
        if len(built) > before:
            places.append(number)
    assert places == [4, 28, 56]  # then 32 pieces would be enough, and a new text comes every 20


@pytest.mark.parametrize("steady", [0, 1])
def test_metrics_are_the_same_with_known_texts(
    tmp_path: Path, steady: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bad lines among them, of which the knowing decoder must accept none that the plain one refuses."""
    dice = random.Random(8)  # noqa: S311 - the same stream at every run
    found = []
    for number in range(600):
        who = dice.choice(["ann", "bob", None, f"w{number}" if number % 97 == 0 else "cy"])
        named = dice.choice([{"who": who}, {"who": who}, {}])
        if dice.random() < 0.2:
            found += lines(event(number, dice.choice(["lab.opened", "lab.closed"]), **named))
        else:
            found += lines(event(number, tenant=dice.choice(["t", "u"]), kind=dice.choice("abc"), **named))
        if dice.random() < 0.01:
            wrong = dice.choice([{"kind": "z"}, {"tenant": "x" * 21}])
            found += dice.choice([[b"{bad"], lines(event(number, **wrong))])
    with one_by_one(tmp_path / "one", found) as oracle:
        expected, counted = oracle.shown(), oracle.counted()
    monkeypatch.setattr(known_texts, "STEADY", steady)
    with Lab(tmp_path / "known") as bench:
        for start in range(0, len(found), 25):
            bench.feed(body_of(found[start : start + 25]))
        bench.engine.commit()
        assert (bench.shown(), bench.counted()) == (expected, counted)
    # Pieces of one chunk, some of which know their texts and some do not, are looked at in their order.
    monkeypatch.setattr(reduce, "PIECE_BYTES", 7_000)
    with Lab(tmp_path / "together") as bench:
        bench.feed(body_of(found))
        bench.engine.commit()
        assert (bench.shown(), bench.counted()) == (expected, counted)


def test_a_tokens_tenant_stands_in_for_a_known_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event need not name its tenant then; one that names another is refused."""
    seen = []
    for steady in (1 << 20, 0):
        monkeypatch.setattr(known_texts, "STEADY", steady)
        with Lab(tmp_path / str(steady)) as bench:
            for number in range(6):
                told = [event(10 * number + n, who=f"w{n}", tenant=name) for n, name in enumerate("t-u")]
                del told[1]["data"]["tenant"]
                verdict = bench.put(*told, tenant="t")
                assert (verdict.accepted, verdict.rejected) == (2, 1)
            seen.append((bench.shown(), bench.counted()))
    assert seen[0] == seen[1]


def test_a_field_that_holds_a_trace_is_a_text_and_not_learnt() -> None:
    """It is read as one, for exemplars."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    fields = {name: {"type": "string", "description": "Text."} for name in ("who", "traceparent")}
    spec = EventSpec.model_validate({"description": "One event.", "fields": fields})
    shape = CloudEventsShape({"lab.traced": spec})
    plain = shape.decoder()
    traced = event(1, "lab.traced", who="a")
    traced["data"]["traceparent"] = trace
    for _ in range(known_texts.STEADY + 2):
        ((reader, events, numbers),) = shape.group(
            shape.events(body_of(lines(traced)), 1) or [], np.arange(1), []
        )
    columns = Columns(reader, events, numbers, {}, 0.0)
    assert shape.decoder() is not plain
    assert columns.traceparents() == [trace]
    assert columns.raw("who") == ["a"]
