"""Who sends while the receiver dies: a writer of a rotated log, a client that sends again, a scraper that watches."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.events import line, lines

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.events import Event

_TIMEOUT = 10.0
_GIVE_UP = 180.0
_POISON = (b'{"cut off\n', b"[1]\n", b'{"type":"nobody.knows","id":"1","source":"s","data":{}}\n')
_GROWS = (
    "judgment_",
    "evalgauge_events_",
    "evalgauge_input_bytes_total",
    "evalgauge_values_unobserved_total",
)
"""Counters and histograms that are part of the state, and so must never fall."""
_MAY_FALL = "judgment_score_sum"
"""The sum of values that may be negative."""


class Feeder(threading.Thread):
    """A thread that works step by step until `finish`, and keeps what ended it otherwise."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._finishing = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        """Step until told to finish."""
        try:
            while not self._finishing.is_set():
                self.step()
            self.last_step()
        except BaseException as error:  # noqa: BLE001 - told by `finish`
            self.error = error
        finally:
            self.close()

    def step(self) -> None:
        """Do one thing."""
        raise NotImplementedError

    def last_step(self) -> None:
        """Do what is left to do at the end."""

    def close(self) -> None:
        """Let go of what it holds."""

    def finish(self) -> None:
        """Wait for the end. Raises what went wrong."""
        self._finishing.set()
        self.join(_GIVE_UP + _TIMEOUT)
        if self.error is not None:
            raise self.error
        assert not self.is_alive(), f"{type(self).__name__} does not end"


class Writer(Feeder):
    """Appends events to a log in pieces that need not end with a line, and renames it now and then."""

    def __init__(
        self, path: Path, events: Iterator[Event], rng: random.Random, *, poison: bool = True
    ) -> None:
        super().__init__()
        self._path = path
        self._events = events
        self._rng = rng
        self._poison = poison
        self._rest = b""
        self._rotate_at = float("inf")
        self.written: list[Event] = []
        self.poisoned = 0
        self.size = 0
        self.rotations = 0

    def backlog(self, number: int) -> None:
        """Write many at once, before anybody reads."""
        self._append(number)
        self._whole()

    def rotate(self) -> None:
        """Begin to rotate now and then."""
        self._rotate_at = time.monotonic() + self._rng.random()

    def step(self) -> None:
        """Append a few events; rotate when it is time."""
        self._append(self._rng.randrange(1, 8))
        if time.monotonic() >= self._rotate_at:
            self._whole()
            self._rotate()
        time.sleep(self._rng.random() * 0.04)

    def last_step(self) -> None:
        """Write a last event, whole."""
        self._append(1)
        self._whole()

    def _whole(self) -> None:
        self._write(self._rest)
        self._rest = b""

    def _append(self, number: int) -> None:
        fresh = list(itertools.islice(self._events, number))
        self.written += fresh
        text = self._rest + lines(fresh)
        if self._poison and self._rng.random() < 0.1:
            text += self._rng.choice(_POISON)
            self.poisoned += 1
        cut = self._rng.choice((len(text), self._rng.randrange(len(text) + 1)))
        self._write(text[:cut])
        self._rest = text[cut:]

    def _write(self, text: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(text)
        self.size += len(text)

    def _rotate(self) -> None:
        for number in range(self.rotations, 0, -1):
            self._path.with_name(f"{self._path.name}.{number}").rename(f"{self._path}.{number + 1}")
        self._path.rename(f"{self._path}.1")
        self.rotations += 1
        self._rotate_at = time.monotonic() + self._rng.uniform(0.4, 1.6)


class Client(Feeder):
    """Posts batches; what was not acknowledged is sent again, and now and then what was."""

    def __init__(self, url: str, events: Iterator[Event], rng: random.Random) -> None:
        super().__init__()
        self._address = urlsplit(url)
        self._events = events
        self._rng = rng
        self._connection: http.client.HTTPConnection | None = None
        self._said = ""
        self.acknowledged: list[Event] = []
        self.batches = 0
        self.repeated = 0
        """Batches that were sent more than once."""

    def step(self) -> None:
        """Send one batch until it is acknowledged."""
        batch = list(itertools.islice(self._events, self._rng.choice((1, 1, 2, 5, 20, 50))))
        body = lines(batch) if len(batch) > 1 else line(batch[0])
        deadline = time.monotonic() + _GIVE_UP
        tries = 1
        while not self._sent(body, len(batch)):
            tries += 1
            assert time.monotonic() < deadline, f"not acknowledged in {_GIVE_UP} s; last: {self._said}"
            time.sleep(0.01)
        if self._rng.random() < 0.03:
            tries += 1
            self._sent(body, len(batch))
        self.acknowledged += batch
        self.batches += 1
        self.repeated += tries > 1
        time.sleep(self._rng.random() * 0.04)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def _sent(self, body: bytes, number: int) -> bool:
        connection = self._connection
        if connection is None:
            host, port = self._address.hostname or "", self._address.port
            connection = self._connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
        try:
            connection.request("POST", self._address.path, body, {"Content-Type": "application/x-ndjson"})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self._connection = None
            self._said = f"{type(error).__name__}: {error}"
            return False
        self._said = f"{answer.status} {text[:500]!r}"
        assert answer.status in {202, 503}, self._said
        assert answer.status != 202 or b'"received":%d,' % number in text, self._said
        return answer.status == 202


class Watcher(Feeder):
    """Scrapes without a pause, and fails when anything exposed ever decreases or vanishes."""

    def __init__(self, url: str, grows: tuple[str, ...] = _GROWS) -> None:
        """`grows`: how the names begin of what must never fall."""
        super().__init__()
        self._url = url
        self._grows = grows
        self._last: dict[str, float] = {}
        self.scrapes = 0

    def step(self) -> None:
        """Scrape once, if somebody answers."""
        try:
            with urllib.request.urlopen(self._url, timeout=_TIMEOUT) as answer:
                text = answer.read().decode()
        except (OSError, http.client.HTTPException):
            time.sleep(0.005)
            return
        self.scrapes += 1
        now = {}
        for row in text.splitlines():
            if row.startswith(self._grows) and not row.startswith(_MAY_FALL):
                name, _, value = row.rpartition(" ")
                now[name] = float(value)
        for name, before in self._last.items():
            assert name in now, f"{name} was {before} and has vanished"
            assert now[name] >= before, f"{name} fell from {before} to {now[name]}"
        self._last = now
        time.sleep(0.02)


def all_finish(feeders: list[Feeder], report: Callable[[str], None]) -> None:
    """End all feeders, and report what went wrong with each."""
    for feeder in feeders:
        try:
            feeder.finish()
        except BaseException as error:  # noqa: BLE001 - reported
            report(f"{type(feeder).__name__}: {type(error).__name__}: {error}")
