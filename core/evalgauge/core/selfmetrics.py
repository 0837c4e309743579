"""What the running process reports of itself: the metrics that pack `evalgauge` declares with `on: process`."""

from __future__ import annotations

import bisect
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from evalgauge.core.errors import ConfigError
from evalgauge.core.families import Family
from evalgauge.core.instrument import Declared
from evalgauge.core.instruments.counter import Counter
from evalgauge.core.pack.metric_model import CounterSpec, CountingSpec, HistogramSpec
from evalgauge.core.units import UNITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evalgauge.core.pack.model import Pack

PROCESS = "process"
DURABLE = (
    "evalgauge_events_received",
    "evalgauge_events_accepted",
    "evalgauge_events_rejected",
    "evalgauge_events_duplicated",
    "evalgauge_events_ignored",
    "evalgauge_events_late",
    "evalgauge_events_emitted",
    "evalgauge_input_bytes",
    "evalgauge_values_unobserved",
    "evalgauge_series_overflow_events",
    "evalgauge_dead_letters_dropped",
)
"""Counters that are part of the checkpoint, so that they agree with what they count through any crash."""


class SelfMetrics:
    """Values of the process's own metrics, from any thread; durable counters are the engine's."""

    def __init__(self, pack: Pack) -> None:
        self._specs: dict[str, CountingSpec] = {
            name: spec
            for name, spec in pack.metrics.items()
            if isinstance(spec, CountingSpec) and spec.on == [PROCESS]
        }
        self._pack = pack.pack
        self._held: dict[str, dict[tuple[str, ...], _Series]] = {
            name: {} for name in self._specs if name not in DURABLE
        }
        self._lock = threading.Lock()
        self._started = time.time()

    def _spec(self, name: str) -> CountingSpec:
        try:
            return self._specs[name]
        except KeyError:
            msg = f"pack `evalgauge` declares no metric `{name}` with `on: process`"
            raise ConfigError(msg) from None

    def durable(self) -> dict[str, Counter]:
        """The counters of `DURABLE`, new and empty, for the engine that keeps them."""
        return {name: Counter(Declared(self._pack, name, self._spec(name), {})) for name in DURABLE}

    def add(self, name: str, amount: float = 1, labels: tuple[str, ...] = ()) -> None:
        """Add to a counter of this process's life."""
        with self._lock:
            self._series(name, labels).value += amount

    def set(self, name: str, value: float, labels: tuple[str, ...] = ()) -> None:
        """Set a gauge."""
        with self._lock:
            self._series(name, labels).value = value

    def replace(self, name: str, values: Mapping[tuple[str, ...], float]) -> None:
        """Set a gauge for exactly these label sets; others vanish."""
        with self._lock:
            self._held[name] = {}
            for labels, value in values.items():
                self._series(name, labels).value = value

    def observe(self, name: str, value: float, labels: tuple[str, ...] = ()) -> None:
        """Observe a value, in the metric's base unit."""
        with self._lock:
            series = self._series(name, labels)
            spec = self._specs[name]
            assert isinstance(spec, HistogramSpec)  # noqa: S101 - for the type checker, and against a fault of the caller
            series.buckets[bisect.bisect_left(spec.buckets, value)] += 1
            series.value += value

    def _series(self, name: str, labels: tuple[str, ...]) -> _Series:
        held = self._held[name]
        series = held.get(labels)
        if series is None:
            spec = self._specs[name]
            if len(labels) != len(spec.labels):
                msg = f"{name} has the labels {list(spec.labels)}, not {len(labels)} of them"
                raise ValueError(msg)
            width = len(spec.buckets) + 1 if isinstance(spec, HistogramSpec) else 0
            series = held[labels] = _Series(width)
        return series

    def families(self) -> Sequence[Family]:
        """What the process reports now; durable counters come with the engine's families."""
        with self._lock:
            return [self._family(name, held) for name, held in self._held.items() if held]

    def _family(self, name: str, held: dict[tuple[str, ...], _Series]) -> Family:
        spec = self._specs[name]
        kind = "counter" if isinstance(spec, CounterSpec) else spec.type
        values = np.array([series.value for series in held.values()], np.float64)
        created = np.full(len(held), np.nan if kind == "gauge" else self._started)
        return Family(
            name=name,
            kind=kind,
            help=spec.help,
            unit=UNITS[spec.unit or "1"].base,
            label_names=tuple(spec.labels),
            series=list(held),
            values=values,
            created=created,
            born=np.zeros(len(held)),
            bounds=tuple(spec.buckets) if isinstance(spec, HistogramSpec) else (),
            buckets=np.array([series.buckets for series in held.values()], np.int64)
            if isinstance(spec, HistogramSpec)
            else None,
            # Label sets may come and go here, so nothing rendered of them may be kept.
            generation=-1,
        )


class _Series:
    __slots__ = ("buckets", "value")

    def __init__(self, width: int) -> None:
        self.value = 0.0
        self.buckets = [0] * width
