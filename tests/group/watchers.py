"""Who never stops looking while replicas come and go: numbers that must not fall, positions that must not go back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.kill.feeders import Feeder

if TYPE_CHECKING:
    from tests.group.replica import Replica
    from tests.group.view import View

GROWS = (
    "judgment_",
    "evalgauge_events_",
    "evalgauge_input_bytes_total",
    "evalgauge_values_unobserved_total",
)
"""Counters and histograms that are part of the state."""
_MAY_FALL = "judgment_score_sum"
"""The sum of values that may be negative."""
_NEXT_LOOK = 0.2


class Watcher(Feeder):
    """Scrapes one replica through all its lives, and fails when anything exposed ever decreases or vanishes."""

    def __init__(self, replica: Replica, grows: tuple[str, ...] = GROWS) -> None:
        """`grows`: how the names begin of what must never fall."""
        super().__init__()
        self._replica = replica
        self._grows = grows
        self._last: dict[str, float] = {}
        self.scrapes = 0

    def step(self) -> None:
        """Scrape once, if it answers; 503 is an answer that shows nothing."""
        text = self._replica.metrics()
        if text is not None:
            self.scrapes += 1
            now = {}
            for row in text.splitlines():
                if row.startswith(self._grows) and not row.startswith(_MAY_FALL) and ',replica="' not in row:
                    name, _, value = row.rpartition(" ")
                    now[name] = float(value)
            for name, before in self._last.items():
                assert name in now, f"{self._replica.name}: {name} was {before} and has vanished"
                assert now[name] >= before, f"{self._replica.name}: {name} fell from {before} to {now[name]}"
            self._last = now
        time.sleep(_NEXT_LOOK)


class PositionWatcher(Feeder):
    """Looks at the committed positions of a group again and again, and fails when one ever goes back."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view
        self._last: dict[int, int] = {}

    def close(self) -> None:
        """Let go of the view."""
        self._view.close()

    def step(self) -> None:
        """Look once."""
        for partition, offset in self._view.committed().items():
            before = self._last.get(partition, offset)
            assert offset >= before, (
                f"partition {partition} was committed to {before}, and is to {offset} now"
            )
            self._last[partition] = offset
        time.sleep(_NEXT_LOOK)
