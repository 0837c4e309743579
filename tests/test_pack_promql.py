"""What the reader of PromQL makes of an expression: labels that never claim too much, and sure mistakes only."""

# ruff: noqa: E501 - a text and what is told of it stand side by side

from __future__ import annotations

import random
import subprocess
from typing import TYPE_CHECKING

import pytest

from evalgauge.core.document import parse_document, validate
from evalgauge.core.pack.catalogue import Catalogue, infer
from evalgauge.core.pack.model import Pack
from evalgauge.core.pack.names import exposed_series
from evalgauge.core.pack.promql import read
from evalgauge.core.pack.variables import number, resolve, stood_in
from tests.test_pack_check import SOUND

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.parts.prometheus import Prometheus

TARGET = {"job", "instance"}
SALES = {"tenant", "kind", "method", *TARGET}
TOOK = {"tenant", "floor", *TARGET}
NOW = 1_700_000_000


@pytest.fixture(scope="module")
def pack() -> Pack:
    """The shop's pack."""
    return validate(parse_document(SOUND, "shop.yaml"), Pack)


@pytest.fixture(scope="module")
def catalogue(pack: Pack) -> Catalogue:
    """Its series."""
    return Catalogue(pack)


LABELS = {
    "shop_sales_total": SALES,
    "shop_sales_total offset 5m": SALES,
    "-shop_sales_total": SALES,
    'shop_sales_total{method=""}': SALES - {"method"},
    "rate(shop_sales_total[5m])": SALES,
    "max_over_time(rate(shop_sales_total[5m])[1h:1m])": SALES,
    "sum(shop_sales_total)": set(),
    "sum by (tenant) (shop_sales_total)": {"tenant"},
    "sum without (instance) (shop_sales_total)": SALES - {"instance"},
    "topk by (kind) (1, shop_sales_total)": SALES,
    'count_values("n", shop_sales_total)': {"n"},
    'count_values by (kind) ("n", shop_sales_total)': {"kind", "n"},
    "quantile(0.5, shop_sales_total)": set(),
    "shop_sales_total > 5": SALES,
    "5 * shop_sales_total": SALES,
    "1 + 1": set(),
    "time() - sum by (kind) (shop_sales_total)": {"kind"},
    "sum by (tenant, kind) (shop_sales_total) / on (tenant) group_left () sum by (tenant) (shop_sales_total)": {
        "tenant",
        "kind",
    },
    "sum by (tenant) (shop_sales_total) * on (tenant) group_right () sum by (tenant, kind) (shop_sales_total)": {
        "tenant",
        "kind",
    },
    "sum by (kind, tenant) (shop_sales_total) * on (tenant) group_left (floor) max by (tenant, floor) (shop_duration_seconds_sum)": {
        "tenant",
        "kind",
        "floor",
    },
    "sum by (tenant, kind) (shop_sales_total) / ignoring (kind) group_left () sum by (tenant) (shop_sales_total)": {
        "tenant",
        "kind",
    },
    "shop_duration_seconds_sum / shop_duration_seconds_count": TOOK,
    "shop_sales_total and on (tenant) shop_duration_seconds_sum": SALES,
    "shop_sales_total unless on (tenant) shop_duration_seconds_sum": SALES,
    "sum by (tenant) (shop_sales_total) or sum by (floor) (shop_duration_seconds_sum)": {"tenant", "floor"},
    "sum(shop_sales_total) or vector(0)": set(),
    'absent(shop_sales_total{tenant="x", kind=~"b.*"})': {"tenant"},
    "histogram_quantile(0.9, rate(shop_duration_seconds_bucket[5m]))": TOOK,
    "histogram_quantile(0.9, sum by (le) (rate(shop_duration_seconds_bucket[5m])))": set(),
    'label_replace(sum by (kind) (shop_sales_total), "what", "$1", "kind", "(.*)")': {"kind", "what"},
    'label_join(sum by (kind, tenant) (shop_sales_total), "both", "-", "kind", "tenant")': {
        "kind",
        "tenant",
        "both",
    },
    "sort_desc(sum by (kind) (shop_sales_total))": {"kind"},
    "scalar(sum(shop_sales_total)) + vector(1)": set(),
    "tenant:shop_sales:rate5m": {"tenant", "kind"},
    "clamp_min(sum by (kind) (shop_sales_total), 0)": {"kind"},
    "up": TARGET,
    "till_queue": {"till", *TARGET},
    "day_of_week()": set(),
    '{__name__="shop_sales_total"}': SALES,
}


