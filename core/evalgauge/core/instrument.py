"""The seam of instruments: one metric of a pack at run time, in two halves.

The reducing half turns batches of columns into small deltas and may live in another process; the owning half
keeps the state, merges deltas in stream order, and draws families from what is committed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import msgspec

from evalgauge.core.pack.metric_model import KeyedSpec, ProgressSpec, WindowSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from evalgauge.core.clock import Clock
    from evalgauge.core.columns import Columns
    from evalgauge.core.emission import Emission
    from evalgauge.core.families import Family
    from evalgauge.core.instruments.grouping import Slots
    from evalgauge.core.pack.event_model import EventSpec, LabelSpec
    from evalgauge.core.pack.metric_model import MetricSpec
    from evalgauge.core.series import SeriesIndex
    from evalgauge.core.table import StateTable


@dataclass(frozen=True, slots=True)
class Declared:
    """A metric as its pack declares it, with the event types it counts; crosses to worker processes."""

    pack: str
    name: str
    spec: MetricSpec
    types: dict[str, EventSpec]


@dataclass(frozen=True, slots=True)
class Merged:
    """What merging a delta found worth counting."""

    overflowed: int = 0
    """Events whose labels a limit changed."""
    unobserved: int = 0
    """Events whose value was absent or could not be observed."""
    late: int = 0
    """Events whose time was too far from the partition's for an instrument that goes by it."""
    emitted: Sequence[Emission] = ()
    """Internal events for other metrics."""


class Reducing(Protocol):
    """The reducing half. Keeps nothing but label caches between two `take`s."""

    def reduce(self, columns: Columns) -> None:
        """Add a batch of one event type. May raise: then nothing of the chunk is kept."""

    def take(self) -> Any:
        """The delta since the last call, None if there is nothing to tell."""


class Part(Protocol):
    """What an instrument keeps of one partition, and what therefore moves with it."""

    @property
    def tables(self) -> Sequence[StateTable]:
        """Its tables."""

    def index(self) -> SeriesIndex:
        """The index of its series."""

    def settle(self) -> None:
        """Count what time alone has decided; before each commit."""


class Instrument(Protocol):
    """The owning half. Found by the entry-point group `evalgauge.instruments` under the metric's `type`.

    What it keeps itself is the replica's and stays; what it keeps of a partition it makes a `Part` for.
    """

    version: ClassVar[int]
    """Raised when the state of the same declaration comes to mean something else."""
    keyed: ClassVar[bool] = False
    """It keeps state by key, so that all events of a key must be in one partition. May be left out."""

    def __init__(self, declared: Declared) -> None: ...

    @property
    def tables(self) -> Sequence[StateTable]:
        """The replica's tables."""

    @staticmethod
    def reducing(declared: Declared) -> Reducing:
        """A reducing half for one reducer."""

    def part(self, clock: Clock) -> Part | None:
        """The state of one more partition, whose time `clock` is, empty; None where it keeps none by partition."""

    def merge(self, delta: Any, slots: Slots, part: Any) -> Merged:
        """Apply a delta of a partition, whose `Part` it is, to the live state.

        Must not raise: whatever can fail belongs in `reduce`.
        """

    def index(self) -> SeriesIndex | None:
        """The index of the replica's series; None where it keeps none."""

    def families(self, generation: int, parts: Sequence[Any]) -> Sequence[Family]:
        """What is committed, as families; called with the engine's lock held.

        `parts` are those of all partitions that are ours: the families tell of all of them. Where partitions come and
        go the rows may change with each call.
        """


def goes_by_time(declared: Declared, kind: type[Instrument]) -> bool:
    """Whether a metric must be told how far time has come."""
    spec = declared.spec
    keyed: bool = getattr(kind, "keyed", False)
    return keyed or getattr(spec, "time", False) or getattr(spec, "ttl", None) is not None


_NO_MEANING = {
    "help",
    "labels",
    "where",
    "limit",
    "keys",
    "ttl",
    "lateness",
    "severity",
    "emit",
    "milestone_keys",
    "by",
    "show",
}
"""What of a keyed metric may change without its state meaning something else, or is told in another way."""


def meaning(declared: Declared, version: int, table: str = "") -> str:
    """A hash of all that gives the state its meaning; limits, help texts and `across` are not among it.

    An instrument of several tables names each but the first.
    """
    spec = declared.spec
    value = getattr(spec, "value", None)
    labels = _told(spec.labels)
    rules = {
        type_: {name: rule.model_dump(exclude={"description"}) for name, rule in event.quality.items()}
        for type_, event in declared.types.items()
        if any(label.quality for label in spec.labels.values())
    }
    parts = {
        "pack": declared.pack,
        "metric": declared.name,
        "type": spec.type,
        "version": version,
        "on": sorted(spec.on),
        "value": value,
        "unit": unit_of(declared),
        "where": spec.model_dump(include={"where"}, by_alias=True),
        "labels": labels,
        "quality": rules,
        "buckets": getattr(spec, "buckets", None),
        "up": getattr(spec, "up", None),
        "down": getattr(spec, "down", None),
    }
    if isinstance(spec, KeyedSpec | WindowSpec):
        parts |= spec.model_dump(exclude=_NO_MEANING)
    derived = _derivations(declared)
    parts |= {"derived": derived} if derived else {}
    parts |= {"time": True} if getattr(spec, "time", False) else {}
    if isinstance(spec, ProgressSpec):
        parts["by"] = _told(spec.by)
    parts |= {"table": table} if table else {}
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:32]


def _derivations(declared: Declared) -> dict[str, Any]:
    """How those fields are made, by event type, that the metric names anywhere, and those that they are made of."""
    found: dict[str, Any] = {}
    words: set[str] | None = None
    for type_, event in declared.types.items():
        if not event.derive:
            continue
        if words is None:
            words = set(_texts(declared.spec.model_dump(exclude={"help"})))
        wanted = set(words)
        if any(label.quality for label in declared.spec.labels.values()):
            wanted |= {rule.field for rule in event.quality.values()}
        for name, one in reversed(event.derive.items()):  # each is made of what stands before it
            wanted |= {*one.operands} if name in wanted else set()
        found[type_] = {
            name: one.model_dump(exclude={"description"}, exclude_none=True)
            for name, one in event.derive.items()
            if name in wanted
        }
    return {type_: made for type_, made in found.items() if made}


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value of JSON's kinds, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _told(labels: Mapping[str, LabelSpec]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (name, label.model_dump(exclude={"limit"}, exclude_defaults=True)) for name, label in labels.items()
    ]


def unit_of(declared: Declared) -> str:
    """The declared unit of the metric's value: its own, else that of the field in its first type; "" for counts."""
    if declared.spec.unit is not None:
        return declared.spec.unit
    if getattr(declared.spec, "time", False):
        return "s"
    value = getattr(declared.spec, "value", None)
    for event in declared.types.values():
        if value is not None and value in event.columns:
            return event.columns[value].unit or ""
    return ""
