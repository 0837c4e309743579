"""`evalgauge demo`: made-up days through the real door, and the numbers that come of them."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import time
import urllib.request
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evalgauge.core.demo.live import Live
from evalgauge.core.demo.script import JUDGE, SCRIPT, UNANSWERED
from evalgauge.core.demo.week import moment, seconds_of
from evalgauge.core.demo.world import PACKS, world
from evalgauge.core.observe import Observer
from evalgauge.core.pack.loader import load_packs
from tests.parts.part import free_port
from tests.running import PROGRAM, evalgauge

if TYPE_CHECKING:
    from evalgauge.core.demo.timeline import Timed

HOUR = 3600
MONDAY = datetime(2025, 3, 3, tzinfo=UTC).timestamp()
TUESDAY = MONDAY + 24 * HOUR
BEGIN, END = TUESDAY + 8 * HOUR, TUESDAY + 16 * HOUR


@pytest.fixture(scope="module")
def hours() -> list[Timed]:
    """The hours in which everything goes wrong."""
    return list(world(1, BEGIN).between(BEGIN, END))


@pytest.fixture(scope="module")
def events(hours: list[Timed]) -> list[tuple[float, dict[str, Any]]]:
    """What of them is JSON."""
    return [(one.at, json.loads(one.line)) for one in hours if one.line.endswith(b"}")]


def test_events_are_a_function_of_seed_and_time(hours: list[Timed]) -> None:
    """However time is cut, whoever asks, and wherever it begins."""
    one = world(1, BEGIN)
    cuts = [0.0, 0.05, 0.1, 59.9995, 60.0, 3600.25, 3600.25, 3 * HOUR + 1.999]
    pieces = [
        event for start, end in itertools.pairwise(cuts) for event in one.between(BEGIN + start, BEGIN + end)
    ]
    assert pieces == [event for event in hours if event.at < BEGIN + cuts[-1]]
    late = BEGIN + 6.7 * HOUR
    assert list(world(1, BEGIN).between(late, END)) == [event for event in hours if late <= event.at]
    assert list(world(2, BEGIN).between(BEGIN, BEGIN + HOUR)) != [
        event for event in hours if event.at < BEGIN + HOUR
    ]
    assert [event.at for event in hours] == sorted(event.at for event in hours)


@pytest.mark.parametrize("ahead", [-3 * 24 * HOUR - 12_345, 100 * 24 * HOUR + 17])
def test_its_week_may_begin_at_any_time(hours: list[Timed], ahead: int) -> None:
    """The same happens as on its Tuesday, however it is cut, and each event says when that is by the real clock."""
    begin = BEGIN - ahead
    hours = [event for event in hours if event.at < BEGIN + 3 * HOUR]
    shifted = world(1, begin, ahead=ahead)
    cuts = [begin, begin + 0.5, begin + 60, begin + 2 * HOUR + 1.25, begin + 3 * HOUR]
    moved = [event for start, stop in itertools.pairwise(cuts) for event in shifted.between(start, stop)]
    assert len(moved) == len(hours)
    for mine, theirs in zip(moved, hours, strict=True):
        assert mine.at == pytest.approx(theirs.at - ahead, abs=1e-4)
        if theirs.line.endswith(b"}"):
            event = json.loads(mine.line)
            assert datetime.fromisoformat(event.pop("time")).timestamp() == pytest.approx(mine.at, abs=1e-4)
            assert event == {name: value for name, value in json.loads(theirs.line).items() if name != "time"}
        else:
            assert mine.line == theirs.line


def test_an_event_says_when_it_happened(events: list[tuple[float, dict[str, Any]]]) -> None:
    """Its `time` is the moment at which it is played, to the millisecond."""
    for at, event in events:
        assert datetime.fromisoformat(event["time"]).timestamp() == pytest.approx(at, abs=1e-4)


def test_the_packs_take_them_but_for_the_share_that_is_wrong(hours: list[Timed]) -> None:
    """Every event type that the packs declare, every reason it means to show, and repeated ids none."""
    packs = load_packs([*PACKS])
    observer = Observer(packs, None)
    lines = b"\n".join(one.line for one in hours)
    seen = list(observer.observe(lines, "p", 0, 0.0, lambda _: False))
    refused = [one for one in seen if one.verdict != "accepted"]
    assert 0.001 < len(refused) / len(seen) < 0.01
    assert {one.reason for one in refused} == {
        "malformed_json",
        "missing_field",
        "not_in_enum",
        "unknown_type",
        "wrong_type",
    }
    declared = {type_ for pack in packs for type_, one in pack.events.items() if not one.internal}
    assert {one.type for one in seen if one.verdict == "accepted"} == declared
    ids = [one.id for one in seen if one.verdict == "accepted"]
    assert len(ids) == len(set(ids))


def test_nights_and_weekends_are_quiet_but_not_empty() -> None:
    """Shifts of two time zones on Monday; on Sunday about as much as at night, and never an hour without anything."""

    def counted(begin: float, hour: int) -> list[int]:
        lines = [one.line for one in world(1, begin).between(begin + hour * HOUR, begin + (hour + 1) * HOUR)]
        types = (b"judgment.executed", b"ahp.comparison.submitted")
        return [sum(type_ in line for line in lines) for type_ in types]

    sunday, monday = MONDAY - 24 * HOUR, MONDAY
    night, morning, evening = (counted(monday, hour) for hour in (2, 10, 19))
    assert night[0] > 1_500
    assert morning[0] > 1.5 * night[0]
    assert evening[0] > 1.25 * night[0]  # America works, Europe sleeps
    assert night[1] == 0
    assert min(morning[1], evening[1]) > 50
    resting = counted(sunday, 10)
    assert night[0] < resting[0] < 0.8 * morning[0]
    assert 0 < resting[1] < 0.5 * morning[1]


def test_an_incident_shows(events: list[tuple[float, dict[str, Any]]]) -> None:
    """Acme's claims are slow and fail where a language model judges; rules, and others, go on as before."""
    took: dict[tuple[str, bool], list[float]] = defaultdict(list)
    failed: dict[tuple[str, bool], list[bool]] = defaultdict(list)
    for at, event in events:
        data = event.get("data", {})
        if event["type"] != "judgment.executed" or not isinstance(data.get("execution_time_ms"), float):
            continue
        hit = (data.get("tenant_id"), data["workflow_id"]) == ("acme", "claims")
        who = "rule" if data["method_used"] == "rule" else "claims" if hit else "others"
        took[who, JUDGE.on(at)].append(data["execution_time_ms"])
        failed[who, JUDGE.on(at)].append(data["status"] != "success")

    def mean(values: list[float] | list[bool]) -> float:
        return sum(values) / len(values)

    assert mean(took["claims", True]) > 10 * mean(took["claims", False])
    assert mean(failed["claims", True]) > 0.7
    assert mean(failed["claims", False]) < 0.01
    for who in ("rule", "others"):
        assert mean(took[who, True]) < 1.5 * mean(took[who, False])
        assert mean(failed[who, True]) < 0.01


