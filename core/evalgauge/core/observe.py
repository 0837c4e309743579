"""Single events as the packs see them: accepted, refused or unknown, and what each instrument makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from evalgauge.core import plugins
from evalgauge.core.clock import Clock
from evalgauge.core.columns import Columns
from evalgauge.core.decode import CloudEventsShape, decode, event_types
from evalgauge.core.errors import UNDECODABLE
from evalgauge.core.event import UNKNOWN_TYPE_LABEL, Limits, Reason
from evalgauge.core.instrument import Declared
from evalgauge.core.instruments.grouping import LocalSlots, Slots
from evalgauge.core.mapped import MappedShape
from evalgauge.core.selfmetrics import PROCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from evalgauge.core.columns import TypeReader
    from evalgauge.core.families import Family
    from evalgauge.core.instrument import Instrument
    from evalgauge.core.mapping import Mapping
    from evalgauge.core.pack.model import Pack
    from evalgauge.core.series import Encoder

_KEPT_CODES = 10_000
"""Values of label fields that are remembered from event to event."""


class _Identified(msgspec.Struct):
    id: str = ""


_IDENTIFIED = msgspec.json.Decoder(_Identified)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one event adds to one series."""

    metric: str
    """As exposed: a counter with `_total`."""
    labels: dict[str, str]
    value: float | None
    """What is added or set, in the base unit; None where the event has no value that the metric can take."""
    bucket: str = ""
    """Histogram: the bound `le` of the smallest bucket it falls in."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One event."""

    line: int
    """In its chunk, from 0."""
    verdict: str
    """`accepted`, `refused` or `unknown`."""
    type: str
    id: str = ""
    reason: str = ""
    detail: str = ""
    readings: list[Reading] = field(default_factory=list)


