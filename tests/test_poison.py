"""A bad event is refused alone: a thousand of ten kinds among a hundred thousand, by file and by HTTP."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import statistics
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from evalgauge.core.config import load_config
from evalgauge.core.deadletters import DeadLetterBox, Wanted
from evalgauge.core.process import Process
from tests.events import Event, judgments, line
from tests.kill.life import Lives
from tests.oracle import Oracle, differences, exposed, key
from tests.parts.part import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Tell

EVENTS, POISON = 100_000, 1_000
LIMITS = {"max_event_size": "4KiB", "max_depth": 8}
BATCH = 10_000


def _changed(event: Event, **data: object) -> bytes:
    return line(event | {"data": event["data"] | data})


def _without(event: Event, name: str) -> bytes:
    return line(event | {"data": {key: value for key, value in event["data"].items() if key != name}})


KINDS: dict[str, Callable[[Event], bytes]] = {
    "malformed_json": lambda event: line(event)[:-9] + b"\n",
    "invalid_utf8": lambda event: line(event).replace(b"judgment.executed", b"judgment.\xff\xfe", 1),
    "not_an_object": lambda event: json.dumps([event["id"], {"is": "a list"}]).encode() + b"\n",
    "missing_field": lambda event: _without(event, "workflow_id"),
    "wrong_type": lambda event: _changed(event, execution_time_ms="12"),
    "not_in_enum": lambda event: _changed(event, method_used="guess"),
    "out_of_range": lambda event: _changed(event, tenant_id="t" * 129),
    "unknown_type": lambda event: line(event | {"type": "judgment.imagined"}),
    "too_large": lambda event: _changed(event, input_data="x" * 5000),
    "too_deep": lambda event: _changed(event, input_data=[[[[[[[event["id"]]]]]]]]),
}
"""Reason → what makes a good event one that is refused for it; each still holds the event's id."""


def _stream(seed: str) -> Iterator[tuple[str, Event, bytes]]:
    """(reason or nothing, the good event, the line as sent) of every event, poison strewn evenly at random."""
    rng = random.Random(seed)  # noqa: S311 - reproducible, no secret
    bad = rng.sample(range(EVENTS), POISON)
    reasons = dict(zip(bad, itertools.cycle(KINDS), strict=False))
    for number, event in enumerate(itertools.islice(judgments(seed), EVENTS)):
        reason = reasons.get(number, "")
        yield reason, event, KINDS[reason](event) if reason else line(event)


@pytest.fixture(scope="module")
def stream() -> list[tuple[str, Event, bytes]]:
    """The whole stream."""
    return list(_stream("poison"))


@pytest.fixture(scope="module")
def oracle(stream: list[tuple[str, Event, bytes]]) -> Oracle:
    """What the good events come to."""
    found = Oracle("judgment")
    found.add_all(event for reason, event, _ in stream if not reason)
    return found


def _replay(folder: Path, state: str, events: Path) -> tuple[Process, float]:
    """Count a file in this process; the seconds it took, from start to the last commit."""
    config = load_config(
        None,
        {},
        packs=["judgment"],
        inputs={"log": {"type": "file", "path": str(events), "unknown_types": "refuse"}},
        engine=LIMITS,
        state__folder=str(folder / state),
    )
    process = Process(config)
    started = time.perf_counter()
    process.run(until_done=True)
    return process, time.perf_counter() - started


