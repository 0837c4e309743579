"""One replica of a group: a real process that is killed, frozen or ended, and started again under the same name."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import yaml

from evalgauge.core import flight
from evalgauge.core.flight import Phase
from tests.kill.life import PROGRAM, Death
from tests.parts.part import answers, free_port

if TYPE_CHECKING:
    import random
    from pathlib import Path

READY_SECONDS = 120.0
STRIKE_SECONDS = 120.0
"""So long a replica that is fed may take to have work that is not committed: partitions may have to come first."""
_IN_COMMIT = (Phase.COMMITTING, Phase.COMMITTED)
_PLACES = {Phase.COMMITTING: "in", Phase.COMMITTED: "after"}


class Replica:
    """One process after the other, all of one name, one configuration, one port and one folder."""

    def __init__(self, name: str, folder: Path, config: dict[str, Any]) -> None:
        """`config` is without folder and port, which are the replica's own."""
        folder.mkdir(parents=True)
        self.name = name
        self.state = folder / "state"
        port = free_port()
        self.target = f"127.0.0.1:{port}"
        self.metrics_url = f"http://{self.target}/metrics"
        self._ready_url = f"http://{self.target}/readyz"
        self._config = folder / "evalgauge.yaml"
        self._config.write_text(
            yaml.safe_dump(
                config
                | {
                    "replica": name,
                    "state": config["state"] | {"folder": str(self.state)},
                    "exporters": {"prometheus": {"type": "prometheus", "listen": self.target}},
                }
            )
        )
        self._log = folder / "evalgauge.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_at = 0.0
        self.starts = 0

    @property
    def pid(self) -> int:
        """The process id; it must have been started."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.poll() is None

    def start(self, failpoint: str = "") -> None:
        """Start a process; with a failpoint such as `commit.inside:3` it ends itself there."""
        assert not self.running, f"{self.name} runs already"
        environment = {**os.environ, "EVALGAUGE_FAILPOINT": failpoint}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "run", "--config", self._config], env=environment, stdout=log, stderr=log
            )
        self.starts += 1
        self._ready_at = 0.0

    def ready(self) -> bool:
        """Whether it says that it is ready. Raises `AssertionError` with its log if it has ended."""
        self.check()
        if not answers(self._ready_url):
            return False
        self._ready_at = self._ready_at or time.monotonic()
        return True

    def wait_ready(self) -> None:
        """Wait until it says it is ready."""
        deadline = time.monotonic() + READY_SECONDS
        while not self.ready():
            assert time.monotonic() < deadline, (
                f"{self.name} is not ready in {READY_SECONDS:g} s, it says {self.complaint()!r}:\n{self.tail()}"
            )
            time.sleep(0.05)

    def complaint(self) -> str:
        """What `/readyz` says now."""
        try:
            with urllib.request.urlopen(self._ready_url, timeout=10) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.read().decode(errors="replace")
        except OSError as error:
            return str(error)

    def check(self) -> None:
        """It must run. Raises `AssertionError` with its log if it has ended by itself."""
        assert self._process is not None, f"{self.name} was not started"
        code = self._process.poll()
        assert code is None, f"{self.name} has ended by itself, with {code}:\n{self.tail()}"

    def metrics(self) -> str | None:
        """One scrape, text format 0.0.4; None while it does not show any."""
        try:
            with urllib.request.urlopen(self.metrics_url, timeout=30) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as refusal:
            refusal.close()
            if refusal.code != 503:
                raise
            return None
        except (OSError, http.client.HTTPException):
            return None

    def freeze(self, rng: random.Random, aim: str = "any") -> flight.Record:
        """Stop it with SIGSTOP at a random moment at which it holds work that is not committed; what it was at.

        `aim`: `before` a commit, `in` one, or `any` moment of the two. If there was nothing to lose it goes on and
        is stopped again a little later, so that what it was doing is known and not guessed.
        """
        deadline = time.monotonic() + STRIKE_SECONDS
        while time.monotonic() < deadline:
            time.sleep(rng.random() * 0.05)
            if aim == "in":
                self._await_commit(deadline)
            self.check()
            os.kill(self.pid, signal.SIGSTOP)
            _, status = os.waitpid(self.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status), f"{self.name} ended by itself, status {status}:\n{self.tail()}"
            record = flight.read(self.state)
            if record is not None and record.pid == self.pid:
                at_hand = "in" if record.phase in _IN_COMMIT else "before" if record.uncommitted else ""
                if at_hand and aim in {at_hand, "any"}:
                    return record
            os.kill(self.pid, signal.SIGCONT)
        raise AssertionError(
            f"{self.name} has no work to lose in {STRIKE_SECONDS:g} s, it says {self.complaint()!r}:\n{self.tail()}"
        )

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        os.kill(self.pid, signal.SIGCONT)

    def strike(self, rng: random.Random, aim: str = "any") -> Death:
        """Kill it at a random moment at which it holds work that is not committed, as `freeze` finds it."""
        self.freeze(rng, aim)
        self.kill()
        return self._death()

    def kill(self) -> None:
        """Kill it, whatever it is at."""
        os.kill(self.pid, signal.SIGKILL)
        self._buried()

    def await_failpoint(self, place: str) -> Death:
        """Wait until it has ended itself at its failpoint."""
        self._buried()
        return self._death(place)

    def _buried(self) -> None:
        assert self._process is not None
        try:
            code = self._process.wait(STRIKE_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} does not come to its end, it says {self.complaint()!r}:\n{self.tail()}"
            ) from None
        assert code == -signal.SIGKILL, f"{self.name} ended with {code}, not by SIGKILL:\n{self.tail()}"

    def _death(self, place: str = "") -> Death:
        record = flight.read(self.state)
        assert record is not None, f"{self.name} left no flight record"
        assert record.pid == self.pid
        lived = time.monotonic() - self._ready_at if self._ready_at else 0.0
        hit_work = record.uncommitted > 0 or record.phase in _IN_COMMIT
        return Death(place or _PLACES.get(record.phase, "before"), record.uncommitted, lived, hit_work)

    def _await_commit(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            record = flight.read(self.state)
            if record is not None and record.phase in _IN_COMMIT:
                return
            self.check()
            time.sleep(0.0002)

    def end(self, seconds: float = READY_SECONDS) -> float:
        """Send SIGTERM and wait for its end in order; the seconds that took."""
        self.check()
        assert self._process is not None
        asked = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} has not ended {seconds:g} s after SIGTERM:\n{self.tail()}"
            ) from None
        assert code == 0, f"SIGTERM ended {self.name} with {code}:\n{self.tail()}"
        return time.monotonic() - asked

    def abandon(self) -> None:
        """Kill whatever runs, after a failure or at the end."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        """All that its processes have logged."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def tail(self) -> str:
        """The end of that, for a message."""
        return self.log()[-4000:]
