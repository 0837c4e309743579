"""Generated rules and dashboards while a group shows the frozen totals of a replica that left for good."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import promql_parser as promql
import pytest

from evalgauge.core.departed import LABEL
from evalgauge.core.pack.metric_model import ActiveSpec, GaugeSpec, WindowSpec
from evalgauge.core.selfmetrics import DURABLE, PROCESS
from evalgauge.generators import dashboards
from evalgauge.generators.text import prometheus_duration
from tests.test_generators import (
    AHP,
    JUDGMENT,
    STREAM,
    all_rules,
    built_in,
    pack,
    parts,
    plain_promql,
    promtool_test,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from evalgauge.core.pack.model import AlertTest, Pack

__all__ = ["pack"]
_LAST = re.compile(r"(-?\d+)(?:([+-]\d+))?x(\d+)(?: stale)?$")
_NEWEST = "last_over_time"
_ADDS_UP = {"rate", "increase", "irate", "delta", "idelta", "changes"}


def last_value(values: str) -> int:
    """Where a series ends that is written for promtool."""
    match = _LAST.search(values)
    assert match is not None, values
    return int(match[1]) + int(match[2] or 0) * int(match[3])


def with_departed(scenario: AlertTest) -> dict[str, str]:
    """The same series, and those of a replica that counted as much and more, left half-way, and is shown frozen.

    Its own series end where those begin that another replica shows of it. What it saw last came a second before what
    the others did.
    """
    half = round(scenario.at / scenario.interval / 2)
    series = dict(scenario.series)
    for place, (name, values) in enumerate(scenario.series.items()):
        last = last_value(values)
        total = last - 1 if "_timestamp_seconds{" in name else 3 * last
        plain = re.sub(r', instance="[^"]*"', "", name).removesuffix("}")
        series[f'{plain}, instance="gone{place}"}}'] = f"{total}x{half} stale"
        series[f'{plain}, instance="r0", {LABEL}="gone{place}"}}'] = f"_x{half + 1} {total}x{half + 2000}"
    return series


@pytest.mark.parametrize("workload", [JUDGMENT, AHP, STREAM])
def test_the_same_alerts_fire_while_frozen_totals_are_shown(
    workload: str, promtool: Path, tmp_path: Path
) -> None:
    """Every scenario of the alerts' own test again: what does not grow is no traffic, and no new series is news."""
    tests = [
        {
            "name": f"{scenario.name}, and somebody left",
            "interval": prometheus_duration(scenario.interval),
            "input_series": [
                {"series": name, "values": values} for name, values in with_departed(scenario).items()
            ],
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": prometheus_duration(scenario.at),
                    "exp_samples": [
                        {"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(scenario.firing)
                    ],
                }
            ],
        }
        for scenario in built_in(workload).alert_tests
    ]
    promtool_test(workload, tests, promtool, tmp_path)


def test_recorded_rates_stay_and_recorded_totals_stay_complete(promtool: Path, tmp_path: Path) -> None:
    """An hour's judgments are those of the hour; a mean over all time is over what the one that left had seen, too."""
    judgments = 'judgment_executions_total{tenant="a", workflow="w", method="llm", status="success"%s}'
    series = {
        judgments % ', instance="r0"': "0+10x300",
        judgments % ', instance="r0", replica="r3"': "_x120 5000x300",
        judgments % ', instance="r3"': "5000x119 stale",
    }
    expected = {"tenant_workflow:judgment_executions:increase1h": {'tenant="a", workflow="w"': 2400.0}}
    promtool_test(JUDGMENT, [_recorded(series, expected)], promtool, tmp_path)
    consistency = 'ahp_consistency_ratio_%s{project="p"%s}'
    series = {
        consistency % ("sum", ', instance="r0"'): "0+1x300",
        consistency % ("count", ', instance="r0"'): "0+10x300",
        consistency % ("sum", ', instance="r0", replica="r3"'): "840x300",
        consistency % ("count", ', instance="r0", replica="r3"'): "2800x300",
    }
    # At 70 minutes r0 has seen 280 steps: (280 + 840) / (2800 + 2800).
    promtool_test(AHP, [_recorded(series, {"ahp:consistency:avg": {'project="p"': 0.2}})], promtool, tmp_path)


def _recorded(series: dict[str, str], expected: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": name,
                "eval_time": "70m",
                "exp_samples": [
                    {"labels": f"{name}{{{labels}}}", "value": value} for labels, value in found.items()
                ],
            }
            for name, found in expected.items()
        ],
    }


def test_every_query_adds_up_what_may_be_frozen(pack: Pack) -> None:
    """The first thing that joins such series is a sum, and not by the label: so they are a part of it and no more."""
    exprs = [rule["expr"] for rule in all_rules(pack)]
    for text in dashboards.generate(pack).values():
        board = json.loads(text)
        exprs += [
            plain_promql(target["expr"], board)
            for panel in board["panels"]
            for target in panel.get("targets", [])
        ]
    names = frozen_names(pack)
    seen = 0
    for expr in exprs:
        for name, above in selected(promql.parse(expr), []):
            if name not in names:
                continue
            seen += 1
            joins = next((one for one in reversed(above) if isinstance(one, promql.AggregateExpr)), None)
            if joins is None:
                # Alone it can only be asked whether it grows, which what is frozen never does.
                assert re.search(rf"(?:rate|increase)\({name}\b[^()]*\) > 0$", expr.strip()), expr
                continue
            assert str(joins.op).lower() == "sum", expr
            assert joins.modifier is None or "without" not in str(joins.modifier.type).lower(), expr
            assert joins.modifier is None or LABEL not in joins.modifier.labels, expr
            within = above[above.index(joins) + 1 :]
            if any(isinstance(one, promql.Call) and one.func.name == _NEWEST for one in within):
                # Within its range a replica that left is there twice: it may only be asked whether nothing was added.
                comparison = next(one for one in reversed(above) if isinstance(one, promql.BinaryExpr))
                assert str(comparison.op) == "<=", expr
                assert joins.prettify() == comparison.rhs.prettify(), expr
                assert not [one for one, _ in selected(comparison.lhs, []) if one != name], expr
                continue
            assert all(
                isinstance(one, promql.MatrixSelector | promql.ParenExpr)
                or (isinstance(one, promql.Call) and one.func.name in _ADDS_UP)
                for one in within
            ), expr
    assert seen


def frozen_names(pack: Pack) -> set[str]:
    """Series that are shown of a replica that left: all that a replica keeps in its state, and no partition."""
    names = set()
    for name, metric in pack.metrics.items():
        kept = (
            name in DURABLE
            if metric.on == [PROCESS]
            else not (
                isinstance(metric, ActiveSpec | WindowSpec)
                or (isinstance(metric, GaugeSpec) and metric.is_set)
            )
        )
        if kept:
            names |= {name, f"{name}_total", f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    return names


def selected(tree: promql.Expr, above: list[promql.Expr]) -> Iterator[tuple[str, list[promql.Expr]]]:
    """Every selector's name, with the expressions around it from the outside in."""
    if isinstance(tree, promql.VectorSelector):
        yield str(tree.name), above
    for part in parts(tree):
        yield from selected(part, [*above, tree])
