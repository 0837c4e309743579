"""The time between two events of a key, against one dictionary and one event after the other."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core.instruments import keyed_rows, waiting
from evalgauge.core.instruments.grouping import Groups
from evalgauge.core.instruments.keyed_rows import KeyedRows
from evalgauge.core.instruments.waiting import Outcome, Terms, Waiting
from evalgauge.core.keys import LocalKeys

if TYPE_CHECKING:
    from evalgauge.core.table import Page, PageKind

LIMITS = (10, 60)
TERMS = Terms(begin=0, limits=LIMITS, lateness=5, retention=100, keys=1000)
EMPTY = Groups(np.empty(0, np.intp), np.empty(0, np.int64), [], 0)


class Told(NamedTuple):
    """One event."""

    key: str
    what: str
    """`begin` or `end`."""
    time: int
    series: int
    ahead: int = 0
    """So much less far than to its own time it takes time: that is when it came."""


Answer = tuple[Counter[tuple[int, int]], Counter[tuple[str, int, int]], Counter[int], int, dict[str, int]]
"""(series, taken) → keys; (met or missed, limit, series) → keys; series → expired; lone; key that waits → begun."""


def expected(stream: list[Told]) -> Answer:  # noqa: C901 - one rule after the other
    """By the words of the documentation: what is due is counted as soon as the clock says so."""
    begun: dict[str, tuple[int, int]] = {}
    ended: dict[str, int] = {}
    settled: set[tuple[str, int]] = set()
    taken: Counter[tuple[int, int]] = Counter()
    limits: Counter[tuple[str, int, int]] = Counter()
    expired: Counter[int] = Counter()
    lone, clock = 0, -(10**9)

    def settle(key: str, limit: int, outcome: str) -> None:
        if (key, limit) not in settled:
            settled.add((key, limit))
            limits[outcome, limit, begun[key][1]] += 1

    def due() -> None:
        nonlocal lone
        for key, (time, series) in list(begun.items()):
            gone = time + TERMS.retention <= clock
            if key not in ended:
                for limit in LIMITS:
                    if gone or time + limit + TERMS.lateness <= clock:
                        settle(key, limit, "missed")
                if gone:
                    expired[series] += 1
            if gone:
                del begun[key]
                ended.pop(key, None)
                settled.difference_update([(key, limit) for limit in LIMITS])
        for key, time in list(ended.items()):
            if key not in begun and time + TERMS.retention <= clock:
                del ended[key]
                lone += 1

    for one in stream:
        due()
        if one.time + TERMS.retention <= clock:
            continue
        paired = one.key in begun and one.key in ended
        if one.what == "end":
            ended.setdefault(one.key, one.time)
        else:
            begun.setdefault(one.key, (one.time, one.series))
        if not paired and one.key in begun and one.key in ended:
            time, series = begun[one.key]
            took = max(0, ended[one.key] - time)
            taken[series, took] += 1
            for limit in LIMITS:
                settle(
                    one.key,
                    limit,
                    "met"
                    if took <= limit and (one.what == "begin" or clock < time + limit + TERMS.lateness)
                    else "missed",
                )
        clock = max(clock, one.time - one.ahead)
    due()
    return taken, limits, expired, lone, {key: time for key, (time, _) in begun.items() if key not in ended}


def found(stream: list[Told], cuts: list[int], restarts: set[int]) -> Answer:
    """What is counted where the stream is cut, commits stand at each cut, and after some of them it starts again."""
    log: dict[tuple[PageKind, int], Page] = {}
    waits, clock, outcome = Waiting("m", TERMS), -(10**9), Outcome()
    texts: list[str] = []
    local = LocalKeys(texts)
    for number, (first, last) in enumerate(zip([0, *cuts], [*cuts, len(stream)], strict=True)):
        some = stream[first:last]
        texts += [key for key in dict.fromkeys(one.key for one in some) if key not in texts]
        times = np.array([one.time for one in some], np.int64)
        reached = np.array([one.time - one.ahead for one in some], np.int64)
        before = np.maximum.accumulate(np.concatenate(([clock], reached)))
        rows = KeyedRows(
            EMPTY,
            np.arange(len(some)),
            np.array([texts.index(one.key) for one in some], np.intp),
            np.empty(0, np.intp),
            np.array([int(one.what == "end") for one in some], np.intp),
            times,
            np.empty(0, np.int64),
            None,
            0,
            0,
        )
        waits.take(rows, local, np.array([one.series for one in some], np.intp), before[:-1], outcome)
        clock = int(before[-1])
        waits.pass_time(clock, outcome)
        log.update({(page.kind, page.number): page for page in waits.table.pages(0.0, 0.0)})
        waits.table.publish()
        if number in restarts:
            waits = Waiting("m", TERMS)
            waits.table.load(log.values())
            texts = []
            local = LocalKeys(texts)
    taken: Counter[tuple[int, int]] = Counter()
    for series, took in zip(outcome.series, outcome.taken, strict=True):
        taken.update(zip(series.tolist(), took.tolist(), strict=True))
    limits: Counter[tuple[str, int, int]] = Counter()
    for name, parts in (("met", outcome.met), ("missed", outcome.missed)):
        for place, series in parts:
            limits.update((name, LIMITS[place], one) for one in series.tolist())
    expired = Counter(one for part in outcome.expired for one in part.tolist())
    held = waits.table.held()
    open_ = held[waits.table.column("flags")[held] == 1]
    names = [str(key) for key in waits.table.keys(open_)]
    return (
        taken,
        limits,
        expired,
        outcome.lone,
        dict(zip(names, waits.table.column("begin")[open_].tolist(), strict=True)),
    )


TIMES = st.integers(0, 40).map(lambda fives: 5 * fives)
"""Coarse, so that limits are often met to the microsecond."""
EVENTS = st.builds(
    Told,
    st.sampled_from("abc"),
    st.sampled_from(["begin", "end"]),
    TIMES,
    st.integers(0, 2),
    st.sampled_from([0, 0, 0, 0, 5, 60, 150]),
)
STREAMS = st.lists(EVENTS, max_size=60)


@settings(max_examples=400, deadline=None)
@given(STREAMS, st.data())
def test_what_a_stream_comes_to_does_not_depend_on_cuts_and_restarts(
    stream: list[Told], data: st.DataObject
) -> None:
    """In any order of the events, with repeats, lone ends and ends that never come."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    restarts = data.draw(st.sets(st.integers(0, 6)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keyed_rows, "FEW", data.draw(st.sampled_from([1, 2, 16])))
        patch.setattr(waiting, "_MANY_ROUNDS", data.draw(st.sampled_from([0, 8])))
        assert found(stream, cuts, restarts) == expected(stream)


def test_an_end_that_never_comes_counts_against_every_limit() -> None:
    """And one in time against none."""
    stream = [
        Told("a", "begin", 0, 0),
        Told("b", "begin", 0, 1),
        Told("b", "end", 9, 1),
        Told("c", "begin", 90, 0),
    ]
    taken, limits, expired, lone, waits = found(stream, [], set())
    assert taken == {(1, 9): 1}
    assert limits == {("missed", 10, 0): 1, ("missed", 60, 0): 1, ("met", 10, 1): 1, ("met", 60, 1): 1}
    assert (expired, lone, waits) == ({}, 0, {"a": 0, "c": 90})
