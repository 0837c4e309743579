"""Events on their way: sent to an HTTP door at their times, and sent again until they are acknowledged."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from evalgauge.core.errors import EvalgaugeError

if TYPE_CHECKING:
    import threading

    from evalgauge.core.demo.timeline import Timeline

TICK = 0.1
"""Seconds between two requests."""
_PATIENCE = 15.0


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
    """Plays a timeline, `speed` times as fast as it is, to a door."""

    def __init__(self, timeline: Timeline, url: str, speed: float) -> None:
        self._timeline, self._url, self._speed = timeline, urlsplit(url), speed
        self._connection: http.client.HTTPConnection | None = None
        self.sent = Sent()

    def play(self, seconds: float, stop: threading.Event) -> None:
        """Send for so many seconds (0: without end), or until `stop`. Raises `EvalgaugeError` if no door opens."""
        begun = time.monotonic()
        played = 0.0
        while True:
            elapsed = time.monotonic() - begun
            until = min(elapsed, seconds) if seconds else elapsed
            lines = [one.line for one in self._timeline.between(played * self._speed, until * self._speed)]
            played = until
            if lines:
                self._post(lines)
            if (seconds and until >= seconds) or stop.wait(TICK):
                break
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
