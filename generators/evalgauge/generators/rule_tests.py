"""Unit tests of a pack's alerts for promtool: which fire over which series, and that all others do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalgauge.generators.text import do_not_edit, prometheus_duration, yaml_block

if TYPE_CHECKING:
    from evalgauge.core.pack.model import AlertTest, Pack

FOLDER = "tests"
"""Below that of the rules, so that `rule_files: alert_rules/*.yaml` of Prometheus does not take them for rules."""


def generate(pack: Pack) -> dict[str, str]:
    """The tests of `pack`, by their name below the folder of its rules; nothing for a pack that has none."""
    if not pack.alert_tests:
        return {}
    comment = "".join(f"# {line}\n" for line in do_not_edit(pack, "rule-tests"))
    series = {one.name: one.series for one in pack.alert_tests}
    document = {
        "rule_files": [f"../{pack.pack}.yaml"],
        "evaluation_interval": "1m",
        "tests": [_test(pack, one, series.get(one.like or "", {}) | one.series) for one in pack.alert_tests],
    }
    return {f"{FOLDER}/{pack.pack}.yaml": comment + yaml_block(document)}


def _test(pack: Pack, test: AlertTest, series: dict[str, str]) -> dict[str, object]:
    return {
        "name": test.name,
        "interval": prometheus_duration(test.interval),
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'group by (alertname) (ALERTS{{alertstate="firing", pack="{pack.pack}"}})',
                "eval_time": prometheus_duration(test.at),
                "exp_samples": [
                    {"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(test.firing)
                ],
            }
        ],
    }
