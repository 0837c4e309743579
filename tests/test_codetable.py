"""Tables by code: against a plain dict, through commits and restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core.codetable import CodeTable, Folded
from evalgauge.core.table import PAGE, Page, PageKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = {"sum": Folded(np.int64, 0, np.add), "least": Folded(np.float64, np.inf, np.minimum)}
CODES = st.sampled_from([-(1 << 62), -7, -1, 0, 1, 2, 5 << 32, (5 << 32) + 1, (1 << 62) + 3])
Model = dict[int, tuple[int, float, int]]
"""Code → sum, least, rare sum."""
STEP = st.one_of(
    st.tuples(st.just("add"), st.lists(st.tuples(CODES, st.integers(-9, 9)), max_size=12)),
    st.tuples(st.just("free"), st.lists(CODES, max_size=4)),
    st.tuples(st.just("fold"), st.tuples(CODES, CODES)),
    st.tuples(st.sampled_from(["commit", "restart"]), st.none()),
)


def add(table: CodeTable, model: Model, pairs: list[tuple[int, int]]) -> None:
    """Add numbers to codes, and the same times 10^30 to the rare sums of those above 5."""
    slots = table.give(np.array([code for code, _ in pairs], np.int64))
    numbers = np.array([number for _, number in pairs], np.int64)
    np.add.at(table.column("sum"), slots, numbers)
    np.minimum.at(table.column("least"), slots, numbers.astype(float))
    table.touch(slots)
    for (code, number), slot in zip(pairs, slots.tolist(), strict=True):
        total, least, rare = model.get(code, (0, np.inf, 0))
        if number > 5:
            table.rare[slot] = table.rare.get(slot, 0) + number * 10**30
            table.touch_extras((slot,))
            rare += number * 10**30
        model[code] = (total + number, min(least, number), rare)


def fold(table: CodeTable, model: Model, old: int, new: int) -> None:
    """Let one become part of another."""
    if old in model and old != new:
        table.fold(slots_of(table, [old]), np.array([new], np.int64))
        total, least, rare = model.pop(old)
        into = model.get(new, (0, np.inf, 0))
        model[new] = (total + into[0], min(least, into[1]), rare + into[2])


def slots_of(table: CodeTable, codes: list[int]) -> NDArray[np.intp]:
    """The slots of codes that are held."""
    return table.slots[np.isin(table.codes, np.array(codes, np.int64))]


def held(table: CodeTable) -> Model:
    """What is in it."""
    rows = zip(
        table.codes.tolist(),
        table.column("sum")[table.slots].tolist(),
        table.column("least")[table.slots].tolist(),
        table.slots.tolist(),
        strict=True,
    )
    return {code: (total, least, table.rare.get(slot, 0)) for code, total, least, slot in rows}


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=30))
def test_a_table_holds_what_a_dict_holds_and_comes_back_from_its_pages(
    steps: list[tuple[str, object]],
) -> None:
    """Slots that were freed are given again, and hold nothing of what was in them."""
    table, model = CodeTable("m", COLUMNS), dict[int, tuple[int, float, int]]()
    kept: dict[tuple[PageKind, int], Page] = {}
    durable: Model = {}
    for what, how in steps:
        if what == "add" and isinstance(how, list):
            add(table, model, how)
        elif what == "free" and isinstance(how, list):
            table.free(slots_of(table, how))
            model = {code: one for code, one in model.items() if code not in how}
        elif what == "fold" and isinstance(how, tuple):
            fold(table, model, *how)
        elif what == "commit":
            kept |= {(page.kind, page.number): page for page in table.pages(0, 0)}
            table.publish()
            assert not table.dirty()
            durable = dict(model)
        else:
            table, model = CodeTable("m", COLUMNS), dict(durable)
            table.load(kept.values())
        assert held(table) == model
        assert (table.codes[1:] > table.codes[:-1]).all()


def test_a_commit_writes_the_pages_that_changed() -> None:
    """Not the whole table."""
    table = CodeTable("m", COLUMNS)
    table.give(np.arange(10 * PAGE))
    assert len(list(table.pages(0, 0))) == 10
    table.publish()
    table.touch(table.give(np.array([3, 4, 700])))
    assert [page.number for page in table.pages(0, 0)] == [0, 700 // PAGE]
    table.publish()
    table.free(table.give(np.arange(PAGE)))
    table.publish()
    assert (table.give(np.arange(10 * PAGE, 11 * PAGE)) < PAGE).all()
    assert table.places() == 10 * PAGE


def test_pages_that_do_not_fit_are_refused() -> None:
    """Rather than read into another meaning."""
    with pytest.raises(ValueError, match="expected"):
        CodeTable("m", COLUMNS).load([Page(PageKind.VALUES, 0, bytes(PAGE * 24 + 8))])
