"""One run: feed by file and HTTP, kill and start again several times, let it come to rest, compare with the oracle."""

from __future__ import annotations

import json
import random
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from evalgauge.core.deadletters import DeadLetterBox, Wanted
from tests.events import TENANTS, judgments
from tests.kill.feeders import Client, Watcher, Writer, all_finish
from tests.kill.life import Death, Lives
from tests.oracle import Oracle, Samples, differences, exposed, key
from tests.parts.part import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kill.feeders import Feeder

REST_SECONDS = 120.0
"""So long everything that was sent may take to be counted, once nothing more is sent."""
TYPE = "judgment.executed"
AIMS = ("before", "before", "in", "any")
FAILPOINTS = ("commit.before", "commit.inside", "commit.after")


@dataclass
class Report:
    """What a run came to; no problems means that every number was right."""

    seed: int
    deaths: list[Death] = field(default_factory=list)
    events: int = 0
    after_last_kill: int = 0
    """Events that were sent when the last process was ready already."""
    rotations: int = 0
    repeated_batches: int = 0
    scrapes: int = 0
    series: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def dumped(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))


def configuration(rng: random.Random, log: Path, door: int, metrics: int, **overrides: Any) -> dict[str, Any]:
    """A configuration with a followed file and an HTTP door, its intervals by chance."""
    config: dict[str, Any] = {
        "packs": ["judgment"],
        "state": {
            "commit_interval": f"{rng.randrange(50, 200)}ms",
            "min_commit_interval": f"{rng.choice((5, 50, 100))}ms",
        },
        "inputs": {
            "log": {
                "type": "file",
                "path": rng.choice((str(log), f"{log}*")),
                "follow": True,
                "poll_interval": "50ms",
                "rotate_wait": "60ms",
                "unknown_types": "refuse",
                "deduplicate": rng.random() < 0.3,
            },
            "door": {"type": "http", "listen": f"127.0.0.1:{door}"},
        },
        "exporters": {"prometheus": {"type": "prometheus", "listen": f"127.0.0.1:{metrics}"}},
    }
    return config | overrides


def run(seed: int, folder: Path, door: int, metrics: int, *, failpoints: bool = False) -> Report:
    """Do one run in an empty `folder`, on two free ports; what is wrong is in the report's `problems`."""
    report = Report(seed)
    started = time.monotonic()
    rng = random.Random(f"kill {seed}")  # noqa: S311 - reproducible, no secret
    log = folder / "events.ndjson"
    config = configuration(rng, log, door, metrics)
    bulk = seed % 10 == 7
    if bulk:
        config["engine"] = {"workers": 2}
    lives = Lives(folder, config, door, metrics)
    writer = Writer(log, judgments(f"{seed} log", tenants=TENANTS[2:4], births=500), _child(rng))
    if bulk:
        writer.backlog(1500)
    clients = [
        Client(lives.door_url, judgments(f"{seed} client {n}", tenants=TENANTS[:1], births=400), _child(rng))
        for n in range(2)
    ]
    watcher = Watcher(lives.metrics_url)
    feeders: list[Feeder] = [writer, *clients]
    try:
        lives.start()
        for feeder in (*feeders, watcher):
            feeder.start()
        lives.wait_ready()
        # What was rotated away before anybody ever looked is no loss of the reader's.
        until(
            lambda: 'evalgauge_events_accepted_total{input="log"' in lives.metrics(), "an event from the log"
        )
        writer.rotate()
        _kill_repeatedly(lives, report, rng, feeders, failpoints=failpoints)
        sent = len(writer.written) + sum(len(client.acknowledged) for client in clients)
        time.sleep(rng.uniform(0.1, 0.4))
        all_finish(feeders, report.problems.append)
        report.events = len(writer.written) + sum(len(client.acknowledged) for client in clients)
        report.after_last_kill = report.events - sent
        if not report.after_last_kill:
            report.problems.append("no event arrived after the last kill")
        report.problems += compare(lives, writer, clients, report)
        all_finish([watcher], report.problems.append)
        lives.end()
        report.problems += _letters(lives, writer)
    except Exception as error:  # noqa: BLE001 - the test shows it, with the run it belongs to
        report.problems.append(f"{type(error).__name__}: {error}")
    finally:
        lives.abandon()
    report.rotations, report.scrapes = writer.rotations, watcher.scrapes
    report.repeated_batches = sum(client.repeated for client in clients)
    report.seconds = round(time.monotonic() - started, 2)
    return report


