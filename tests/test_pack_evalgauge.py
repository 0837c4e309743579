"""The pack of our own metrics: complete, and each of its alerts fires when it should and stays silent else."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml

from evalgauge.core.event import Reason
from evalgauge.core.pack.loader import load_pack
from evalgauge.core.pack.metric_model import GaugeSpec
from evalgauge.core.pack.names import PROCESS
from evalgauge.core.pack.variables import resolve

if TYPE_CHECKING:
    from pathlib import Path

    from evalgauge.core.pack.model import Pack

TARGET = 'job="evalgauge", instance="a:1"'
INPUT = f'{TARGET}, input="door"'


@pytest.fixture(scope="module")
def pack() -> Pack:
    """The pack."""
    return load_pack("evalgauge").pack


@pytest.fixture(scope="module")
def rules(pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its rules as Prometheus reads them."""
    groups: list[dict[str, object]] = [
        {
            "name": name,
            "rules": [
                {"record": record, "expr": resolve(rule.expr, pack)} for record, rule in group.rules.items()
            ],
        }
        for name, group in pack.recording.items()
    ]
    alerts = [
        {
            "alert": name,
            "expr": resolve(alert.expr, pack),
            "for": f"{alert.for_:.0f}s",
            "labels": {"severity": alert.severity},
            "annotations": {
                key: resolve(getattr(alert, key), pack) for key in ("summary", "description", "runbook")
            },
        }
        for name, alert in pack.alerts.items()
    ]
    path = tmp_path_factory.mktemp("rules") / "evalgauge.yaml"
    path.write_text(
        yaml.safe_dump({"groups": [*groups, {"name": "alerts", "rules": alerts}]}, sort_keys=False)
    )
    return path


def test_every_metric_is_reported_by_the_process_itself(pack: Pack) -> None:
    """And none is left over from events."""
    assert pack.events == {}
    assert all(metric.on == [PROCESS] for metric in pack.metrics.values())


def test_the_reasons_are_the_closed_list(pack: Pack) -> None:
    """A reason that the engine gives and the pack does not know would be a label nobody expects."""
    assert pack.metrics["evalgauge_events_rejected"].labels["reason"].enum == [
        reason.value for reason in Reason
    ]


def test_only_the_info_metric_ends_in_info(pack: Pack) -> None:
    """A declared exception to the suffixes that formats reserve."""
    info = {name for name, metric in pack.metrics.items() if isinstance(metric, GaugeSpec) and metric.info}
    assert info == {"evalgauge_build_info"} == {name for name in pack.metrics if name.endswith("_info")}


