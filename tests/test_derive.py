"""Derived fields through the whole engine, against plain Python that shares no code with them."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core.commands.packs import _show_events
from evalgauge.core.document import parse_document
from evalgauge.core.engine import InputRules
from evalgauge.core.errors import DocumentError
from evalgauge.core.event import Reason
from evalgauge.core.instrument import Declared, meaning
from evalgauge.core.known_texts import FEWEST_EVENTS
from evalgauge.core.observe import Observer
from evalgauge.core.pack.check import check_pack
from evalgauge.core.pack.loader import LoadedPack, examined_pack
from evalgauge.core.pack.summary import estimate, summary
from evalgauge.core.workers import WorkerPool
from tests.engine_helpers import INPUT, NOON, Lab, lines, mapping_of, one_by_one, pack_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evalgauge.core.pack.model import Pack

FUNCTIONS = """
def greet(text):
    if text == "boom":
        raise LookupError("no such thing")
    if text == "odd":
        return 7
    if text == "cut":
        return "\\ud800"
    return None if text in (None, "none") else text.strip().title()[:1]


def weigh(text, number, whole, flag):
    if number == 13:
        raise ValueError("thirteen")
    if number == 14:
        return "14"
    if number == 15:
        return float("inf")
    if number == 16:
        return True
    if number == 17:
        return 10**400
    if number is None:
        return None
    assert whole is None or type(whole) is int, whole
    assert flag is None or type(flag) is bool, flag
    return number + (whole or 0) + (100 if flag else 0) + len(text or "")


TOLD = []


def told(text):
    TOLD.append(text)
    return text


not_callable = 5
"""
POINTS = """\
[evalgauge.derive]
greet = made_for_tests:greet
weigh = made_for_tests:weigh
told = made_for_tests:told
not_callable = made_for_tests:not_callable
nowhere = made_for_tests:nowhere
no_module = no_such_module:call
"""
PACK_TEXT = """\
pack: deed
version: 1
title: Deed
events:
  deed.done:
    description: Something was done.
    tenant: owner
    fields:
      owner: {type: string, required: true}
      user: {type: string}
      model: {type: string, required: true, enum: [GPT, gpt, Llama]}
      cost: {type: number, unit: usd, min: 0}
      tokens: {type: integer, min: 0}
      begun_ms: {type: number, unit: ms}
      ended_ms: {type: number, unit: ms}
      flag: {type: boolean}
    derive:
      per_token: {ratio: [cost, tokens]}
      wait_ms: {difference: [ended_ms, begun_ms]}
      size: {bucket: {field: tokens, bounds: [100, 1000], names: [small, medium, large]}}
      shard: {hash: {field: user, into: 5}}
      who: {lower: user}
      name: {lower: model}
      pace: {bucket: {field: wait_ms, bounds: [0], names: [back, forth]}}
      numbered: {hash: {field: tokens, into: 3}}
      house: {lower: owner}
      initial: {function: greet, fields: [who], type: string}
      weight: {function: weigh, fields: [user, cost, tokens, flag], type: number, unit: "1"}
    quality:
      forward: {field: wait_ms, min: 0}
metrics:
  deed_done:
    type: counter
    help: Deeds.
    on: deed.done
    labels:
      size: size
      shard: shard
      name: name
      pace: pace
      numbered: numbered
      house: house
      validity: {quality: validity}
  deed_people:
    type: counter
    help: Deeds by person.
    on: deed.done
    where: {size: [small, large], who: {present: true}, wait_ms: {lt: 50}}
    labels: {who: who, initial: initial, exact: {field: per_token, table: {"0.5": half}, table_default: other}}
  deed_cost_per_token:
    type: counter
    help: Cost.
    on: deed.done
    value: per_token
    labels: {size: size}
  deed_wait_seconds:
    type: histogram
    help: Wait.
    on: deed.done
    value: wait_ms
    labels: {name: name}
    buckets: [0.005, 0.05]
  deed_weight:
    type: gauge
    help: Weight.
    on: deed.done
    value: weight
    across: max
  deed_seen:
    type: active
    help: People seen.
    on: deed.done
    key: who
    ttl: 1h
