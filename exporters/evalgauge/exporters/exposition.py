"""Families as text: Prometheus format 0.0.4 and OpenMetrics 1.0, in one pass over columns.

What a row's labels look like is rendered once and kept; a scrape turns columns of numbers into strings
and joins. 100,000 lines take some 20 ms.

All text is held as UTF-8 read as Latin-1: one byte a character, so that one name in Cyrillic among
thousands in ASCII does not make every join widen to two or four bytes.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from evalgauge.core.families import Exemplar, Family

_PARTS_PER_LINE = 4  # head, labels, le, value
_PARTS_PER_BLOCK = 1 << 14  # some 400 KB of text: stays in the processor's cache
_as_json = msgspec.json.Encoder().encode
_EXEMPLAR_LIMIT = 128  # OpenMetrics: characters of all names and values


class Line(NamedTuple):
    """One line of each row of a family."""

    suffix: str
    """What follows the family's name: `_total`, `_bucket`."""
    le: str | None
    """The bucket's bound, if it is one."""
    values: NDArray[np.float64] | NDArray[np.int64]
    """Shape (n,). A NaN of a `_created` line means that the row has none."""


def lines(family: Family, *, created: bool, signed_sums: bool, fresh_after: float = math.inf) -> list[Line]:
    """Give the lines of every row, in their order.

    `signed_sums=False` leaves out `_count` and `_sum` where buckets are negative, as OpenMetrics demands.
    Rows of counters and histograms that were born after `fresh_after` (Unix time) show 0.
    """
    values, buckets = family.values, family.buckets
    fresh = family.born > fresh_after
    if family.kind != "gauge" and fresh.any():
        values = np.where(fresh, values.dtype.type(0), values)
        buckets = None if buckets is None else np.where(fresh[:, np.newaxis], np.int64(0), buckets)
    if family.kind == "gauge":
        return [Line("", None, values)]
    if buckets is None:
        found = [Line("_total", None, values)]
    else:
        cumulative = np.cumsum(buckets.T, axis=0)
        bounds = [*map(canonical, family.bounds), "+Inf"]
        found = [Line("_bucket", le, column) for le, column in zip(bounds, cumulative, strict=True)]
        if signed_sums or not family.bounds or family.bounds[0] >= 0:
            found += [Line("_count", None, found[-1].values), Line("_sum", None, values)]
    if created and not np.isnan(family.created).all():
        found.append(Line("_created", None, family.created))
    return found


@dataclass(slots=True)
class _Labels:
    """The rendered labels of one family's rows; only ever grows, until the generation changes."""

    generation: int
    names: tuple[str, ...]
    last: tuple[str, ...] = ()
    """Label values of the last row that was rendered."""
    closed: list[str] = field(default_factory=list)
    """`{a="x",b="y"} `, or a space where there are none."""
    opened: list[str] = field(default_factory=list)
    """`a="x",b="y",`, or nothing: what stands before `le`. Histograms only."""

    def fits(self, family: Family) -> bool:
        """Whether the rows rendered so far are this family's, so that it only needs what is new."""
        if (self.generation, self.names) != (family.generation, family.label_names) or family.generation < 0:
            return False
        have = len(self.closed)
        # Numbers beside the wrong labels would be the worst of faults, and this look costs nothing.
        return have == 0 or have > len(family.values) or tuple(family.series[have - 1]) == self.last

    def extend(self, family: Family) -> None:
        """Render the rows that are new."""
        n, have = len(family.values), len(self.closed)
        if n <= have:
            return
        heads = [f'{name}="' for name in self.names]
        escaped = _Escaped()
        for row in family.series[have:n]:
            pairs = [f'{head}{escaped[value]}"' for head, value in zip(heads, row, strict=True) if value]
            text = ",".join(pairs)
            self.closed.append(f"{{{text}}} " if text else " ")
            if family.buckets is not None:
                self.opened.append(f"{text}," if text else "")
        self.last = tuple(family.series[n - 1])


class _Escaped(dict[str, str]):
    """Label value → as it stands between quotes. Values recur from row to row."""

    def __missing__(self, value: str) -> str:
        text = self[value] = _quoted(value)
        return text


