"""The demo's Tuesday, played through the real door, scraped, and judged by Prometheus' own rule manager.

Ten hours of it go by HTTP into a real `evalgauge run`, thirty seconds at a time, and after each of them `/metrics` is
read. What it says becomes the input of `promtool test rules`, which is Prometheus' storage, query engine and rule
manager on a clock of their own: they load the generated rules of all packs, record, and decide when an alert is
pending and when it fires. They are asked for what fires at each step, and that is held against the demo's script.

What this is not, and what is done about it:

- Time in promtool begins at 0, so times that metrics tell (`…_timestamp_seconds`) are told from the play's begin.
- The process lives by the wall clock, and the play by its own. What the process says by the wall clock (when it
  committed last, how far events are behind) is moved by the difference between the two at each scrape: that is what it
  would have said had its clock been the play's. It keeps real durations, each of which is thousands of times too long
  for the play, so those of commits and of scrapes are left out: they measure the machine that runs the test.
- promtool evaluates all groups each 30 s, also those that are made for an interval of 15 s, one or two minutes.
- A series that vanishes from a page is marked stale, and `up`, `job` and `instance` are added, as a scraper does.
- The history is two hours old when things begin to go wrong. With `EVALGAUGE_SOAK=1` it is a day older.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import re
import subprocess
import time
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml

from evalgauge.core.demo.script import NOTICES, SCRIPT
from evalgauge.core.demo.sender import Sender
from evalgauge.core.demo.week import DAY, HOUR, MINUTE
from evalgauge.core.demo.world import PACKS, world
from tests.parts.part import until
from tests.running import Running, evalgauge

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.conftest import Tell

MONDAY = dt.datetime(2025, 3, 3, tzinfo=dt.UTC).timestamp()
SOAK = os.environ.get("EVALGAUGE_SOAK") == "1"
BEGIN = MONDAY if SOAK else MONDAY + DAY + 8 * HOUR
END = MONDAY + DAY + 17.75 * HOUR
STEP = 30
SEED = 1

Labels = frozenset[tuple[str, str]]
_OWN_CLOCK = {"evalgauge_last_commit_timestamp_seconds", "evalgauge_input_lag_seconds"}
"""What the process says by the wall clock: a time, and how long before its arrival the newest event happened."""
_NOT_OF_THE_PLAY = ("evalgauge_commit_duration_seconds", "evalgauge_scrape_duration_seconds")


class Fired(NamedTuple):
    """An alert as it fired: from when to when without a gap."""

    alert: str
    labels: Labels
    first: float
    last: float


@pytest.mark.soak
@pytest.mark.timeout(7200 if SOAK else 900)
def test_exactly_the_alerts_of_the_script_fire_each_in_time(
    tmp_path: Path, promtool: Path, tell: Tell
) -> None:
    """Everything that the script names, no later than it says; nothing else, nowhere, at no time."""
    started = time.monotonic()
    rules = _rules(tmp_path / "rules")
    pages = _played(tmp_path, _named(rules))
    played = time.monotonic()
    fired = _fired(promtool, tmp_path, rules, pages)
    notices = [one for one in fired if one.alert in NOTICES]
    fired = [one for one in fired if one.alert not in NOTICES]
    expected = [
        (MONDAY + incident.start, MONDAY + incident.end, one)
        for incident in SCRIPT
        for one in incident.alerts
    ]
    assert all(start > BEGIN and end < END for start, end, _ in expected)
    lines, claimed = [], set()
    for start, end, one in sorted(expected, key=lambda each: each[0]):
        gone = math.inf if one.gone is None else end + one.gone
        mine = [
            found
            for found in fired
            if found.alert == one.alert
            and one.labels.items() <= dict(found.labels).items()
            # What fires before it should, or for longer, belongs to this one too, and is wrong.
            and found.first < max(gone, start + one.within)
            and found.last >= start
        ]
        lines.append(_line(start, end, one.alert, one.labels, one.within, mine))
        assert mine, f"{one.alert} {one.labels} did not fire"
        assert start <= mine[0].first <= start + one.within, lines[-1]
        assert max(found.last for found in mine) <= gone, lines[-1]
        claimed |= set(mine)
    tell("\n".join(lines))
    assert [_told(one) for one in fired if one not in claimed] == []
    _check_notices(notices)
    tell(
        f"{(END - BEGIN) / HOUR:g} h played and scraped each {STEP} s in {played - started:.0f} s, "
        f"{len(pages):,} series, judged in {time.monotonic() - played:.0f} s"
    )


def _told(one: Fired) -> str:
    labels = ", ".join(f"{name}={value}" for name, value in sorted(one.labels))
    return f"{one.alert} {labels} {_clock(one.first)}-{_clock(one.last)}"


def _line(
    start: float, end: float, alert: str, labels: Mapping[str, str], within: float, found: list[Fired]
) -> str:
    after = f"fires after {(found[0].first - start) / MINUTE:.1f} min" if found else "does not fire"
    last = max((one.last for one in found), default=start)
    over = "until the end" if last >= END - STEP else f"until {(last - end) / MINUTE:+.1f} min of the end"
    return f"{_clock(start)} {alert} {dict(labels)}: {after} (of {within / MINUTE:g}), {over}"


def _clock(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%a %H:%M:%S")


def _check_notices(notices: list[Fired]) -> None:
    """An evaluation is complete: told for five minutes after each of them, and at no other time."""
    completed: dict[str, list[float]] = defaultdict(list)
    for one in world(SEED, BEGIN).between(BEGIN, END):
        if b'"ahp.evaluation.completed"' in one.line:
            completed[json.loads(one.line)["data"]["project_id"]].append(one.at)
    assert completed
    told: dict[str, list[Fired]] = defaultdict(list)
    for notice in notices:
        told[dict(notice.labels)["project"]].append(notice)
    for project, times in completed.items():
        for notice in told[project]:
            assert any(at < notice.first <= at + 2 * STEP for at in times), _told(notice)
            assert any(at <= notice.last <= at + 5 * MINUTE + STEP for at in times), _told(notice)
        for at in times:
            assert any(one.first <= at + 2 * STEP and at <= one.last for one in told[project]), _clock(at)


# -- the play -----------------------------------------------------------------------------------------------


def _played(tmp_path: Path, names: frozenset[str]) -> dict[str, list[str]]:
    """Play it, and return what a scraper would have stored: series → its values step by step, in promtool's words."""
    config = {
        "packs": [*PACKS],
        "inputs": {"door": {"type": "http"}},
        # However long the machine is held up, time goes on by events alone.
        "engine": {"idle_after": "7d"},
        "shutdown_timeout": 5,
    }
    steps = round((END - BEGIN) / STEP) + 1
    pages: dict[str, list[str]] = {}
    with Running(tmp_path, config) as process:
        # It looks at itself now and then by the wall clock, and minutes of the play pass in between.
        until(lambda: process.sum("evalgauge_ready") == 1, "the process to be ready")
        sender = Sender(world(SEED, BEGIN), process.door, BEGIN, 1)
        for step in range(steps):
            now = BEGIN + step * STEP
            sender.advance(now)
            answer = process.get("/metrics")
            ahead = now - time.time()
            assert answer.status == 200, answer.text
            for series, value in _samples(answer.text, names, ahead):
                values = pages.get(series)
                if values is None:
                    values = pages[series] = ["_"] * step
                values.append(value)
            for values in pages.values():
                if len(values) == step:
                    values.append("stale" if values and values[-1] not in ("_", "stale") else "_")
        sender.close()
        assert sender.sent.duplicate == 0
        assert process.end() == 0, process.log()
    pages['up{instance="evalgauge-0",job="evalgauge"}'] = ["1"] * steps
    return pages


