"""Progress: how far the pairs of a key have come, when they will be done, and when milestones were reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from evalgauge.core.emission import Emitter, Hits
from evalgauge.core.instrument import Declared, Merged
from evalgauge.core.instruments.grouping import Slots, series_index
from evalgauge.core.instruments.progress_line import WHOLE
from evalgauge.core.instruments.progress_part import Found, Projects, Shown
from evalgauge.core.instruments.progress_rows import ProgressRows, ReducingProgress
from evalgauge.core.instruments.tally import Tally
from evalgauge.core.pack.emitted import percent, progress
from evalgauge.core.pack.metric_model import ProgressSpec
from evalgauge.core.series import SeriesIndex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evalgauge.core.clock import Clock
    from evalgauge.core.emission import Emission
    from evalgauge.core.families import Family
    from evalgauge.core.pack.emitted import Emitted

_SECOND = 1_000_000


class Progress:
    """The mean over the pairs of a key, known or announced; the line through its last points; milestones.

    Scope: partition; counts of what was evicted are the replica's. Keys that share a series are shown as one: the mean
    over all their pairs, and no estimate.

    Unobserved: events without a key or pair, values that are not from 0 to 100 %, and announcements that are no whole
        number from 0 to a thousand million.
    Late: events that are older by `ttl` than time has come, or ahead of their arrival by more than `clock_ahead`.
    Evicted: beyond `keys`, pairs and keys whose newest event is oldest; beyond `milestone_keys`, keys whose last
        milestone is oldest.
    """

    version: ClassVar[int] = 1
    keyed: ClassVar[bool] = True

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, ProgressSpec)  # noqa: S101 - the entry point's name says so
        self._declared, self._spec = declared, spec
        self._exposed = progress(declared.name, spec)
        self._emitter = None if spec.emit is None else Emitter(declared, spec.emit, spec.key)
        self._tally = Tally(declared, self.version, SeriesIndex((), 0), {}, ("evicted", "milestones_evicted"))
        self.tables = self._tally.tables

    @staticmethod
    def reducing(declared: Declared) -> ReducingProgress:
        """The reducing half."""
        return ReducingProgress(declared)

    def part(self, clock: Clock) -> Projects:
        """The keys of one more partition."""
        index = series_index(self._spec, [self._declared.types[type_] for type_ in self._spec.labelled])
        texts = self._exposed.milestones.more["milestone"]
        return Projects(self._declared, self.version, index, texts, clock)

    @staticmethod
    def index() -> None:
        """Its series are the partitions'."""

    def merge(self, delta: ProgressRows, slots: Slots, part: Projects) -> Merged:
        """Take events in."""
        slots.part.resolve(delta.groups)
        series, overflow = slots.part.of_rows(delta.rows.slots)
        by = []
        for place, told in enumerate(delta.by):
            found, over = part.by_series(place, series, told)
            by.append(found)
            overflow |= over
        taken = part.take(delta, slots, series, by)
        self._tally.count(evicted=taken.evicted, milestones_evicted=taken.milestones_evicted)
        emitted = [] if self._emitter is None else self._emissions(self._emitter, delta, slots, part, taken)
        unobserved, late = delta.groups.skipped + delta.unobserved, taken.late + delta.rows.early
        return Merged(int(np.count_nonzero(overflow)), unobserved, late, emitted)

    def _emissions(
        self, emitter: Emitter, delta: ProgressRows, slots: Slots, part: Projects, taken: Found
    ) -> list[Emission]:
        reached = taken.reached
        hits = Hits(
            rows=np.array([one.row for one in reached], np.intp),
            series=np.array([one.series for one in reached], np.intp),
            own=[{"milestone": percent(one.milestone), "ratio": one.milestone} for one in reached],
            times=np.array([one.time for one in reached], np.int64),
        )
        return emitter.emissions(delta.rows, slots, part, hits)

    def families(self, generation: int, parts: Sequence[Projects]) -> Sequence[Family]:
        """What is committed of these partitions."""
        exposed, shown = self._exposed, [part.shown for part in parts]
        labels, counts = _together([(one.labels, one.counts) for one in shown])
        sums, pairs, expected, keys = counts.reshape(-1, 4).T
        estimates = _estimates(labels, keys, shown)
        families = [exposed.ratio.family(labels, _ratio(sums, expected))]
        for place, emitted in enumerate(exposed.by):
            told, found = _together([one.by[place] for one in shown if one.by])
            families.append(emitted.family(told, _ratio(*found.reshape(-1, 2).T)))
        families += [
            exposed.pairs.family(labels, pairs.copy()),
            exposed.expected.family(labels, expected.copy()),
            exposed.done.family(labels, sums / WHOLE),
            _where(exposed.rate, labels, estimates[:, 0]),
            _where(exposed.completion, labels, estimates[:, 1]),
            _where(exposed.fit, labels, estimates[:, 2]),
            self._tally.family_apart(exposed.evicted, "evicted", generation),
        ]
        if self._spec.milestones:
            reached: dict[tuple[str, ...], int] = {}
            for series, time in (item for one in shown for item in one.milestones.items()):
                reached[series] = max(time, reached.get(series, time))
            families += [
                exposed.milestones.family(list(reached), np.array(list(reached.values())) / _SECOND),
                self._tally.family_apart(exposed.milestones_evicted, "milestones_evicted", generation),
            ]
        return families


def _ratio(sums: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean progress (n,) of pairs (n,), above 0, that together have come so far (n,)."""
    found: NDArray[np.float64] = sums / (pairs * WHOLE)
    return found


def _together(
    parts: Sequence[tuple[list[tuple[str, ...]], NDArray[np.int64]]],
) -> tuple[list[tuple[str, ...]], NDArray[np.int64]]:
    """Every label set of the parts once (m), with what they have of it together (m, width)."""
    if len(parts) == 1:
        return parts[0]
    place: dict[tuple[str, ...], int] = {}
    rows = [[place.setdefault(one, len(place)) for one in labels] for labels, _ in parts]
    width = max((counts.shape[1] for _, counts in parts), default=0)
    found = np.zeros((len(place), width), np.int64)
    for at, (_, counts) in zip(rows, parts, strict=True):
        found[at] += counts
    return list(place), found


def _estimates(
    labels: list[tuple[str, ...]], keys: NDArray[np.int64], shown: Sequence[Shown]
) -> NDArray[np.float64]:
    """Estimates (n, 3) of label sets (n); NaN where more than one of the `keys` (n,) share one."""
    if len(shown) == 1:
        return shown[0].estimates
    found = np.full((len(labels), 3), np.nan)
    place = {one: row for row, one in enumerate(labels)}
    for one in shown:
        found[[place[label] for label in one.labels]] = one.estimates
    found[keys > 1] = np.nan
    return found


def _where(emitted: Emitted, labels: list[tuple[str, ...]], values: NDArray[np.float64]) -> Family:
    """A family of the series that have a value."""
    some = np.flatnonzero(~np.isnan(values))
    return emitted.family([labels[row] for row in some.tolist()], values[some])