def test_every_question_is_answered_in_the_end(events: list[tuple[float, dict[str, Any]]]) -> None:
    """Within the limits of the alerts, but for those of one region during the incident."""
    asked: dict[str, tuple[float, dict[str, Any]]] = {}
    waited: dict[str, float] = {}
    for at, event in events:
        data = event.get("data", {})
        if event["type"] == "question.created":
            asked[data["question_id"]] = at, data
        elif event["type"] == "question.answered":
            waited.setdefault(data["question_id"], at - asked[data["question_id"]][0])
    open_ = asked.keys() - waited.keys()
    assert all(asked[one][0] > END - 600 for one in open_)
    hit = {one for one, (at, data) in asked.items() if data["region"] == "eu" and UNANSWERED.on(at)}
    assert max(waited[one] for one in hit) > 2_000
    assert max(waited[one] for one in waited.keys() - hit) < 500
    urgent = [one for one in waited.keys() - hit if asked[one][1].get("urgency") == "urgent"]
    assert len(urgent) > 100
    assert max(waited[one] for one in urgent) < 30


def test_a_judge_drifts_through_the_week() -> None:
    """So slowly that no threshold sees it: by the hour nothing moves, from Monday to Friday much does."""

    def helpfulness(begin: float) -> float:
        scores: list[float] = [
            json.loads(one.line)["data"]["score"]
            for one in world(1, begin).between(begin, begin + HOUR)
            if b'"score":' in one.line
        ]
        return sum(scores) / len(scores)

    monday, later, friday = (helpfulness(MONDAY + hours * HOUR) for hours in (9, 11, 4 * 24 + 9))
    assert abs(monday - later) < 0.03
    assert monday - friday > 0.1


