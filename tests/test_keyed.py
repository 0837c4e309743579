"""Keys of records: compared with a field of their events, and demanded where a metric keeps state by key."""

from __future__ import annotations

import importlib
import json
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from evalgauge.collectors.kafka_client import Partition
from evalgauge.collectors.kafka_keys import KeyCheck, field_reader, record_texts, text_field
from evalgauge.collectors.kafka_records import Body, RecordFormat
from tests.running import evalgauge

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Records(NamedTuple):
    """Records as a client brings them."""

    pairs: list[tuple[bytes | None, bytes | None]]
    """(key, value)."""
    every_header: Sequence[tuple[str, bytes]] = ()
    partition: Partition = Partition("t", 0)
    epoch: int | None = None
    newest: int = 0

    @property
    def offsets(self) -> Sequence[int]:
        """From 0."""
        return range(len(self.pairs))

    @property
    def values(self) -> Sequence[bytes | None]:
        """As they are."""
        return [value for _, value in self.pairs]

    def keys(self) -> list[bytes | None]:
        """As they are."""
        return [key for key, _ in self.pairs]

    def headers(self, index: int) -> Sequence[tuple[str, bytes]]:
        """The same for all."""
        del index
        return self.every_header

    def timestamps(self) -> list[int]:
        """None has one."""
        return [-1] * len(self.pairs)


def event(tenant: Any, **more: Any) -> bytes:
    """An event of a tenant."""
    return json.dumps(
        {"id": "1", "source": "/s", "type": "t", "data": {"tenant": tenant, "n": 1}, **more}
    ).encode()


def mismatches(field: str, *pairs: tuple[bytes | None, bytes | None]) -> int:
    """Of records in format `events`."""
    check = KeyCheck(field, RecordFormat.EVENTS)
    check.see(Records([*pairs]))
    return check.mismatches


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("acme", b"acme"),
        ("", b""),
        ('say "hi"\n', b'say "hi"\n'),
        ("Ünï", "Ünï".encode()),
        (17, b"17"),
        (1.5, b"1.5"),
        (True, b"true"),
        (None, None),
        ([1], None),
        ({"a": 1}, None),
    ],
)
def test_the_text_of_a_field_is_what_a_producer_takes_for_its_key(value: object, text: bytes | None) -> None:
    """Text without quotes and escapes, numbers as they are written, and nothing for what has no text."""
    assert text_field(event(value), "tenant") == text


def test_a_field_is_found_where_it_stands() -> None:
    """In the data; `source` and `subject` in the envelope."""
    assert text_field(event("a"), "source") == b"/s"
    assert text_field(event("a", subject="x"), "subject") == b"x"
    assert text_field(event("a"), "subject") is None
    assert text_field(event("a"), "other") is None
    assert text_field(b'{"data": null}', "tenant") is text_field(b"no event", "tenant") is None


def test_keys_that_differ_are_counted() -> None:
    """One by one, though whole batches are looked at; none where there is nothing to compare with."""
    good = [(b"a", event("a")), (b"b", event("b"))] * 100
    assert mismatches("tenant", *good) == 0
    assert mismatches("tenant", *good, (b"x", event("a")), (None, event("a"))) == 2
    assert mismatches("tenant", *good, (b"x", event(None)), (b"x", None), (b"x", b"no event")) == 0
    assert mismatches("tenant", *good, (b"x", b"no event"), (b"x", event("a"))) == 1
    assert mismatches("source", (b"/s", event("a")), (b"s", event("a"))) == 1


def test_a_record_of_several_events_has_the_key_of_each() -> None:
    """It counts once, however many of them differ."""
    both = event("a") + b"\n" + event("a")
    mixed = event("a") + b"\n" + event("b") + b"\n" + event("c")
    assert mismatches("tenant", (b"a", both), (b"b", event("b"))) == 0
    assert mismatches("tenant", (b"a", mixed), (b"b", event("b"))) == 1


def test_a_cloudevent_in_binary_mode_is_looked_into() -> None:
    """Its data is the value, its source a header."""
    headers = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t")]
    headers.append(("content-type", b"application/json"))
    for field, wrong in (("tenant", 1), ("source", 2)):
        check = KeyCheck(field, RecordFormat.CLOUDEVENTS)
        check.see(Records([(b"a", b'{"tenant": "a"}'), (b"b", b'{"tenant": "a"}')], headers))
        assert check.mismatches == wrong


def test_the_texts_of_records_are_those_of_their_lines() -> None:
    """None where lines of a record differ, or there is none."""
    read = field_reader("tenant")
    lines = [event("a"), event("a"), event("b"), event("c"), b"no event"]
    body = Body(b"\n".join(lines), [0, 2, 2, 4])
    assert record_texts(read, body, 4) == [b"a", None, None, None]
    assert record_texts(read, Body(b"\n".join(lines), None), 5) == [b"a", b"a", b"b", b"c", None]
    assert record_texts(read, Body(b"", []), 0) == []


PACK = """\
pack: mine
version: 1
title: Mine
events:
  mine.sold:
    description: Something was sold.
    fields:
      stock: {type: number, required: true}
metrics:
  mine_sales:
    type: counter
    help: Sales.
    on: mine.sold
"""


@pytest.fixture
def keyed_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in by which counters keep state by key."""
    folder = tmp_path / "plugin"
    info = folder / "keyed_counters-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: keyed-counters\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[evalgauge.instruments]\ncounter = keyed_counters:Keyed\n")
    (folder / "keyed_counters.py").write_text(
        "from evalgauge.core.instruments.counter import Counter\n\n\n"
        "class Keyed(Counter):\n    keyed = True\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "path", [*sys.path[1:], sys.path[0]])
    importlib.invalidate_caches()


def checked(folder: Path, **given: Any) -> Any:
    """`evalgauge check` of a group."""
    (folder / "mine.yaml").write_text(PACK)
    path = folder / "evalgauge.yaml"
    one = {"type": "kafka", "bootstrap": "127.0.0.1:9", "topics": "sales", **given}
    path.write_text(
        yaml.safe_dump({"packs": [str(folder / "mine.yaml")], "replica": "r1", "inputs": {"sales": one}})
    )
    return evalgauge("check", "--config", path)


@pytest.mark.usefixtures("keyed_counter")
def test_a_group_with_state_by_key_must_say_what_its_keys_are(tmp_path: Path) -> None:
    """Otherwise the events of one key could be in several partitions, and nobody would notice."""
    done = checked(tmp_path, group={"id": "g"})
    assert done.code == 2
    assert "`mine_sales` of pack `mine`" in done.err
    assert "`keyed_by`" in done.err
    assert checked(tmp_path, group={"id": "g"}, keyed_by="stock").code == 0
    assert checked(tmp_path).code == 0, "one process sees every key"


def test_a_group_without_state_by_key_need_not_say_it(tmp_path: Path) -> None:
    """None of the built-in metrics keeps any."""
    assert checked(tmp_path, group={"id": "g"}).code == 0


@pytest.mark.parametrize("given", [{"format": "debezium"}, {"mapping": "map.yaml"}])
def test_where_records_hold_no_events_no_field_of_them_can_be_named(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    """A mapping has yet to make them, and a change event has the key of its row."""
    done = checked(tmp_path, keyed_by="stock", **given)
    assert done.code == 2
    assert "`keyed_by`" in done.err
