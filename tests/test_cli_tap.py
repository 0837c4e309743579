"""`evalgauge tap`: events as they pass, and what each instrument makes of them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from tests.running import PROGRAM, evalgauge, judgment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.running import Done

PAYLOAD = "what was judged is nobody's business"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """One event of each fate."""
    path = tmp_path / "e.ndjson"
    lines = [
        judgment(
            1, execution_time_ms=812, confidence_score=1.5, input_data=PAYLOAD, final_result={"x": PAYLOAD}
        ),
        judgment(2, method_used="magic", input_data=PAYLOAD),
        b'{"id": "\\u001b[2Jx", "source": "s", "type": "other.thing", "data": {}}',
        b"",
        b'{"cut off',
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def tap(log: Path, *words: str) -> Done:
    """Tap a log by pack `judgment`."""
    return evalgauge("tap", "--pack", "judgment", log, *words)


def test_a_line_says_position_type_id_verdict_and_series(log: Path) -> None:
    """Values in the base unit, histograms with their bucket, counters as exposed."""
    first, second, third, fourth = tap(log).out.splitlines()
    labels = 'tenant="acme",workflow="w",method="rule"'
    assert first.split(" | ") == [
        f"{log}@0 judgment.executed id=j-1 accepted",
        f'judgment_executions_total{{{labels},status="success"}} 1',
        f'judgment_duration_seconds{{{labels}}} 0.812 le="1"',
        f'judgment_confidence_ratio{{{labels}}} 1.5 le="+Inf"',
        'judgment_records_total{tenant="acme",validity="invalid"} 1',
        'judgment_quality_violations_total{tenant="acme",rule="confidence_in_range"} 1',
    ]
    assert second.endswith(
        "judgment.executed id=j-2 refused not_in_enum: field `method_used` must be one of rule, llm, hybrid"
    )
    assert "unknown unknown_type: no loaded pack declares the event type 'other.thing'" in third
    assert fourth.endswith("_unknown id=? refused malformed_json: Input data was truncated")


def test_nothing_else_of_the_event_is_printed_and_nothing_steers_the_terminal(log: Path) -> None:
    """Payload fields stay inside; control characters are written out."""
    for words in ((), ("--json",)):
        done = tap(log, *words)
        assert PAYLOAD not in done.out + done.err
        assert "\x1b" not in done.out


def test_json_is_one_object_for_each_event(log: Path) -> None:
    """The same, for programs."""
    first, second, *_ = [json.loads(line) for line in tap(log, "--json").out.splitlines()]
    assert (first["position"], first["type"], first["id"], first["verdict"]) == (
        f"{log}@0",
        "judgment.executed",
        "j-1",
        "accepted",
    )
    assert {
        "metric": "judgment_duration_seconds",
        "labels": {"tenant": "acme", "workflow": "w", "method": "rule"},
        "value": 0.812,
        "bucket": "1",
    } in first["readings"]
    assert (second["verdict"], second["reason"], second["readings"]) == ("refused", "not_in_enum", [])


def test_filters(log: Path) -> None:
    """By verdict, type and number."""
    assert len(tap(log, "--refused-only").out.splitlines()) == 3
    assert len(tap(log, "--type", "judgment.executed").out.splitlines()) == 2
    assert len(tap(log, "--type", "_unknown", "--refused-only").out.splitlines()) == 2
    assert [line.split()[2] for line in tap(log, "--limit", "2").out.splitlines()] == ["id=j-1", "id=j-2"]


def test_standard_input_and_a_mapping() -> None:
    """A foreign object goes through the mapping; what the mapping cannot read says why."""
    examples = "examples/alpaca_eval"
    lines = (
        b'{"generator": "m", "annotator": "j", "preference": 1.25}\n{"generator": "m", "preference": "x"}\n'
    )
    done = evalgauge("tap", "-p", f"{examples}/pack.yaml", "-m", f"{examples}/mapping.yaml", "-", stdin=lines)
    first, second = done.out.splitlines()
    assert 'alpaca_win_ratio_total{model="m",judge="j"} 0.25' in first
    assert "alpaca_price_usd not observed" in first
    assert "refused mapping_failed: `preference` is a JSON string, not a number" in second


def test_following_shows_what_comes_and_ends_at_ctrl_c(log: Path) -> None:
    """From the end of the file on."""
    words = [str(PROGRAM), "tap", "--pack", "judgment", "--follow", str(log)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as following:
        assert following.stdout is not None
        number = 100
        seen: list[bytes] = []

        def write() -> None:
            nonlocal number
            number += 1
            with log.open("ab") as file:
                file.write(judgment(number) + b"\n")

        reader = threading.Thread(target=lambda: seen.append(following.stdout.readline()))  # type: ignore[union-attr]
        reader.start()
        while reader.is_alive():
            write()
            reader.join(0.1)
        following.send_signal(signal.SIGINT)
        assert following.wait(20) == 0
    assert re.search(rb" id=j-1\d\d accepted", seen[0])