class Observer:
    """Looks at chunks by the packs' own way of decoding and reducing, and keeps nothing."""

    def __init__(self, packs: Sequence[Pack], mapping: Mapping | None, limits: Limits | None = None) -> None:
        types = event_types(packs)
        every = {name: spec for pack in packs for name, spec in pack.events.items()}
        native = CloudEventsShape(types)
        self._shape = native if mapping is None else MappedShape(mapping, types, native)
        self._limits = limits or Limits()
        self._encoders: dict[tuple[str, ...], Encoder] = {}
        kinds: dict[str, type[Instrument]] = plugins.load_all(plugins.INSTRUMENTS)
        self._metrics = [
            (Declared(pack.pack, name, spec, {type_: every[type_] for type_ in spec.on}), kinds[spec.type])
            for pack in packs
            for name, spec in pack.metrics.items()
            if spec.on != [PROCESS]
        ]

    def observe(
        self,
        body: bytes,
        partition: str,
        base: int,
        arrival: float,
        wanted: Callable[[Observation], bool] | None = None,
    ) -> Iterator[Observation]:
        """Every event of a chunk in its order. Readings are made only of those that are `wanted`."""
        if any(len(encoder) > _KEPT_CODES for encoder in self._encoders.values()):
            self._encoders = {}
        decoded = decode(self._shape, body, self._limits, 0)
        texts = body.split(b"\n")
        found: list[tuple[int, Observation, tuple[Columns, int] | None]] = []
        for refusal in decoded.refusals:
            one = _refused(
                refusal.line, refusal.reason, refusal.type, refusal.detail, self._id_of(refusal.data)
            )
            found.append((refusal.line, one, None))
        for reader, events, lines in decoded.groups:
            columns = Columns(reader, events, lines, self._encoders, arrival)
            bad = reader.check(columns) if reader.check is not None else np.zeros(columns.n, np.bool_)
            if reader.positional:
                columns.locate(partition, base, body)
            failed = _failures(columns, np.flatnonzero(~bad))
            for row, (line, identity) in enumerate(zip(lines.tolist(), columns.ids(), strict=True)):
                if bad[row]:
                    found.append((line, self._explained(reader, line, texts[line]), None))
                elif row in failed:
                    one = _refused(line, Reason.INSTRUMENT_ERROR, reader.type, failed[row], identity)
                    found.append((line, one, None))
                else:
                    found.append((line, Observation(line, "accepted", reader.type, identity), (columns, row)))
        for _, one, place in sorted(found, key=lambda entry: entry[0]):
            if place is not None and (wanted is None or wanted(one)):
                one.readings.extend(self._readings(place[0].take(np.array([place[1]]))))
            yield one

    def _id_of(self, text: bytes) -> str:
        """The id of a refused event, where it is in the envelope and has one."""
        try:
            return _IDENTIFIED.decode(text).id if isinstance(self._shape, CloudEventsShape) else ""
        except UNDECODABLE:
            return ""

    def _explained(self, reader: TypeReader, line: int, text: bytes) -> Observation:
        finding = self._shape.explain(text)
        if finding is None:
            return _refused(line, Reason.MAPPING_FAILED, reader.type, "the mapping cannot read it")
        type_ = finding.type if finding.type != UNKNOWN_TYPE_LABEL else reader.type
        return _refused(line, finding.reason, type_, finding.detail)

    def _readings(self, columns: Columns) -> Iterator[Reading]:
        for declared, kind in self._metrics:
            if columns.type not in declared.types:
                continue
            reducing = kind.reducing(declared)
            try:
                reducing.reduce(columns)
            except Exception as error:  # noqa: BLE001 - an instrument may raise anything; a running engine refuses it
                yield Reading(declared.name, {"error": f"{type(error).__name__}: {error}"}, None)
                continue
            delta = reducing.take()
            if delta is None:
                continue
            instrument = kind(declared)
            part = instrument.part(Clock())
            slots = Slots(LocalSlots(instrument.index()), part.index() if part else None, [])
            slots.announce(delta.groups)
            merged = instrument.merge(delta, slots, part)
            for table in (*instrument.tables, *(part.tables if part else ())):
                for _ in table.pages(0.0, 0.0):
                    pass
                table.publish()
            for family in instrument.families(0, [part] if part else []):
                yield from _of_family(family)
            if merged.unobserved:
                yield Reading(declared.name, {}, None)


def _failures(columns: Columns, rows: NDArray[np.intp]) -> dict[int, str]:
    """Of those rows that nothing else is wrong with: row → why a function that derives a field has failed."""
    if not columns.reader.functions:
        return {}
    return {int(rows[row]): detail for row, detail in columns.take(rows).failures().items()}


def _refused(line: int, reason: Reason, type_: str, detail: str, id_: str = "") -> Observation:
    verdict = "unknown" if reason is Reason.UNKNOWN_TYPE else "refused"
    return Observation(line, verdict, type_, id_, reason.value, detail)


def _of_family(family: Family) -> Iterator[Reading]:
    name = f"{family.name}_total" if family.kind == "counter" else family.name
    for row, value in enumerate(family.values.tolist()):
        pairs = zip(family.label_names, family.series[row], strict=True)
        labels = {key: text for key, text in pairs if text}
        bucket = ""
        if family.buckets is not None:
            if not family.buckets[row].any():  # a series that is there at zero
                continue
            place = int(np.flatnonzero(family.buckets[row])[0])
            bucket = f"{family.bounds[place]:g}" if place < len(family.bounds) else "+Inf"
        yield Reading(name, labels, value, bucket)


def shown(reading: Reading) -> str:
    """A reading as a person reads it: `name{label="value"} 0.8 le="1"`."""
    labels = ",".join(f'{key}="{_escaped(text)}"' for key, text in reading.labels.items())
    name = f"{reading.metric}{{{labels}}}" if labels else reading.metric
    if reading.value is None:
        return f"{name} not observed"
    return f"{name} {_number(reading.value)}" + (f' le="{reading.bucket}"' if reading.bucket else "")


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: Any) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))  # noqa: PLR2004