"""
MAPPING = """\
mapping: deed
version: 1
type: {constant: deed.done}
id: {field: number}
source: {constant: /s}
time: {field: at, format: unix}
data:
  owner: owner
"""


@pytest.fixture(scope="module", autouse=True)
def functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An installed distribution with functions."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "made_for_tests.py").write_text(FUNCTIONS)
    about = folder / "made_for_tests-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: made-for-tests\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("made_for_tests", None)


@pytest.fixture(scope="module")
def pack(functions: None) -> Pack:
    """Every kind of derived field, used in every way."""
    del functions
    return pack_of(PACK_TEXT)


Data = dict[str, Any]
DEEDS = st.fixed_dictionaries(
    {
        "owner": st.sampled_from(["A", "a", "Bé"]),
        "user": st.sampled_from([None, "", "Ann", "ANN", "ßtraße", "none", "Bob"]),
        "model": st.sampled_from(["GPT", "gpt", "Llama"]),
        "cost": st.one_of(st.none(), st.sampled_from([0, 0.5, 1, 1e308, 5e-324, 12, 50])),
        "tokens": st.one_of(st.none(), st.sampled_from([0, 1, 2, 99, 100, 101, 1000, 1001, 10**15])),
        "begun_ms": st.one_of(st.none(), st.sampled_from([0, 10, 10.5, -1e308])),
        "ended_ms": st.one_of(st.none(), st.sampled_from([0, 10, 60, 10.5, 1e308])),
        "flag": st.sampled_from([None, True, False]),
    }
)


def native(number: int, data: Data) -> Data:
    """A deed in the envelope."""
    at = datetime.fromtimestamp(NOON - 100 + number, UTC).isoformat()
    return {"id": str(number), "source": "/s", "type": "deed.done", "time": at, "data": data}


def foreign(number: int, data: Data) -> Data:
    """The same deed in a shape that `MAPPED` reads."""
    models = {"GPT": 1, "gpt": "two", "Llama": "3"}
    return {
        "number": number,
        "at": NOON - 100 + number,
        **data,
        "model": models[data["model"]],
        "cost": None if data["cost"] is None else str(data["cost"]),
    }


MAPPED = MAPPING.replace("  owner: owner\n", "") + (
    "  deed.done:\n"
    "    owner: owner\n"
    "    user: user\n"
    '    model: {field: model, table: {"1": GPT, two: gpt, "3": Llama}}\n'
    "    cost: {field: cost, from_text: true}\n"
    "    tokens: tokens\n"
    "    begun_ms: begun_ms\n"
    "    ended_ms: {field: ended_ms}\n"
    "    flag: flag\n"
)


def number_text(value: float) -> str:
    """A whole number as JSON writes it."""
    return str(int(value))


def hash_of(text: str | None, into: int) -> str:
    """By the library, read anew."""
    if text is None:
        return ""
    return str(int.from_bytes(xxhash.xxh3_64(text.encode()).digest(), "big") % into)


class Expected:
    """What a stream of deeds comes to."""

    def __init__(self) -> None:
        self.done: Counter[tuple[str, ...]] = Counter()
        self.people: Counter[tuple[str, ...]] = Counter()
        self.cost: dict[tuple[str, ...], Fraction] = {}
        self.waits: Counter[tuple[str, int]] = Counter()
        self.weight: float | None = None
        self.seen: set[tuple[str, str]] = set()
        """Tenants have keys of their own."""

    def add(self, one: Data) -> None:
        """One event, by itself."""
        cost, tokens, user = one["cost"], one["tokens"], one["user"]
        per_token = None if cost is None or not tokens else cost / tokens
        wait = None
        if one["begun_ms"] is not None and one["ended_ms"] is not None:
            wait = float(one["ended_ms"]) - float(one["begun_ms"])
            wait = None if math.isinf(wait) else wait
        size = ""
        if tokens is not None:
            size = "small" if tokens <= 100 else "medium" if tokens <= 1000 else "large"
        pace = "" if wait is None else "back" if wait <= 0 else "forth"
        who = None if user is None else user.lower()
        numbered = hash_of(None if tokens is None else number_text(tokens), 3)
        valid = "invalid" if wait is not None and wait < 0 else "valid"
        labels = (size, hash_of(user, 5), one["model"].lower(), pace, numbered, one["owner"].lower(), valid)
        self.done[labels] += 1
        if size in {"small", "large"} and who is not None and wait is not None and wait < 50:
            initial = "" if who == "none" else who.title()[:1]
            exact = "" if per_token is None else "half" if per_token == 0.5 else "other"
            self.people[who, initial, exact] += 1
        if per_token is not None:
            self.cost[size,] = self.cost.get((size,), Fraction(0)) + Fraction(per_token)
        else:
            self.cost.setdefault((size,), Fraction(0))
        if wait is not None and wait >= 0:
            self.waits[one["model"].lower(), 0 if wait <= 5 else 1 if wait <= 50 else 2] += 1
        if cost is not None:
            self.weight = cost + (tokens or 0) + (100 if one["flag"] else 0) + len(user or "")
        if who is not None:
            self.seen.add((one["owner"], who))


def found_in(bench: Lab) -> dict[str, dict[tuple[str, ...], Any]]:
    """Family → series → value."""
    return {
        one.name: dict(zip(one.series, one.values.tolist(), strict=True))
        for one in bench.engine.families()
        if one.name.startswith("deed_")
    }


def compare(bench: Lab, stream: Sequence[Data]) -> None:
    """What the engine has come to is what the oracle comes to."""
    expected = Expected()
    for one in stream:
        expected.add(one)
    found = found_in(bench)
    assert found["deed_done"] == expected.done
    assert found["deed_people"] == expected.people
    sums = {key: value for key, value in found["deed_cost_per_token"].items() if value}
    assert sums == {key: float(value) for key, value in expected.cost.items() if value}
    histogram = next(one for one in bench.engine.families() if one.name == "deed_wait_seconds")
    assert histogram.buckets is not None
    waits = {
        (series[0], place): count
        for series, buckets in zip(histogram.series, histogram.buckets.tolist(), strict=True)
        for place, count in enumerate(buckets)
        if count
    }
    assert waits == expected.waits
    assert found["deed_weight"].get(()) == expected.weight
    assert found["deed_seen"].get((), 0) == len(expected.seen)


@settings(max_examples=50)
@given(st.lists(DEEDS, max_size=25), st.lists(st.integers(0, 25), max_size=4), st.booleans())
def test_derived_fields_are_what_plain_python_makes_of_each_event(
    pack: Pack, stream: list[Data], cuts: list[int], mapped: bool
) -> None:
    """In the envelope and in another shape, in chunks of any size, with restarts at their ends."""
    rules = InputRules(mapping=mapping_of(MAPPED, pack) if mapped else None)
    shape = foreign if mapped else native
    texts = lines(*(shape(number, one) for number, one in enumerate(stream)))
    ends = sorted({min(cut, len(texts)) for cut in cuts} | {len(texts)})
    with tempfile.TemporaryDirectory() as name:
        first, place = 0, 0
        for end in ends:
            with Lab(Path(name), packs=[pack], rules=rules, place=place) as bench:
                bench.feed(b"".join(line + b"\n" for line in texts[first:end]))
                bench.engine.commit()
                assert sum(one.rejected for one in bench.verdicts) == 0
                first, place = end, bench.place
                if end == ends[-1]:
                    compare(bench, stream)


def test_long_streams_whose_texts_are_known(pack: Pack, tmp_path: Path) -> None:
    """Once a decoder knows the texts, and gives numbers for them, nothing changes."""
    rng = np.random.default_rng(5)
    deeds = []
    for number in range(12 * FEWEST_EVENTS):
        user = f"User {rng.integers(40)}" if rng.random() < 0.9 else None
        deeds.append(
            {
                "owner": "Abc",
                "user": user,
                "model": ["GPT", "gpt", "Llama"][number % 3],
                "cost": float(rng.integers(1, 9)),
                "tokens": int(rng.integers(3000)) or None,
                "begun_ms": 10,
                "ended_ms": float(rng.integers(100)),
                "flag": bool(rng.integers(2)),
            }
        )
    texts = [
        line + b"\n" for line in lines(*(native(0, one) | {"id": str(n)} for n, one in enumerate(deeds)))
    ]
    with Lab(tmp_path, packs=[pack]) as bench:
        for first in range(0, len(texts), FEWEST_EVENTS):
            bench.feed(b"".join(texts[first : first + FEWEST_EVENTS]))
        bench.engine.commit()
        found, expected = found_in(bench), Expected()
        for one in deeds:
            expected.add(one)
        assert found["deed_done"] == expected.done
        assert found["deed_people"] == expected.people
        assert bench.verdicts[-1].accepted == FEWEST_EVENTS


def test_the_hash_is_the_published_one() -> None:
    """Of xxHash's own test vectors: XXH3 of nothing, 64 bits, seed 0, is 2D06800538D394C2."""
    assert hash_of("", 5) == str(0x2D06800538D394C2 % 5)


