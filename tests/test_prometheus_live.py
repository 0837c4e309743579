"""A real Prometheus over a running evalgauge: recording rules, alerts and increases are what PromQL says they are."""

from __future__ import annotations

import bisect
import itertools
import json
import random
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from evalgauge.core import plugins
from evalgauge.core.collect import Chunk
from evalgauge.core.engine import Engine, EngineOptions, InputRules
from evalgauge.core.process import load_with_own
from evalgauge.core.selfmetrics import SelfMetrics
from evalgauge.core.sqlite_store import SqliteStore
from evalgauge.exporters.exposition import Renderer
from tests.events import Event, at, judgments, lines
from tests.kill.feeders import Client
from tests.kill.life import Lives
from tests.oracle import PACKS
from tests.parts.part import free_port, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.conftest import StartPrometheus, Tell
    from tests.parts.prometheus import Prometheus

PROGRAM = Path(sys.executable).with_name("evalgauge")
SCRAPE_SECONDS, EVALUATE_SECONDS = 1.0, 0.7
"""Not multiples of one another, so that rules are evaluated at every place between two scrapes."""
_SETTLED_MS = 200
"""A scrape so shortly before an evaluation may not have been in storage when the rule looked."""
_LATE_MS = 3000
"""Up to this late one may be stored where the machine is busy."""

Labels = frozenset[tuple[str, str]]
Points = list[tuple[int, float]]
"""(time in milliseconds, value): Prometheus reckons in them, and a double of seconds since 1970 is too coarse."""
Raw = dict[Labels, Points]


# -- PromQL's functions as documented, in a few lines of our own -------------------------------------------


def increase(points: Points, start: int, end: int) -> float | None:
    """`increase()` of one counter over a range, extrapolated to it as Prometheus documents."""
    inside = [(when, value) for when, value in points if start <= when <= end]
    if len(inside) < 2:
        return None
    (first_at, first), (last_at, last) = inside[0], inside[-1]
    gained: float = last - first
    for (_, before), (_, value) in itertools.pairwise(inside):
        gained += before if value < before else 0
    covered = last_at - first_at
    between = covered / (len(inside) - 1)
    to_start: float = first_at - start
    if gained > 0 and first >= 0:
        # A counter starts at zero: nothing is extrapolated to before it can have been there.
        to_start = min(to_start, covered * first / gained)
    reach: float = covered
    for gap in (to_start, end - last_at):
        reach += gap if gap < 1.1 * between else between / 2
    return gained * reach / covered


def summed(raw: Raw, by: tuple[str, ...], start: int, end: int, **equal: str) -> dict[Labels, float]:
    """`sum by (…) (increase(…))` over the series whose labels equal `equal`; `!x` in a value means not x."""
    result: dict[Labels, float] = {}
    for labels, points in raw.items():
        given = dict(labels)
        if not all(
            (given.get(k) != v[1:]) if v.startswith("!") else (given.get(k) == v) for k, v in equal.items()
        ):
            continue
        gained = increase(points, start, end)
        if gained is not None:
            group = frozenset((name, given[name]) for name in by)
            result[group] = result.get(group, 0.0) + gained
    return result


class Window(NamedTuple):
    """What a rule sees when it is evaluated: raw samples by name, and the moment in milliseconds."""

    raw: Mapping[str, Raw]
    now: int

    def summed(self, name: str, by: tuple[str, ...], hours: float = 1.0, **equal: str) -> dict[Labels, float]:
        """Sum of the increases of a metric over the last so many hours."""
        return summed(self.raw[name], by, self.now - round(hours * 3_600_000), self.now, **equal)

    def ratio(self, above: str, below: str, by: tuple[str, ...]) -> dict[Labels, float]:
        """Quotient of two increases; rates over one range have the same."""
        dividends, divisors = self.summed(above, by), self.summed(below, by)
        return {
            group: dividends[group] / divisors[group] for group in dividends if divisors.get(group, 0) > 0
        }


_FLOW = ("tenant", "workflow")
_EXECUTIONS = "judgment_executions_total"


