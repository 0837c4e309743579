"""A running evalgauge that is killed where it hurts, and started again on the same state."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from evalgauge.core import flight
from evalgauge.core.flight import Phase

if TYPE_CHECKING:
    import random

PROGRAM = Path(sys.executable).with_name("evalgauge")
READY_SECONDS = 120.0
STRIKE_SECONDS = 90.0
"""So long a process that is fed may take to have work that is not committed."""
_PHASE_AT = struct.calcsize("<8sq")
_IN_COMMIT = (Phase.COMMITTING, Phase.COMMITTED)


@dataclass(frozen=True)
class Death:
    """How a process died, by its flight record."""

    place: str
    """`before`, `in` or `after` a commit."""
    uncommitted: int
    """Events taken in that were not durable, or not acknowledged."""
    seconds: float
    """How long it was ready before."""
    hit_work: bool
    """There was work that was not committed, or a commit under way."""


class Lives:
    """One process after the other, all with the same configuration and state."""

    def __init__(self, folder: Path, config: dict[str, Any], door: int, metrics: int) -> None:
        """`door` and `metrics` are the ports of the HTTP input and of `/metrics`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.door_url = f"http://127.0.0.1:{door}/v1/events"
        self.metrics_url = f"http://127.0.0.1:{metrics}/metrics"
        self._ready_url = f"http://127.0.0.1:{metrics}/readyz"
        self.state = folder / "state"
        self._config = folder / "evalgauge.yaml"
        self._config.write_text(
            yaml.safe_dump(config | {"state": config["state"] | {"folder": str(self.state)}})
        )
        self._log = folder / "evalgauge.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_at = 0.0

    def start(self, failpoint: str = "") -> None:
        """Start a process; with a failpoint such as `commit.inside:3` it ends itself there."""
        environment = {**os.environ, "EVALGAUGE_FAILPOINT": failpoint}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "run", "--config", self._config], env=environment, stdout=log, stderr=log
            )

    def wait_ready(self) -> None:
        """Wait until it says it is ready. Raises `AssertionError` with its log if it ends instead."""
        assert self._process is not None
        deadline = time.monotonic() + READY_SECONDS
        while True:
            assert self._process.poll() is None, (
                f"ended with {self._process.returncode} at start:\n{self.log()}"
            )
            assert time.monotonic() < deadline, f"not ready in {READY_SECONDS} s:\n{self.log()}"
            try:
                with urllib.request.urlopen(self._ready_url, timeout=5):
                    break
            except (OSError, urllib.error.HTTPError):
                time.sleep(0.03)
        self._ready_at = time.monotonic()

    def strike(self, rng: random.Random, aim: str) -> Death:
        """Kill it at a random moment at which it holds work that is not committed.

        `aim`: `before` a commit, `in` one, or `any` moment of the two.
        It is stopped first and its record read, so that what it was doing is known and not guessed; if there
        was nothing to lose it goes on and is stopped again a little later.
        """
        assert self._process is not None
        pid = self._process.pid
        deadline = time.monotonic() + STRIKE_SECONDS
        while time.monotonic() < deadline:
            time.sleep(rng.random() * 0.05)
            if aim == "in":
                self._await_commit(deadline)
            os.kill(pid, signal.SIGSTOP)
            _, status = os.waitpid(pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status), f"it ended by itself, status {status}:\n{self.log()}"
            record = flight.read(self.state)
            if record is not None and record.pid == pid:
                at_hand = "in" if record.phase in _IN_COMMIT else "before" if record.uncommitted else ""
                if at_hand and aim in {at_hand, "any"}:
                    os.kill(pid, signal.SIGKILL)
                    return self._buried()
            os.kill(pid, signal.SIGCONT)
        raise AssertionError(f"no work in {STRIKE_SECONDS} s at which to kill it:\n{self.log()}")

    def _await_commit(self, deadline: float) -> None:
        with (self.state / flight.FILE).open("rb") as file:
            record = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with record:
            while time.monotonic() < deadline:
                if record[_PHASE_AT] in _IN_COMMIT:
                    return
                time.sleep(0.0001)

    def await_failpoint(self, place: str) -> Death:
        """Wait until it has ended itself at its failpoint."""
        assert self._process is not None
        self._process.wait(STRIKE_SECONDS)
        return self._buried(
            {"commit.before": "before", "commit.inside": "in", "commit.after": "after"}[place]
        )

    def _buried(self, place: str = "") -> Death:
        assert self._process is not None
        code = self._process.wait(STRIKE_SECONDS)
        assert code == -signal.SIGKILL, f"ended with {code}, not by SIGKILL:\n{self.log()}"
        record = flight.read(self.state)
        assert record is not None, "it left no flight record"
        assert record.pid == self._process.pid
        places = {Phase.COMMITTING: "in", Phase.COMMITTED: "after"}
        return Death(
            place or places.get(record.phase, "before"),
            record.uncommitted,
            time.monotonic() - self._ready_at,
            record.uncommitted > 0 or record.phase in _IN_COMMIT,
        )

    def end(self) -> None:
        """Let it end in order, and check that it does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(READY_SECONDS)
        assert code == 0, f"SIGTERM ended it with {code}:\n{self.log()}"

    def abandon(self) -> None:
        """Kill whatever runs, after a failure."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def metrics(self) -> str:
        """One scrape, text format 0.0.4."""
        with urllib.request.urlopen(self.metrics_url, timeout=10) as answer:
            return str(answer.read().decode())

    def log(self) -> str:
        """The end of what all of them have logged."""
        return self._log.read_text(errors="replace")[-4000:]