def test_what_a_tokens_tenant_gives_is_derived_too(pack: Pack, tmp_path: Path) -> None:
    """The door writes the tenant in before anything is derived."""
    with Lab(tmp_path, packs=[pack]) as bench:
        data = {"model": "GPT", "user": "Ann"}
        verdict = bench.put(native(0, data), native(1, data | {"owner": "Other"}), tenant="Acme")
        assert (verdict.accepted, verdict.exceptions[0].reason) == (1, Reason.FOREIGN_TENANT)
        assert [labels[5] for labels in found_in(bench)["deed_done"]] == ["acme"]


BAD: dict[str, tuple[Data, str]] = {
    "raises": ({"user": "boom"}, "`initial`: LookupError: no such thing"),
    "a number for text": ({"user": "odd"}, "`initial`: TypeError: it returned a int"),
    "text that nobody can show": ({"user": "cut"}, "`initial`: UnicodeEncodeError"),
    "raises on a number": ({"cost": 13}, "`weight`: ValueError: thirteen"),
    "text for a number": ({"cost": 14}, "`weight`: TypeError: it returned a str"),
    "infinite": ({"cost": 15}, "`weight`: ValueError: it returned inf"),
    "a boolean for a number": ({"cost": 16}, "`weight`: TypeError: it returned a bool"),
    "a number that is too large": ({"cost": 17}, "`weight`: OverflowError"),
}


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("case", BAD)
def test_an_event_at_which_a_function_fails_is_refused_alone(
    pack: Pack, tmp_path: Path, case: str, mapped: bool
) -> None:
    """As an instrument's error: the others count, and nothing of it does."""
    change, words = BAD[case]
    good: Data = {
        "owner": "o", "user": "Ann", "model": "gpt", "cost": 1, "tokens": 2, "begun_ms": 1, "ended_ms": 2, "flag": None,
    }  # fmt: skip
    stream = [good, good | change, good, good | change, good]
    rules = InputRules(mapping=mapping_of(MAPPED, pack) if mapped else None, deduplicate=True)
    shape = foreign if mapped else native
    events = [shape(number, one) for number, one in enumerate(stream)]
    with Lab(tmp_path, packs=[pack], rules=rules) as bench:
        verdict = bench.put(*events, b"{bad")
        assert (verdict.received, verdict.accepted, verdict.rejected) == (6, 3, 3)
        assert [(one.line, one.reason) for one in verdict.exceptions] == [
            (1, Reason.INSTRUMENT_ERROR), (3, Reason.INSTRUMENT_ERROR), (5, Reason.MALFORMED_JSON),
        ]  # fmt: skip
        letter = bench.letters()[0]
        assert (letter.type, letter.reason, letter.data) == (
            "deed.done",
            "instrument_error",
            lines(events[1])[0],
        )
        assert words in letter.detail
        compare(bench, [good] * 3)
        assert bench.put(*events).accepted == 0, "what was accepted is known, and what failed fails again"
        compare(bench, [good] * 3)


