"""Counts stay exact through SIGKILL at any moment, and Prometheus sees no restart."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.events import judgments
from tests.kill.feeders import Client, Watcher, Writer
from tests.kill.life import Lives
from tests.kill.run import FAILPOINTS, Report, compare, configuration
from tests.oracle import Oracle
from tests.parts.part import free_port, until

if TYPE_CHECKING:
    from tests.conftest import StartPrometheus, Tell
    from tests.kill.feeders import Feeder

SOAK = os.environ.get("EVALGAUGE_SOAK") == "1"
RUNS, FAILPOINT_RUNS = (300, 30) if SOAK else (28, 4)
_ROOT = Path(__file__).parents[2]
_AT_ONCE = (os.cpu_count() or 1) + 1
_RUN_SECONDS = 900


def _runs(folder: Path, seeds: range, *, failpoints: bool) -> list[dict[str, Any]]:
    """Do runs side by side, each in a process of its own; their reports, by seed."""
    doors, metrics_ports = ([free_port() for _ in seeds] for _ in range(2))

    def one(seed: int, door: int, metrics: int) -> dict[str, Any]:
        words = ["--folder", str(folder / str(seed)), "--ports", str(door), str(metrics)]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.kill",
                str(seed),
                *words,
                *(["--failpoints"] if failpoints else []),
            ],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            timeout=_RUN_SECONDS,
            check=False,
        )
        assert done.stdout, f"run {seed} ended with {done.returncode}:\n{done.stderr[-4000:]}"
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(one, seeds, doors, metrics_ports))


def _summary(what: str, reports: list[dict[str, Any]]) -> str:
    deaths = [death for report in reports for death in report["deaths"]]
    places = Counter(death["place"] for death in deaths)
    total = {
        name: sum(report[name] for report in reports)
        for name in ("events", "rotations", "repeated_batches", "scrapes")
    }
    return (
        f"{what}: {len(reports)} runs, {sum(not report['problems'] for report in reports)} exact; "
        f"{len(deaths)} kills, {sum(death['hit_work'] for death in deaths)} of them hit uncommitted work: "
        f"{places['before']} before, {places['in']} in, {places['after']} after a commit; "
        f"{total['events']:,} events, {total['rotations']} rotations, {total['repeated_batches']} batches sent again, "
        f"{total['scrapes']:,} scrapes without a decrease; "
        f"{min(report['after_last_kill'] for report in reports)} events or more after each last kill"
    )


def _judge(what: str, reports: list[dict[str, Any]], tell: Tell) -> None:
    tell(_summary(what, reports))
    wrong = [f"run {report['seed']}: {problem}" for report in reports for problem in report["problems"]]
    assert not wrong, "\n".join(wrong)
    assert all(death["hit_work"] for report in reports for death in report["deaths"])
    assert all(report["after_last_kill"] for report in reports)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_counts_are_exact_through_sigkill_at_any_moment(tmp_path: Path, tell: Tell) -> None:
    """Every counter and histogram equals the oracle's; every kill hit uncommitted work; nothing exposed ever fell."""
    reports = _runs(tmp_path, range(RUNS), failpoints=False)
    _judge("killed at random", reports, tell)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_counts_are_exact_when_it_dies_before_in_and_after_a_commit(tmp_path: Path, tell: Tell) -> None:
    """The process ends itself at each place around a commit, between kills from outside."""
    reports = _runs(tmp_path, range(1000, 1000 + FAILPOINT_RUNS), failpoints=True)
    _judge("killed at failpoints", reports, tell)
    places = Counter(death["place"] for report in reports for death in report["deaths"])
    assert all(places[place] >= FAILPOINT_RUNS for place in ("before", "in", "after")), places
    assert len(FAILPOINTS) == len(places)


def test_prometheus_increase_over_restarts_equals_the_oracle(
    tmp_path: Path, prometheus: StartPrometheus, tell: Tell
) -> None:
    """`sum(increase())` in a stock Prometheus, over kills and over label sets born meanwhile, is within 1 %."""
    rng = random.Random("prometheus over restarts")  # noqa: S311 - reproducible, no secret
    log = tmp_path / "events.ndjson"
    door, metrics = free_port(), free_port()
    config = configuration(rng, log, door, metrics)
    # Debian's Prometheus does not ingest created timestamps: a new series must be scraped at 0 first, even if
    # the process is killed as soon as the series is born.
    config["exporters"]["prometheus"]["zero_first"] = "8s"
    lives = Lives(tmp_path / "lives", config, door, metrics)
    writer = Writer(log, judgments("prometheus log", births=300), rng, poison=False)
    clients = [Client(lives.door_url, judgments("prometheus client", births=400), rng)]
    watcher = Watcher(lives.metrics_url)
    feeders: list[Feeder] = [writer, *clients, watcher]
    try:
        lives.start()
        lives.wait_ready()
        server = prometheus(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "500ms"},
                    "scrape_configs": [
                        {"job_name": "evalgauge", "static_configs": [{"targets": [f"127.0.0.1:{metrics}"]}]}
                    ],
                }
            )
        )
        until(lambda: [one for one in server.query("up") if one.value == 1], "the first scrape")
        for feeder in feeders:
            feeder.start()
        writer.rotate()
        for _ in range(4):
            time.sleep(rng.uniform(3, 5))
            assert lives.strike(rng, "any").hit_work
            lives.start()
            lives.wait_ready()
        time.sleep(2)
        for feeder in (writer, *clients):
            feeder.finish()
        report = Report(0)
        # What is born last is shown as 0 for a while: only then is everything to be seen.
        assert compare(lives, writer, clients, report) == []
        watcher.finish()
        oracle = Oracle("judgment")
        for events in (writer.written, *(client.acknowledged for client in clients)):
            oracle.add_all(events)
        total = sum(oracle.accepted.values())
        shown = "sum(judgment_executions_total)"
        until(lambda: server.query(shown) and server.query(shown)[0].value == total, "the last scrape")
        at = server.query("max(timestamp(judgment_executions_total))")[0].value
        rows, resets = [], 0.0
        for name in (
            "judgment_executions_total",
            "judgment_duration_seconds_count",
            "judgment_duration_seconds_sum",
            "judgment_records_total",
            "judgment_quality_violations_total",
        ):
            expected = sum(value for (sample, _), value in oracle.samples().items() if sample == name)
            found = server.query(f"sum(increase({name}[5m]))", at)[0].value
            rows.append((name, expected, found))
            resets += sum(one.value for one in server.query(f"resets({name}[5m])", at))
    finally:
        lives.abandon()
    tell(f"increase() over 4 kills and {len(rows)} metrics, {total} events, {resets:g} resets seen")
    for name, expected, found in rows:
        tell(f"  {name}: {found:.6g} of {expected:.6g} ({found / expected - 1:+.3%})")
    assert resets == 0
    for name, expected, found in rows:
        assert found == pytest.approx(expected, rel=0.01), name
    lines = [line for line in server.log().splitlines() if "level=warn" in line or "level=error" in line]
    assert not lines, "\n".join(lines)