def _executions(window: Window) -> dict[Labels, float]:
    return window.summed(_EXECUTIONS, _FLOW)


def _successes(window: Window) -> dict[Labels, float]:
    return dict.fromkeys(_executions(window), 0.0) | window.summed(_EXECUTIONS, _FLOW, status="success")


def _shares(window: Window) -> dict[Labels, float]:
    flows = _executions(window)
    shares = {}
    for group, gained in window.summed(_EXECUTIONS, (*_FLOW, "method")).items():
        flow = frozenset((name, value) for name, value in group if name in _FLOW)
        if flows[flow] > 0:
            shares[group] = gained / flows[flow]
    return shares


def _errors(hours: float) -> Callable[[Window], dict[Labels, float]]:
    def ratio(window: Window) -> dict[Labels, float]:
        all_ = window.summed(_EXECUTIONS, ("tenant",), hours)
        failed = window.summed(_EXECUTIONS, ("tenant",), hours, status="!success")
        return {group: failed.get(group, 0.0) / gained for group, gained in all_.items() if gained > 0}

    return ratio


_SCALING = "judgment:scal"
"""Signals for scaling: most are of what other programs tell."""
_RULES: dict[str, Callable[[Window], dict[Labels, float]]] = {
    "tenant_workflow:judgment_executions:increase1h": _executions,
    "tenant_workflow:judgment_successes:increase1h": _successes,
    "tenant_workflow_method:judgment_executions:share1h": _shares,
    "tenant_workflow:judgment_duration_seconds:mean1h": lambda window: window.ratio(
        "judgment_duration_seconds_sum", "judgment_duration_seconds_count", _FLOW
    ),
    "tenant_workflow:judgment_confidence_ratio:mean1h": lambda window: window.ratio(
        "judgment_confidence_ratio_sum", "judgment_confidence_ratio_count", _FLOW
    ),
    "tenant:judgment_errors:ratio_rate5m": _errors(5 / 60),
    "tenant:judgment_errors:ratio_rate30m": _errors(0.5),
    "tenant:judgment_errors:ratio_rate1h": _errors(1),
    "tenant:judgment_errors:ratio_rate2h": _errors(2),
    "tenant:judgment_errors:ratio_rate6h": _errors(6),
    "tenant:judgment_errors:ratio_rate1d": _errors(24),
    "tenant:judgment_errors:ratio_rate3d": _errors(72),
}
"""Every recorded series of pack `judgment`, said a second time."""
_SOURCES = (
    _EXECUTIONS,
    "judgment_duration_seconds_sum",
    "judgment_duration_seconds_count",
    "judgment_confidence_ratio_sum",
    "judgment_confidence_ratio_count",
)


# -- what the tests share ----------------------------------------------------------------------------------


def generated_rules(pack: str | Path, folder: Path) -> Path:
    """Generate the rule file of a pack with the command a user types."""
    subprocess.run(
        [PROGRAM, "generate", "rules", "--pack", pack, "-o", folder], check=True, capture_output=True
    )
    (path,) = folder.iterdir()
    return path


def matrix(server: Prometheus, selector: str, now: float) -> Raw:
    """Raw samples as they were scraped or recorded: labels without name, job and instance → points by time."""
    query = urllib.parse.urlencode({"query": selector, "time": repr(now)})
    with urllib.request.urlopen(f"{server.url}/api/v1/query?{query}", timeout=60) as answer:
        result = json.loads(answer.read())["data"]["result"]
    return {_plain(one["metric"]): [(round(t * 1000), float(v)) for t, v in one["values"]] for one in result}


def _plain(labels: Mapping[str, str]) -> Labels:
    return frozenset((k, v) for k, v in labels.items() if k not in {"__name__", "job", "instance"})


def warnings_of(server: Prometheus) -> list[str]:
    """What the server has warned of in its log."""
    return [row for row in server.log().splitlines() if re.search(r"level=(warn|error)", row, re.IGNORECASE)]