def test_cuts_change_nothing_of_what_functions_refuse(pack: Pack, tmp_path: Path) -> None:
    """Each line by itself, and all together."""
    users = ["Ann", "boom", None, "odd", "Bob", "boom", "none"]
    stream = lines(*(native(n, {"owner": "o", "model": "GPT", "user": user}) for n, user in enumerate(users)))
    with (
        one_by_one(tmp_path / "one", stream, packs=[pack]) as oracle,
        Lab(tmp_path / "all", packs=[pack]) as bench,
    ):
        bench.feed(b"\n".join(stream))
        bench.engine.commit()
        assert (bench.shown(), bench.counted()) == (oracle.shown(), oracle.counted())
        assert [one.detail for one in bench.letters()] == [one.detail for one in oracle.letters()]


def test_workers_derive_as_one_process_does(pack: Pack, tmp_path: Path) -> None:
    """They load the functions themselves."""
    users = ["Ann", "boom", None, "odd", "Bob", "ANN"] * 50
    data = {"owner": "o", "model": "Llama", "cost": 2, "tokens": 4}
    stream = [
        line + b"\n" for line in lines(*(native(n, data | {"user": user}) for n, user in enumerate(users)))
    ]
    with Lab(tmp_path / "one", packs=[pack]) as oracle:
        oracle.feed(b"".join(stream))
        oracle.engine.commit()
        expected = oracle.shown(), oracle.counted()
    with Lab(tmp_path / "two", packs=[pack]) as bench:
        workers = WorkerPool({INPUT: bench.engine.plan(INPUT)}, 2)
        try:
            for first in range(0, len(stream), 100):
                chunk = bench.chunk(b"".join(stream[first : first + 100]))
                workers.submit(INPUT, chunk, bench.engine.work(INPUT, chunk))
            deadline = time.monotonic() + 60
            while workers:
                assert time.monotonic() < deadline
                if (done := workers.next(0.2)) is not None:
                    bench.engine.absorb(*done)
        finally:
            workers.close()
        bench.engine.commit()
        assert (bench.shown(), bench.counted()) == expected