@pytest.mark.parametrize("query", LABELS)
def test_the_labels_of_a_result_are_known(query: str, catalogue: Catalogue) -> None:
    """As Prometheus documents each operator and function."""
    reading = read(query, catalogue)
    assert reading.faults == []
    assert reading.labels.possible == frozenset(LABELS[query])


@pytest.mark.parametrize("query", ["ALERTS", '{job="x"}', '{__name__=~"shop_.*"}', "info(shop_sales_total)"])
def test_nothing_is_said_of_what_cannot_be_known(query: str, catalogue: Catalogue) -> None:
    """Any label is possible, so none is reported."""
    reading = read(f"sum by (anything) ({query})", catalogue)
    assert reading.faults == []


MISTAKES = {
    'shop_sales_total{kind="bok"}': "`kind` of `shop_sales_total` is never `bok`",
    'shop_sales_total{kind=~"x.*"}': "`kind` of `shop_sales_total` never matches `x.*`",
    'shop_sales_total{tenat="a"}': "`shop_sales_total` has no label `tenat`",
    'shop_sales_total{kind=~"book|tou"}': "`kind` of `shop_sales_total` is never `tou`",
    'shop_duration_seconds_bucket{le="2"}': "`le` of `shop_duration_seconds_bucket` is never `2`",
    'ALERTS{alertname="ShopSlo"}': "`alertname` of `ALERTS` is never `ShopSlo`",
    "shop_sale_total": "nothing emits `shop_sale_total`",
    "shop_duration_seconds": "nothing emits `shop_duration_seconds`",
    "sum by (floor) (shop_sales_total)": "no series in it has a label `floor`",
    "sum without (floor) (shop_sales_total)": "no series in it has a label `floor`",
    "sum by (kind) (sum by (tenant) (shop_sales_total))": "no series in it has a label `kind`",
    "rate(shop_shops_open[5m])": "`rate` is for counters, and `shop_shops_open` is a gauge",
    "delta(shop_sales_total[5m])": "`delta` is for gauges, and `shop_sales_total` is a counter",
    "rate(sum(shop_sales_total)[5m:1m])": "takes the reset of one counter for a reset of all",
    'histogram_quantile(0.9, sum by (tenant) (rate(shop_duration_seconds_bucket{le="1"}[5m])))': "needs the label `le`",
    "sum by (tenant) (rate(shop_duration_seconds_bucket[5m]))": "adds up cumulative buckets over `le`",
    "sum by (tenant) (shop_sales_total) / shop_duration_seconds_count": "the sides of `/` never match",
    "shop_sales_total and sum(shop_sales_total)": "the sides of `and` never match",
    "shop_sales_total / on (floor) shop_duration_seconds_sum": "the left side has no label `floor`",
    "sum by (tenant) (shop_sales_total) * ignoring (kind) sum by (tenant) (shop_sales_total)": "neither side has a label `kind`",
    "shop_sales_total * on (tenant) group_left (kind) sum by (tenant) (shop_sales_total)": "has no label `kind`",
    'label_replace(sum(shop_sales_total), "a", "$1", "kind", "(.*)")': "its argument has no label `kind`",
    "sum(shop_sales_total": "not valid PromQL",
    "topk(1, sum by (kind) (shop_sales_total)) > on (tenant) sum by (tenant) (shop_sales_total)": "the left side has no label `tenant`",
}


@pytest.mark.parametrize("query", MISTAKES)
def test_a_sure_mistake_is_told(query: str, catalogue: Catalogue) -> None:
    """Each of these is wrong whatever the data."""
    faults = read(query, catalogue).faults
    assert [fault for fault in faults if MISTAKES[query] in fault.message], faults


def test_a_fault_is_told_once_and_nothing_follows_from_it(catalogue: Catalogue) -> None:
    """A name that nothing emits has any label."""
    reading = read("sum by (x) (rate(nothing_total[5m])) / sum by (x) (rate(nothing_total[5m]))", catalogue)
    assert [fault.message for fault in reading.faults] == ["nothing emits `nothing_total`"]


