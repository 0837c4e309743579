"""What exporters are given: metric families as columns, one row per series, as of the last commit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A value of one event with the trace it belongs to."""

    trace_id: str
    span_id: str
    value: float
    """In the metric's base unit."""
    time: float
    """Unix time of the event."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with all its series, n rows. Arrays are never written again after they were handed out.

    `series` only ever grows at its end between two snapshots of one `generation`, so whatever an exporter
    renders of a row's labels can be kept for that (name, generation).
    """

    name: str
    """Without suffix: a counter `x` is exposed as `x_total`."""
    kind: Kind
    help: str
    unit: str
    """Base unit (`seconds`, `bytes`, `ratio`) or empty; the name ends in it where it is set."""
    label_names: tuple[str, ...]
    series: Sequence[tuple[str, ...]]
    """Label values of each row; an empty value means that the label is absent. May be longer than n: use n rows."""
    values: NDArray[np.float64] | NDArray[np.int64]
    """Shape (n,). Counter total or gauge value; for a histogram its exact sum in the base unit."""
    created: NDArray[np.float64]
    """Shape (n,). Unix time before which nobody was shown the row; NaN where that means nothing (gauges)."""
    born: NDArray[np.float64]
    """Shape (n,). Unix time of the row's first commit; for `zero_first`."""
    bounds: tuple[float, ...] = ()
    """Histogram: upper bounds, ascending, base unit, without +Inf."""
    buckets: NDArray[np.int64] | None = None
    """Histogram: shape (n, len(bounds) + 1), counts per bucket, not cumulative; the last is +Inf."""
    exemplars: Mapping[tuple[int, int], Exemplar] = field(default_factory=dict)
    """(row, bucket) → exemplar; the bucket of a counter is 0."""
    generation: int = 0
    more: Sequence[Family] = ()
    """Further rows of the same family under other label names, each with a `generation` of its own and no `more`."""
