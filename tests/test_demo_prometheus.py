"""A running Prometheus with the rules of all packs watches a running demo while its script's incidents happen.

`tests/test_demo_alerts.py` holds all of the script against Prometheus' rule manager on a clock of its own. Here nothing
is simulated: `evalgauge demo` goes on as fast as the clock, a server scrapes its `/metrics`, and the generated rule
files are loaded as they are. That takes as long as it takes, so it is about some minutes of the script only.

Which minutes, and which alerts must fire in them, is computed from the script:

- The watch begins `LEAD` before the start of one incident and ends `WATCH` after it. Of all incidents it is the one for
  which most alerts of incidents that begin meanwhile are due in that time, and then most alerts at all.
- A Prometheus that has just been started has seen nothing of an incident that began before. For that incident the
  delay that the script grants counts from the first scrape; for one that begins later it counts from its start. An
  alert is due if that ends within the watch, and the incident is not over sooner. One that is gone as soon as its
  incident is over (`gone` is 0) may have ended by itself before, so it is due only where the incident begins in time.
- A rate or a share over a window that is longer than the history is that of the history. Less of what was well is in
  it than the script reckons with, so a share passes its threshold no later. Where a rule also asks for so many events,
  a short history has fewer of them; the script's delays have to do for that too.
- For the same reason an alert that the script names for a going incident may fire long before its delay is over (error
  budgets, which are told by windows of hours). It may, and need not. What the script does not name for that moment
  must not fire, whatever the windows hold.

When an alert fired is read from `ALERTS` as the server has stored it, so it does not matter when this test looks.
"""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from evalgauge.core.demo.live import scrape
from evalgauge.core.demo.script import NOTICES, SCRIPT
from evalgauge.core.demo.week import HOUR, MINUTE, WEEK, moment
from evalgauge.core.demo.world import PACKS
from tests.parts.part import free_port, until
from tests.running import PROGRAM, evalgauge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from evalgauge.core.demo.script import Expected, Incident
    from tests.conftest import StartPrometheus, Tell
    from tests.parts.prometheus import Prometheus

LEAD, WATCH = 60, 4 * MINUTE
EVERY = 5
"""Seconds between two scrapes, and between two looks of those groups of rules that do not say how often."""
PAST = 2 * HOUR
"""What the demo plays of the time before, so that its clock, its hosts and its open questions are there."""
START_UP = 25
"""Seconds within which it has usually done that. If it takes longer, Prometheus sees less of what goes before."""

Named = tuple["Incident", "Expected"]


class Plan(NamedTuple):
    """What to watch."""

    start: float
    """Of the incident in the middle, in seconds since Monday 00:00 of the demo."""
    due: list[Named]


def _due(seen: float, end: float) -> list[Named]:
    """What must fire for one who looks from `seen` to `end`, both in seconds of the demo's week."""
    return [
        (incident, one)
        for incident in SCRIPT
        for one in incident.alerts
        if (limit := max(incident.start, seen) + one.within) <= end
        and (incident.start >= seen or (one.gone != 0 and incident.end >= limit))
    ]


def _plan() -> Plan:
    plans = [Plan(one.start, _due(one.start - LEAD, one.start + WATCH)) for one in SCRIPT]

    def worth(plan: Plan) -> tuple[int, int, float]:
        begun = sum(incident.start >= plan.start - LEAD for incident, _ in plan.due)
        return begun, len(plan.due), -plan.start

    return max(plans, key=worth)


class Demo(NamedTuple):
    """A demo that has come to now."""

    process: subprocess.Popen[str]
    metrics: str
    """HOST:PORT of `/metrics`."""
    monday: float
    """Unix time at which its week began."""


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_alerts_of_a_running_prometheus_are_those_that_the_script_names(
    tmp_path: Path, prometheus: StartPrometheus, tell: Tell
) -> None:
    """Those that are due fire in time, none fires that is not named, and every rule is evaluated without an error."""
    plan = _plan()
    assert len({incident.pack for incident, _ in plan.due}) > 1
    with _demo(tmp_path, plan.start - LEAD - START_UP) as demo:
        server = prometheus(_config(demo.metrics), rules=_rules(tmp_path / "rules"))
        until(lambda: [one for one in server.query("up") if one.value == 1], "the first scrape", 60)
        seen = server.query_raw("up[10m]")[0].points[0][0]
        limits = [max(demo.monday + incident.start, seen) + one.within + EVERY for incident, one in plan.due]
        shown = _watch(server, demo, max(limits))
        firing = [
            (one.labels, [at for at, _ in one.points])
            for one in server.query_raw('ALERTS{alertstate="firing"}[30m]')
        ]
        groups = server.rules()
        scrapes = server.query("sum_over_time(up[30m])")[0].value
        _end(demo)

    tell(f"{scrapes:g} scrapes from {_clock(demo, seen)}")
    wrong = []
    for labels, times in sorted(firing, key=lambda one: one[1][0]):
        named = [
            (incident, one)
            for incident in SCRIPT
            for one in incident.alerts
            if one.alert == labels["alertname"] and one.labels.items() <= labels.items()
        ]
        stray = [at for at in times if not any(_may(demo, each, at) for each in named)]
        if stray and labels["alertname"] not in NOTICES:
            wrong.append((labels, [_clock(demo, at) for at in stray]))
        whom = {name: value for name, value in labels.items() if name not in _ADDED}
        tell(f"{_clock(demo, times[0])} to {_clock(demo, times[-1])} {labels['alertname']} {whom}")
    late = []
    for (incident, one), limit in zip(plan.due, limits, strict=True):
        mine = [
            times[0]
            for labels, times in firing
            if labels["alertname"] == one.alert and one.labels.items() <= labels.items()
        ]
        line = (
            f"{one.alert} {dict(one.labels)} since {moment(incident.start)}, due {_clock(demo, limit)}: "
            f"{_clock(demo, min(mine)) if mine else 'never'}"
        )
        tell(line)
        if not mine or min(mine) > limit:
            late.append(line)
    assert late == []
    assert wrong == []
    assert shown >= {one.alert for _, one in plan.due}
    rules = [rule for group in groups for rule in group["rules"]]
    assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}
    assert {one.alert for incident in SCRIPT for one in incident.alerts} <= {rule["name"] for rule in rules}