def test_series_are_exposed_with_their_labels(pack: Pack) -> None:
    """What generators may refer to; `job` and `instance` go without saying."""
    series = exposed_series(pack)
    assert series["shop_sales_total"] == {"tenant", "kind", "method"}
    assert series["shop_duration_seconds_bucket"] == {"tenant", "floor", "le"}
    assert set(series) == {
        "shop_sales_total",
        "shop_revenue_usd_total",
        *(f"shop_duration_seconds_{part}" for part in ("bucket", "sum", "count")),
        "shop_shops_open",
        "shop_violations_total",
    }


def test_parameters_are_resolved_and_all_else_stays(pack: Pack) -> None:
    """A rule's text keeps Prometheus's own templates; a dashboard's keeps Grafana's variables."""
    assert (
        resolve("x > ${slow} and ${other} $value {{ $labels.x }}", pack)
        == "x > 5 and ${other} $value {{ $labels.x }}"
    )
    assert [number(value) for value in (5.0, 0.95, -3.0, 1e-6, 1e300)] == [
        "5",
        "0.95",
        "-3",
        "1e-06",
        "1e+300",
    ]
    assert infer(
        "sum by (kind) (rate(shop_sales_total[5m])) > ${slow}", Catalogue(pack), pack
    ).possible == frozenset({"kind"})


def test_dashboard_variables_stand_in_texts_only() -> None:
    """Grafana's own may stand anywhere; a `$1` of a replacement is none."""
    query, faults = stood_in(
        'label_replace(rate(x{a=~"${a:regex}"}[$__rate_interval]), "b", "$1", "c", "(.*)")', {"a"}
    )
    assert faults == []
    assert "[5m]" in query
    assert '"$1"' in query
    assert stood_in("sum by ($a) (x)", {"a"})[1] == [
        "variable `$a` stands for a label's value, so it must be in quotes"
    ]


@pytest.fixture(scope="module")
def server(promtool: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A real Prometheus that holds an hour of the shop's series."""
    from tests.parts.prometheus import Prometheus  # noqa: PLC0415 - only where the part is at hand

    folder = tmp_path_factory.mktemp("promql")
    lines = []
    for step in range(61):
        at = NOW - 3600 + step * 60
        for instance in ("a:1", "b:1"):
            target = f'job="shop",instance="{instance}"'
            lines.append((f"up{{{target}}} 1 {at}", "up"))
            for tenant in ("red", "blue"):
                base = f'{target},tenant="{tenant}"'
                for kind, method in (("book", "cash"), ("toy", "card"), ("toy", "none")):
                    labels = f'{base},kind="{kind}",method="{method}"'
                    lines.append(
                        (f"shop_sales_total{{{labels}}} {step * len(kind)} {at}", "shop_sales_total")
                    )
                for le, count in (("0.1", step), ("1.0", 2 * step), ("10.0", 3 * step), ("+Inf", 4 * step)):
                    labels = f'{base},floor="{len(tenant)}",le="{le}"'
                    lines.append(
                        (
                            f"shop_duration_seconds_bucket{{{labels}}} {count} {at}",
                            "shop_duration_seconds_bucket",
                        )
                    )
                for part, value in (("sum", step * 2.5), ("count", 4 * step)):
                    name = f"shop_duration_seconds_{part}"
                    lines.append((f'{name}{{{base},floor="{len(tenant)}"}} {value} {at}', name))
                lines.append((f"shop_shops_open{{{base}}} {step % 7} {at}", "shop_shops_open"))
            lines.append((f'till_queue{{{target},till="{instance[0]}"}} {step % 3} {at}', "till_queue"))
    # OpenMetrics wants the samples of a name together.
    ordered = [line for name in dict.fromkeys(name for _, name in lines) for line, of in lines if of == name]
    text = folder / "metrics.om"
    text.write_text("\n".join([*ordered, "# EOF", ""]))
    (folder / "tsdb").mkdir()
    subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", text, folder / "tsdb"],
        check=True,
        capture_output=True,
    )
    with Prometheus("global: {}", folder) as running:
        yield running