def test_the_rules_pass_promtool_with_every_lint(rules: Path, promtool: Path) -> None:
    """As a person would check them."""
    done = subprocess.run(
        [promtool, "check", "rules", "--lint=all", "--lint-fatal", rules],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


HEALTHY = {
    f"up{{{TARGET}}}": "1+0x240",
    f'evalgauge_build_info{{{TARGET}, version="1", python="3.11"}}': "1+0x240",
    f"evalgauge_ready{{{TARGET}}}": "1+0x240",
    f"evalgauge_start_time_seconds{{{TARGET}}}": "5+0x240",
    f"evalgauge_input_up{{{INPUT}}}": "1+0x240",
    f"evalgauge_input_lag_bytes{{{INPUT}}}": "0+0x240",
    f"evalgauge_input_lag_seconds{{{INPUT}}}": "1+0x240",
    f"evalgauge_input_lag_events{{{INPUT}}}": "7+0x240",
    f'evalgauge_input_partition_lag_events{{{INPUT}, partition="t/0"}}': "7+0x240",
    f'evalgauge_input_partition_lag_seconds{{{INPUT}, partition="t/0"}}': "2+0x240",
    f"evalgauge_input_withheld_seconds{{{INPUT}}}": "5+0x240",
    f"evalgauge_input_lost_events_total{{{INPUT}}}": "3+0x240",
    f"evalgauge_input_key_mismatches_total{{{INPUT}}}": "0+0x240",
    f"evalgauge_events_received_total{{{INPUT}}}": "0+600x240",
    f'evalgauge_events_rejected_total{{{INPUT}, type="t", reason="wrong_type"}}': "0+1x240",
    f"evalgauge_backpressure_seconds_total{{{INPUT}}}": "0+1x240",
    f'evalgauge_commits_total{{{TARGET}, result="success"}}': "0+60x240",
    f'evalgauge_commits_total{{{TARGET}, result="failure"}}': "0+0x240",
    f'evalgauge_commit_duration_seconds_bucket{{{TARGET}, le="0.01"}}': "0+60x240",
    f'evalgauge_commit_duration_seconds_bucket{{{TARGET}, le="2.5"}}': "0+60x240",
    f'evalgauge_commit_duration_seconds_bucket{{{TARGET}, le="+Inf"}}': "0+60x240",
    f"evalgauge_last_commit_timestamp_seconds{{{TARGET}}}": "0+60x240",
    f"evalgauge_uncommitted_events{{{TARGET}}}": "5+0x240",
    f'evalgauge_series{{{TARGET}, metric="m"}}': "100+0x240",
    f'evalgauge_series_limit{{{TARGET}, metric="m"}}': "1000+0x240",
    f'evalgauge_series_overflow_events_total{{{TARGET}, metric="m"}}': "0+0x240",
    f"evalgauge_dead_letters{{{TARGET}}}": "10+1x240",
    f'evalgauge_dead_letters_dropped_total{{{TARGET}, cause="age"}}': "0+0x240",
    f"evalgauge_config_last_reload_successful{{{TARGET}}}": "1+0x240",
    f"evalgauge_state_losses_total{{{TARGET}}}": "0+0x240",
    f'evalgauge_events_late_total{{{TARGET}, metric="m"}}': "0+1x240",
    f'evalgauge_scrape_duration_seconds_bucket{{{TARGET}, le="0.1"}}': "0+4x240",
    f'evalgauge_scrape_duration_seconds_bucket{{{TARGET}, le="10"}}': "0+4x240",
    f'evalgauge_scrape_duration_seconds_bucket{{{TARGET}, le="+Inf"}}': "0+4x240",
    f"evalgauge_state_takeovers_total{{{TARGET}}}": "0x230 2x10",
}
"""Four hours of a replica that is well, one sample a minute."""

ANOTHER = {
    'up{job="evalgauge", instance="b:1"}': "1+0x240",
    'evalgauge_build_info{job="evalgauge", instance="b:1"}': "1+0x240",
}
"""A second replica that is well."""

ILL: dict[str, dict[str, str]] = {
    "EvalgaugeAbsent": dict.fromkeys(HEALTHY, "_x240"),
    "EvalgaugeReplicaDown": {
        **dict.fromkeys(HEALTHY, "1+0x200 _x40"),
        f"up{{{TARGET}}}": "1+0x200 0+0x40",
        **ANOTHER,
    },
    "EvalgaugeReplicaMissing": {
        **dict.fromkeys(HEALTHY, "1+0x210 _x30"),
        **ANOTHER,
    },
    "EvalgaugeNotReady": {f"evalgauge_ready{{{TARGET}}}": "1+0x230 0+0x10"},
    "EvalgaugeRestarting": {f"evalgauge_start_time_seconds{{{TARGET}}}": "5+0x220 6+60x20"},
    "EvalgaugeInputDown": {f"evalgauge_input_up{{{INPUT}}}": "1+0x230 0+0x10"},
    "EvalgaugeInputStalled": {
        f"evalgauge_input_lag_bytes{{{INPUT}}}": "0+0x200 0+5000x40",
        f"evalgauge_events_received_total{{{INPUT}}}": "0+600x200 120000+0x40",
    },
    "EvalgaugeInputBehind": {f"evalgauge_input_lag_seconds{{{INPUT}}}": "1+0x200 4000+0x40"},
    "EvalgaugePartitionBehind": {
        f'evalgauge_input_partition_lag_seconds{{{INPUT}, partition="t/0"}}': "2+0x200 0+60x40"
    },
    "EvalgaugeInputWithheld": {f"evalgauge_input_withheld_seconds{{{INPUT}}}": "5+0x200 0+60x40"},
    "EvalgaugeEventsLost": {f"evalgauge_input_lost_events_total{{{INPUT}}}": "_x210 5+0x30"},
    "EvalgaugeKeysMismatch": {f"evalgauge_input_key_mismatches_total{{{INPUT}}}": "0+0x230 0+1x10"},
    "EvalgaugeBackpressure": {f"evalgauge_backpressure_seconds_total{{{INPUT}}}": "0+50x240"},
    "EvalgaugeCommitsFailing": {f'evalgauge_commits_total{{{TARGET}, result="failure"}}': "0+0x220 0+1x20"},
    "EvalgaugeCommitOld": {f"evalgauge_last_commit_timestamp_seconds{{{TARGET}}}": "0+60x230 13800+0x10"},
    "EvalgaugeCommitsSlow": {f'evalgauge_commit_duration_seconds_bucket{{{TARGET}, le="0.01"}}': "0+0x240"},
    # One of ten, and sixty an hour: a great share of few.
    "EvalgaugeRejects": {f"evalgauge_events_received_total{{{INPUT}}}": "0+10x240"},
    # One of 300, and 120 an hour, by a replica whose letters are in a topic.
    "EvalgaugeDeadLettersGrowing": {
        f'evalgauge_events_rejected_total{{{INPUT}, type="t", reason="wrong_type"}}': "0+2x240",
        f"evalgauge_dead_letters{{{TARGET}}}": "_x240",
    },
    "EvalgaugeDeadLettersDropped": {
        f'evalgauge_dead_letters_dropped_total{{{TARGET}, cause="age"}}': "0+0x220 0+3x20"
    },
    "EvalgaugeEventsLate": {f'evalgauge_events_late_total{{{TARGET}, metric="m"}}': "0+2x240"},
    "EvalgaugeScrapesSlow": {f'evalgauge_scrape_duration_seconds_bucket{{{TARGET}, le="0.1"}}': "0+3x240"},
    "EvalgaugeTakeovers": {f"evalgauge_state_takeovers_total{{{TARGET}}}": "0x230 0+1x10"},
    "EvalgaugeSeriesOverflow": {
        f'evalgauge_series_overflow_events_total{{{TARGET}, metric="m"}}': "0+0x230 0+9x10"
    },
    "EvalgaugeSeriesNearLimit": {f'evalgauge_series{{{TARGET}, metric="m"}}': "950+0x240"},
    "EvalgaugeConfigReloadFailed": {f"evalgauge_config_last_reload_successful{{{TARGET}}}": "1+0x230 0+0x10"},
    # The series is born at 1, so that increase() would see nothing.
    "EvalgaugeStateLost": {f"evalgauge_state_losses_total{{{TARGET}}}": "_x210 1+0x30"},
}
"""Alert → what is different from the healthy replica when it has to fire."""


class Case(NamedTuple):
    """What is different from the healthy replica, and which alerts fire after four hours."""

    what: str
    series: dict[str, str]
    firing: set[str]


LOST = f"evalgauge_input_lost_events_total{{{INPUT}}}"
LOSSES = f"evalgauge_state_losses_total{{{TARGET}}}"
BEGUN = {f"evalgauge_start_time_seconds{{{TARGET}}}": "5x220 _ 13315x18", LOST: "3x220 _ 0x18"}
"""A start 18 minutes ago, after a minute without a process; what a life counts begins at 0."""
BEHIND = {f"evalgauge_input_lag_seconds{{{INPUT}}}": "4000x240"}
RECEIVED = f"evalgauge_events_received_total{{{INPUT}}}"

CASES = [
    Case("state was lost three hours ago", {LOSSES: "_x60 1x180"}, set()),
    Case(
        "state was lost, and again at the next start",
        {LOSSES: "1x220 _ 1x18", **BEGUN},
        {"EvalgaugeStateLost"},
    ),
    Case("state was lost, and nothing at the next start", {LOSSES: "1x220 _x19", **BEGUN}, set()),
    Case("fewer were lost than in the life before", {**BEGUN, LOST: "5x220 _ 2x18"}, {"EvalgaugeEventsLost"}),
    Case("as many were lost as in the life before", {**BEGUN, LOST: "5x220 _ 5x18"}, {"EvalgaugeEventsLost"}),
    Case("more were lost than before", {LOST: "3x220 4x19"}, {"EvalgaugeEventsLost"}),
    Case("some were lost, and none since the next start", {**BEGUN, LOST: "5x220 _ 0x18"}, set()),
    Case("the last event was late, and none has come for hours", {**BEHIND, RECEIVED: "100+0x240"}, set()),
    Case("the last event was late, and came ten minutes ago", {**BEHIND, RECEIVED: "100x230 101x9"}, set()),
    Case(
        "one late event every ten minutes",
        {**BEHIND, RECEIVED: " ".join(f"{number}x9" for number in range(24))},
        {"EvalgaugeInputBehind"},
    ),
    Case(
        "a second replica never answered",
        {'up{job="evalgauge", instance="b:1"}': "0x240"},
        {"EvalgaugeReplicaDown"},
    ),
    Case("something else is down", {'up{job="node", instance="b:1"}': "0x240"}, set()),
    Case(
        "a second replica vanished two hours ago",
        dict.fromkeys(ANOTHER, "1x120 _x120"),
        {"EvalgaugeReplicaMissing"},
    ),
    Case("no letter waits, and few are refused", {f"evalgauge_dead_letters{{{TARGET}}}": "0x240"}, set()),
    Case("many letters wait, and few are refused", {f"evalgauge_dead_letters{{{TARGET}}}": "0+9x240"}, set()),
]
"""What an alert has to tell, or to leave alone, beside its failure below."""


def firing(promtool: Path, rules: Path, folder: Path, series: dict[str, str], minutes: int = 240) -> set[str]:
    """The alerts that fire after so many minutes of `series`, as promtool's unit test of rules finds them."""
    names = [
        rule["alert"]
        for group in yaml.safe_load(rules.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    case = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": [
                    {"eval_time": f"{minutes}m", "alertname": name, "exp_alerts": []} for name in names
                ],
            }
        ],
    }
    path = folder / "case.yaml"
    path.write_text(yaml.safe_dump(case))
    done = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0 or "exp:" in said, said
    return {name for name in names if f"alertname: {name}, " in said or f'alertname="{name}"' in said}


