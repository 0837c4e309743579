"""Events of another shape: they come to what the same events in the envelope come to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalgauge.core import reduce
from evalgauge.core.engine import EngineOptions, InputRules
from evalgauge.core.event import Reason
from evalgauge.core.known_texts import FEWEST_EVENTS
from tests.engine_helpers import Lab, event, lab, lines, mapping_of, one_by_one, pack_of

if TYPE_CHECKING:
    from pathlib import Path

MAPPING = """\
mapping: foreign
version: 1
type: {field: what, table: {r: lab.run, o: lab.opened, c: lab.closed}}
id: {field: meta.key}
time: {field: meta.at}
source: {field: meta.origin}
traceparent: meta.trace
data:
  lab.run:
    tenant: org.name
    kind: {field: org.sort, table: {A: a, B: b, C: c}}
    who: actor
    took_ms: {field: seconds, scale: 1024}
    cost: cost
    count: {field: n, offset: 1}
    level: level
    ok: fine
    blob: stuff
  lab.opened: {who: actor, level: level}
  lab.closed: {who: actor}
"""
WHO = st.sampled_from(["ann", "bob", "", "_other", None])
NUMBERS = st.sampled_from([None, 0, 50, 64, -1, 0.1, 1e300, 1 / 3, "5", True, [1]])
TIMES = st.sampled_from(
    ["2023-11-14T22:13:20Z", "2023-11-14T22:13:21.5+01:00", None, "2023-11-14T22:13:20", "no", 5]
)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """An event in the envelope, and the same in the foreign shape."""
    type_ = draw(st.sampled_from(["lab.run", "lab.run", "lab.opened", "lab.closed", "no.such"]))
    native = event(draw(st.integers(0, 9)), type_, who=draw(WHO), level=draw(NUMBERS))
    native["time"] = draw(TIMES)
    native["source"] = draw(st.sampled_from(["/a", "/b", "", None]))
    native["id"] = draw(st.sampled_from([native["id"], native["id"], "", None, "x" * 1025]))
    native["traceparent"] = draw(st.sampled_from([None, f"00-{'1' * 32}-{'2' * 16}-01", 5]))
    data = native["data"]
    foreign = {
        "what": {"lab.run": "r", "lab.opened": "o", "lab.closed": "c"}.get(type_, "?"),
        "meta": {
            "key": native["id"],
            "at": native["time"],
            "origin": native["source"],
            "trace": native["traceparent"],
        },
        "actor": data["who"],
        "level": data["level"],
    }
    if type_ == "lab.run":
        seconds: Any = draw(NUMBERS)
        count = draw(st.sampled_from([None, 0, 1, 8, 9, -1, 0.5]))
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        data |= {
            "tenant": draw(st.sampled_from(["t", "u", None, "x" * 21])),
            "kind": draw(st.sampled_from(["a", "b", "c", "z", None])),
            "took_ms": 1024 * seconds if number else seconds,
            "cost": draw(NUMBERS),
            "count": None if count is None else count + 1,
            "ok": draw(st.sampled_from([True, False, None, "true", 1])),
            "blob": draw(st.sampled_from([None, "", {}, [], "x", {"a": [1]}, 5])),
        }
        foreign |= {
            "org": {"name": data["tenant"], "sort": None if data["kind"] is None else data["kind"].upper()},
            "seconds": seconds,
            "cost": data["cost"],
            "n": count,
            "fine": data["ok"],
            "stuff": data["blob"],
        }
        if data["tenant"] is None and data["kind"] is None:
            foreign["org"] = draw(st.sampled_from([None, {}, ...]))
            foreign = {key: value for key, value in foreign.items() if value is not ...}
    return lines(native)[0], lines(foreign)[0]


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(pairs(), min_size=1, max_size=25), st.booleans(), st.sampled_from([1, 500, 600_000]))
def test_mapped_events_come_to_what_native_ones_do(
    tmp_path_factory: pytest.TempPathFactory, found: list[tuple[bytes, bytes]], deduplicate: bool, piece: int
) -> None:
    """The same metrics, the same lines refused, the same repeats; whichever way a chunk is read."""
    mapping = mapping_of(MAPPING, lab())
    with one_by_one(
        tmp_path_factory.mktemp("native"),
        [pair[0] for pair in found],
        rules=InputRules(deduplicate=deduplicate),
    ) as native:
        shown, verdicts = native.shown(), native.verdicts
    before, reduce.PIECE_BYTES = reduce.PIECE_BYTES, piece
    try:
        with Lab(tmp_path_factory.mktemp("mapped"), rules=InputRules(mapping, deduplicate)) as mapped:
            mapped.feed(b"\n".join(pair[1] for pair in found))
            mapped.engine.commit()
            expected = [
                (line, one.exceptions[0].status) for line, one in enumerate(verdicts) if one.exceptions
            ]
            assert [(one.line, one.status) for one in mapped.verdicts[0].exceptions] == expected
            assert mapped.shown() == shown
            assert all(one.detail for one in mapped.verdicts[0].exceptions if one.status == "rejected")
    finally:
        reduce.PIECE_BYTES = before


SHOP = pack_of(
    """\