SELECTORS = (
    "shop_sales_total",
    'shop_sales_total{kind="book"}',
    'shop_sales_total{method=~"ca.*",tenant!=""}',
    "shop_duration_seconds_bucket",
    "shop_duration_seconds_sum",
    "shop_duration_seconds_count",
    "shop_shops_open",
    "till_queue",
    "up",
)
NAMES = ("tenant", "kind", "method", "floor", "le", "till", "job", "instance", "made")


def expression(rng: random.Random, depth: int) -> str:  # noqa: PLR0911 - one for each form
    """A random expression; many mean nothing, which is the point."""
    if depth == 0:
        return rng.choice(SELECTORS)
    inner = expression(rng, depth - 1)
    names = ", ".join(rng.sample(NAMES, rng.randint(0, 3)))
    made = rng.randrange(9)
    if made == 0:
        return f"{rng.choice(['rate', 'increase', 'max_over_time'])}({rng.choice(SELECTORS)}[10m])"
    if made == 1:
        return f"{rng.choice(['sum', 'max', 'count'])} {rng.choice(['by', 'without'])} ({names}) ({inner})"
    if made == 2:
        return f"topk by ({names}) (2, {inner})"
    if made == 3:
        return f'label_replace({inner}, "made", "$1", "{rng.choice(NAMES)}", "(.*)")'
    if made == 4:
        return f"histogram_quantile(0.5, {inner})"
    if made == 5:
        return f"({inner} {rng.choice(['>', '*', '+'])} {rng.randint(0, 3)})"
    if made == 6:
        return f'count_values by ({names}) ("made", {inner})'
    other = expression(rng, depth - 1)
    matching = rng.choice(["", f"on ({names})", f"ignoring ({names})"])
    if made == 7:
        return f"({inner} {rng.choice(['and', 'or', 'unless'])} {matching} {other})"
    group = (
        rng.choice(["", "group_left ()", "group_right ()", "group_left (till)", "group_right (floor)"])
        if matching
        else ""
    )
    return f"({inner} {rng.choice(['/', '-', '>', '== bool'])} {matching} {group} {other})"


def test_a_real_prometheus_never_shows_a_label_that_was_ruled_out(
    server: Prometheus, catalogue: Catalogue
) -> None:
    """Over random expressions: labels are within the possible, hold the certain, and sides said to never match do not."""
    rng = random.Random(7)  # noqa: S311 - the same expressions each time
    answered = never = labelled = 0
    for _ in range(600):
        query = expression(rng, rng.randint(1, 4))
        reading = read(query, catalogue)
        try:
            samples = server.query(query, NOW)
        except AssertionError:
            continue  # many-to-many and the like: the data decides
        answered += 1
        never += any("never match" in fault.message for fault in reading.faults)
        for sample in samples:
            labels = {name: value for name, value in sample.labels.items() if name != "__name__"}
            labelled += 1
            assert reading.labels.possible is None or {*labels} <= reading.labels.possible, query
            assert reading.labels.certain <= {*labels}, query
            for name, values in reading.labels.values.items():
                assert labels.get(name, "") in values | {""}, query
    assert answered > 200
    assert never > 10
    assert labelled > 500


@pytest.mark.parametrize("operator", ["/", "and", ">"])
def test_a_real_prometheus_finds_no_match_where_none_was_said_to_be(
    server: Prometheus, catalogue: Catalogue, operator: str
) -> None:
    """Over random sides: where the reader says that they never match, the result is empty."""
    rng = random.Random(operator)  # noqa: S311 - the same expressions each time
    told = 0
    for _ in range(150):
        names = ", ".join(rng.sample(NAMES, rng.randint(0, 2)))
        matching = rng.choice(["", f"ignoring ({names})"])
        query = f"{expression(rng, 1)} {operator} {matching} {expression(rng, 1)}"
        if any(
            fault.message.startswith(f"the sides of `{operator}` never match")
            for fault in read(query, catalogue).faults
        ):
            try:
                assert server.query(query, NOW) == [], query
            except AssertionError as error:
                if "many-to-many" not in str(error) and "multiple matches" not in str(error):
                    raise
            told += 1
    assert told > 20