def test_nothing_fires_for_a_replica_that_is_well(promtool: Path, rules: Path, tmp_path: Path) -> None:
    """Purged dead letters, some refused events and a little waiting are no failure."""
    assert firing(promtool, rules, tmp_path, HEALTHY) == set()


@pytest.mark.parametrize("minutes", [2, 4, 6, 12])
def test_nothing_fires_when_no_more_events_come(
    promtool: Path, rules: Path, tmp_path: Path, minutes: int
) -> None:
    """Whoever has nothing to commit commits nothing: no age of a commit is too old then."""
    active = 240 - minutes
    quiet = {
        f"evalgauge_events_received_total{{{INPUT}}}": f"0+600x{active} {600 * active}+0x{minutes}",
        f"evalgauge_last_commit_timestamp_seconds{{{TARGET}}}": f"0+60x{active} {60 * active}+0x{minutes}",
        f"evalgauge_uncommitted_events{{{TARGET}}}": f"5+0x{active} 0+0x{minutes}",
    }
    assert firing(promtool, rules, tmp_path, HEALTHY | quiet) == set()


def test_every_alert_has_a_case(pack: Pack) -> None:
    """A new alert needs one below."""
    assert set(ILL) == set(pack.alerts)


@pytest.mark.parametrize("alert", ILL)
def test_each_alert_fires_for_its_failure_and_no_other_does(
    promtool: Path, rules: Path, tmp_path: Path, alert: str
) -> None:
    """Four hours of a replica of which one thing went wrong."""
    assert firing(promtool, rules, tmp_path, {**HEALTHY, **ILL[alert]}) == {alert}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_exactly_the_alerts_fire_that_should(promtool: Path, rules: Path, tmp_path: Path, case: Case) -> None:
    """Lives of a process that follow one another, inputs that fall idle, replicas that come and go."""
    assert firing(promtool, rules, tmp_path, HEALTHY | case.series) == case.firing


def test_a_replica_that_was_taken_away_is_forgotten_after_a_day(
    promtool: Path, rules: Path, tmp_path: Path
) -> None:
    """Who scales in on purpose need not do anything."""
    well = {name: "1x1600" for name in HEALTHY if name.startswith(("up", "evalgauge_build_info"))}
    series = well | dict.fromkeys(ANOTHER, "1x60 _x1540")
    assert firing(promtool, rules, tmp_path, series, 60 + 23 * 60) == {"EvalgaugeReplicaMissing"}
    assert firing(promtool, rules, tmp_path, series, 60 + 25 * 60) == set()
