"""Both text formats: what a parser reads back is what the families hold, however hostile the labels."""

from __future__ import annotations

import math
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Counter as ClientCounter
from prometheus_client import Gauge as ClientGauge
from prometheus_client import Histogram as ClientHistogram
from prometheus_client.openmetrics import exposition as client_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from evalgauge.core.export import NotReady
from evalgauge.core.families import Exemplar, Family
from evalgauge.exporters.client_bridge import FamilyCollector
from evalgauge.exporters.exposition import Renderer, render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from prometheus_client.core import Metric

NOW = 1_700_000_000.0
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def counter(series: Sequence[tuple[str, ...]], values: Sequence[float], **changes: Any) -> Family:
    """Make a counter `runs` with labels a and b."""
    return _family(series, np.asarray(values), **{"name": "runs", "kind": "counter", **changes})


def gauge(series: Sequence[tuple[str, ...]], values: Sequence[float], **changes: Any) -> Family:
    """Make a gauge `depth` with labels a and b."""
    return _family(series, np.asarray(values, np.float64), **{"name": "depth", "kind": "gauge", **changes})


def histogram(
    series: Sequence[tuple[str, ...]],
    buckets: Sequence[Sequence[int]],
    sums: Sequence[float],
    bounds: Sequence[float] = (0.05, 1.0),
    **changes: Any,
) -> Family:
    """Make a histogram `wait_seconds` with labels a and b."""
    counts = np.asarray(buckets, np.int64).reshape(len(series), len(bounds) + 1)
    changes = {"unit": "seconds", "bounds": tuple(bounds), "buckets": counts, **changes}
    changes = {"name": "wait_seconds", "kind": "histogram", **changes}
    return _family(series, np.asarray(sums, np.float64), **changes)


def _family(series: Sequence[tuple[str, ...]], values: Any, **changes: Any) -> Family:
    times = np.full(len(values), NOW - 3600)
    usual: dict[str, Any] = {
        "help": "What it is.",
        "unit": "",
        "label_names": ("a", "b"),
        "series": series,
        "values": values,
        "created": np.full(len(values), np.nan) if changes["kind"] == "gauge" else times - 1.5,
        "born": times,
    }
    return Family(**{**usual, **changes})


def read(text: bytes, *, openmetrics: bool) -> dict[str, Metric]:
    """Parse an exposition with prometheus_client."""
    parse = parse_openmetrics if openmetrics else parse_text
    return {metric.name: metric for metric in parse(text.decode())}


def samples(metrics: Mapping[str, Metric]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Give (series name, labels) → value of all samples; the same series twice is an error."""
    found = [
        ((one.name, frozenset(one.labels.items())), one.value) for m in metrics.values() for one in m.samples
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def held(family: Family, *, created: bool) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Give the samples of a family written out one by one: the oracle of the renderer."""
    found = {}
    for row, (values, total) in enumerate(zip(family.series, family.values.tolist(), strict=True)):
        labels = {name: value for name, value in zip(family.label_names, values, strict=True) if value}
        if family.buckets is None:
            suffix = "" if family.kind == "gauge" else "_total"
            found[family.name + suffix, frozenset(labels.items())] = float(total)
        else:
            count = 0
            for bound, more in zip((*family.bounds, math.inf), family.buckets[row].tolist(), strict=True):
                count += more
                le = "+Inf" if bound == math.inf else str(float(bound))
                found[f"{family.name}_bucket", frozenset({**labels, "le": le}.items())] = float(count)
            found[f"{family.name}_count", frozenset(labels.items())] = float(count)
            found[f"{family.name}_sum", frozenset(labels.items())] = float(total)
        if created and family.kind != "gauge":
            found[f"{family.name}_created", frozenset(labels.items())] = float(family.created[row])
    return found


hostile = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.text(st.sampled_from('\\\n"{},=# \té😀\u2028\x00\r+'), max_size=8),
)
rows = st.lists(st.tuples(hostile, hostile), min_size=1, max_size=6, unique=True)
counts = st.integers(0, 2**53)
positive = st.floats(0, allow_nan=False, allow_infinity=False)


