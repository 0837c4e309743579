"""Events with their keys, as instruments that remember are given them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core.columns import Columns
from evalgauge.core.decode import CloudEventsShape
from evalgauge.core.instrument import Declared
from evalgauge.core.instruments import keyed_rows
from evalgauge.core.instruments.keyed_rows import Keyer, KeysOf, rounds
from evalgauge.core.keys import LocalKeys
from evalgauge.core.keytable import KeyTable
from evalgauge.core.pack.metric_model import CounterSpec
from tests.engine_helpers import event, lab, lines

if TYPE_CHECKING:
    from evalgauge.core.instruments.keyed_rows import KeyedRows
    from evalgauge.core.series import Encoder

SPEC = CounterSpec.model_validate(
    {"type": "counter", "help": "Doors.", "on": ["lab.closed", "lab.opened"], "labels": {"who": "who"}}
)


def keyed(stream: list[tuple[str, str | None, int]], cuts: list[int]) -> list[KeyedRows | None]:
    """What a stream of (type, key, minute) is reduced to, cut into batches before the given events."""
    shape = CloudEventsShape(dict(lab().events))
    types = {type_: lab().events[type_] for type_ in SPEC.on}
    declared = Declared("lab", "lab_doors", SPEC, types)
    keyer, found = Keyer(declared, KeysOf(declared, ["who"])), []
    encoders: dict[tuple[str, ...], Encoder] = {}
    told: list[Any] = [
        event(n, type_, time=f"2026-11-21T10:{minute:02}:00Z", **({} if key is None else {"who": key}))
        for n, (type_, key, minute) in enumerate(stream)
    ]
    for first, last in zip([0, *cuts], [*cuts, len(told)], strict=True):
        body = b"".join(line + b"\n" for line in lines(*told[first:last]))
        events = shape.events(body, last - first) or []
        for reader, some, numbers in shape.group(events, np.arange(first, last), []):
            keyer.reduce(Columns(reader, some, numbers, encoders, 0.0))
        found.append(keyer.take())
    return found


TYPES = st.sampled_from(["lab.opened", "lab.closed"])
STREAMS = st.lists(st.tuples(TYPES, st.sampled_from([None, "a", "b", "c"]), st.integers(0, 59)), max_size=40)


@settings(max_examples=50, deadline=None)
@given(STREAMS, st.data())
def test_events_come_in_the_order_of_the_stream_whatever_their_types(
    stream: list[tuple[str, str | None, int]], data: st.DataObject
) -> None:
    """With key, type, time and label set of each; those without a key are counted as skipped."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=3)))
    seen, skipped = [], 0
    labels: list[str] = []
    keys: list[str] = []
    for delta in keyed(stream, cuts):
        if delta is None:
            continue
        labels += [one[0] for one in delta.groups.new]
        keys += delta.groups.keys[0]
        skipped += delta.groups.skipped
        columns = (delta.types, delta.key, delta.times // 60_000_000 % 60, delta.slots)
        for type_, key, minute, slot in zip(*(column.tolist() for column in columns), strict=True):
            seen.append((SPEC.on[type_], keys[key], minute, labels[slot]))
    assert seen == [(type_, key, minute, key) for type_, key, minute in stream if key is not None]
    assert skipped == sum(key is None for _, key, _ in stream)


@settings(max_examples=100)
@given(st.lists(st.integers(0, 6), max_size=60), st.integers(1, 5))
def test_in_a_round_every_key_comes_once_and_rounds_keep_its_order(keys: list[int], few: int) -> None:
    """So the k-th round holds the k-th event of each key; from the first on that would be small the rest is one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keyed_rows, "FEW", few)
        wide, rest = rounds(np.array(keys, np.intp))
    met: Counter[int] = Counter()
    expected: dict[int, list[int]] = {}
    for row, key in enumerate(keys):
        expected.setdefault(met[key], []).append(row)
        met[key] += 1
    told = [*expected.values()]
    most = max(sum(len(one) >= few for one in told), min(1, len(told)))
    assert [rows.tolist() for rows in wide] == told[:most]
    assert rest.tolist() == sorted(row for one in told[most:] for row in one)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 7), min_size=1, max_size=6)), max_size=30))
def test_a_slot_that_was_looked_up_is_forgotten_once_it_is_freed(turns: list[tuple[bool, list[int]]]) -> None:
    """Another key may have it by then, or nobody, or the same key again."""
    table, texts = KeyTable("m", {"value": ((), np.int64)}), [f"k{number}" for number in range(8)]
    local, other = LocalKeys(texts), LocalKeys(texts)
    for frees, numbers in turns:
        keys = np.array(numbers, np.intp)
        if frees:
            slots = np.unique(table.find(local.texts(keys)))
            table.free(slots[slots >= 0])
            continue
        slots = local.slots(table, keys)
        new = np.unique(keys[slots[keys] < 0])
        slots[new] = table.give(local.texts(new))
        local.note(table, new)
        for one in (local, other):
            assert table.keys(one.slots(table, keys)[keys]) == [texts[number] for number in numbers]