pack: shop
version: 1
title: Shop
events:
  shop.sold:
    description: Sold.
    tenant: seller
    fields:
      seller: {type: string, required: true, max_length: 20}
      sort: {type: string, enum: [book, toy]}
      price: {type: number, unit: usd, min: 0}
      weight: {type: number}
      stars: {type: integer, min: 0, max: 5}
      gift: {type: boolean}
      basket: {type: any, payload: true}
    quality:
      basket_there: {field: basket, present: true}
      basket_full: {field: basket, not_empty: true}
metrics:
  shop_sales:
    type: counter
    help: Sales.
    on: shop.sold
    labels: {seller: seller, sort: sort, gift: gift, stars: stars}
  shop_weights:
    type: counter
    help: Sales by weight.
    on: shop.sold
    labels: {weight: {field: weight, table: {"0.1": light, "2": heavy}, table_default: other}}
  shop_revenue_usd: {type: counter, help: Revenue., on: shop.sold, value: price}
  shop_last_price_usd: {type: gauge, help: Newest price., on: shop.sold, value: price, across: last}
  shop_faults: {type: counter, help: Faults., on: shop.sold, labels: {rule: {quality: rule}}}
"""
)


class Shop(Lab):
    """A lab that sells; its mapping is `base` with changes."""

    def __init__(self, folder: Path, deduplicate: bool = False, keep: str = "bytes", **changes: Any) -> None:
        base: dict[str, Any] = {
            "mapping": "m", "version": 1, "type": {"constant": "shop.sold"}, "id": {"from": "position"},
            "time": {"from": "arrival"}, "source": {"constant": "till"}, "data": {"shop.sold": {"seller": "s"}},
        }  # fmt: skip
        data = base["data"]["shop.sold"] | changes.pop("data", {})
        text = json.dumps(base | changes | {"data": {"shop.sold": data}})
        rules = InputRules(mapping_of(text, SHOP), deduplicate)
        super().__init__(folder, [SHOP], rules, EngineOptions(keep=keep))

    def told(self, *events: Any) -> list[tuple[int, str]]:
        """Lines that are refused, with the reason."""
        return [(one.line, str(one.reason)) for one in self.put(*events).exceptions]


def test_true_one_and_the_text_of_each_stay_apart(tmp_path: Path) -> None:
    """Python holds `true`, `1` and `1.0` equal; which of them came first decides nothing."""
    stream = [{"s": True}, {"s": 1}, {"s": "1"}, {"s": 1.0}, {"s": "true"}, {"s": 0.1}, {"s": "0.1"}]
    for number, events in enumerate((stream, stream[::-1])):
        with Shop(tmp_path / str(number)) as bench:
            assert bench.told(*events) == []
            assert [bench.value("shop_sales", who, "", "", "") for who in ("true", "1", "0.1")] == [2, 3, 2]


def test_payload_of_any_kind_is_read(tmp_path: Path) -> None:
    """Objects, lists, texts; `null` is absent, and quality rules see what is empty."""
    with Shop(tmp_path, data={"basket": "b.in"}) as bench:
        sound = [{"s": "x", "b": {"in": value}} for value in ({"a": 1}, [0], "t", 7, False)]
        assert (
            bench.told(
                *sound, {"s": "x", "b": {"in": None}}, {"s": "x", "b": None}, {"s": "x", "b": {"in": []}}
            )
            == []
        )
        assert [bench.value("shop_faults", rule) for rule in ("basket_there", "basket_full")] == [2, 3]


def test_one_path_may_be_read_as_number_text_id_and_time(tmp_path: Path) -> None:
    """Then anything may stand there, and what is no number is none: `"5"` must not become 5."""
    data = {"price": "n", "seller": "n", "stars": "m"}
    with Shop(
        tmp_path / "n", data=data, id={"fields": ["n", "at"]}, time={"field": "at"}, deduplicate=True
    ) as bench:
        at = "2024-01-01T00:00:00Z"
        found = bench.told(
            {"n": 5, "m": 1, "at": at}, {"n": "5", "m": 1, "at": at}, {"n": True, "at": at}, {"n": "x", "at": at},
            {"n": 5, "at": "2024-01-01T00:00:00"}, {"n": 6, "at": 7}, {"n": 6.5, "at": at}, {"n": 5, "at": at},
        )  # fmt: skip
        assert found == [
            (1, Reason.MAPPING_FAILED), (2, Reason.MAPPING_FAILED), (3, Reason.MAPPING_FAILED),
            (4, Reason.BAD_TIME), (5, Reason.BAD_TIME), (7, "None"),
        ]  # fmt: skip
        assert bench.value("shop_revenue_usd") == 11.5
        assert bench.value("shop_sales", "6.5", "", "", "") == 1
    with Shop(tmp_path / "unix", data={"weight": "at"}, time={"field": "at", "format": "unix"}) as bench:
        assert bench.told({"s": "x", "at": 2}, {"s": "x", "at": "2"}, {"s": "x", "at": 0.1}) == [
            (1, Reason.BAD_TIME)
        ]
        assert [bench.value("shop_weights", name) for name in ("heavy", "light")] == [1, 1]


def test_a_number_written_as_text_is_one_where_the_mapping_says_so(tmp_path: Path) -> None:
    """In the grammar of JSON, for metrics, labels and limits alike; what is no such number is refused."""
    data = {
        "price": {"field": "p", "from_text": True, "scale": 0.5},
        "weight": {"field": "w", "from_text": True, "default": 2},
        "stars": {"field": "n", "from_text": True},
    }
    with Shop(tmp_path, data=data) as bench:
        sound = [
            {"s": "x", "p": "3.50", "w": "0.1", "n": "4"},
            {"s": "x", "p": 3.5, "w": "1E-1", "n": 4},
            {"s": "x", "p": "0", "n": "4.0"},
        ]
        bad = [
            "NaN",
            "-Infinity",
            "1,5",
            "",
            " 1",
            "+1",
            "007",
            ".5",
            "0x1",
            "1e999",
            "١",
            True,
            [1],
            {"a": 1},
        ]
        assert bench.told(*sound) == []
        assert bench.told(*({"s": "x", "p": one} for one in bad)) == [
            (row, Reason.MAPPING_FAILED) for row in range(len(bad))
        ]
        assert bench.told(
            {"s": "x", "p": "-1"}, {"s": "x", "n": "6"}, {"s": "x", "n": "1.5"}, {"s": "x", "w": "1" * 400}
        ) == [
            (0, Reason.OUT_OF_RANGE),
            (1, Reason.OUT_OF_RANGE),
            (2, Reason.WRONG_TYPE),
            (3, Reason.MAPPING_FAILED),
        ]
        assert "the text" in bench.letters()[0].detail
        assert bench.value("shop_revenue_usd") == 3.5
        assert [bench.value("shop_weights", name) for name in ("light", "heavy")] == [2, 1]
        assert bench.value("shop_sales", "x", "", "", "4") == 3


def test_a_path_may_be_a_number_in_text_here_and_a_number_there(tmp_path: Path) -> None:
    """Each way refuses what is not its own."""
    data = {"price": {"field": "p", "from_text": True}, "weight": "p"}
    with Shop(tmp_path, data=data) as bench:
        assert bench.told({"s": "x", "p": "2"}, {"s": "x", "p": 2}) == [(0, Reason.MAPPING_FAILED)]
        assert bench.value("shop_weights", "heavy") == 1


def test_a_number_as_label_is_the_number_that_was_mapped(tmp_path: Path) -> None:
    """After scale, offset and default, and written the same whether it came as 2 or 2.0."""
    data = {
        "stars": {"field": "n", "scale": 2, "offset": 1, "default": 5},
        "weight": {"field": "w", "scale": 0.1},
    }
    with Shop(tmp_path, data=data) as bench:
        events = [
            {"s": "x", "n": 1, "w": 1},
            {"s": "x", "n": 1.0, "w": 20},
            {"s": "x"},
            {"s": "x", "n": 0.25},
            {"s": "x", "n": 3},
        ]
        assert bench.told(*events) == [(3, Reason.WRONG_TYPE), (4, Reason.OUT_OF_RANGE)]
        assert [bench.value("shop_sales", "x", "", "", stars) for stars in ("3", "5")] == [2, 1]
        assert [bench.value("shop_weights", weight) for weight in ("light", "heavy", "")] == [1, 1, 1]


def test_numbers_that_no_double_holds_end_nothing(tmp_path: Path) -> None:
    """A scale must not turn one hostile event into an engine that cannot start."""
    huge = b'{"s": "x", "n": 1' + b"0" * 400 + b', "p": "no"}'
    with Shop(
        tmp_path,
        data={"weight": {"field": "n", "scale": 0.5, "offset": 1}, "stars": {"field": "p", "scale": 2}},
    ) as bench:
        found = bench.told(
            huge, {"s": "x", "n": 1e308, "p": 1e300}, {"s": "x", "n": 1}, {"s": "x", "p": "no"}
        )
        assert found == [(0, Reason.OUT_OF_RANGE), (1, Reason.OUT_OF_RANGE), (3, Reason.MAPPING_FAILED)]
    with Shop(tmp_path / "inf", data={"price": {"field": "n", "scale": 1e10}}) as bench:
        assert bench.told({"s": "x", "n": 1e308}, {"s": "x", "n": 1}) == []
        assert bench.value("shop_revenue_usd") == 1e10
        assert bench.value("evalgauge_values_unobserved", "shop_revenue_usd") == 1


def test_the_tokens_tenant_goes_its_own_way(tmp_path: Path) -> None:
    """It is written in as it is, not through a table, and makes an absent tenant good."""
    with Shop(tmp_path, data={"seller": {"field": "s", "table": {"1": "acme", "2": "evil"}}}) as bench:
        body = b"\n".join(lines({"s": 1}, {"s": 2}, {"s": None}, {}, {"s": 3}))
        bench.feed(body, tenant="acme")
        bench.engine.commit()
        assert [(one.line, one.reason) for one in bench.verdicts[0].exceptions] == [
            (1, Reason.FOREIGN_TENANT), (4, Reason.MAPPING_FAILED),
        ]  # fmt: skip
        assert bench.value("shop_sales", "acme", "", "", "") == 3
        assert bench.told({}) == [(0, Reason.MISSING_FIELD)]


def test_tables_defaults_and_constants_give_what_they_say(tmp_path: Path) -> None:
    """Incoming text not in a table is refused unless there is a default for it; absent is something else."""
    sort: dict[str, Any] = {"field": "k", "table": {"b": "book", "7": "toy"}, "default": "toy"}
    data = {"sort": sort, "gift": {"constant": True}, "price": {"constant": 1.5}}
    with Shop(tmp_path, data=data) as bench:
        events = [{"s": "x", "k": key} for key in ("b", 7, None, "z", True, [1], 7.0)]
        assert bench.told(*events, {"s": "x"}) == [(n, Reason.MAPPING_FAILED) for n in (3, 4, 5)]
        assert [bench.value("shop_sales", "x", sort, "true", "") for sort in ("book", "toy")] == [1, 4]
        assert bench.value("shop_revenue_usd") == 7.5
    sort["table_default"] = "book"
    with Shop(tmp_path / "default", data=data) as bench:
        assert bench.told({"s": "x", "k": "z"}, {"s": "x"}) == []
        assert [bench.value("shop_sales", "x", sort, "true", "") for sort in ("book", "toy")] == [1, 1]


FORMATS = [
    ("unix", [1_700_000_000, 1_700_000_001.5], ["x", "1700000000", True, 1e300, -1e300]),
    ("unix_ms", [1_700_000_000_000, 1_700_000_000_500.25], ["x", 10**400]),
    ("unix_us", [1_700_000_000_000_001], [[1]]),
    ("unix_ns", [1_700_000_000_000_000_001], [{}]),
    ("%d/%m/%Y %H:%M %z", ["14/11/2023 22:13 +0100"], ["14/13/2023 22:13 +0100", "", 5]),
    ("rfc3339", ["2023-11-14T22:13:20Z"],
     ["2023-11-14T22:13:20", "2024-06-30T23:59:60Z", "0000-01-01T00:00:00Z", 5, ""]),
]  # fmt: skip


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form[0])
def test_times_of_every_format(tmp_path: Path, form: tuple[str, list[Any], list[Any]]) -> None:
    """Good ones order a gauge; bad ones are `bad_time`, and none of them ends anything."""
    word, good, bad = form
    with Shop(tmp_path, data={"price": "p"}, time={"field": "t", "format": word}) as bench:
        events = [{"s": "x", "t": one, "p": 9 - n} for n, one in enumerate([*reversed(good), None])]
        assert bench.told(*events[:-1]) == []
        assert bench.value("shop_last_price_usd") == 9
        assert bench.told(*({"s": "x", "t": one, "p": 1} for one in bad)) == [
            (n, Reason.BAD_TIME) for n in range(len(bad))
        ]  # fmt: skip
        assert bench.told({"s": "x", "p": 4}) == [], "no time is the arrival"


def test_a_zone_of_times_without_offset(tmp_path: Path) -> None:
    """Winter and summer, and the first and the last year there is."""
    with Shop(tmp_path, data={"price": "p"}, time={"field": "t", "zone": "Europe/Berlin"}) as bench:
        stamps = ["2023-07-01T12:00:00", "2023-07-01T10:30:00Z", "0001-01-01T00:00:00", "9999-12-31T23:59:59"]
        assert bench.told(*({"s": "x", "t": one, "p": n} for n, one in enumerate(stamps[:3]))) == []
        assert bench.value("shop_last_price_usd") == 1, "12:00 in Berlin's summer is 10:00 UTC"
        assert bench.told({"s": "x", "t": stamps[3], "p": 7}) == []
        assert bench.value("shop_last_price_usd") == 1, "what is yet to come sets no gauge"


def test_an_id_from_the_position_does_not_depend_on_cuts(tmp_path: Path) -> None:
    """Equal lines are different events, and the same line read twice is one."""
    body = b'{"s": "x"}\n\n{"s": "x"}\n{bad\n{"s": "x"}'
    for number, at in enumerate(range(len(body) + 1)):
        if at and body[at - 1 : at] != b"\n" and at != len(body):
            continue
        with Shop(tmp_path / str(number), deduplicate=True) as bench:
            for part in (body[:at], body[at:]):
                bench.feed(part)
            bench.place = 0
            bench.feed(body)
            bench.engine.commit()
            assert [one.accepted for one in bench.verdicts][2] == 0
            assert bench.verdicts[2].duplicate == 3
            assert bench.value("shop_sales", "x", "", "", "") == 3


def test_ids_and_sources_are_bounded_as_native_ones_are(tmp_path: Path) -> None:
    """A gauge keeps them to decide between events of one time: they must not be of any length."""
    with Shop(tmp_path, id={"fields": ["a", "b"], "separator": "--"}, source={"field": "o"}) as bench:
        sound = {"s": "x", "a": "k" * 1000, "b": "m" * 22, "o": "z" * 1024}
        found = bench.told(
            sound, sound | {"b": "m" * 23}, sound | {"o": "z" * 1025}, sound | {"a": ""}, sound | {"b": None},
            sound | {"b": 5, "a": 1.5}, sound | {"o": ""}, sound | {"b": [1]},
        )  # fmt: skip
        assert found == [
            (1, Reason.BAD_ID), (2, Reason.WRONG_TYPE), (3, Reason.BAD_ID), (4, Reason.BAD_ID),
            (6, Reason.MISSING_FIELD), (7, Reason.BAD_ID),
        ]  # fmt: skip


def test_types_by_field(tmp_path: Path) -> None:
    """Without a table the value is the type; a number or nothing is no type."""
    with Shop(tmp_path, type={"field": "k"}) as bench:
        sound = {"s": "x", "k": "shop.sold"}
        assert bench.told(
            sound, sound | {"k": "no.such"}, sound | {"k": 5}, {"s": "x"}, sound | {"k": []}
        ) == [(n, Reason.UNKNOWN_TYPE) for n in (1, 2, 3)] + [(4, Reason.MAPPING_FAILED)]
        assert {letter.type for letter in bench.letters()} == {"_unknown"}


def test_types_by_several_fields(tmp_path: Path) -> None:
    """Joined, then looked up; where one of them is missing there is no type."""
    type_ = {
        "fields": ["t", "in.op"],
        "separator": "/",
        "table": {"sale/c": "shop.sold", "1/true": "shop.sold"},
    }
    with Shop(tmp_path, type=type_) as bench:
        sound = {"s": "x", "t": "sale", "in": {"op": "c"}}
        assert bench.told(
            sound, {"s": "x", "t": 1.0, "in": {"op": True}}, sound | {"in": {"op": "d"}}, sound | {"in": None},
            {"s": "x", "in": {"op": "c"}}, sound | {"t": "sale/c", "in": {"op": ""}}, sound | {"t": ["sale"]},
        ) == [(n, Reason.UNKNOWN_TYPE) for n in (2, 3, 4, 5)] + [(6, Reason.MAPPING_FAILED)]  # fmt: skip
        assert bench.value("shop_sales", "x", "", "", "") == 2
        assert "`t` is 'sale' and `in.op` is 'd'" in bench.letters()[0].detail
    with Shop(tmp_path / "plain", type={"fields": ["a", "b"], "separator": "."}) as bench:
        assert bench.told({"s": "x", "a": "shop", "b": "sold"}) == []


def test_an_id_from_the_first_place_that_holds_one(tmp_path: Path) -> None:
    """Null, empty and absent are not there; nothing anywhere is a bad id."""
    parts = {"fields": ["t", {"first": ["after.id", "before.id"]}]}
    with Shop(tmp_path, id=parts, deduplicate=True) as bench:
        assert bench.told(
            {"s": "x", "t": 1, "after": {"id": 7}, "before": {"id": 8}},
            {"s": "x", "t": 1, "after": None, "before": {"id": "7"}},
            {"s": "x", "t": 1, "after": {"id": ""}, "before": {"id": 9}},
            {"s": "x", "t": 1, "after": {"id": 0}, "before": {"id": 9}},
            {"s": "x", "t": 1, "after": {}, "before": None},
            {"s": "x", "after": {"id": 7}},
            {"s": "x", "t": 1, "after": {"id": "y" * 1025}},
        ) == [(1, "None"), (4, Reason.BAD_ID), (5, Reason.BAD_ID), (6, Reason.BAD_ID)]
        assert "`after.id` and `before.id`" in bench.letters()[0].detail
    with Shop(tmp_path / "one", id={"field": {"first": ["a", "b"]}}, deduplicate=True) as bench:
        assert bench.told({"s": "x", "a": 1}, {"s": "x", "b": 1}, {"s": "x", "b": 2}) == [(1, "None")]


def test_a_foreign_shape_is_never_kept_redacted(tmp_path: Path) -> None:
    """Where payload stands in it nobody knows, so nothing of it is kept."""
    with Shop(tmp_path, keep="redacted", data={"basket": "data.seller"}) as bench:
        bench.put({"s": None, "data": {"seller": "s3cr3t"}})
        assert bench.letters()[0].data == b""
        assert "s3cr3t" not in bench.letters()[0].detail


def test_what_is_read_of_an_object_is_its_paths(tmp_path: Path) -> None:
    """The rest of it is skipped, unless it is no JSON."""
    with Shop(tmp_path, data={"seller": "a.b.c"}) as bench:
        good = [{"a": {"b": {"c": "x"}}}, {"a": {"b": {"c": "x", "d": [1]}, "e": 1e308}, "z": None}]
        bad = [
            {"a": {"b": {}}},
            {"a": {"b": None}},
            {"a": None},
            {},
            {"a": {"b": 5}},
            {"a": [1]},
            {"a.b.c": "x"},
            b'{"a":',
        ]
        told = bench.told(*good, *bad)
        assert [line for line, _ in told] == list(range(2, 10))
        assert {reason for _, reason in told} <= {
            Reason.MISSING_FIELD,
            Reason.MAPPING_FAILED,
            Reason.MALFORMED_JSON,
        }
        assert bench.value("shop_sales", "x", "", "", "") == 2
        assert msgspec.json.decode(bench.letters()[0].data) == {"a": {"b": {}}}


STUFF = """\
pack: stuff
version: 1
title: Stuff
events:
  stuff.a:
    description: A.
    fields: {who: {type: string}, blob: {type: any, required: true, payload: true}}
  stuff.b:
    description: B.
    fields: {what: {type: string}}
