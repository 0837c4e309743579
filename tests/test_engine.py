"""The engine: what one event means, whatever the cuts, the restarts, the faults of instruments and of the disk."""

from __future__ import annotations

import json
import resource
import signal
import sqlite3
import threading
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalgauge.core import reduce
from evalgauge.core.collect import FileRange
from evalgauge.core.deduplicate import Window
from evalgauge.core.engine import EngineOptions, InputRules
from evalgauge.core.errors import EvalgaugeError, StateError
from evalgauge.core.event import Limits, Reason
from evalgauge.core.instruments.counter import Counter, ReducingCounter
from evalgauge.core.store import DeadLetterLimits
from tests.engine_helpers import (
    KINDS,
    LAB,
    NOON,
    Clock,
    Lab,
    event,
    lab,
    lines,
    mapping_of,
    one_by_one,
    pack_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from evalgauge.core.columns import Columns
    from evalgauge.core.instrument import Declared, Merged
    from evalgauge.core.instruments.grouping import Slots
    from evalgauge.core.instruments.increments import Increments, Singles

SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
WHO = st.sampled_from(["ann", "bob", "cy", "dee", "", "_other", None])
TIMES = st.sampled_from(["2023-11-14T22:13:20Z", "2023-11-14T22:13:21Z", "2023-11-14T23:13:20+01:00", None])
TRACES = st.sampled_from(
    [None, "bad", *(f"00-{one * 32}-{one * 16}-01" for one in "123"), f"00-{'0' * 32}-{'1' * 16}-01"]
)
NUMBERS = st.sampled_from(
    [None, 0, -0.0, 50, 50.0, 100, 30_050, -1, 0.1, 1e-9, 5e-324, 1e300, 4194304, 2**-17, 1 / 3]
)


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """One line: mostly an event of one of the three types, sometimes refused, sometimes blank."""
    pick = draw(st.integers(0, 19))
    if pick == 0:
        return draw(
            st.sampled_from(
                [b"", b"  ", b"{", b"[]", b'{"a":1}{"b":2}', b"\xff", b'{"id":"\xff"}', b"nul", b"\r"]
            )
        )
    type_ = draw(st.sampled_from(["lab.run", "lab.run", "lab.opened", "lab.closed"]))
    one = event(draw(st.integers(0, 30)), type_, who=draw(WHO), level=draw(NUMBERS))
    one["source"] = draw(st.sampled_from(["/a", "/b"]))
    one["time"], one["traceparent"] = draw(TIMES), draw(TRACES)
    if type_ == "lab.run":
        cost = draw(NUMBERS)
        one["data"] |= {
            "kind": draw(st.sampled_from(["a", "b", "c", "c", "z"])),
            "tenant": draw(st.sampled_from(["t", "u", "v"])),
            "took_ms": draw(NUMBERS),
            "cost": cost if cost is None or cost >= 0 or pick == 1 else None,
            "count": draw(st.sampled_from([None, 1, 2, 5, 1.5 if pick == 1 else 3])),
            "ok": draw(st.sampled_from([True, False, None])),
            "blob": draw(st.sampled_from([None, "", {}, [], "x", {"a": [1]}])),
        }
    return json.dumps(one).encode()


STREAMS = st.lists(events(), min_size=1, max_size=45)


@contextmanager
def small_pieces(piece: int, delta: int, cache: int = 1 << 20, batch: int = 1) -> Iterator[None]:
    """Cut chunks into pieces of some bytes, batches and deltas of some events, and forget labels early."""
    before = reduce.PIECE_BYTES, reduce.BATCH_EVENTS, reduce.DELTA_EVENTS, reduce.CACHE_LIMIT
    reduce.PIECE_BYTES, reduce.BATCH_EVENTS, reduce.DELTA_EVENTS, reduce.CACHE_LIMIT = (
        piece,
        batch,
        delta,
        cache,
    )
    try:
        yield
    finally:
        reduce.PIECE_BYTES, reduce.BATCH_EVENTS, reduce.DELTA_EVENTS, reduce.CACHE_LIMIT = before


def chunks(stream: list[bytes], cuts: list[int]) -> list[bytes]:
    """The stream cut before the given lines."""
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [b"".join(line + b"\n" for line in stream[a:b]) for a, b in pairwise(places)]


# Cuts and restarts


@settings(max_examples=45, suppress_health_check=SHARED)
@given(
    stream=STREAMS,
    cuts=st.lists(st.integers(0, 60), max_size=4),
    piece=st.sampled_from([1, 300, 2_000, 600_000]),
    batch=st.sampled_from([1, 5, 1 << 14]),
    delta=st.sampled_from([1, 7, 1 << 15]),
    cache=st.sampled_from([0, 3, 1 << 20]),
    stops=st.sets(st.integers(0, 5)),
    deduplicate=st.booleans(),
)
def test_results_do_not_depend_on_cuts_and_restarts(
    tmp_path_factory: pytest.TempPathFactory,
    stream: list[bytes],
    cuts: list[int],
    piece: int,
    batch: int,
    delta: int,
    cache: int,
    stops: set[int],
    deduplicate: bool,
) -> None:
    """However a chunk is cut, caches forgotten, the process restarted: byte for byte as one event at a time gives."""
    rules = InputRules(deduplicate=deduplicate)
    options = EngineOptions(window=Window(ids=8))
    with one_by_one(tmp_path_factory.mktemp("one"), stream, rules=rules, options=options) as oracle:
        expected, counted = oracle.shown(), oracle.counted()
    folder = tmp_path_factory.mktemp("cut")
    with small_pieces(piece, delta, cache, batch):
        bench = Lab(folder, rules=rules, options=options)
        for number, chunk in enumerate(chunks(stream, cuts)):
            bench.feed(chunk)
            if number in stops:  # killed: what was not committed comes again
                committed = bench.positions
                bench.store.close()
                bench = Lab(folder, rules=rules, options=options)
                assert bench.positions == committed
                bench.feed(chunk)
            bench.engine.commit()
            bench.positions = {("in", "p"): bench.place}
        with bench:
            assert bench.shown() == expected
            assert bench.counted() == counted
        with Lab(folder, rules=rules, options=options) as again:
            assert again.shown() == expected


def test_a_chunk_that_was_not_committed_counts_once_when_it_comes_again(tmp_path: Path) -> None:
    """Its ids must not be remembered either, or the repeat would be thrown away."""
    body = b"\n".join(lines(*(event(n) for n in range(5))))
    rules = InputRules(deduplicate=True)
    with Lab(tmp_path, rules=rules) as killed:
        killed.feed(body)
    with Lab(tmp_path, rules=rules) as bench:
        assert bench.positions == {}
        bench.feed(body)
        bench.engine.commit()
        assert bench.value("lab_runs", "t", "a", "") == 5
        bench.feed(body)
        bench.engine.commit()
        assert bench.value("lab_runs", "t", "a", "") == 5
        assert bench.verdicts[-1].duplicate == 5


def test_birth_and_creation_stay_as_they_were(tmp_path: Path) -> None:
    """Through new series on the same page, rewritten pages and restarts."""

    def born(bench: Lab) -> dict[tuple[str, ...], tuple[float, float]]:
        family = next(one for one in bench.families() if one.name == "lab_touches")
        return {
            labels: (created, when)
            for labels, created, when in zip(
                family.series, family.created.tolist(), family.born.tolist(), strict=False
            )
        }

    clock = Clock()
    with Lab(tmp_path, clock=clock) as bench:
        clock.now += 1
        bench.put(event(1, who="ann"))
        first = born(bench)
        clock.now += 1
        bench.put(event(2, who="bob"))
        bench.put(event(3, who="ann"))
    assert first == {("ann",): (NOON, NOON + 1)}
    clock.now += 100
    with Lab(tmp_path, clock=clock) as again:
        again.put(event(4, who="ann"), event(5, who="cy"))
        assert born(again) == {
            ("ann",): (NOON, NOON + 1),
            ("bob",): (NOON + 1, NOON + 2),
            ("_other",): (NOON + 92, NOON + 102),  # not long before: a rule looks a few minutes back
        }


def test_more_series_than_one_page_come_back(tmp_path: Path) -> None:
    """Label pages, value pages and extras of several pages, with a last page that grew between commits."""
    text = LAB.replace("who: {field: who, limit: 2}", "who: {field: who, limit: 9000}")
    packs = [pack_of(text)]
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    with Lab(tmp_path, packs) as bench:
        for start in range(0, 700, 130):
            bench.put(
                *(
                    event(n, who=f"w{n}", level=n, traceparent=trace)
                    for n in range(start, min(start + 130, 700))
                )
            )
            bench.put(*(event(n, who=f"w{n}", cost=1e300, level=n + 1) for n in range(0, start, 50)))
        shown = bench.shown()
    with Lab(tmp_path, packs) as again:
        assert again.shown() == shown
        again.put(event(1, who="w699", level=5))
        assert again.value("lab_touches", "w699") == 2


# Pack changes


def changed(old: str, new: str) -> str:
    """The pack's text with one change."""
    assert old in LAB
    return LAB.replace(old, new)


SAME = {
    "help": ("help: Anything at all.", "help: Anything."),
    "limit of a label": ("on: [lab.run, lab.opened, lab.closed]\n    labels: {who: {field: who, limit: 2}}",
                         "on: [lab.run, lab.opened, lab.closed]\n    labels: {who: {field: who, limit: 1}}"),
    "limit of the metric": ("help: Anything at all.", "help: Anything at all.\n    limit: 1"),
    "exemplars": ("limit: 2}}\n    exemplars: true", "limit: 2}}"),
    "order of the types": ("on: [lab.run, lab.opened, lab.closed]", "on: [lab.closed, lab.run, lab.opened]"),
}  # fmt: skip
OTHER = {
    "where": ("help: Anything at all.", "help: Anything at all.\n    where: {not: {who: nobody}}"),
    "default": ("on: [lab.run, lab.opened, lab.closed]\n    labels: {who: {field: who, limit: 2}}",
                "on: [lab.run, lab.opened, lab.closed]\n    labels: {who: {field: who, limit: 2, default: nobody}}"),
    "types": ("on: [lab.run, lab.opened, lab.closed]", "on: [lab.run, lab.opened]"),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
def test_what_does_not_change_the_meaning_keeps_the_values(tmp_path: Path, case: str) -> None:
    """A limit that shrinks below the series in use keeps them too."""
    with Lab(tmp_path) as bench:
        bench.put(*(event(n, who=who) for n, who in enumerate(["ann", "bob", "cy", "ann"])))
    with Lab(tmp_path, [pack_of(changed(*SAME[case]))]) as again:
        again.put(event(9, who="ann"), event(10, who="new"))
        assert [again.value("lab_touches", who) for who in ("ann", "bob", "_other")] == [3, 1, 2]


@pytest.mark.parametrize("case", OTHER)
def test_another_meaning_starts_at_zero_there_and_back_again(
    tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The metric alone; and the log says which and why."""
    with Lab(tmp_path) as bench:
        bench.put(event(1, who="ann"))
    packs = [pack_of(changed(*OTHER[case]))]
    with Lab(tmp_path, packs) as other:
        assert "lab_touches" in caplog.text
        assert "another meaning" in caplog.text
        assert [other.value("lab_touches", "ann"), other.value("lab_runs", "t", "a", "ann")] == [0, 1]
        other.put(event(2, who="ann"))
        assert other.value("lab_touches", "ann") == 1
    with Lab(tmp_path) as back:
        assert back.value("lab_touches", "ann") == 0
        back.put(event(3, who="ann"))
        assert [back.value("lab_touches", "ann"), back.value("lab_runs", "t", "a", "ann")] == [1, 3]


def test_a_metric_that_was_taken_out_and_put_back_starts_at_zero(tmp_path: Path) -> None:
    """What was not counted meanwhile cannot be made up."""
    start = LAB.index("  lab_touches:")
    without = LAB[:start] + LAB[LAB.index("  lab_violations:") :]
    with Lab(tmp_path) as bench:
        bench.put(event(1, who="ann"))
    with Lab(tmp_path, [pack_of(without)]) as bare:
        assert bare.engine.dirty
        bare.engine.commit()
    with Lab(tmp_path) as back:
        assert [back.value("lab_touches", "ann"), back.value("lab_runs", "t", "a", "ann")] == [0, 1]


# Tenants


def test_the_tokens_tenant_is_written_in_and_another_is_refused(tmp_path: Path) -> None:
    """An event need not name it; a type without a tenant field is taken as it is."""
    with Lab(tmp_path, rules=InputRules(deduplicate=True)) as bench:
        unnamed = event(1)
        del unnamed["data"]["tenant"]
        events = [
            unnamed,
            event(2, tenant=None),
            event(3, tenant="acme"),
            event(4, tenant="evil"),
            event(5, "lab.closed"),
        ]
        verdict = bench.put(*events, tenant="acme")
        assert (verdict.accepted, verdict.rejected) == (4, 1)
        assert [(one.line, one.reason) for one in verdict.exceptions] == [(3, Reason.FOREIGN_TENANT)]
        assert bench.value("lab_runs", "acme", "a", "") == 3
        assert bench.letters()[0].type == "lab.run"
        assert bench.put(unnamed, event(4, tenant="evil"), tenant="evil").accepted == 2, (
            "ids are each tenant's own"
        )
        assert bench.put(event(4, tenant="evil"), tenant="evil").duplicate == 1
        assert bench.put(unnamed).rejected == 1, "without a token the field is required"


# Instruments that raise


class Touchy(Counter):
    """A kind of a plug-in: raises at an event whose `who` is `boom`, or whose batch holds both `left` and `right`."""

    @staticmethod
    def reducing(declared: Declared) -> ReducingCounter:
        """The half that raises."""
        return _Touchy(declared)


class _Touchy(ReducingCounter):
    def reduce(self, columns: Columns) -> None:
        found = {*columns.raw("who")}
        if "boom" in found or {"left", "right"} <= found:
            raise RuntimeError("secret boom")
        super().reduce(columns)


class Torn(Counter):
    """A kind that breaks its promise: it raises while it merges, once told to."""

    armed = False

    def merge(self, delta: Increments | Singles, slots: Slots, part: None) -> Merged:
        """Raise in the middle of a chunk."""
        if Torn.armed:
            raise MemoryError
        return super().merge(delta, slots, part)


def test_an_event_at_which_an_instrument_raises_is_refused_alone(tmp_path: Path) -> None:
    """One culprit in the middle of 20,000, over several pieces and deltas: the others count."""
    events = [event(n, who="ann", took_ms=50) for n in range(20_000)]
    events[11_111]["data"]["who"] = "boom"
    events[7] = b"{bad"  # type: ignore[call-overload]
    with (
        small_pieces(200_000, 5_000, batch=3_000),
        Lab(tmp_path, kinds={**KINDS, "counter": Touchy}) as bench,
    ):
        verdict = bench.put(*events)
        assert (verdict.received, verdict.accepted, verdict.rejected) == (20_000, 19_998, 2)
        assert [(one.line, one.reason) for one in verdict.exceptions] == [
            (7, Reason.MALFORMED_JSON), (11_111, Reason.INSTRUMENT_ERROR),
        ]  # fmt: skip
        assert bench.value("lab_runs", "t", "a", "ann") == 19_998
        assert bench.value("lab_runs", "t", "a", "boom") == 0
        letter = bench.letters()[-1]
        assert (letter.type, letter.reason, letter.data) == (
            "lab.run",
            "instrument_error",
            lines(events[11_111])[0],
        )
        assert "secret boom" in letter.detail
        assert bench.put(*events[:10]).accepted == 9, "and the next chunk is as any other"


def test_events_at_which_an_instrument_raises_only_together_end_nothing(tmp_path: Path) -> None:
    """No event alone explains it, so all of the chunk are refused, and the engine lives on."""
    kinds = {**KINDS, "counter": Touchy}
    for number, stream in enumerate((["left", "x", "right"], ["left", "boom", "right"])):
        with Lab(tmp_path / str(number), kinds=kinds) as bench:
            verdict = bench.put(*(event(n, who=who) for n, who in enumerate(stream)), b"{bad")
            assert (verdict.received, verdict.accepted, verdict.rejected) == (4, 0, 4)
            assert bench.put(event(9, who="left"), event(10)).accepted == 2


def test_a_chunk_that_was_merged_in_part_is_never_committed(tmp_path: Path) -> None:
    """Its counts without its position would count twice after the restart."""
    kinds = {**KINDS, "gauge": KINDS["gauge"], "counter": Torn}
    Torn.armed = False
    with Lab(tmp_path, kinds=kinds) as bench:
        bench.put(event(1, who="ann", took_ms=5))
        Torn.armed = True
        with pytest.raises(MemoryError):
            bench.feed(b"".join(lines(event(2, who="ann", took_ms=5))))
        Torn.armed = False
        assert not bench.engine.dirty
        with pytest.raises(EvalgaugeError, match="restart"):
            bench.engine.commit()
        with pytest.raises(EvalgaugeError, match="restart"):
            bench.put(event(3))
    with Lab(tmp_path, kinds=kinds) as again:
        assert again.positions == {("in", "p"): len(lines(event(1, who="ann", took_ms=5))[0]) + 1}
        assert again.value("lab_touches", "ann") == 1


# Commits that fail


def test_a_commit_that_fails_loses_nothing_and_shows_nothing(tmp_path: Path) -> None:
    """Tried again it holds everything once, and only then is anything acknowledged."""
    rules = InputRules(deduplicate=True)
    with Lab(tmp_path, rules=rules) as bench:
        bench.put(event(0, who="ann"))
        shown = bench.shown()
        full = bench.store._db.execute("PRAGMA page_count").fetchone()[0]
        bench.store._db.execute(f"PRAGMA max_page_count = {full}").fetchall()
        for n in range(3):
            bench.feed(
                b"\n".join(
                    lines(*(event(10 * n + k, who="ann", cost=1e300) for k in range(10)), b"x" * 60_000)
                )
            )
            with pytest.raises(sqlite3.OperationalError, match="full"):
                bench.engine.commit()
            assert bench.shown() == shown
            assert len(bench.verdicts) == 1
            assert bench.engine.dirty
        bench.store._db.execute("PRAGMA max_page_count = 1073741823").fetchall()
        bench.engine.commit()
        assert [verdict.accepted for verdict in bench.verdicts[1:]] == [9, 10, 10]
        assert len(bench.letters()) == 3
        assert bench.value("lab_touches", "ann") == 30
        after = bench.shown()
    with Lab(tmp_path, rules=rules) as again:
        assert again.shown() == after
        assert again.put(event(5)).duplicate == 1


def test_a_commit_fails_at_its_very_end_and_then_works(tmp_path: Path) -> None:
    """A disk that is full while COMMIT writes the log leaves no transaction behind that would stop all others."""
    with Lab(tmp_path) as bench:
        bench.put(event(0, who="ann"))
        wal = (tmp_path / "state.db-wal").stat().st_size
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        bench.feed(b"\n".join(lines(event(1, who="ann"))))
        resource.setrlimit(resource.RLIMIT_FSIZE, (wal + 100, old[1]))
        try:
            for _ in range(2):
                with pytest.raises(sqlite3.OperationalError, match=r"full|I/O"):
                    bench.engine.commit()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
            signal.signal(signal.SIGXFSZ, handler)
        bench.engine.commit()
        assert bench.value("lab_touches", "ann") == 2


def test_an_acknowledgement_that_fails_does_not_keep_others_from_theirs(tmp_path: Path) -> None:
    """A sender that has gone must not end the engine."""
    with Lab(tmp_path) as bench:

        def gone(_: object) -> None:
            raise ConnectionResetError

        chunk = bench.chunk(lines(event(1))[0])
        chunk.acknowledge = gone
        bench.engine.process("in", chunk)
        bench.feed(lines(event(2))[0])
        bench.engine.commit()
        assert [verdict.accepted for verdict in bench.verdicts] == [1]


# What is handed out


def test_what_was_handed_out_never_changes(tmp_path: Path) -> None:
    """An exporter reads its snapshot while the engine goes on."""

    def copied(families: list[Any]) -> list[Any]:
        return [
            (one.name, list(one.series[: len(one.values)]), one.values.tolist(), one.born.tolist(),
             str(one.created.tolist()), None if one.buckets is None else one.buckets.tolist(), dict(one.exemplars))
            for one in families
        ]  # fmt: skip

    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    with Lab(tmp_path) as bench:
        bench.put(*(event(n, who="ann", took_ms=n, level=n, cost=1e300, traceparent=trace) for n in range(5)))
        families = bench.engine.families()
        before = copied(families)
        bench.feed(
            b"\n".join(lines(*(event(n, who="bob", took_ms=n, level=9, cost=1e300) for n in range(9))))
        )
        assert copied(bench.engine.families()) == before, "nothing shows before its commit"
        bench.engine.commit()
        bench.put(*(event(n, who=f"w{n}", kind="b", traceparent=trace.replace("a", "c")) for n in range(300)))
        assert copied(families) == before


def test_snapshots_taken_while_commits_go_on_are_each_of_one_commit(tmp_path: Path) -> None:
    """Every commit adds as much to each of four metrics: a snapshot that mixes two of them is seen at once."""
    with Lab(tmp_path) as bench:
        stop, torn, seen = threading.Event(), [], set()

        def look() -> None:
            while not stop.is_set():
                values = {
                    one.name: int(one.buckets.sum() if one.buckets is not None else one.values.sum())
                    for one in bench.families()
                    if one.name in {"lab_runs", "lab_touches", "lab_duration_seconds", "lab_records"}
                }
                seen.add(values["lab_runs"])
                if len(set(values.values())) != 1:
                    torn.append(values)

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for n in range(120):
                bench.put(*(event(k, who=f"w{n % 7}", took_ms=k, cost=1e300 * k) for k in range(20)))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert torn == []
        assert len(seen) > 1
        assert bench.value("lab_touches", "w0") == 360


# Dead letters


def test_dead_letters_are_bounded_by_number_size_and_age(tmp_path: Path) -> None:
    """The oldest go first, each cause takes no more than it must, and what went is counted."""
    clock = Clock()
    bad = [b"{" + b"x" * 99] * 10
    for number, (limits, left, cause) in enumerate([
        (DeadLetterLimits(number=4), 4, "number"),
        (DeadLetterLimits(bytes=350), 3, "size"),
        (DeadLetterLimits(number=5, bytes=500), 5, "number"),
        (DeadLetterLimits(number=5, bytes=200), 2, "size"),
        (DeadLetterLimits(bytes=50), 0, "size"),
    ]):  # fmt: skip
        with Lab(tmp_path / str(number), options=EngineOptions(dead_letters=limits), clock=clock) as bench:
            bench.put(*bad)
            letters = bench.letters()
            assert [letter.position for letter in letters] == [f"0+{line}" for line in range(10 - left, 10)]
            bench.put(event(1))
            assert bench.value("evalgauge_dead_letters_dropped", cause) > 0
            dropped = sum(
                bench.value("evalgauge_dead_letters_dropped", one) for one in ("number", "size", "age")
            )
            assert dropped == 10 - left
    with Lab(
        tmp_path / "age", options=EngineOptions(dead_letters=DeadLetterLimits(age=60)), clock=clock
    ) as bench:
        bench.put(*bad)
        clock.now += 61
        bench.put(event(1))
        assert bench.letters() == [], "also where nothing new is refused"
        bench.put(event(2))
        assert bench.value("evalgauge_dead_letters_dropped", "age") == 10


def test_a_letter_keeps_no_more_than_it_is_told_to(tmp_path: Path) -> None:
    """`bytes` up to a length, `redacted` without payload, `reason` nothing."""
    secret = "s3cr3t"  # noqa: S105 - it stands for payload
    bad = [
        event(1, kind="z", blob=secret, unknown=secret),
        event(2, kind="z", blob={"deep": [secret]}),
        event(3, kind=None, blob=secret, time="no time"),
        event(4, took_ms=f"{secret} is no number", blob=secret),
        {**event(5, kind="z"), "extra": secret},
        {"data": {"blob": secret}},
        event(6, "no.such", blob=secret),
        b'{"data": {"blob": "' + secret.encode(),
        json.dumps(event(7, kind="z", blob=secret)).encode().replace(b"{", b"[", 1),
        {**event(8), "data": [secret]},
        {**event(9, kind="z"), "data": {"blob": secret}, "id": {"id": secret}},
    ]
    for keep in ("bytes", "redacted", "reason"):
        with Lab(tmp_path / keep, options=EngineOptions(keep=keep, max_letter_bytes=64 << 10)) as bench:
            assert bench.put(*bad).rejected == len(bad)
            letters = bench.letters()
            leaked = [n for n, one in enumerate(letters) if secret.encode() in one.data]
            if keep == "bytes":
                assert [one.data for one in letters] == lines(*bad)
            elif keep == "redacted":
                assert leaked == [3], "text in a field of numbers is no payload"
                assert json.loads(letters[0].data)["data"] == {"tenant": "t", "kind": "z"}
            else:
                assert all(one.data == b"" for one in letters)
            assert all(one.detail and secret not in one.detail for one in letters)
    kinds = {**KINDS, "counter": Touchy}
    with Lab(tmp_path / "kinds", options=EngineOptions(keep="reason"), kinds=kinds) as bench:
        bench.put(event(1, who="boom"))
        assert bench.letters()[0].detail == "RuntimeError", "an exception may quote the event"
    with Lab(tmp_path / "cut", options=EngineOptions(max_letter_bytes=5)) as bench:
        bench.put(b"{" + b"x" * 99)
        assert bench.letters()[0].data == b"{xxxx"


# Positions and limits


def test_lines_of_refusals_and_repeats_are_those_of_the_chunk(tmp_path: Path) -> None:
    """Over pieces, with blank and bad lines between, clean pieces and others."""
    stream: list[bytes] = []
    expected: dict[int, tuple[str, Reason | None]] = {}
    for n in range(200):
        kind = n % 20 if 60 <= n < 140 else 19
        if kind == 0:
            stream.append(b"")
        elif kind == 1:
            expected[len(stream)] = ("rejected", Reason.MALFORMED_JSON)
            stream.append(b"{bad")
        elif kind == 2:
            expected[len(stream)] = ("duplicate", None)
            stream += lines(event(0))
        elif kind == 3:
            expected[len(stream)] = ("rejected", Reason.NOT_IN_ENUM)
            stream += lines(event(n, kind="q"))
        elif kind == 4:
            stream.append(lines(event(n))[0] + b"\r")
        else:
            stream += lines(event(n))
    for piece in (1, 700, 3_000, 600_000):
        rules = InputRules(deduplicate=True)
        with small_pieces(piece, 11, batch=4), Lab(tmp_path / str(piece), rules=rules) as bench:
            bench.feed(b"\n".join(stream))
            bench.engine.commit()
            found = {one.line: (one.status, one.reason) for one in bench.verdicts[0].exceptions}
            assert found == expected
            refused = sorted(line for line, (status, _) in expected.items() if status == "rejected")
            assert sorted(int(one.position.removeprefix("0+")) for one in bench.letters()) == refused


def test_events_of_undeclared_types_are_ignored_where_the_input_says_so(tmp_path: Path) -> None:
    """Counted, but neither refused nor kept."""
    with Lab(tmp_path, rules=InputRules(ignore_unknown_types=True)) as bench:
        verdict = bench.put(event(1), event(2, "no.such"), b"{bad")
        assert (verdict.accepted, verdict.rejected) == (1, 1)
        assert bench.value("evalgauge_events_ignored", "in") == 1
        assert len(bench.letters()) == 1


def test_what_a_reducer_remembers_is_bounded(tmp_path: Path) -> None:
    """By distinct values, by their length, and by label sets that no single label betrays."""
    with small_pieces(600_000, 1 << 15, cache=50), Lab(tmp_path) as bench:
        for n in range(20):
            kinds, people, tenants = "abc", [f"w{k}" for k in range(9)], [f"t{k}" for k in range(9)]
            bench.put(
                *(
                    event(0, kind=k, who=w, tenant=t)
                    for k in kinds
                    for w in people
                    for t in tenants[n % 3 :: 3]
                )
            )
        reducer = bench.engine._reducers["in"]
        assert max(len(encoder) for encoder in reducer._encoders.values()) < 50
        assert reducer._generation > 2
        assert (
            max(
                len(local.replica._announced)
                for slots in bench.engine._slots.values()
                for local in slots.of("")
            )
            <= 2 * 81
        )
        assert sum(bench.families()[0].values.tolist()) == 20 * 81


def test_a_range_of_a_file_that_is_gone_is_an_error_and_counts_nothing(tmp_path: Path) -> None:
    """The input finds out what became of the file; the engine goes on."""
    path = tmp_path / "events.ndjson"
    body = lines(event(1))[0]
    path.write_bytes(body)
    with Lab(tmp_path / "state") as bench:
        chunk = bench.chunk(b"")
        chunk.body = FileRange(str(path), 0, len(body) + 1)
        with pytest.raises(OSError, match="ends at"):
            bench.engine.process("in", chunk)
        chunk.body = FileRange(str(path), 0, len(body))
        bench.engine.process("in", chunk)
        bench.engine.commit()
        assert bench.value("lab_runs", "t", "a", "") == 1


def test_limits_of_an_event_are_those_of_the_options(tmp_path: Path) -> None:
    """Bytes of its line and levels of nesting; as many as allowed are allowed."""
    plain = lines(event(1))[0]
    deep = lines(event(2, blob=[[[1]]]))[0]
    for options, size, depth in (
        (Limits(event_bytes=len(plain), depth=5), 1, 1),
        (Limits(event_bytes=len(plain) - 1, depth=32), 0, 0),
        (Limits(event_bytes=1 << 20, depth=4), 1, 0),
    ):
        for tail in (b"\n", b"\n\n"):
            folder = tmp_path / f"{options.event_bytes}-{options.depth}-{len(tail)}"
            with Lab(folder, options=EngineOptions(limits=options)) as bench:
                bench.feed(plain + tail)
                bench.feed(deep + tail)
                bench.engine.commit()
                assert [one.accepted for one in bench.verdicts] == [
                    size,
                    depth if options.event_bytes > len(deep) else 0,
                ]


def test_state_that_cannot_be_read_back_is_an_error_that_names_the_metric(tmp_path: Path) -> None:
    """Not a traceback."""
    with Lab(tmp_path) as bench:
        bench.put(event(1))
    with sqlite3.connect(tmp_path / "state.db") as db:
        db.execute("UPDATE pages SET data = x'00' WHERE kind = 'values'")
    db.close()
    with pytest.raises(StateError, match="metric lab_runs"):
        Lab(tmp_path)


def test_no_number_of_events_between_two_carries_overflows_a_sum(tmp_path: Path) -> None:
    """However small an event may be and however large a piece: 250,000 values near the top of the exact window."""
    text = """{mapping: m, version: 1, type: {constant: lab.run}, id: {from: position}, time: {from: arrival},
               source: {constant: s}, data: {lab.run: {tenant: {constant: t}, kind: {constant: a}, cost: v}}}"""
    rules = InputRules(mapping_of(text, lab()))
    with small_pieces(1 << 30, 1 << 30), Lab(tmp_path, rules=rules) as bench:
        bench.feed(b'{"v":4e6}\n' * 250_000)
        bench.engine.commit()
        assert bench.value("lab_cost_usd", "nobody", "") == 4e6 * 250_000


def test_the_slots_of_a_table_hold_what_the_pack_says(tmp_path: Path) -> None:
    """The sum of a counter, its overflow and its unobserved values are each counted."""
    with Lab(tmp_path) as bench:
        bench.put(*(event(n, who=f"w{n}", cost=0.1, took_ms=None if n else 5) for n in range(10)))
        assert bench.value("lab_cost_usd", "w0", "") == 0.1
        assert bench.value("lab_cost_usd", "_other", "") == 0.8
        assert bench.value("evalgauge_series_overflow_events", "lab_cost_usd") == 8
        assert bench.value("evalgauge_values_unobserved", "lab_duration_seconds") == 9
        assert np.isnan(next(one for one in bench.families() if one.name == "lab_level").created).all()
        assert lab().pack == "lab"