def _steady(seed: str, **data: Any) -> Iterator[Event]:
    """Judgments of two tenants, without the odd values that make a mean hard to read."""
    for event in judgments(seed, tenants=("acme", "globex")):
        yield event | {"data": event["data"] | {"execution_time_ms": 100 + len(event["id"]) * 40} | data}


class Live(NamedTuple):
    """A running evalgauge with an HTTP door, and a Prometheus that scrapes it."""

    lives: Lives
    server: Prometheus


def _live(folder: Path, start: StartPrometheus, rules: Path) -> Live:
    door, metrics = free_port(), free_port()
    config: dict[str, Any] = {
        "packs": ["judgment"],
        "state": {"commit_interval": "100ms"},
        "inputs": {"door": {"type": "http", "listen": f"127.0.0.1:{door}"}},
        "exporters": {
            "prometheus": {"type": "prometheus", "listen": f"127.0.0.1:{metrics}", "zero_first": "2500ms"}
        },
    }
    lives = Lives(folder / "lives", config, door, metrics)
    lives.start()
    lives.wait_ready()
    scrapes = {"job_name": "evalgauge", "static_configs": [{"targets": [f"127.0.0.1:{metrics}"]}]}
    timing = {
        "scrape_interval": f"{SCRAPE_SECONDS * 1000:g}ms",
        "evaluation_interval": f"{EVALUATE_SECONDS * 1000:g}ms",
    }
    server = start(yaml.safe_dump({"global": timing, "scrape_configs": [scrapes]}), rules=[rules])
    until(lambda: [one for one in server.query("up") if one.value == 1], "the first scrape")
    return Live(lives, server)


# -- the tests ---------------------------------------------------------------------------------------------


def test_recording_rules_give_what_promql_documents_over_the_scraped_samples(
    tmp_path: Path, prometheus: StartPrometheus, tell: Tell
) -> None:
    """Each recorded value equals, to 1e-9, what the documented extrapolation makes of the raw samples at its time."""
    rules = generated_rules("judgment", tmp_path / "rules")
    content = yaml.safe_load(rules.read_text(encoding="utf-8"))
    recorded = [rule["record"] for group in content["groups"] for rule in group["rules"] if "record" in rule]
    recorded = [one for one in recorded if not one.startswith(_SCALING)]
    assert sorted(recorded) == sorted(_RULES)
    for group in content["groups"]:
        group.pop("interval", None)  # more often than in a minute; the expressions stay as they are
    rules.write_text(yaml.safe_dump(content), encoding="utf-8")
    live = _live(tmp_path, prometheus, rules)
    client = Client(live.lives.door_url, judgments("live", births=1500), random.Random("live"))  # noqa: S311
    try:
        client.start()
        until(
            lambda: len(client.acknowledged) > 4000 and _recorded(live.server, recorded),
            "recorded values",
            60,
        )
        until(lambda: live.server.query("count_over_time(up[1h]) > 14"), "some more scrapes", 60)
        client.finish()
        now = time.time()
        raw = {name: matrix(live.server, f"{name}[1h]", now) for name in _SOURCES}
        scrapes = sorted(
            {when for series in raw.values() for points in series.values() for when, _ in points}
        )
        compared: Counter[str] = Counter()
        late = 0
        for name in recorded:
            for labels, points in matrix(live.server, f"{name}[1h]", now).items():
                for when, value in points:
                    if any(when - _SETTLED_MS < scrape <= when for scrape in scrapes):
                        continue
                    expected = [_RULES[name](one).get(labels) for one in _seen(raw, scrapes, when)]
                    # The extrapolation of Prometheus is float arithmetic in another order; hence not `==`.
                    equal = [
                        one is not None and value == pytest.approx(one, rel=1e-9, abs=1e-12)
                        for one in expected
                    ]
                    assert any(equal), (name, labels, when, value, expected)
                    late += not equal[0]
                    compared[name] += 1
        assert warnings_of(live.server) == []
        live.lives.end()
    finally:
        client.close()
        live.lives.abandon()
    tell(
        f"{compared.total()} recorded values of {len(compared)} rules equal to 1e-9, "
        f"{late} of them without a scrape that was stored late"
    )
    assert late < compared.total() / 2
    assert set(compared) == set(recorded)
    assert min(compared.values()) >= 5