def _samples(page: str, names: frozenset[str], ahead: float) -> Iterator[tuple[str, str]]:
    """Series and values of a page; `ahead` is how far the play's clock is ahead of the wall's."""
    for line in page.splitlines():
        if line.startswith("#"):
            continue
        series, _, value = line.rpartition(" ")
        name, brace, labels = series.partition("{")
        if name not in names:
            continue
        number = value
        if name in _OWN_CLOCK:
            number = repr(float(value) + ahead)
        if name.endswith("_timestamp_seconds"):
            number = repr(float(number) - BEGIN)
        target = 'instance="evalgauge-0",job="evalgauge"'
        yield f"{name}{{{target}{',' + labels if brace else '}'}", number


# -- Prometheus ---------------------------------------------------------------------------------------------


def _rules(folder: Path) -> list[Path]:
    """The generated rules of all packs."""
    words = [word for pack in (*PACKS, "evalgauge") for word in ("--pack", pack)]
    done = evalgauge("generate", "rules", *words, "-o", folder)
    assert done.code == 0, done.err
    return sorted(folder.glob("*.yaml"))


def _named(rules: list[Path]) -> frozenset[str]:
    """Every word of the rules' expressions, among them the names of the metrics that they read."""
    words: set[str] = set()
    for file in rules:
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                words |= set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", rule["expr"]))
    return frozenset(word for word in words if not word.startswith(_NOT_OF_THE_PLAY))