class Renderer:
    """Renders snapshots, and keeps each row's labels from one to the next. Any thread may use it."""

    def __init__(self, *, created: bool = True, zero_first: float = 0.0) -> None:
        self._created = created
        self._zero_first = zero_first
        self._labels: dict[tuple[str, int], _Labels] = {}
        """By family, and place among its parts."""
        self._growing = threading.Lock()

    def blocks(
        self, families: Sequence[Family], *, openmetrics: bool = False, now: float | None = None
    ) -> Iterator[bytes]:
        """Yield the exposition in pieces of some hundred kilobytes. `now` is Unix time, for `zero_first`."""
        now = time.time() if now is None else now
        fresh_after = now - self._zero_first if self._zero_first > 0 else math.inf
        for family in families:
            yield _metadata(family, openmetrics=openmetrics).encode("latin-1")
            for place, part in enumerate((family, *family.more)):
                yield from self._rows(part, place, openmetrics=openmetrics, fresh_after=fresh_after)
            yield b"\n"
        if openmetrics:
            yield b"# EOF\n"
        with self._growing:
            shown = {(family.name, place) for family in families for place in range(1 + len(family.more))}
            for gone in self._labels.keys() - shown:
                del self._labels[gone]

    def _rows(self, family: Family, place: int, *, openmetrics: bool, fresh_after: float) -> Iterator[bytes]:
        labels = self._labels_of(family, place)
        found = lines(
            family,
            created=openmetrics and self._created,
            signed_sums=not openmetrics,
            fresh_after=fresh_after,
        )
        row: list[str] = []
        for line in found:
            if line.le is None:
                row += (f"\n{family.name}{line.suffix}", "", "", "")
            else:
                row += (f"\n{family.name}{line.suffix}{{", "", f'le="{line.le}"}} ', "")
        exemplars: dict[int, list[tuple[int, str]]] = {}
        size = max(1, _PARTS_PER_BLOCK // len(row))
        if openmetrics:
            for (index, bucket), exemplar in family.exemplars.items():
                if index < len(family.values) and not family.born[index] > fresh_after:
                    at = index % size * len(row) + _PARTS_PER_LINE * bucket + 3
                    exemplars.setdefault(index // size, []).append((at, _exemplar(exemplar)))
        for block, start in enumerate(range(0, len(family.values), size)):
            parts = _block(row, labels, found, start, min(start + size, len(family.values)))
            for at, text in exemplars.get(block, ()):
                parts[at] += text
            yield "".join(parts).encode("latin-1")

    def _labels_of(self, family: Family, place: int) -> _Labels:
        with self._growing:
            labels = self._labels.get((family.name, place))
            if labels is None or not labels.fits(family):
                labels = self._labels[family.name, place] = _Labels(family.generation, family.label_names)
            labels.extend(family)
            return labels


def _block(row: list[str], labels: _Labels, found: list[Line], start: int, end: int) -> list[str]:
    """Parts of the rows from `start` to `end`, in order, to be joined."""
    parts = row * (end - start)
    closed, opened = labels.closed[start:end], labels.opened[start:end]
    known: NDArray[np.float64] | NDArray[np.int64] | None = None
    texts: list[str] = []
    for number, line in enumerate(found):
        at = number * _PARTS_PER_LINE
        if line.values is not known:  # `_count` is the last bucket
            known = line.values
            texts = _numbers(line.values[start:end])
        parts[at + 1 :: len(row)] = closed if line.le is None else opened
        parts[at + 3 :: len(row)] = texts
        if line.suffix == "_created":
            for absent in np.flatnonzero(np.isnan(line.values[start:end])).tolist():
                first = absent * len(row) + at
                parts[first : first + _PARTS_PER_LINE] = [""] * _PARTS_PER_LINE
    return parts


def canonical(number: float) -> str:
    """Write a float as Go and OpenMetrics do; bounds must look the same wherever they are exposed."""
    return str(floatToGoString(number))  # type: ignore[no-untyped-call]


def _numbers(column: NDArray[np.float64] | NDArray[np.int64]) -> list[str]:
    # As JSON in one piece, since that costs half of `str` for each integer and a sixth of `repr` for each float.
    texts = _as_json(column.tolist()).decode("ascii")[1:-1].split(",")
    if column.dtype.kind == "f":
        for index in np.flatnonzero(~np.isfinite(column)).tolist():  # JSON has only `null` for these
            texts[index] = canonical(column[index])
    return texts


def _metadata(family: Family, *, openmetrics: bool) -> str:
    """HELP, TYPE and UNIT, without a newline at the end."""
    name = family.name
    text = _utf8(family.help).replace("\\", r"\\").replace("\n", r"\n")
    if not openmetrics:
        name += "_total" if family.kind == "counter" else ""
        return f"# HELP {name} {text}\n# TYPE {name} {family.kind}"
    text = text.replace('"', r"\"")
    # A unit that the name does not end in would make a scraper refuse everything.
    unit = f"\n# UNIT {name} {family.unit}" if family.unit and name.endswith(f"_{family.unit}") else ""
    return f"# HELP {name} {text}\n# TYPE {name} {family.kind}{unit}"


def _exemplar(exemplar: Exemplar) -> str:
    """What follows a value: the trace and the value of one event; nothing if its labels are too long."""
    pairs = exemplar_labels(exemplar)
    if not pairs:
        return ""
    text = ",".join(f'{name}="{_quoted(value)}"' for name, value in pairs.items())
    at = f" {exemplar.time!r}" if math.isfinite(exemplar.time) else ""
    return f" # {{{text}}} {canonical(exemplar.value)}{at}"


def exemplar_labels(exemplar: Exemplar) -> dict[str, str]:
    """Trace and span of an exemplar as labels, as far as they stay within OpenMetrics' 128 characters."""
    pairs: dict[str, str] = {}
    room = _EXEMPLAR_LIMIT
    for name, value in (("trace_id", exemplar.trace_id), ("span_id", exemplar.span_id)):
        room -= len(name) + len(value)
        if room < 0:
            break
        if value:
            pairs[name] = value
    return pairs


def _utf8(text: str) -> str:
    # A lone surrogate has no UTF-8; it must neither fail the scrape nor make two series one.
    return text.encode("utf-8", "backslashreplace").decode("latin-1")


def _quoted(value: str) -> str:
    return _utf8(value).replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def render(
    families: Iterable[Family], *, openmetrics: bool = False, created: bool = True, now: float | None = None
) -> bytes:
    """Give one exposition of `families`, in their order and their rows' order."""
    return b"".join(Renderer(created=created).blocks(list(families), openmetrics=openmetrics, now=now))
