"""Unit tests of packs: a YAML file of cases, each with events and what must come of them, read strictly and run."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from pydantic import Field

from evalgauge.core.document import in_order, read_document, validate
from evalgauge.core.errors import DocumentError, EvalgaugeError, Problem
from evalgauge.core.event import Reason
from evalgauge.core.findings import suggest
from evalgauge.core.mapping_check import load_mapping
from evalgauge.core.pack.event_model import Strict
from evalgauge.core.pack.loader import load_packs
from evalgauge.core.pack.names import PROCESS, Series, series_of

if TYPE_CHECKING:
    from collections.abc import Mapping as AbstractMapping

    from evalgauge.core.document import Document, Path_
    from evalgauge.core.mapping import Mapping
    from evalgauge.core.pack.event_model import EventSpec
    from evalgauge.core.pack.model import Pack

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_HISTOGRAM_PARTS = ("_bucket", "_sum", "_count")


class RefusalSpec(Strict):
    """One event that must be refused."""

    event: int = Field(ge=1, description="Its place among the events, from 1.")
    reason: str = Field(description="The reason, from the closed list.")
    contains: str = Field(default="", description="What the sentence that explains it must contain.")


class CaseSpec(Strict):
    """One case: events, and what must come of them."""

    name: str = Field(min_length=1, description="What the case shows, as a sentence.")
    events: list[str | dict[str, Any]] = Field(
        min_length=1,
        description="Objects, or raw lines as text. Without a mapping, an object without `id` or `source` gets one.",
    )
    metrics: dict[str, float] = Field(
        default_factory=dict, description='Sample → value, such as `judgment_slow_total{tenant="acme"}: 1`.'
    )
    absent: list[str] = Field(
        default_factory=list,
        description="Samples that must not be there: all with that name and at least those labels.",
    )
    only: bool | Annotated[list[str], Field(min_length=1)] = Field(
        default=False,
        description="true: no series but those under `metrics`. A list: that holds for these metrics of the packs.",
    )
    refusals: list[RefusalSpec] = Field(
        default_factory=list, description="Events that must be refused; every other must be accepted."
    )
    tenant: str | None = Field(
        default=None, min_length=1, description="The tenant of the token the events come with."
    )
    deduplicate: bool = Field(default=False, description="Count a repeated (source, id) once.")


class CaseFile(Strict):
    """A file of cases. Paths are relative to the file."""

    packs: list[str] = Field(min_length=1, description="Built-in packs by name, others by path.")
    mapping: str | None = Field(default=None, description="Mapping that the events go through.")
    tests: list[CaseSpec] = Field(min_length=1, description="The cases.")


class Sample(NamedTuple):
    """The identity of one sample; the bound `le` is a number, however it is written."""

    name: str
    labels: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, name: str, labels: AbstractMapping[str, str]) -> Sample:
        """The sample of a name and labels; an empty label is none."""
        pairs = {key: value for key, value in labels.items() if value}
        if name.endswith("_bucket") and "le" in pairs:
            pairs["le"] = f"{float(pairs['le']):g}"
        return cls(name, frozenset(pairs.items()))

    def __str__(self) -> str:
        """As in a metrics file, labels by name and `le` last."""
        pairs = sorted(self.labels, key=lambda pair: (pair[0] == "le", pair))
        text = ",".join(f'{key}="{_escaped(value)}"' for key, value in pairs)
        return f"{self.name}{{{text}}}" if text else self.name

    def series(self) -> tuple[str, frozenset[tuple[str, str]]]:
        """The metric and labels without `le`: what the samples of one histogram have in common."""
        name = self.name
        for part in _HISTOGRAM_PARTS:
            name = name.removesuffix(part)
        return name, frozenset(pair for pair in self.labels if pair[0] != "le")


@dataclass(frozen=True, slots=True)
class Case:
    """A case that is ready to run. Places are (line, column) from 1."""

    spec: CaseSpec
    lines: list[bytes]
    metrics: dict[Sample, float]
    absent: list[Sample]
    at: tuple[int, int]
    metrics_at: dict[Sample, tuple[int, int]]
    absent_at: list[tuple[int, int]]
    refusals_at: list[tuple[int, int]]
    events_at: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Cases:
    """A sound file of cases, with the packs and mapping they are about."""

    file: str
    packs: list[Pack]
    mapping: Mapping | None
    cases: list[Case]
    exposed: dict[str, str] = field(default_factory=dict)
    """Series name → the metric it belongs to."""


def load_cases(path: str | Path) -> Cases:
    """Read a file of cases. Raises `DocumentError` with every fault in it, in its packs or in its mapping."""
    document = read_document(path)
    spec = validate(document, CaseFile)
    folder = Path(path).parent
    problems: list[Problem] = []
    packs: list[Pack] = []
    mapping = None
    try:
        packs = load_packs([_relative(one, folder) for one in spec.packs])
    except DocumentError as error:
        problems += error.problems
    except EvalgaugeError as error:
        problems.append(document.problem(("packs",), str(error)))
    if packs and spec.mapping is not None:
        try:
            mapping = load_mapping(folder / spec.mapping, packs)
        except DocumentError as error:
            problems += error.problems
    events = {name: one for pack in packs for name, one in pack.events.items()}
    series = {name: one for pack in packs if _counts(pack) for name, one in series_of(pack, events).items()}
    reader = _Reader(document, series, events, problems)
    cases = [
        reader.case(("tests", at), one, mapped=spec.mapping is not None) for at, one in enumerate(spec.tests)
    ]
    if problems:
        raise DocumentError(in_order(problems))
    return Cases(document.file, packs, mapping, cases, {name: one.metric for name, one in series.items()})


def _relative(name: str, folder: Path) -> str:
    """A pack as the loader takes it: paths are relative to the file of cases."""
    return str(folder / name) if "/" in name or name.endswith((".yaml", ".yml")) else name


def _counts(pack: Pack) -> bool:
    return any(spec.on != [PROCESS] for spec in pack.metrics.values())


@dataclass(slots=True)
class _Reader:
    document: Document
    series: dict[str, Series]
    """Series name → what the packs expose; empty where they could not be read."""
    events: dict[str, EventSpec]
    problems: list[Problem]

    def case(self, path: Path_, spec: CaseSpec, *, mapped: bool) -> Case:
        where = self.document.values
        lines = [
            self._line((*path, "events", at), one, at, mapped=mapped) for at, one in enumerate(spec.events)
        ]
        metrics: dict[Sample, float] = {}
        metrics_at: dict[Sample, tuple[int, int]] = {}
        for text, value in spec.metrics.items():
            place = (*path, "metrics", text)
            sample = self._sample(place, text, at_key=True)
            if sample is None:
                continue
            if sample in metrics:
                self._report(place, f"`{sample}` is expected twice", at_key=True)
            metrics[sample], metrics_at[sample] = value, self.document.keys[place]
        absent = []
        for at, text in enumerate(spec.absent):
            sample = self._sample((*path, "absent", at), text)
            if sample is not None:
                absent.append(sample)
        self._refusals(path, spec)
        self._only(path, spec)
        return Case(
            spec,
            lines,
            metrics,
            absent,
            where[path],
            metrics_at,
            [where[(*path, "absent", at)] for at in range(len(spec.absent))],
            [where[(*path, "refusals", at)] for at in range(len(spec.refusals))],
            [where[(*path, "events", at)] for at in range(len(spec.events))],
        )

    def _line(self, path: Path_, event: str | dict[str, Any], at: int, *, mapped: bool) -> bytes:
        if isinstance(event, str):
            if "\n" in event.strip("\n") or not event.strip():
                self._report(
                    path, "a raw event is one line of text", "Write each line as an item of its own."
                )
            return event.strip("\n").encode("utf-8", "surrogatepass")
        whole = event if mapped else {"id": f"event-{at + 1}", "source": "/test", **event}
        try:
            return json.dumps(whole, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass")
        except ValueError:
            self._report(path, "JSON has no infinite numbers and no NaN", "Write the event as a raw line.")
            return b"{}"

    def _sample(self, path: Path_, text: str, *, at_key: bool = False) -> Sample | None:
        sample = parse_sample(text)
        if sample is None:
            hint = 'A name with labels, such as judgment_slow_total{tenant="acme"}.'
            self._report(path, f"`{text}` is no sample", hint, at_key=at_key)
            return None
        known = self.series.get(sample.name)
        if self.series and known is None:
            self._report(
                path, f"no pack exposes `{sample.name}`", suggest(sample.name, self.series), at_key=at_key
            )
        elif known is not None:
            possible = known.labels.possible or frozenset()
            for label, _ in sorted(sample.labels):
                if label not in possible:
                    message = f"`{sample.name}` has no label `{label}`"
                    self._report(path, message, suggest(label, possible), at_key=at_key)
        return sample

    def _refusals(self, path: Path_, spec: CaseSpec) -> None:
        seen: set[int] = set()
        for at, one in enumerate(spec.refusals):
            place = (*path, "refusals", at)
            if one.reason not in [reason.value for reason in Reason]:
                hint = suggest(one.reason, [reason.value for reason in Reason])
                self._report((*place, "reason"), f"`{one.reason}` is no reason", hint)
            if one.event > len(spec.events):
                self._report((*place, "event"), f"there is no event {one.event}, only {len(spec.events)}")
            if one.event in seen:
                self._report((*place, "event"), f"event {one.event} is refused once only")
            seen.add(one.event)

    def _only(self, path: Path_, spec: CaseSpec) -> None:
        metrics = {one.metric for one in self.series.values()}
        for at, name in enumerate(spec.only if isinstance(spec.only, list) else ()):
            if metrics and name not in metrics:
                self._report(
                    (*path, "only", at), f"no pack declares the metric `{name}`", suggest(name, metrics)
                )

    def _report(self, path: Path_, message: str, hint: str = "", *, at_key: bool = False) -> None:
        self.problems.append(self.document.problem(path, message, hint, at_key=at_key))


def parse_sample(text: str) -> Sample | None:
    """The sample that a text such as `name{label="value"}` names, None where it names none."""
    name, brace, labels = text.strip().partition("{")
    if not _NAME.fullmatch(name.strip()) or (brace and not labels.endswith("}")) or "\n" in text:
        return None
    try:
        found = [
            one for family in text_string_to_metric_families(f"{text.strip()} 0\n") for one in family.samples
        ]
        return Sample.of(found[0].name, found[0].labels) if len(found) == 1 else None
    except (ValueError, IndexError, KeyError):
        return None


def same(got: float, wanted: float) -> bool:
    """Whether two values are equal: whole numbers exactly, others to 12 digits, as people write them in decimals."""
    if got == wanted or (math.isnan(got) and math.isnan(wanted)):
        return True
    return not (float(got).is_integer() and float(wanted).is_integer()) and math.isclose(
        got, wanted, rel_tol=1e-12
    )


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