def _seen(raw: Mapping[str, Raw], scrapes: Sequence[int], when: int) -> Iterator[Window]:
    """What a rule may have seen: on a busy machine the newest scrape is not stored yet when it is evaluated."""
    yield Window(raw, when)
    newest = max((scrape for scrape in scrapes if scrape <= when), default=0)
    if when - newest < _LATE_MS:
        yield Window(
            {
                name: {labels: [one for one in points if one[0] < newest] for labels, points in found.items()}
                for name, found in raw.items()
            },
            when,
        )


def _recorded(server: Prometheus, names: list[str]) -> bool:
    return {one.labels["__name__"] for one in server.query('{__name__=~".+:.+:.+"}')} >= set(names)


def test_an_alert_goes_from_pending_to_firing_by_real_events(
    tmp_path: Path, prometheus: StartPrometheus
) -> None:
    """Invalid records of one tenant raise its alert and not another's; a user's copy of the pack only waits less."""
    text = (PACKS / "judgment.yaml").read_text(encoding="utf-8")
    place = text.index("  JudgmentRecordsInvalid:")
    mine = tmp_path / "judgment.yaml"
    mine.write_text(text[:place] + text[place:].replace("for: 1m", "for: 3s", 1), encoding="utf-8")
    live = _live(tmp_path, prometheus, generated_rules(mine, tmp_path / "rules"))
    good = _steady("good", tenant_id="globex", input_data="x", final_result="y", confidence_score=0.9)
    bad = _steady("bad", tenant_id="acme", input_data="", final_result="y", confidence_score=0.9)
    both = itertools.chain.from_iterable(zip(good, bad, strict=True))
    client = Client(live.lives.door_url, both, random.Random("alert"))  # noqa: S311
    seen: list[str] = []

    def state() -> str:
        for alert in live.server.alerts():
            if alert["labels"]["alertname"] == "JudgmentRecordsInvalid":
                assert alert["labels"]["tenant"] == "acme"
                assert alert["labels"]["severity"] == "warning"
                assert "tenant acme" in alert["annotations"]["summary"]
                if alert["state"] not in seen:
                    seen.append(alert["state"])
                return str(alert["state"])
        return ""

    try:
        assert state() == ""
        client.start()
        until(lambda: state() == "firing", "the alert to fire", 60)
        client.finish()
        assert seen == ["pending", "firing"]
        wrong = [rule for group in live.server.rules() for rule in group["rules"] if rule["health"] == "err"]
        assert wrong == []
        assert warnings_of(live.server) == []
        live.lives.end()
    finally:
        client.close()
        live.lives.abandon()


STEP = 15
HOURS = 2


