"""`evalgauge demo`: made-up events through the real door, and the numbers that come of them."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import urllib.request
from typing import TYPE_CHECKING

import pytest

from evalgauge.core.demo.evaluations import Evaluations
from evalgauge.core.demo.judgments import Judgments
from evalgauge.core.demo.live import Live
from evalgauge.core.demo.timeline import Timeline, incident
from evalgauge.core.observe import Observer
from evalgauge.core.pack.loader import load_packs
from tests.parts.part import free_port
from tests.running import PROGRAM, evalgauge

if TYPE_CHECKING:
    from evalgauge.core.demo.timeline import Timed


def timeline(seed: int = 1, rate: float = 40) -> Timeline:
    """What the demo plays."""
    return Timeline(Judgments(seed, rate), Evaluations(seed, rate * 0.02))


@pytest.fixture(scope="module")
def minute() -> list[Timed]:
    """A whole cycle."""
    return list(timeline().between(0, 60))


def test_events_are_a_function_of_seed_and_time(minute: list[Timed]) -> None:
    """However time is cut, whoever asks, and wherever it begins."""
    assert list(timeline().between(0, 60)) == minute
    one = timeline()
    cuts = [0.0, 0.05, 0.1, 3.33, 17.0, 17.0, 41.999, 60.0]
    pieces = [event for start, end in itertools.pairwise(cuts) for event in one.between(start, end)]
    assert pieces == minute
    assert list(timeline().between(30, 45)) == [event for event in minute if 30 <= event.at < 45]
    assert list(timeline(seed=2).between(0, 60)) != minute
    assert [event.at for event in minute] == sorted(event.at for event in minute)


def test_the_packs_take_them_but_for_the_share_that_is_wrong(minute: list[Timed]) -> None:
    """Every event type of the demo's part of the packs, every reason it means to show, and repeated ids none."""
    observer = Observer(load_packs(["judgment", "ahp"]), None)
    seen = list(observer.observe(b"\n".join(one.line for one in minute), "p", 0, 0.0, lambda _: False))
    refused = [one for one in seen if one.verdict != "accepted"]
    assert 0.004 < len(refused) / len(seen) < 0.02
    assert {one.reason for one in refused} <= {
        "malformed_json",
        "missing_field",
        "not_in_enum",
        "unknown_type",
        "wrong_type",
    }
    assert {one.type for one in seen if one.verdict == "accepted"} == {
        "judgment.executed",
        "ahp.evaluation.started",
        "ahp.comparison.submitted",
        "ahp.progress.updated",
        "ahp.node.completed",
        "ahp.evaluation.completed",
        "ahp.session.started",
        "ahp.session.ended",
    }
    ids = [one.id for one in seen if one.verdict == "accepted"]
    assert len(ids) == len(set(ids))


def test_an_incident_shows(minute: list[Timed]) -> None:
    """Judgments by language models get slow and fail; rules do not."""
    took: dict[tuple[str, bool], list[float]] = {}
    failed: dict[bool, list[bool]] = {True: [], False: []}
    for one in minute:
        try:
            event = json.loads(one.line)
        except ValueError:
            continue
        data = event.get("data", {})
        if event["type"] != "judgment.executed" or not isinstance(data.get("execution_time_ms"), float):
            continue
        took.setdefault((data["method_used"], incident(one.at)), []).append(data["execution_time_ms"])
        failed[incident(one.at)].append(data["status"] != "success")

    def mean(values: list[float] | list[bool]) -> float:
        return sum(values) / len(values)

    assert mean(took["llm", True]) > 3 * mean(took["llm", False])
    assert mean(took["rule", True]) < 1.5 * mean(took["rule", False])
    assert mean(failed[True]) > 4 * mean(failed[False])


def test_the_demo_ends_with_what_was_acknowledged_on_its_metrics_page() -> None:
    """A table of live numbers, a summary, exit code 0; default ports that are taken make no difference."""
    done = evalgauge("demo", "--for", "4s", "--rate", "60", "--speed", "3", "--seed", "5")
    assert done.code == 0, done.err
    assert "/metrics says the same: what was acknowledged is counted, once." in done.out
    rows = re.findall(r"^ +0:0\d +([\d,]+)", done.out, re.MULTILINE)
    assert len(rows) >= 3
    assert [int(row.replace(",", "")) for row in rows] == sorted(int(row.replace(",", "")) for row in rows)
    sent = re.search(r"Sent ([\d,]+) events over HTTP: ([\d,]+) accepted, (\d+) refused", done.out)
    assert sent is not None
    assert int(sent[1].replace(",", "")) == int(sent[2].replace(",", "")) + int(sent[3]) > 300
    assert done.err == ""


def test_ctrl_c_ends_it_with_a_summary() -> None:
    """Without end otherwise; its metrics can be scraped meanwhile, and its folder goes."""
    port = free_port()
    words = [str(PROGRAM), "demo", "--for", "0", "--listen", f"127.0.0.1:{port}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        seen = ""
        while " 0:0" not in seen:
            line = demo.stdout.readline()
            assert line, demo.stderr.read() if demo.stderr else ""
            seen += line
        assert f"http://127.0.0.1:{port}/metrics" in seen
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert b"judgment_executions_total{" in answer.read()
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=30)
    assert demo.returncode == 0
    assert "/metrics says the same" in out
    assert "Traceback" not in err


def test_quantiles_of_what_is_new_between_two_looks() -> None:
    """In proportion within a bucket, as Prometheus does."""

    def page(low: float, high: float, rest: float) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        bounds = {"1": low, "2": high, "+Inf": rest}
        return {("x_bucket", frozenset({("le", bound)})): value for bound, value in bounds.items()}

    live = Live(page(10, 20, 20), page(10, 10, 10), 1)
    assert live.quantile("x", 0.5) == 1.5
    assert Live(page(0, 0, 5), page(0, 0, 0), 1).quantile("x", 0.5) == 2
    assert Live(page(1, 1, 1), page(1, 1, 1), 1).quantile("x", 0.5) is None