def test_a_function_is_called_once_for_each_value_of_a_batch(tmp_path: Path) -> None:
    """However many metrics want it, and however many events have it."""
    text = """\
pack: ask
version: 1
title: Ask
events:
  ask.ed:
    description: Asked.
    fields: {what: {type: string}}
    derive: {said: {function: told, fields: [what], type: string}}
metrics:
  ask_a: {type: counter, help: A., on: ask.ed, labels: {said: said}}
  ask_b: {type: counter, help: B., on: ask.ed, where: {said: x}, labels: {said: said}}
"""
    with Lab(tmp_path, packs=[pack_of(text)]) as bench:
        events = [
            {"id": str(n), "source": "/s", "type": "ask.ed", "data": {"what": what}}
            for n, what in enumerate(["x", "y", None] * 20)
        ]
        told = sys.modules["made_for_tests"].TOLD
        told.clear()
        bench.put(*events)
        assert sorted(told, key=str) == [None, "x", "y"]
        assert bench.value("ask_b", "x") == 20


def test_a_tap_shows_what_a_running_engine_would_do(pack: Pack) -> None:
    """Derived labels, and the refusal where a function fails."""
    data = {"owner": "O", "model": "GPT", "tokens": 100}
    stream = lines(native(0, data | {"user": "Ann"}), native(1, data | {"user": "boom"}))
    first, second = Observer([pack], None).observe(b"\n".join(stream), "p", 0, NOON)
    done = next(one for one in first.readings if one.metric == "deed_done_total")
    assert (done.labels["size"], done.labels["name"], done.labels["house"]) == ("small", "gpt", "o")
    assert (second.verdict, second.reason, second.id) == ("refused", "instrument_error", "1")
    assert "LookupError" in second.detail
    assert second.readings == []


def meanings(text: str) -> dict[str, str]:
    """Metric → what its state means."""
    pack = pack_of(text)
    return {
        name: meaning(Declared(pack.pack, name, spec, {one: pack.events[one] for one in spec.on}), 1)
        for name, spec in pack.metrics.items()
    }