@st.composite
def all_kinds(draw: st.DrawFn) -> list[Family]:
    """Draw a counter of integers, one of floats, a gauge and a histogram."""

    def values(of: st.SearchStrategy[Any], series: Sequence[object]) -> list[Any]:
        return draw(st.lists(of, min_size=len(series), max_size=len(series)))

    one, two, three, four = draw(rows), draw(rows), draw(rows), draw(rows)
    births = np.asarray(values(st.floats(1e9, 2e9), four))
    return [
        counter(one, values(counts, one)),
        counter(two, values(positive, two), name="spent_usd", unit="usd", help='a "b" \\ c\nd'),
        gauge(three, values(st.floats(), three)),
        histogram(
            four,
            values(st.tuples(*[st.integers(0, 2**50)] * 3), four),
            values(positive, four),
            created=births,
        ),
    ]


@pytest.mark.parametrize("openmetrics", [False, True])
@given(families=all_kinds())
def test_what_is_parsed_is_what_is_held(families: list[Family], openmetrics: bool) -> None:
    """Any label value, any float, any count survives the way through text."""
    metrics = read(render(families, openmetrics=openmetrics), openmetrics=openmetrics)
    expected = {k: v for family in families for k, v in held(family, created=openmetrics).items()}
    found = samples(metrics)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == value or math.isnan(found[key]) == math.isnan(value) is True
    assert metrics["spent_usd"].documentation == 'a "b" \\ c\nd'
    assert metrics["spent_usd"].unit == ("usd" if openmetrics else "")