def test_the_script_is_told_without_playing_it() -> None:
    """Every incident with its alerts."""
    told = evalgauge("demo", "--script")
    assert told.code == 0
    for incident in SCRIPT:
        assert incident.title in told.out
        for one in incident.alerts:
            assert f"{one.alert}{{" in told.out


def test_the_documentation_holds_the_script() -> None:
    """Row by row."""
    rows = (Path(__file__).parent.parent / "docs" / "demo.md").read_text().splitlines()
    told = [row for row in rows if row.startswith("| Tue ")]
    assert len(told) == sum(len(incident.alerts) for incident in SCRIPT)
    for incident in SCRIPT:
        for one in incident.alerts:
            labels = ", ".join(f'{name}="{value}"' for name, value in one.labels.items())
            gone = "stands" if one.gone is None else f"{one.gone / 60:g} min"
            when = f"| {moment(incident.start)} to {moment(incident.end)} | {incident.title} |"
            assert f"{when} `{one.alert}{{{labels}}}`, {one.within / 60:g} min | {gone} |" in told


def test_a_begin_that_has_not_come_is_refused() -> None:
    """And so is what is no time."""
    future = evalgauge("demo", "--begin", "2999-01-01")
    assert (future.code, "past" in future.err) == (2, True)
    nonsense = evalgauge("demo", "--begin", "yesterday")
    assert (nonsense.code, "2026-03-02" in nonsense.err) == (2, True)


def test_what_is_no_time_of_the_week_is_refused() -> None:
    """With an example of how to write it."""
    done = evalgauge("demo", "--now", "Tuesday 10:05")
    assert (done.code, "'Tue 10:05'" in done.err) == (2, True)
    for text in ("Tue", "10:05", "Tue 25:00", "Tue 10:05+01:00", "Tue 10:05:00.5", "tue 10:05"):
        with pytest.raises(ValueError):  # noqa: PT011 - the command says it in its own words
            seconds_of(text)
    for incident in SCRIPT:
        assert seconds_of(moment(incident.start)) == incident.start
    assert seconds_of("Mon 00:00:07") == 7


def test_it_can_be_tuesday_today() -> None:
    """Its clock says what it is told; it begins on the Sunday before, and says when its week began by the real one."""
    before = time.time()
    done = evalgauge("demo", "--for", "3s", "--now", "Tue 10:20", "--speed", "1000000")
    after = time.time()
    assert done.code == 0, done.err
    assert "/metrics says the same" in done.out
    said = re.search(r"its own clock said Mon 00:00 at (\S+)", done.out)
    assert said is not None
    monday = datetime.fromisoformat(said[1]).timestamp()
    assert before - 1 < monday + 34 * HOUR + 20 * 60 < after
    first = re.search(r"^ +(\w{3}) \d\d:\d\d ", done.out, re.MULTILINE)
    assert first is not None
    assert first[1] in {"Sun", "Mon", "Tue"}


def test_the_demo_ends_with_what_was_acknowledged_on_its_metrics_page() -> None:
    """A table of live numbers, a summary, exit code 0; default ports that are taken make no difference."""
    done = evalgauge("demo", "--for", "4s", "--begin", "2025-03-04T09:55Z", "--speed", "300", "--seed", "5")
    assert done.code == 0, done.err
    assert "/metrics says the same: what was acknowledged is counted, once." in done.out
    assert "from 2025-03-04T09:55+00:00" in done.out
    rows = re.findall(r"^ +Tue \d\d:\d\d +([\d,]+)", done.out, re.MULTILINE)
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
        while not re.search(r"^ +\w{3} \d\d:\d\d", seen, re.MULTILINE):
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