def _child(rng: random.Random) -> random.Random:
    return random.Random(rng.random())  # noqa: S311 - reproducible, no secret


def _kill_repeatedly(
    lives: Lives, report: Report, rng: random.Random, feeders: list[Feeder], *, failpoints: bool
) -> None:
    """Kill the process that was started, and each of its successors but the last, which is ready at the end."""
    places = rng.sample(FAILPOINTS, k=3) if failpoints else []
    for number in range(3 if places else rng.choice((2, 2, 2, 3))):
        lives.wait_ready()
        time.sleep(rng.random() * 0.4)
        report.deaths.append(lives.strike(rng, rng.choice(AIMS)))
        if places:
            # A process that ends itself stands between any two that are killed from outside.
            lives.start(f"{places[number]}:{rng.randrange(1, 8)}")
            report.deaths.append(lives.await_failpoint(places[number]))
        time.sleep(rng.choice((0.0, 0.0, rng.random() * 0.3)))
        lives.start()
    lives.wait_ready()
    for feeder in feeders:
        if feeder.error is not None:
            raise feeder.error
    report.problems += [f"this kill hit an idle process: {one}" for one in report.deaths if not one.hit_work]


def compare(lives: Lives, writer: Writer, clients: list[Client], report: Report) -> list[str]:
    """Wait until everything sent is counted; then whatever differs from the oracle, in the pack's metrics and ours."""
    oracle = Oracle("judgment")
    oracle.add_all(writer.written)
    for client in clients:
        oracle.add_all(client.acknowledged)
    expected = oracle.samples()
    report.series = len(expected)
    posted = sum(len(client.acknowledged) for client in clients)
    expected |= {
        key("evalgauge_events_accepted_total", {"input": "log", "type": TYPE}): len(writer.written),
        key("evalgauge_events_accepted_total", {"input": "door", "type": TYPE}): posted,
        key("evalgauge_events_received_total", {"input": "log"}): len(writer.written) + writer.poisoned,
        key("evalgauge_input_bytes_total", {"input": "log"}): writer.size,
    }
    for metric, number in oracle.unobserved().items():
        expected[key("evalgauge_values_unobserved_total", {"metric": metric})] = number
    deadline = time.monotonic() + REST_SECONDS
    counted = (
        f'accepted_total{{input="log",type="{TYPE}"}} {len(writer.written)}\n',
        f'accepted_total{{input="door",type="{TYPE}"}} {posted}\n',
    )
    while True:
        text = lives.metrics()
        if time.monotonic() < deadline and not all(line in text for line in counted):
            time.sleep(0.02)
            continue
        found = exposed(text, "judgment_", "evalgauge_events_", "evalgauge_input_", "evalgauge_values_")
        loose = _undetermined(found)
        wrong = differences(expected, found)
        if not wrong or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    repeats = loose["duplicated"]
    if loose["received"] != posted + repeats:
        wrong.append(
            f"the door received {loose['received']}, not the {posted} accepted and {repeats} repeated"
        )
    if loose["rejected"] != writer.poisoned:
        wrong.append(f"{loose['rejected']} events were rejected, not {writer.poisoned}")
    return wrong if len(wrong) <= 10 else [*wrong[:10], f"and {len(wrong) - 10} more"]


def _undetermined(found: Samples) -> dict[str, float]:
    """Take out of `found` what depends on how often a client had to send again, and on gauges; give the sums."""
    sums = {"duplicated": 0.0, "received": 0.0, "rejected": 0.0}
    for name, labels in list(found):
        if name == "evalgauge_events_duplicated_total":
            sums["duplicated"] += found.pop((name, labels))
        elif name == "evalgauge_events_received_total" and ("input", "door") in labels:
            sums["received"] += found.pop((name, labels))
        elif name == "evalgauge_events_rejected_total":
            sums["rejected"] += found.pop((name, labels))
        elif (name == "evalgauge_input_bytes_total" and ("input", "door") in labels) or not name.endswith(
            ("_total", "_bucket", "_sum", "_count")
        ):
            del found[name, labels]
    return sums


def _letters(lives: Lives, writer: Writer) -> list[str]:
    box = DeadLetterBox(lives.state)
    try:
        kept = [letter.position for letter in box.letters(Wanted())]
    finally:
        box.close()
    if len(kept) != writer.poisoned or len(set(kept)) != len(kept):
        return [f"{len(kept)} dead letters at {len(set(kept))} places, not {writer.poisoned}"]
    return []