def _fired(promtool: Path, tmp_path: Path, rules: list[Path], pages: Mapping[str, list[str]]) -> list[Fired]:
    """What fires when, as promtool's rule manager says. It is asked by expecting nothing, and says what there is."""
    steps = len(next(iter(pages.values())))
    test = {
        "rule_files": [str(rule) for rule in rules],
        "evaluation_interval": f"{STEP}s",
        "tests": [
            {
                "interval": f"{STEP}s",
                "input_series": [
                    {"series": series, "values": " ".join(_runs(values))} for series, values in pages.items()
                ],
                "promql_expr_test": [
                    {"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{step * STEP}s", "exp_samples": []}
                    for step in range(steps)
                ],
            }
        ],
    }
    file = tmp_path / "play.yaml"
    file.write_text(json.dumps(test))
    done = subprocess.run([promtool, "test", "rules", file], check=False, capture_output=True, text=True)
    said = done.stdout + done.stderr
    firing: dict[tuple[str, Labels], list[float]] = defaultdict(list)
    for asked in re.split(r"^\s*expr: ", said, flags=re.MULTILINE)[1:]:
        when = re.match(r'"ALERTS.*", time: ([0-9a-z]+)', asked)
        assert when, asked
        at = BEGIN + _seconds(when[1])
        for found in re.findall(r"\{(__name__=\"ALERTS\".*?)\} 1E\+00", asked):
            labels = dict(re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', found))
            alert = labels.pop("alertname")
            ours = {name: value for name, value in labels.items() if name not in _ADDED}
            firing[alert, frozenset(ours.items())].append(at)
    assert firing, said[-4000:]
    return [
        Fired(alert, labels, first, last)
        for (alert, labels), times in firing.items()
        for first, last in _stretches(times)
    ]


_ADDED = ("__name__", "alertstate", "severity", "pack")


def _seconds(duration: str) -> int:
    units = {"d": DAY, "h": HOUR, "m": MINUTE, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([dhms])", duration))


def _runs(values: list[str]) -> Iterator[str]:
    """Equal numbers in a row as promtool writes them."""
    start = 0
    for place in range(1, len(values) + 1):
        if place == len(values) or values[place] != values[start]:
            count, value = place - start, values[start]
            if count < 3 or value == "stale":
                yield from [value] * count
            else:
                yield f"_x{count}" if value == "_" else f"{value}+0x{count - 1}"
            start = place


def _stretches(times: list[float]) -> Iterator[tuple[float, float]]:
    first = before = times[0]
    for at in times[1:]:
        if at != before + STEP:
            yield first, before
            first = at
        before = at
    yield first, before
