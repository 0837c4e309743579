"""State by key: slots are freed and given again, and what was committed comes back from the pages that changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core.keytable import KeyTable
from evalgauge.core.table import PAGE, Page, PageKind

if TYPE_CHECKING:
    from collections.abc import Iterable

COLUMNS = {"count": ((), np.int64), "pair": ((2,), np.float64)}

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["give", "free", "commit", "restart"]), st.lists(st.integers(0, 700), max_size=300)
    ),
    max_size=25,
)


Log = dict[tuple[PageKind, int], Page]


def new() -> KeyTable:
    """An empty table."""
    return KeyTable("m", COLUMNS)


def write(log: Log, table: KeyTable) -> int:
    """Commit into a log that keeps the last page of each number; how many pages that took."""
    pages = list(table.pages(0.0, 0.0))
    log.update({(page.kind, page.number): page for page in pages})
    table.publish()
    return len(pages)


def shown(table: KeyTable) -> dict[str | None, tuple[int, list[float]]]:
    """Key → its values."""
    slots = table.held()
    values = zip(table.column("count")[slots].tolist(), table.column("pair")[slots].tolist(), strict=True)
    return dict(zip(table.keys(slots), values, strict=True))


def names(numbers: Iterable[int]) -> list[str]:
    """Keys, each once."""
    return [f"k{number}" for number in dict.fromkeys(numbers)]


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_a_table_is_what_a_dictionary_would_be(steps: list[tuple[str, list[int]]]) -> None:
    """Through commits and restarts; what was not committed is gone after a restart."""
    table, log = new(), Log()
    live: dict[str, tuple[int, list[float]]] = {}
    durable = dict(live)
    for number, (step, drawn) in enumerate(steps):
        keys = names(drawn)
        if step == "give":
            slots = table.give(keys)
            table.column("count")[slots] += number + 1
            table.column("pair")[slots] = [number, -number]
            table.touch(slots)
            live |= {key: (live.get(key, (0, []))[0] + number + 1, [number, -number]) for key in keys}
        elif step == "free":
            found = table.find(keys)
            assert (found >= 0).tolist() == [key in live for key in keys]
            table.free(found[found >= 0])
            for key in keys:
                live.pop(key, None)
        elif step == "commit":
            write(log, table)
            durable = dict(live)
        else:
            table = new()
            table.load(log.values())
            live = dict(durable)
        assert len(table) == len(live)
        assert shown(table) == live


def test_a_commit_writes_the_pages_that_changed_and_no_others() -> None:
    """However many keys there are."""
    table, log = new(), Log()
    slots = table.give(names(range(40 * PAGE)))
    table.column("count")[slots] = 1
    assert write(log, table) == 80
    assert not table.dirty()
    table.touch(slots[PAGE : 2 * PAGE + 1])
    assert table.dirty()
    assert write(log, table) == 2
    assert write(log, table) == 0


def test_slots_that_were_freed_together_are_given_together() -> None:
    """The newest keys share pages, so that what traffic changes is few of them."""
    table, log = new(), Log()
    first = table.give(names(range(20 * PAGE)))
    write(log, table)
    table.free(first[: 10 * PAGE])
    write(log, table)
    again = table.give(names(range(10**6, 10**6 + PAGE)))
    assert again.tolist() == first[:PAGE].tolist()
    assert write(log, table) == 2


def test_pages_with_a_gap_are_refused() -> None:
    """A store that lost one must not be taken for whole."""
    table, log = new(), Log()
    table.give(names(range(3 * PAGE)))
    write(log, table)
    del log[PageKind.KEYS, 1]
    with pytest.raises(ValueError, match="key page 2 does not follow 256 slots"):
        new().load(log.values())