def _assert_letters(state: Path, stream: list[tuple[str, Event, bytes]]) -> None:
    """Exactly the poison is in the dead letters: each line as it was sent, under the right reason."""
    box = DeadLetterBox(state)
    try:
        letters = list(box.letters(Wanted()))
    finally:
        box.close()
    sent = Counter((text.rstrip(b"\n"), reason) for reason, _, text in stream if reason)
    assert len(letters) == POISON
    assert Counter((letter.data.rstrip(b"\n"), letter.reason) for letter in letters) == sent
    assert len({letter.position for letter in letters}) == POISON, "two letters claim one place"
    assert all(letter.detail for letter in letters)
    assert Counter(letter.reason for letter in letters) == dict.fromkeys(KINDS, POISON // len(KINDS))


def _assert_rejects(text: str, source: str) -> None:
    rejected: Counter[str] = Counter()
    for (_, labels), value in exposed(text, "evalgauge_events_rejected_total").items():
        assert dict(labels)["input"] == source
        rejected[dict(labels)["reason"]] += int(value)
    assert rejected == dict.fromkeys(KINDS, POISON // len(KINDS))


def test_poison_in_a_file_is_refused_alone(
    tmp_path: Path, stream: list[tuple[str, Event, bytes]], oracle: Oracle, tell: Tell
) -> None:
    """1,000 dead letters with the right reason, 99,000 counted; the throughput beside a clean file is printed."""
    from evalgauge.exporters.prometheus import PrometheusExporter  # noqa: PLC0415 - the only use

    dirty, clean = tmp_path / "dirty.ndjson", tmp_path / "clean.ndjson"
    dirty.write_bytes(b"".join(text for _, _, text in stream))
    clean.write_bytes(b"".join(line(event) for _, event, _ in stream))
    ratios = []
    for turn in range(5):
        seconds: dict[str, float] = {}
        for path in (clean, dirty) if turn % 2 else (dirty, clean):
            process, seconds[path.stem] = _replay(tmp_path, f"{path.stem}-{turn}", path)
            if path is dirty:
                refused = process
        ratios.append(seconds["clean"] / seconds["dirty"])
    text = PrometheusExporter.render(refused.families()).decode()
    assert differences(oracle.samples(), exposed(text, "judgment_")) == []
    assert exposed(text, "evalgauge_events_accepted_total") == {
        key("evalgauge_events_accepted_total", {"input": "log", "type": "judgment.executed"}): EVENTS - POISON
    }
    _assert_rejects(text, "log")
    _assert_letters(tmp_path / "dirty-4", stream)
    tell(
        f"1 % poison of {len(KINDS)} kinds: {EVENTS / seconds['dirty']:,.0f} events a second, "
        f"{statistics.median(ratios):.0%} of clean (median of {len(ratios)} pairs)"
    )


def test_poison_over_http_is_refused_alone(
    tmp_path: Path, stream: list[tuple[str, Event, bytes]], oracle: Oracle
) -> None:
    """The same through the door: each request says which of its events were refused, and why."""
    door, metrics = free_port(), free_port()
    config: dict[str, Any] = {
        "packs": ["judgment"],
        "state": {},
        "engine": LIMITS,
        "inputs": {"door": {"type": "http", "listen": f"127.0.0.1:{door}"}},
        "exporters": {"prometheus": {"type": "prometheus", "listen": f"127.0.0.1:{metrics}"}},
    }
    lives = Lives(tmp_path, config, door, metrics)
    lives.start()
    connection = http.client.HTTPConnection("127.0.0.1", door, timeout=60)
    try:
        lives.wait_ready()
        for start in range(0, EVENTS, BATCH):
            batch = stream[start : start + BATCH]
            headers = {"Content-Type": "application/x-ndjson", "Prefer": "return=representation"}
            connection.request("POST", "/v1/events", b"".join(text for _, _, text in batch), headers)
            answer = connection.getresponse()
            said = json.loads(answer.read())
            assert answer.status == 202, said
            verdicts = {one["index"]: one.get("reason", "") for one in said["events"]}
            assert verdicts == {index: reason for index, (reason, _, _) in enumerate(batch)}
        text = lives.metrics()
        lives.end()
    finally:
        connection.close()
        lives.abandon()
    assert differences(oracle.samples(), exposed(text, "judgment_")) == []
    _assert_rejects(text, "door")
    _assert_letters(lives.state, stream)