def test_two_backfilled_hours_give_what_the_events_say(
    tmp_path: Path, prometheus: StartPrometheus, promtool: Path, tell: Tell
) -> None:
    """Two hours of events, exposed each 15 s and backfilled: every recorded value is within 1 % of the events'."""
    end = (time.time() - 600) // 60 * 60
    start = end - HOURS * 3600
    rng = random.Random("backfill")  # noqa: S311 - reproducible, no secret
    times = sorted(rng.uniform(start + 1, end - 1) for _ in range(20_000))
    events = [
        at(event, when)
        for event, when in zip(judgments("backfill", tenants=("acme", "globex")), times, strict=False)
    ]
    openmetrics = tmp_path / "backfill.om"
    openmetrics.write_bytes(_exposed_over_time(tmp_path / "state", events, times, start, end))
    storage = tmp_path / "prometheus-1" / "tsdb"
    storage.mkdir(parents=True)
    subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", openmetrics, storage],
        check=True,
        capture_output=True,
    )
    server = prometheus(yaml.safe_dump({"global": {}}))
    content = yaml.safe_load(generated_rules("judgment", tmp_path / "rules").read_text(encoding="utf-8"))
    rules = {
        rule["record"]: rule["expr"]
        for group in content["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    rules = {name: rule for name, rule in rules.items() if not name.startswith(_SCALING)}
    assert rules.keys() == _RULES.keys()
    worst, compared = 0.0, 0
    for when in (start + 3600, start + 5400, end):
        for name, expr in rules.items():
            expected = _from_events(name, events, times, when)
            found = {_plain(one.labels): one.value for one in server.query(expr, when)}
            assert found.keys() == expected.keys(), (name, when - start)
            for labels, value in found.items():
                assert value == pytest.approx(expected[labels], rel=0.01), (name, dict(labels), when - start)
                worst = max(worst, abs(value / expected[labels] - 1) if expected[labels] else 0.0)
                compared += 1
    tell(
        f"{compared} values of {len(rules)} rules over {HOURS} backfilled hours, {len(events):,} events: "
        f"at most {worst:.2%} from the events"
    )
    assert warnings_of(server) == []


def _exposed_over_time(
    folder: Path, events: list[Event], times: list[float], start: float, end: float
) -> bytes:
    """What an exporter with `zero_first` shows at each step of a simulated clock, as OpenMetrics with timestamps."""
    packs = load_with_own(["judgment"])
    metrics = SelfMetrics(next(pack for pack in packs if pack.pack == "evalgauge"))
    store = SqliteStore(folder)
    now = start
    rules = {"door": InputRules(deduplicate=True)}
    kinds = plugins.load_all(plugins.INSTRUMENTS)
    engine = Engine(packs, rules, kinds, store, metrics, EngineOptions(), clock=lambda: now)
    engine.restore()
    renderer = Renderer(created=False, zero_first=STEP + 1)
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = defaultdict(list)
    fed = 0
    try:
        for step in range(int(end - start) // STEP + 1):
            now = start + step * STEP
            until_now = bisect.bisect_right(times, now)
            if until_now > fed:
                engine.process("door", Chunk("push", lines(events[fed:until_now]), locate=str, arrival=now))
                fed = until_now
            engine.commit()
            families = [family for family in engine.families() if family.name.startswith("judgment_")]
            family = ""
            for row in b"".join(renderer.blocks(families, openmetrics=True, now=now)).decode().splitlines():
                if row.startswith("#"):
                    family = row.split(" ")[2] if row != "# EOF" else ""
                    if family and row not in heads.setdefault(family, []):
                        heads[family].append(row)
                else:
                    samples[family].append(f"{row.split(' # ')[0]} {now:.0f}")
    finally:
        store.close()
    text = "".join(f"{row}\n" for family, head in heads.items() for row in (*head, *samples[family]))
    return f"{text}# EOF\n".encode()


def _from_events(name: str, events: list[Event], times: list[float], when: float) -> dict[Labels, float]:
    """The recorded value as the events themselves say it."""
    number, unit = re.findall(r"(\d+)([mhd])$", name)[0]
    window = int(number) * {"m": 60, "h": 3600, "d": 86400}[unit]
    by = name.split(":", maxsplit=1)[0].split("_")
    fields = {"tenant": "tenant_id", "workflow": "workflow_id", "method": "method_used"}
    groups: dict[Labels, list[dict[str, Any]]] = defaultdict(list)
    for event, at_ in zip(events, times, strict=True):
        if when - window < at_ <= when:
            groups[frozenset((label, event["data"][fields[label]]) for label in by)].append(event["data"])
    result = {}
    for group, found in groups.items():
        if "share" in name:
            flow = frozenset((k, v) for k, v in group if k != "method")
            value = len(found) / sum(len(other) for key, other in groups.items() if flow <= key)
        elif "errors" in name:
            value = sum(one["status"] != "success" for one in found) / len(found)
        elif "mean" in name:
            field, scale = ("execution_time_ms", 1000) if "duration" in name else ("confidence_score", 1)
            values = [one[field] for one in found if one.get(field) is not None and one[field] >= 0]
            value = sum(values) / len(values) / scale
        elif "successes" in name:
            value = sum(one["status"] == "success" for one in found)
        else:
            value = len(found)
        result[group] = float(value)
    return result
