"""Events on their way: sent to an HTTP door at their times, and sent again until they are acknowledged."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from evalgauge.core.demo.timeline import SLICE
from evalgauge.core.errors import EvalgaugeError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from evalgauge.core.demo.timeline import Timeline

TICK = 0.1
"""Seconds between two requests."""
_PATIENCE = 15.0
_MOST = 2_000
"""A request is sent when it has so many events."""


@dataclass(slots=True)
class Sent:
    """What the door has acknowledged."""

    events: int = 0
    accepted: int = 0
    rejected: int = 0
    duplicate: int = 0
    retried: int = 0
    """Requests that were sent more than once."""
    reasons: dict[str, int] = field(default_factory=dict)


class Sender:
    """Plays a timeline to a door: the past `speed` times as fast as it went, and then what happens now."""

    def __init__(self, timeline: Timeline, url: str, begin: float, speed: float) -> None:
        """`begin` is the Unix time at which it begins."""
        self._timeline, self._url, self._speed = timeline, urlsplit(url), speed
        self._connection: http.client.HTTPConnection | None = None
        self.begin = self.until = begin
        """Unix time of the demo: at its begin, and up to when everything is acknowledged."""
        self.sent = Sent()

    def play(self, seconds: float, stop: threading.Event) -> None:
        """Send for so many seconds (0: without end), or until `stop`. Raises `EvalgaugeError` if no door opens.

        A machine that cannot keep up plays less in that time, and in the same order.
        """
        begun = time.monotonic()
        end = begun + seconds if seconds else float("inf")

        def over() -> bool:
            return stop.is_set() or time.monotonic() >= end

        while not over():
            # Nothing has happened yet that lies after now.
            passed = time.monotonic() - begun
            self.advance(min(self.begin + passed * self._speed, time.time()), over)
            stop.wait(TICK)
        self.close()

    def advance(self, until: float, over: Callable[[], bool] = lambda: False) -> None:
        """Send what happens before this Unix time, in order, unless it is `over` before.

        Raises `EvalgaugeError` if no door opens.
        """
        lines: list[bytes] = []
        at = self.until
        while at < until and not over():
            # Whole slices, so that a request never ends between two events of one moment.
            following = min((at // SLICE + 1) * SLICE, until)
            lines += [one.line for one in self._timeline.between(at, following)]
            at = following
            if lines and (len(lines) >= _MOST or at >= until):
                self._post(lines)
                lines, self.until = [], at
        if not lines:
            self.until = at

    def close(self) -> None:
        """Let the connection go."""
        if self._connection is not None:
            self._connection.close()

    def _post(self, lines: list[bytes]) -> None:
        body = b"\n".join(lines)
        headers = {"Content-Type": "application/x-ndjson", "Prefer": "return=representation"}
        end = time.monotonic() + _PATIENCE
        tries = 0
        while True:
            tries += 1
            try:
                if self._connection is None:
                    self._connection = http.client.HTTPConnection(
                        str(self._url.hostname), self._url.port, timeout=30
                    )
                self._connection.request("POST", self._url.path, body, headers)
                response = self._connection.getresponse()
                answer = response.read()
            except (OSError, http.client.HTTPException) as error:
                self._connection = None
                why = str(error)
            else:
                if response.status in (HTTPStatus.ACCEPTED, HTTPStatus.BAD_REQUEST):
                    break
                why = f"{response.status} {answer.decode(errors='replace')}"
            if time.monotonic() > end:
                raise EvalgaugeError(f"the demo's own door takes nothing: {why}")
            time.sleep(TICK)
        said = json.loads(answer)
        sent = self.sent
        sent.retried += tries > 1
        sent.events += said["received"]
        sent.accepted += said["accepted"]
        sent.rejected += said["rejected"]
        sent.duplicate += said["duplicate"]
        for one in said.get("events", ()):
            if one["status"] == "rejected":
                sent.reasons[one["reason"]] = sent.reasons.get(one["reason"], 0) + 1
