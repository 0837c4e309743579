"""What the metrics of a pack must be, said a second time in plain Python: no code of the engine, exact fractions.

It reads the pack's YAML by itself, looks at one event at a time, and keeps every value it ever saw. Counters,
histograms, filters, labels with their limits and quality rules; gauges are left out.
"""

from __future__ import annotations

import operator
from collections import Counter
from fractions import Fraction
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PACKS = Path(__file__).parents[1] / "packs" / "evalgauge" / "packs"
OTHER = "_other"

Key = tuple[str, tuple[tuple[str, str], ...]]
"""Sample name, and its labels in alphabetical order without empty ones; `le` as Python writes the number."""
Samples = dict[Key, float]

_UNITS = {
    "ns": ("seconds", Fraction(1, 10**9)),
    "us": ("seconds", Fraction(1, 10**6)),
    "ms": ("seconds", Fraction(1, 1000)),
    "s": ("seconds", Fraction(1)),
    "min": ("seconds", Fraction(60)),
    "h": ("seconds", Fraction(3600)),
    "bytes": ("bytes", Fraction(1)),
    "KiB": ("bytes", Fraction(1024)),
    "MiB": ("bytes", Fraction(1024**2)),
    "percent": ("ratio", Fraction(1, 100)),
}
_COMPARISONS = {"lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "eq": operator.eq}


class _Yaml(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # ten times as fast
    """YAML as its version 1.2 has it, in which `on` is a word."""


_Yaml.yaml_implicit_resolvers = {
    first: [one for one in found if first in "tTfF" or not one[0].endswith(":bool")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Oracle:
    """Feed it the events that must count, each once, in order; ask it for the samples."""

    def __init__(self, *packs: str | Path) -> None:
        """`packs`: names of built-in packs, or files."""
        self._events: dict[str, Any] = {}
        self._metrics: list[_Metric] = []
        for pack in packs:
            path = pack if isinstance(pack, Path) else PACKS / f"{pack}.yaml"
            declared = yaml.load(path.read_text(encoding="utf-8"), Loader=_Yaml)  # noqa: S506 - a SafeLoader
            self._events |= declared["events"]
            for name, spec in declared["metrics"].items():
                if spec["type"] in ("counter", "histogram"):
                    self._metrics.append(_Metric(name, spec, self._events))
        self.accepted: Counter[str] = Counter()

    def add(self, event: Mapping[str, Any]) -> None:
        """Count one event that is accepted."""
        self.accepted[event["type"]] += 1
        for metric in self._metrics:
            if event["type"] in metric.on:
                metric.add(event["data"], self._events[event["type"]])

    def add_all(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Count many."""
        for event in events:
            self.add(event)

    def samples(self) -> Samples:
        """Every sample of the pack's counters and histograms, sums correctly rounded."""
        return {key: value for metric in self._metrics for key, value in metric.samples()}

    def unobserved(self) -> dict[str, int]:
        """Metric → events that passed its filter without a usable value; metrics without such are left out."""
        return {metric.name: metric.unobserved for metric in self._metrics if metric.unobserved}


class _Metric:
    def __init__(self, name: str, spec: Any, events: Any) -> None:
        self.name = name
        self.on = [spec["on"]] if isinstance(spec["on"], str) else spec["on"]
        self.unobserved = 0
        self._spec = spec
        self._value = spec.get("value")
        self._bounds = [*spec["buckets"], inf] if spec["type"] == "histogram" else []
        self._labels = {
            label: {"field": source} if isinstance(source, str) else source
            for label, source in spec.get("labels", {}).items()
        }
        fields = [events[type_]["fields"].get(self._value, {}) for type_ in self.on if type_ in events]
        unit = spec.get("unit") or next((field["unit"] for field in fields if "unit" in field), "1")
        self._base, self._factor = _UNITS.get(unit, ("", Fraction(1)))
        bounded = {
            label: not source.get("field")
            or "table_default" in source
            or all("enum" in events[type_]["fields"][source["field"]] for type_ in self.on)
            for label, source in self._labels.items()
        }
        self._admission = _Admission(self._labels, bounded, spec.get("limit", 10_000))
        self._values: dict[tuple[str, ...], Counter[float]] = {}

    def add(self, data: Mapping[str, Any], declared: Any) -> None:
        if not _passes(self._spec.get("where"), data):
            return
        value = 1.0
        if self._value is not None:
            given = data.get(self._value)
            value = float("nan") if given is None else float(given)
            signed = self._spec["type"] == "histogram" and self._base not in ("seconds", "bytes")
            if not isfinite(value) or (value < 0 and not signed):
                self.unobserved += 1
                return
        broken = [name for name, rule in declared.get("quality", {}).items() if _breaks(rule, data)]
        by_rule = any(source.get("quality") == "rule" for source in self._labels.values())
        for rule in broken if by_rule else [None]:
            labels = tuple(_label(source, data, broken, rule) for source in self._labels.values())
            series = self._values.setdefault(self._admission.admit(labels), Counter())
            series[value] += 1

    def samples(self) -> Iterator[tuple[Key, float]]:
        for labels, values in self._values.items():
            named = dict(zip(self._labels, labels, strict=True))
            count = values.total()
            total = float(sum((Fraction(v) * n for v, n in values.items()), Fraction(0)) * self._factor)
            if not self._bounds:
                yield key(f"{self.name}_total", named), count if self._value is None else total
                continue
            shown = [(float(Fraction(v) * self._factor), n) for v, n in values.items()]
            for bound in self._bounds:
                below = sum(n for v, n in shown if v <= bound)
                yield key(f"{self.name}_bucket", named | {"le": repr(float(bound))}), below
            yield key(f"{self.name}_count", named), count
            yield key(f"{self.name}_sum", named), total


class _Admission:
    """Label values in stream order, within the limits of each label and of the metric."""

    def __init__(self, labels: Mapping[str, Any], bounded: Mapping[str, bool], limit: int) -> None:
        self._limits = [source.get("limit", 1000) for source in labels.values()]
        self._bounded = list(bounded.values())
        self._limit = limit
        self._known: list[set[str]] = [set() for _ in labels]
        self._series: set[tuple[str, ...]] = set()

    def admit(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        shown = []
        for value, bounded, limit, known in zip(
            labels, self._bounded, self._limits, self._known, strict=True
        ):
            fits = bounded or value in known or (value != OTHER and len(known) < limit)
            shown.append(value if fits else OTHER)
        series = tuple(shown)
        if series not in self._series and len(self._series) >= self._limit:
            series = tuple(v if bounded else OTHER for v, bounded in zip(labels, self._bounded, strict=True))
        self._series.add(series)
        for value, known in zip(series, self._known, strict=True):
            if value != OTHER:
                known.add(value)
        return series


def _label(source: Any, data: Mapping[str, Any], broken: list[str], rule: str | None) -> str:
    if "constant" in source:
        return str(source["constant"])
    if source.get("quality") == "validity":
        return "invalid" if broken else "valid"
    if source.get("quality") == "rule":
        return str(rule)
    value = data.get(source["field"])
    if value is None:
        return str(source.get("default", ""))
    text = str(value).lower() if isinstance(value, bool) else str(value)
    table = source.get("table")
    return text if table is None else str(table.get(text, source.get("table_default", text)))


def _passes(where: Any, data: Mapping[str, Any]) -> bool:
    if where is None:
        return True
    if list(where) == ["all"]:
        return all(_passes(part, data) for part in where["all"])
    if list(where) == ["any"]:
        return any(_passes(part, data) for part in where["any"])
    if list(where) == ["not"]:
        return not _passes(where["not"], data)
    return all(_holds(condition, data.get(field)) for field, condition in where.items())


def _holds(condition: Any, value: Any) -> bool:
    if isinstance(condition, list):
        return value in condition
    if not isinstance(condition, dict):
        return bool(value == condition)
    for name, wanted in condition.items():
        if name == "present":
            holds = (value is not None) == wanted
        elif name == "in":
            holds = value in wanted
        else:
            holds = value is not None and _COMPARISONS[name](value, wanted)
        if not holds:
            return False
    return True


def _breaks(rule: Any, data: Mapping[str, Any]) -> bool:
    value = data.get(rule["field"])
    if value is None:
        return bool(rule.get("present") or rule.get("not_empty"))
    if rule.get("not_empty") and value in ("", {}, []):
        return True
    return bool(("min" in rule and value < rule["min"]) or ("max" in rule and value > rule["max"]))


def key(name: str, labels: Mapping[str, str]) -> Key:
    """The key of a sample."""
    return name, tuple(sorted((label, value) for label, value in labels.items() if value))


def exposed(text: str, *prefixes: str) -> Samples:
    """The samples of an exposition in text format 0.0.4 whose names begin with one of `prefixes`."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith(prefixes):
                labels = dict(sample.labels)
                if "le" in labels:
                    labels["le"] = repr(float(labels["le"]))
                found[key(sample.name, labels)] = sample.value
    return found


def differences(expected: Samples, found: Samples) -> list[str]:
    """What differs, a line for each sample; nothing if the two are equal to the last digit."""
    return [
        f"{name}{dict(labels)}: expected {expected.get((name, labels))}, found {found.get((name, labels))}"
        for name, labels in sorted(expected.keys() | found.keys())
        if expected.get((name, labels)) != found.get((name, labels))
    ]