CHANGES = {
    "bounds: [100, 1000]": ("bounds: [100, 999]", {"deed_done", "deed_people", "deed_cost_per_token"}),
    "{field: user, into: 5}": ("{field: user, into: 6}", {"deed_done"}),
    "ratio: [cost, tokens]": ("ratio: [cost, cost]", {"deed_people", "deed_cost_per_token"}),
    "[ended_ms, begun_ms]": ("[begun_ms, ended_ms]", {"deed_done", "deed_people", "deed_wait_seconds"}),
    "{lower: user}": ("{lower: owner}", {"deed_people", "deed_seen"}),
    "house: {lower: owner}": ("house: {lower: owner, description: Mine.}", set()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_derivation_is_another_meaning_of_the_metrics_that_use_it(change: str) -> None:
    """In labels, filters, values, keys and rules, and through other derived fields; of no other metric."""
    by, wanted = CHANGES[change]
    changed = PACK_TEXT.replace(change, by)
    assert changed != PACK_TEXT
    before, after = meanings(PACK_TEXT), meanings(changed)
    assert wanted == {name for name in before if before[name] != after[name]}


def test_what_is_not_derived_means_what_it_did() -> None:
    """A type may get derived fields without beginning anew."""
    head, tail = PACK_TEXT.split("    derive:\n")
    derive, rest = tail.split("    quality:\n")
    plain = "metrics:\n  deed_plain: {type: counter, help: P., on: deed.done, labels: {model: model}}\n"
    bare = head + plain
    assert "lower" in derive
    assert "forward" in rest
    assert meanings(bare) == meanings(f"{head}    derive:\n{derive}{plain}")


def test_known_values_are_known_to_series_estimates_and_rules() -> None:
    """A bucket, a hash, and an enum in lower case."""
    pack = pack_of(PACK_TEXT)
    # three sizes or none, five shards or none, two names, two paces or none, three numbers or none, validity
    assert estimate(pack.metrics["deed_cost_per_token"], pack.events) == 4
    without = pack.metrics["deed_done"].model_copy(
        update={"labels": {k: v for k, v in pack.metrics["deed_done"].labels.items() if k != "house"}}
    )
    assert estimate(without, pack.events) == 4 * 6 * 2 * 3 * 4 * 2
    rule = """\
recording:
  deed:
    rules:
      size:deed:rate5m: {expr: 'sum by (size) (rate(deed_done_total{size="%s"}[5m]))', description: D.}
"""
    assert problems(PACK_TEXT + rule % "large") == []
    assert "huge" in problems(PACK_TEXT + rule % "huge")[0]


def test_a_packs_derived_fields_are_shown(pack: Pack, capsys: pytest.CaptureFixture[str]) -> None:
    """With what they are made of."""
    _show_events(summary(LoadedPack(pack, parse_document(PACK_TEXT, "deed.yaml"), "deed.yaml")))
    shown = capsys.readouterr().out
    for words in (
        "bucket of tokens: small, medium, large",
        "hash of user into 5",
        "ratio of cost, tokens",
        "lower of user",
        "function weigh of user, cost, tokens, flag",
    ):
        assert words in shown


def test_a_mapping_cannot_write_a_derived_field(pack: Pack) -> None:
    """It says of what the field is made."""
    text = MAPPED + "    size: size\n"
    with pytest.raises(DocumentError) as caught:
        mapping_of(text, pack)
    assert "`size` of `deed.done` is derived, and a mapping cannot write it" in str(caught.value)
    assert "Map what it is made of: tokens." in str(caught.value)


def test_an_event_cannot_write_a_derived_field(pack: Pack, tmp_path: Path) -> None:
    """What it sends under that name is ignored, whatever it is."""
    with Lab(tmp_path, packs=[pack]) as bench:
        data = {"owner": "o", "model": "GPT", "tokens": 5, "size": ["huge"]}
        assert bench.put(native(0, data)).accepted == 1
        assert [labels[0] for labels in found_in(bench)["deed_done"]] == ["small"]


def problems(text: str) -> list[str]:
    """Every problem of a pack, as printed."""
    document = parse_document(text, "deed.yaml")
    examined = examined_pack(document)
    assert examined.model is not None
    return [
        str(one) for one in [*examined.problems, *check_pack(document, examined.model, (), examined.broken)]
    ]


FIELDS = """\
pack: deed
version: 1
title: Deed
events:
  deed.done:
    description: Done.
    fields:
      text: {type: string}
      secret: {type: string, payload: true}
      blob: {type: any}
      cost: {type: number, unit: usd}
      ms: {type: number, unit: ms}
      s: {type: number, unit: s}
      bare: {type: number}
      flag: {type: boolean}
    derive:
"""
FAULTS = {
    "x: {lower: txt}": ("`txt` is no field of `deed.done`", "Did you mean `text`?"),
    "x: {lower: ms}": ("`ms` is of type `number`", "`lower` is made of: string."),
    "x: {ratio: [ms, text]}": ("`text` is of type `string`", "`ratio` is made of: number, integer."),
    "x: {bucket: {field: text, bounds: [1], names: [a, b]}}": ("`text` is of type `string`", ""),
    "x: {hash: {field: flag, into: 3}}": ("`flag` is of type `boolean`", ""),
    "x: {hash: {field: secret, into: 3}}": ("`secret` is payload", ""),
    "x: {function: greet, fields: [blob], type: string}": ("`blob` is of type `any`", ""),
    "x: {}": ("needs exactly one of ratio, difference, bucket, hash, lower, function, and has none", ""),
    "x: {lower: text, ratio: [ms, ms]}": ("and has both `ratio` and `lower`", ""),
    "x: {difference: [ms, s]}": ("a difference of different units: ms and s", "Declare one unit"),
    "x: {difference: [ms, bare]}": ("a difference of different units: ms and none", ""),
    "x: {difference: [ms, ms], unit: s}": ("unit `s`, but a difference is in that of its fields: ms", ""),
    "x: {ratio: [ms, s], unit: msec}": ("unknown unit `msec`", ""),
    "x: {lower: text, unit: s}": ("`unit` goes with numbers", ""),
    "x: {lower: text, min: 3}": ("`min` goes with `function`", ""),
    "x: {bucket: {field: ms, bounds: [2, 1], names: [a, b, c]}}": ("bound 1 does not come after 2", "Sort"),
    "x: {bucket: {field: ms, bounds: [1, 1], names: [a, b, c]}}": ("bound 1 does not come after 1", ""),
    "x: {bucket: {field: ms, bounds: [1], names: [a]}}": ("1 bounds make 2 ranges, and 1 are named", ""),
    "x: {bucket: {field: ms, bounds: [1], names: [a, a]}}": ("`a` stands there twice", ""),
    "x: {bucket: {field: ms, bounds: [1], names: [a, _other]}}": ("`_other` is reserved", ""),
    "ms: {lower: text}": ("`deed.done` has a field of that name", "Call it something else."),
    "not: {lower: text}": ("is a word of filters", ""),
    "x: {lower: x}": ("is made of itself: x → x", ""),
    "x: {lower: y}\n      y: {lower: z}\n      z: {lower: x}": ("is made of itself: x → y → z → x", ""),
    "x: {lower: y}\n      y: {lower: text}": ("`y`, which is derived after it", "Put `y` before `x`."),
    "x: {function: grete, fields: [text], type: string}": (
        "no function `grete` is installed in the entry-point group `evalgauge.derive`", "Did you mean `greet`?",
    ),
    "x: {function: nowhere, fields: [text], type: string}": ("`nowhere` cannot be loaded", ""),
    "x: {function: no_module, fields: [text], type: string}": ("`no_module` cannot be loaded", ""),
    "x: {function: not_callable, fields: [text], type: string}": ("`not_callable` is no function", ""),
    "x: {function: greet, type: string}": ("key `fields` is missing", ""),
    "x: {function: greet, fields: [text]}": ("key `type` is missing", ""),
    "x: {function: greet, fields: [text], type: string, min: 3}": ("`min` goes with a `function` of numbers", ""),
    "x: {function: greet, fields: [text], type: number, enum: [a]}": ("`enum` goes with a `function` of text", ""),
    "x: {function: greet, fields: [text], type: number, min: 3, max: 2}": ("`min` 3 is above `max` 2", ""),
    "x: {hash: {field: text, into: 1}}": ("greater than or equal to 2", ""),
    "x: {ratio: [ms]}": ("at least 2", ""),
    "x: {lowr: text}": ("unknown key `lowr`", "Did you mean `lower`?"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_derived_fields_are_told(fault: str) -> None:
    """Once each, with the place and the mend."""
    message, hint = FAULTS[fault]
    text = f"{FIELDS}      {fault}\n"
    found = problems(text)
    assert any(message in one and hint in one for one in found), found
    first = fault.partition(":")[0]
    line = text[: text.index(f"      {first}: {fault.partition(': ')[2][:4]}")].count("\n") + 1
    place = next(one for one in found if message in one).split(":")
    assert line <= int(place[1]) <= line + fault.count("\n")


USES = {
    "{type: counter, help: H., on: deed.done, value: x}": (
        "{difference: [bare, bare], unit: '1'}", "may be negative", "a gauge or",
    ),
    "{type: counter, help: H., on: deed.done, labels: {x: x}}": ("{ratio: [ms, s]}", "is a number", "histogram"),
    "{type: counter, help: H., on: deed.done, where: {x: c}}": (
        "{bucket: {field: ms, bounds: [1], names: [a, b]}}", "`x` is never `c`", "Known: a, b.",
    ),
    "{type: histogram, help: H., on: deed.done, value: x, buckets: [1]}": ("{lower: text}", "not a number", ""),
    "{type: active, help: H., on: deed.done, key: x, ttl: 5}": ("{ratio: [ms, s]}", "not text", ""),
}  # fmt: skip


@pytest.mark.parametrize("metric", USES)
def test_faulty_uses_are_told_as_those_of_any_field(metric: str) -> None:
    """Type, unit, bounds and values are known of derived fields."""
    made, message, hint = USES[metric]
    found = problems(f"{FIELDS}      x: {made}\nmetrics:\n  deed_x: {metric}\n")
    assert len(found) == 1, found
    assert message in found[0]
    assert hint in found[0]


def test_the_functions_are_there() -> None:
    """A function with an enum is bounded, and one of numbers with `min: 0` may be counted."""
    text = FIELDS + (
        "      x: {function: greet, fields: [text], type: string, enum: [A, B]}\n"
        "      y: {function: weigh, fields: [text, ms, ms, flag], type: number, min: 0, unit: s}\n"
        "metrics:\n"
        "  deed_y_seconds: {type: counter, help: H., on: deed.done, value: y, labels: {x: {field: x, limit: 2}}}\n"
    )
    assert problems(text) == []
    pack = pack_of(text)
    assert estimate(pack.metrics["deed_y_seconds"], pack.events) == 3


def test_a_function_that_leaves_its_enum_or_bounds_is_refused(tmp_path: Path) -> None:
    """What was promised of a label holds."""
    text = FIELDS + (
        "      x: {function: greet, fields: [text], type: string, enum: [A, B]}\n"
        "      y: {function: weigh, fields: [text, ms, bare, flag], type: number, min: 0, max: 5, unit: s}\n"
        "metrics:\n"
        "  deed_x: {type: counter, help: H., on: deed.done, labels: {x: x}}\n"
    )
    text = text.replace("bare: {type: number}", "bare: {type: integer}")
    with Lab(tmp_path, packs=[pack_of(text)]) as bench:
        found = bench.put(
            native(0, {"text": "ann"}), native(1, {"text": "cy"}), native(2, {"text": "b", "ms": 9}),
            native(3, {"text": "b", "ms": -9}), native(4, {}),
        )  # fmt: skip
        assert [one.line for one in found.exceptions] == [1, 2, 3]
        assert [one.detail for one in bench.letters()] == [
            "`x`: ValueError: it returned 'C', which is not in the enum",
            "`y`: ValueError: it returned 10, which is not within `min` and `max`",
            "`y`: ValueError: it returned -8, which is not within `min` and `max`",
        ]
        assert found_in(bench)["deed_x"] == {("A",): 1, ("",): 1}
