"""What every collector does under the real engine: counts are exact after stops, kills, poison and repeats."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from typing import TYPE_CHECKING

import pytest

from evalgauge.core.event import Limits
from tests.conformance.sink import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conformance.drivers import Driver

_SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)")


def event(n: int, **data: object) -> bytes:
    """Judgment n, which took n milliseconds."""
    envelope = {"specversion": "1.0", "id": f"e-{n}", "source": "/test", "type": "judgment.executed"}
    fields = {
        "tenant_id": "t",
        "workflow_id": "w",
        "method_used": "llm",
        "status": "success",
        "execution_time_ms": n,
    }
    return json.dumps(envelope | {"data": fields | data}).encode()


def body(first: int, last: int) -> bytes:
    """Judgments, first included, last excluded, one a line."""
    return b"".join(event(n) + b"\n" for n in range(first, last))


class Running:
    """`evalgauge run` with one input, in a process of its own."""

    def __init__(self, driver: Driver, folder: Path) -> None:
        self.driver = driver
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        config = {
            "packs": ["judgment"],
            "inputs": {"door": driver.config() | {"type": driver.kind}},
            "exporters": {"metrics": {"type": "prometheus", "listen": f"127.0.0.1:{self._port}"}},
            "state": {"folder": str(folder / "state"), "commit_interval": 0.05},
        }
        self._config = folder / "evalgauge.yaml"
        self._config.write_text(json.dumps(config))
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it is ready."""
        program = "from evalgauge.core.cli import main; main()"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program, "run", "--config", str(self._config)], stderr=log, stdout=log
            )
        wait_until(self._ready, "never became ready")

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=5):
                return True
        except OSError:
            return False

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it by a signal."""
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(20)
        assert code == (0 if number is signal.SIGTERM else -number), self._log.read_text()

    def close(self) -> None:
        """Leave nothing running."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def total(self, name: str, **labels: str) -> float:
        """The sum of a sample over the series that have these labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = (match for line in text.splitlines() if (match := _SAMPLE.match(line)))
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            float(match[3])
            for match in found
            if match[1] == name and all(w in (match[2] or "") for w in wanted)
        )

    def counted(self, last: int) -> None:
        """Judgments 0 to `last` (excluded) are counted, each once: their number and the sum of their times."""
        wait_until(
            lambda: self.total("judgment_executions_total") >= last,
            f"{self.total('judgment_executions_total')} of {last} counted\n{self._log.read_text()}",
        )
        assert self.total("judgment_executions_total") == last
        assert self.total("judgment_duration_seconds_sum") == pytest.approx(sum(range(last)) / 1000, abs=1e-9)

    def deliver(self, lines: bytes) -> None:
        """Deliver until it is safe."""
        wait_until(lambda: self.driver.deliver(lines), "never acknowledged")


@pytest.fixture
def running(driver: Driver, tmp_path: Path) -> Iterator[Running]:
    """A ready process."""
    one = Running(driver, tmp_path)
    one.start()
    yield one
    one.close()


def test_counts_are_exact_after_stops_and_restarts(running: Running) -> None:
    """SIGTERM commits what was taken; nothing is counted again."""
    for turn in range(3):
        running.deliver(body(turn * 200, turn * 200 + 200))
        if turn == 1:
            running.counted(400)
        running.end()
        running.start()
    running.counted(600)


def test_counts_are_exact_after_kills(running: Running) -> None:
    """SIGKILL while events are on their way; senders send again what was not acknowledged."""
    for turn in range(4):
        sender = threading.Thread(target=running.deliver, args=(body(turn * 500, turn * 500 + 500),))
        sender.start()
        if turn % 2:
            wait_until(lambda: running.total("judgment_executions_total") > turn * 500)  # noqa: B023 - called at once
        running.end(signal.SIGKILL)
        running.start()
        sender.join()
    running.counted(2000)


def test_poison_is_refused_alone(running: Running) -> None:
    """Each with its reason; the others are counted."""
    poison = {
        "malformed_json": b'{"id": "half',
        "not_an_object": b"[1, 2]",
        "invalid_utf8": event(9).replace(b'"w"', b'"\xff"'),
        "not_in_enum": event(9, status="perhaps"),
        "wrong_type": event(9, execution_time_ms="long"),
        "missing_field": event(9, tenant_id=None),
        "too_large": event(9, workflow_id="x" * Limits().event_bytes * 2),
    }
    lines = body(0, 50).splitlines()
    for at, line in enumerate(poison.values()):
        lines.insert(at * 5 + 3, line)
    running.deliver(b"".join(line + b"\n" for line in lines))
    running.counted(50)
    for reason in poison:
        assert running.total("evalgauge_events_rejected_total", reason=reason) == 1, reason
    assert running.total("evalgauge_events_rejected_total") == len(poison)


def test_an_empty_batch_changes_nothing(running: Running) -> None:
    """And the next is counted."""
    running.driver.deliver(b"\n\n")
    running.deliver(body(0, 3))
    running.counted(3)
    assert running.total("evalgauge_events_rejected_total") == 0


def test_what_is_pushed_twice_counts_once(running: Running) -> None:
    """Also over a kill between the two."""
    if not running.driver.pushes:
        pytest.skip("a log may hold equal lines, and each of them counts")
    running.deliver(body(0, 100))
    running.deliver(body(0, 100))
    running.end(signal.SIGKILL)
    running.start()
    running.deliver(body(50, 150))
    running.counted(150)
    assert running.total("evalgauge_events_duplicated_total") == 50 + 100


def test_a_large_batch_is_counted_whole(running: Running) -> None:
    """Larger than a chunk."""
    running.deliver(body(0, 20_000))
    running.counted(20_000)
