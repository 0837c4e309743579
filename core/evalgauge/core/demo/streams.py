"""A stream engine at work: what it processes, what fails, and the anomalies it finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalgauge.core.demo.script import PAYMENTS
from evalgauge.core.demo.timeline import SLICE, dice, spread, told
from evalgauge.core.demo.week import HOUR, MINUTE, busyness

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from evalgauge.core.demo.timeline import Told

TYPES = {"order.placed": (4, 12), "payment.taken": (10, 40), "page.viewed": (6, 20)}
"""Events a minute at night and by day."""
SOURCES = ("checkout-eu", "checkout-us")
_SOURCE = "/demo/streams"
_GAP = "payment_gap"
_ANOMALY_EVERY = 2 * HOUR
"""One of small severity each, which nobody needs to look at."""


class Streams:
    """A shop's stream engine."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def during(self, number: int) -> Iterator[Told]:
        """What it processes and finds in one slice."""
        yield from self._processed(number)
        yield from self._anomalies(number)

    def _processed(self, number: int) -> Iterator[Told]:
        start = number * SLICE
        busy, failing = busyness(start), PAYMENTS.on(start)
        for name, (night, day) in TYPES.items():
            roll = dice("streams", self._seed, name, number)
            for place, at in enumerate(spread(roll, night + (day - night) * busy, start)):
                source = SOURCES[roll.random() < 0.35]
                bad = failing and name == "payment.taken" and source == "checkout-eu"
                fate = roll.random()
                share = 0.9 if bad else 0.003
                status = "error" if fate < share else "filtered" if fate > 0.95 else "success"
                data = {
                    "event_type": name,
                    "status": status,
                    "processing_time_ms": round(roll.lognormvariate(0, 0.6) * (6.0 if bad else 0.4), 3),
                    "source": source,
                    "partition": roll.randrange(6),
                }
                yield told(at, f"x-{self._seed}-{name}-{number}-{place}", _SOURCE, _PROCESSED, data)

    def _anomalies(self, number: int) -> Iterator[Told]:
        start = number * SLICE
        roll = dice("anomalies", self._seed, number)
        if PAYMENTS.on(start):
            since = start - PAYMENTS.begun(start)
            severity = (
                "critical" if since == 2 * MINUTE else "high" if since % (5 * MINUTE) == 0 else "medium"
            )
            yield self._anomaly(roll, number, _GAP, severity)
        elif dice("anomaly", self._seed, start // _ANOMALY_EVERY).randrange(
            _ANOMALY_EVERY // SLICE
        ) == number % (_ANOMALY_EVERY // SLICE):
            yield self._anomaly(roll, number, "page_spike", roll.choice(("low", "low", "medium")))

    def _anomaly(self, roll: random.Random, number: int, type_: str, severity: str) -> Told:
        expected, value = 30, (30 if type_ == _GAP else 90) * roll.random()
        data = {
            "anomaly_type": type_,
            "severity": severity,
            "score": round(abs(expected - value) / expected, 3),
            "expected": expected,
            "value": round(value, 1),
        }
        at = (number + roll.random()) * SLICE
        return told(at, f"y-{self._seed}-{number}", _SOURCE, _FOUND, data)


_PROCESSED, _FOUND = "stream.event.processed", "stream.anomaly.detected"
