"""What a demo's metrics say, read from its `/metrics` over HTTP as Prometheus would."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(url: str) -> Samples:
    """All samples of a metrics page. Raises `OSError`."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own exporter on loopback
        text = answer.read().decode()
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


@dataclass(frozen=True, slots=True)
class Live:
    """Two looks at the same page: what is now, and what has changed in between."""

    now: Samples
    before: Samples
    seconds: float
    """Between the two."""

    def total(self, name: str, **labels: str) -> float:
        """The sum over all series of a name that have these labels."""
        return sum(value for key, value in _matching(self.now, name, labels))

    def change(self, name: str, **labels: str) -> float:
        """How much that sum grew."""
        return self.total(name, **labels) - sum(value for _, value in _matching(self.before, name, labels))

    def rate(self, name: str, **labels: str) -> float:
        """How much of it a second."""
        return self.change(name, **labels) / self.seconds if self.seconds else 0.0

    def mean(self, name: str, **labels: str) -> float | None:
        """Mean of what a histogram has observed in between; None for nothing."""
        count = self.change(f"{name}_count", **labels)
        return self.change(f"{name}_sum", **labels) / count if count else None

    def quantile(self, name: str, share: float, **labels: str) -> float | None:
        """The bound that so great a share of a histogram's new values does not pass, between buckets in proportion."""
        bounds: dict[float, float] = {}
        for samples, sign in ((self.now, 1), (self.before, -1)):
            for key, value in _matching(samples, f"{name}_bucket", labels):
                bound = float(dict(key[1])["le"])
                bounds[bound] = bounds.get(bound, 0) + sign * value
        ordered = sorted(bounds.items())
        if not ordered or not ordered[-1][1]:
            return None
        rank, low, below = share * ordered[-1][1], 0.0, 0.0
        for bound, count in ordered:
            if count >= rank:
                return (
                    low
                    if bound == float("inf")
                    else low + (bound - low) * (rank - below) / max(count - below, 1e-9)
                )
            low, below = bound, count
        return low


def _matching(
    samples: Samples, name: str, labels: dict[str, str]
) -> Iterator[tuple[tuple[str, frozenset[tuple[str, str]]], float]]:
    wanted = frozenset(labels.items())
    return ((key, value) for key, value in samples.items() if key[0] == name and wanted <= key[1])