@given(families=all_kinds())
def test_rendering_again_with_kept_labels_gives_the_same(families: list[Family]) -> None:
    """Cut a snapshot short first: rows that come later are appended, and nothing is mixed up."""
    renderer = Renderer()
    shorter = [_first_rows(family, len(family.values) // 2) for family in families]
    for snapshot in (shorter, families, shorter):
        for openmetrics in (True, False):
            assert b"".join(renderer.blocks(snapshot, openmetrics=openmetrics)) == render(
                snapshot, openmetrics=openmetrics
            )


def _first_rows(family: Family, n: int) -> Family:
    """Give the family as it was with `n` rows; `series` stays longer, as a live table's is."""
    columns = {name: getattr(family, name)[:n] for name in ("values", "created", "born")}
    return replace(family, buckets=None if family.buckets is None else family.buckets[:n], **columns)


def test_many_blocks_hold_every_row_once_with_its_own_exemplar() -> None:
    """Rows are joined in blocks; exemplars find their row in any of them."""
    n = 20_000
    series = [(f"a{i}", "") for i in range(n)]
    marked = {(row, 0): Exemplar(TRACE, SPAN, 1.0, NOW + row) for row in (0, 4095, 4096, n - 1)}
    family = counter(series, list(range(n)), exemplars=marked)
    metric = read(render([family], openmetrics=True), openmetrics=True)["runs"]
    totals = [one for one in metric.samples if one.name == "runs_total"]
    assert [one.value for one in totals] == list(range(n))
    found = {int(one.labels["a"][1:]): one.exemplar for one in totals if one.exemplar}
    assert {row: float(str(one.timestamp)) for row, one in found.items()} == {
        row: NOW + row for row, _bucket in marked
    }


def test_another_generation_starts_with_fresh_labels() -> None:
    """What was kept of a row's labels is for one generation only."""
    renderer = Renderer()
    b"".join(renderer.blocks([counter([("old", "x")], [1])]))
    text = b"".join(renderer.blocks([counter([("new", "x")], [1], generation=1)]))
    assert b'runs_total{a="new",b="x"} 1\n' in text


def test_rows_that_changed_within_a_generation_are_noticed() -> None:
    """A number beside the wrong labels would be worse than a slow scrape."""
    renderer = Renderer()
    b"".join(renderer.blocks([counter([("old", "x")], [1])]))
    assert b'runs_total{a="new",b="x"} 1\n' in b"".join(renderer.blocks([counter([("new", "x")], [1])]))


def test_text_format_to_the_byte() -> None:
    """Counters are integers, `le` is canonical and last, empty labels are absent, TYPE says `_total`."""
    families = [
        counter([("x", "")], [7]),
        gauge([("", "")], [math.inf]),
        histogram([("x", "é\n")], [[1, 0, 2]], [0.1]),
    ]
    assert (
        render(families).decode()
        == """\
# HELP runs_total What it is.
# TYPE runs_total counter
runs_total{a="x"} 7
# HELP depth What it is.
# TYPE depth gauge
depth +Inf
# HELP wait_seconds What it is.
# TYPE wait_seconds histogram
wait_seconds_bucket{a="x",b="é\\n",le="0.05"} 1
wait_seconds_bucket{a="x",b="é\\n",le="1.0"} 1
wait_seconds_bucket{a="x",b="é\\n",le="+Inf"} 3
wait_seconds_count{a="x",b="é\\n"} 3
wait_seconds_sum{a="x",b="é\\n"} 0.1
"""
    )


def test_openmetrics_to_the_byte() -> None:
    """Created times, exemplars and the unit come with it, and the end is marked."""
    families = [
        counter([("x", "")], [7], exemplars={(0, 0): Exemplar(TRACE, SPAN, 1.0, NOW)}),
        histogram([("x", "")], [[1, 0, 2]], [0.1], exemplars={(0, 2): Exemplar(TRACE, "", 31.5, NOW + 0.25)}),
    ]
    assert (
        render(families, openmetrics=True).decode()
        == f"""\
# HELP runs What it is.
# TYPE runs counter
runs_total{{a="x"}} 7 # {{trace_id="{TRACE}",span_id="{SPAN}"}} 1.0 1700000000.0
runs_created{{a="x"}} 1699996398.5
# HELP wait_seconds What it is.
# TYPE wait_seconds histogram
# UNIT wait_seconds seconds
wait_seconds_bucket{{a="x",le="0.05"}} 1
wait_seconds_bucket{{a="x",le="1.0"}} 1
wait_seconds_bucket{{a="x",le="+Inf"}} 3 # {{trace_id="{TRACE}"}} 31.5 1700000000.25
wait_seconds_count{{a="x"}} 3
wait_seconds_sum{{a="x"}} 0.1
wait_seconds_created{{a="x"}} 1699996398.5
# EOF
"""
    )


def test_families_without_series_keep_their_metadata() -> None:
    """As with prometheus_client: what could be there can be looked up."""
    families = [counter([], []), histogram([], [], [])]
    assert set(read(render(families), openmetrics=False)) == {"runs", "wait_seconds"}
    assert set(read(render(families, openmetrics=True), openmetrics=True)) == {"runs", "wait_seconds"}
    assert render([]) == b""
    assert render([], openmetrics=True) == b"# EOF\n"


def test_a_unit_that_the_name_does_not_end_in_is_not_claimed() -> None:
    """Prometheus would refuse the whole scrape for it."""
    text = render([counter([("x", "")], [1], unit="usd")], openmetrics=True)
    assert b"# UNIT" not in text
    assert read(text, openmetrics=True)["runs"].unit == ""


def test_a_row_without_created_time_has_no_created_line() -> None:
    """NaN means that nothing is known; the neighbours keep theirs."""
    family = counter([("x", ""), ("y", ""), ("z", "")], [1, 2, 3], created=np.asarray([1e9, np.nan, 2e9]))
    found = samples(read(render([family], openmetrics=True), openmetrics=True))
    created = {dict(labels)["a"]: value for (name, labels), value in found.items() if name == "runs_created"}
    assert created == {"x": 1e9, "z": 2e9}
    assert len(found) == 5


def test_created_lines_can_be_left_out() -> None:
    """`created: false`, for a Prometheus that would store each as a series of its own."""
    assert b"_created" not in render([counter([("x", "")], [1])], openmetrics=True, created=False)


def test_negative_buckets_have_no_sum_in_openmetrics() -> None:
    """OpenMetrics forbids it, since such a sum may fall; 0.0.4 has no such rule."""
    family = histogram([("x", "")], [[1, 1, 1]], [-3.5], bounds=(-1.0, 1.0))
    metric = read(render([family], openmetrics=True), openmetrics=True)["wait_seconds"]
    assert {one.name for one in metric.samples} == {"wait_seconds_bucket", "wait_seconds_created"}
    assert b'wait_seconds_sum{a="x"} -3.5\n' in render([family])


def test_a_lone_surrogate_neither_fails_the_scrape_nor_merges_series() -> None:
    """JSON can smuggle one in; it has no UTF-8."""
    text = render([counter([("\ud800", ""), ("\ud801", "")], [1, 2])])
    labels = [one.labels["a"] for one in read(text, openmetrics=False)["runs"].samples]
    assert labels == [r"\ud800", r"\ud801"]


def test_exemplars_stay_within_128_characters() -> None:
    """A span id that is too much is left out, then the whole exemplar."""
    long = {(0, 0): Exemplar("t" * 100, "s" * 30, 1.0, NOW), (1, 0): Exemplar("t" * 121, "s", 1.0, NOW)}
    text = render([counter([("x", ""), ("y", "")], [1, 2], exemplars=long)], openmetrics=True)
    first, second = (one for one in read(text, openmetrics=True)["runs"].samples if one.name == "runs_total")
    assert first.exemplar is not None
    assert first.exemplar.labels == {"trace_id": "t" * 100}
    assert second.exemplar is None


def test_exemplars_are_for_openmetrics_only() -> None:
    """In 0.0.4 they would not parse."""
    family = counter([("x", "")], [1], exemplars={(0, 0): Exemplar(TRACE, SPAN, 1.0, NOW)})
    assert TRACE.encode() not in render([family])


def test_a_new_series_is_shown_as_zero_for_the_stated_time() -> None:
    """So that `increase()` sees its first events; gauges count nothing and are shown as they are."""
    births = np.asarray([NOW - 61, NOW - 59])
    series = [("old", ""), ("new", "")]
    marked = {(0, 0): Exemplar(TRACE, SPAN, 1.0, NOW), (1, 0): Exemplar(TRACE, SPAN, 1.0, NOW)}
    families = [
        counter(series, [7, 8], born=births, exemplars=marked),
        counter(series, [7.5, 8.5], born=births, name="spent"),
        gauge(series, [7, 8], born=births),
        histogram(series, [[1, 2, 3], [4, 5, 6]], [7.5, 8.5], born=births),
    ]
    renderer = Renderer(zero_first=60.0)
    text = b"".join(renderer.blocks(families, openmetrics=True, now=NOW))
    metrics = read(text, openmetrics=True)
    found = samples(metrics)
    for (name, labels), value in found.items():
        if dict(labels)["a"] == "new" and not name.endswith("_created"):
            assert value == (8.0 if name == "depth" else 0.0), name
    assert found["wait_seconds_count", frozenset({("a", "old")})] == 6
    exemplars = {one.labels["a"]: one.exemplar for one in metrics["runs"].samples if one.name == "runs_total"}
    assert exemplars["old"] is not None
    assert exemplars["new"] is None
    later = samples(
        read(b"".join(renderer.blocks(families, openmetrics=True, now=NOW + 2)), openmetrics=True)
    )
    assert later["runs_total", frozenset({("a", "new")})] == 8
    assert later["wait_seconds_sum", frozenset({("a", "new")})] == 8.5


def test_the_same_bytes_as_prometheus_client_where_both_can_say_it() -> None:
    """Floats below a million, labels in order of the alphabet: then the texts are equal, but for integers."""
    registry = CollectorRegistry()
    spent = ClientCounter("spent_usd", "Money.", ("a", "b"), registry=registry, unit="usd")
    depth = ClientGauge("depth", 'Depth \\ "x"\ny', ("a", "b"), registry=registry)
    wait = ClientHistogram("wait_seconds", "Wait.", ("a", "b"), registry=registry, buckets=(0.05, 2.5, 10))
    series = [("one", 'quo"te'), ("back\\slash", "new\nline"), ("é", "😀")]
    for number, labels in enumerate(series):
        spent.labels(*labels).inc(number + 0.25)
        depth.labels(*labels).set(number / 3)
        wait.labels(*labels).observe(0.05)
        wait.labels(*labels).observe(number + 2.75)
    ours = [
        counter(
            series,
            [0.25, 1.25, 2.25],
            name="spent_usd",
            help="Money.",
            unit="usd",
        ),
        gauge(series, [0.0, 1 / 3, 2 / 3], help='Depth \\ "x"\ny'),
        histogram(
            series,
            [[1, 0, 1, 0]] * 3,
            [0.05 + 2.75, 0.05 + 3.75, 0.05 + 4.75],
            bounds=(0.05, 2.5, 10),
            unit="",
            help="Wait.",
        ),
    ]
    theirs = _openmetrics_of(registry).decode()
    assert _floats(render(ours, openmetrics=True, created=False)) == _without_created(theirs)
    assert _floats(render(ours)) == _without_created(generate_latest(registry).decode())


def _openmetrics_of(registry: CollectorRegistry) -> bytes:
    return bytes(client_openmetrics.generate_latest(registry))  # type: ignore[no-untyped-call]


def _without_created(text: str) -> str:
    """Leave out created times, which prometheus_client writes with an exponent, and in 0.0.4 as gauges."""
    return "".join(line for line in text.splitlines(keepends=True) if "_created" not in line)


def _floats(text: bytes) -> str:
    """Write the integers that we expose as prometheus_client does."""
    lines = []
    for line in text.decode().splitlines():
        head, _, value = line.rpartition(" ")
        lines.append(f"{head} {float(value)}" if value.isdigit() else line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("openmetrics", [False, True])
@given(families=all_kinds())
def test_the_bridge_gives_the_same_samples_as_the_text(families: list[Family], openmetrics: bool) -> None:
    """An app that registers the families in its own registry exposes what `/metrics` does."""
    registry = CollectorRegistry()
    registry.register(FamilyCollector(lambda: families))
    encode = _openmetrics_of if openmetrics else generate_latest
    theirs = samples(read(encode(registry), openmetrics=openmetrics))
    ours = samples(read(render(families, openmetrics=openmetrics), openmetrics=openmetrics))
    theirs = {key: value for key, value in theirs.items() if openmetrics or not key[0].endswith("_created")}
    assert theirs.keys() == ours.keys()
    for key, value in ours.items():
        assert theirs[key] == value or math.isnan(value)


def test_the_bridge_carries_exemplars_and_zero_first() -> None:
    """What the options do in text they do there."""
    marked = {(0, 0): Exemplar(TRACE, SPAN, 0.02, NOW), (0, 2): Exemplar(TRACE, SPAN, 40.0, NOW)}
    old = histogram([("x", "")], [[1, 0, 2]], [0.1], exemplars=marked)
    registry = CollectorRegistry()
    registry.register(FamilyCollector(lambda: [old], zero_first=60.0))
    metric = read(_openmetrics_of(registry), openmetrics=True)["wait_seconds"]
    exemplars = {
        one.labels["le"]: (one.exemplar.labels, one.exemplar.value) for one in metric.samples if one.exemplar
    }
    trace = {"trace_id": TRACE, "span_id": SPAN}
    assert exemplars == {"0.05": (trace, 0.02), "+Inf": (trace, 40.0)}
    new = histogram([("x", "")], [[1, 0, 2]], [0.1], exemplars=marked, born=np.asarray([4e9]))
    (found,) = FamilyCollector(lambda: [new], zero_first=60.0, created=False).collect()
    assert {one.value for one in found.samples} == {0}
    assert all(one.exemplar is None for one in found.samples)


def test_the_bridge_shows_nothing_before_state_is_restored() -> None:
    """The app's other metrics go on, and no series falls to zero."""

    def not_yet() -> Sequence[Family]:
        raise NotReady(["state is being restored"])

    registry = CollectorRegistry()
    registry.register(FamilyCollector(not_yet))
    assert generate_latest(registry) == b""


def test_a_registry_refuses_a_name_that_it_has_already() -> None:
    """`describe` says the names, so that the clash is found at registration."""
    registry = CollectorRegistry()
    registry.register(FamilyCollector(lambda: [counter([("x", "")], [1])]))
    with pytest.raises(ValueError, match="Duplicated"):
        ClientCounter("runs", "Other.", registry=registry)


def test_promtool_reads_it(promtool: Path) -> None:
    """Prometheus' own parser takes the text; hostile labels included."""
    series = [("\\", '"'), ("\n", "{}"), ("é😀", "\x00\t\r"), ("", "")]
    families = [
        counter(series, [1, 2, 3, 2**62]),
        gauge(series, [math.inf, -math.inf, math.nan, 5e-324], help='\\ "x"\ny'),
        histogram(series, [[1, 2, 3]] * 4, [0.1, 1e300, 0.0, 1e16], exemplars={}),
    ]
    done = subprocess.run(
        [promtool, "check", "metrics"], input=render(families), capture_output=True, check=False
    )
    # `depth` and `wait_seconds` break no rule of its linter either.
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