_ADDED = ("__name__", "alertname", "alertstate", "severity", "pack")


def _may(demo: Demo, named: Named, at: float) -> bool:
    """Whether it may fire at a Unix time: its incident has begun, and is not over for longer than the script says."""
    incident, one = named
    gone = WEEK if one.gone is None else incident.end + one.gone + EVERY
    return incident.start <= at - demo.monday <= gone


def _clock(demo: Demo, at: float) -> str:
    """A Unix time as the demo's clock tells it."""
    since = at - demo.monday
    return f"{moment(since)}:{int(since) % MINUTE:02}"


def _rules(folder: Path) -> list[Path]:
    """The generated rules of all packs."""
    words = [word for pack in (*PACKS, "evalgauge") for word in ("--pack", pack)]
    done = evalgauge("generate", "rules", *words, "-o", folder)
    assert done.code == 0, done.err
    return sorted(folder.glob("*.yaml"))


def _config(metrics: str) -> str:
    scrapes = {"job_name": "evalgauge", "static_configs": [{"targets": [metrics]}]}
    timing = dict.fromkeys(("scrape_interval", "evaluation_interval", "scrape_timeout"), f"{EVERY}s")
    return yaml.safe_dump({"global": timing, "scrape_configs": [scrapes]})


@contextmanager
def _demo(folder: Path, now: float) -> Iterator[Demo]:
    """A demo whose clock says `now` (seconds of its week) as it starts, when it has come to where that has got to."""
    address = f"127.0.0.1:{free_port()}"
    begin = dt.datetime.fromtimestamp(time.time() - PAST, dt.UTC).isoformat()
    clock = f"{moment(now)}:{int(now) % MINUTE:02}"
    words = ["--for", "0", "--now", clock, "--begin", begin, "--speed", "720", "--listen", address]
    log = folder / "demo.log"
    with log.open("w") as out:
        process = subprocess.Popen([PROGRAM, "demo", *words], stdout=out, stderr=out, text=True)
    try:
        until(lambda: _has_come_to_now(process, address), "the demo to come to now", 300)
        week = re.search(r"its own clock said Mon 00:00 at (\S+)", log.read_text())
        assert week, log.read_text()
        yield Demo(process, address, dt.datetime.fromisoformat(week[1]).timestamp())
        assert "/metrics says the same" in log.read_text()
        assert process.returncode == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def _has_come_to_now(process: subprocess.Popen[str], address: str) -> bool:
    assert process.poll() is None
    try:
        samples = scrape(f"http://{address}/metrics")
    except OSError:
        return False
    # How long before it arrived the newest event happened.
    behind = [value for (name, _), value in samples.items() if name == "evalgauge_input_lag_seconds"]
    counted = [value for (name, _), value in samples.items() if name == "judgment_executions_total"]
    return sum(counted) > 0 and behind != [] and max(behind) < EVERY


def _end(demo: Demo) -> None:
    """As Ctrl-C does."""
    assert demo.process.poll() is None
    demo.process.terminate()
    demo.process.wait(60)


def _watch(server: Prometheus, demo: Demo, end: float) -> set[str]:
    """Look at the API until every alert was evaluated at `end` (Unix time) or later: what it shows firing meanwhile.

    Groups that only record may do so less often; each of them must have done it by then.
    """
    shown: set[str] = set()
    give_up = end + 5 * MINUTE
    while not all(_evaluated(group) >= (end if _alerts(group) else end - WATCH) for group in server.rules()):
        assert demo.process.poll() is None
        assert time.time() < give_up, [(group["name"], group["lastEvaluation"]) for group in server.rules()]
        shown |= {one["labels"]["alertname"] for one in server.alerts() if one["state"] == "firing"}
        time.sleep(1)
    return shown


def _alerts(group: dict[str, Any]) -> bool:
    return any(rule["type"] == "alerting" for rule in group["rules"])


def _evaluated(group: dict[str, Any]) -> float:
    """Unix time of a group's last evaluation, which Go writes to the nanosecond."""
    return dt.datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", group["lastEvaluation"])).timestamp()