metrics:
  stuff_a: {type: counter, help: A., on: stuff.a}
"""
STUFF_MAPPING = """\
mapping: stuff
version: 1
type: {field: t, table: {a: stuff.a, b: stuff.b}}
id: {field: id}
source: {constant: /s}
time: {from: arrival}
data:
  stuff.a: {who: who, blob: blob}
  stuff.b: {what: what}
"""


@pytest.mark.parametrize("what", [{"k": 1}, [1], 5, "x", None])
def test_what_other_types_read_may_be_anything_among_many(tmp_path: Path, what: object) -> None:
    """In a piece that is large enough to learn from, with a bad line in it or without."""
    odd = {"t": "a", "id": "odd", "who": "y", "blob": 1, "what": what}
    good = [{"t": "a", "id": str(number), "who": "x", "blob": 1} for number in range(2 * FEWEST_EVENTS)]
    pack = pack_of(STUFF)
    with Lab(tmp_path, packs=[pack], rules=InputRules(mapping=mapping_of(STUFF_MAPPING, pack))) as bench:
        for bad in ([], [b"{"]):
            verdict = bench.put(*good, odd, *bad)
            assert (verdict.accepted, verdict.rejected) == (len(good) + 1, len(bad))


def test_a_required_payload_that_is_null_or_absent_is_missing(tmp_path: Path) -> None:
    """As in the envelope."""
    pack = pack_of(STUFF)
    blobs: list[dict[str, Any]] = [{"blob": {}}, {"blob": None}, {"blob": 0}, {}]
    events = [{"t": "a", "id": str(number), "who": "x"} | blob for number, blob in enumerate(blobs)]
    with Lab(tmp_path, packs=[pack], rules=InputRules(mapping=mapping_of(STUFF_MAPPING, pack))) as bench:
        verdict = bench.put(*events)
    assert verdict.accepted == 2
    refused = [(one.line, one.reason) for one in verdict.exceptions]
    assert refused == [(1, Reason.MISSING_FIELD), (3, Reason.MISSING_FIELD)]
