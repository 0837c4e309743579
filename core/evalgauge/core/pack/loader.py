"""Packs by name or path: found, read strictly, and checked with all that they refer to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from evalgauge.core.document import examine, in_order, read_document
from evalgauge.core.errors import ConfigError, DocumentError, EvalgaugeError
from evalgauge.core.findings import suggest
from evalgauge.core.pack.check import check_pack
from evalgauge.core.pack.model import Pack
from evalgauge.core.pack.names import OWN_PACK, exposed_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from evalgauge.core.document import Document, Examined, Path_
    from evalgauge.core.errors import Problem

ENTRY_POINTS = "evalgauge.packs"
"""Group of entry points: pack name → package that holds `<name>.yaml`."""
BUILT_IN = "evalgauge.packs"
"""The package of the built-in packs, looked into even where the project runs from its source tree."""


@dataclass(frozen=True, slots=True)
class LoadedPack:
    """A pack that is sound, with the file it came from."""

    pack: Pack
    document: Document
    source: str
    """`built-in`, the name of the distribution that brings it, or the path it was read from."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A pack that can be had by name."""

    name: str
    package: str
    source: str


@cache
def known_packs() -> dict[str, _Known]:
    """Name → where it is, of every pack that is installed. Raises nothing: what is broken shows when loaded."""
    found = {}
    try:
        folder = files(BUILT_IN)
        names = sorted(
            one.name.removesuffix(".yaml") for one in folder.iterdir() if one.name.endswith(".yaml")
        )
        found = {name: _Known(name, BUILT_IN, "built-in") for name in names}
    except ModuleNotFoundError:
        pass
    for point in entry_points(group=ENTRY_POINTS):
        source = point.dist.name if point.dist is not None else point.value
        found.setdefault(
            point.name, _Known(point.name, point.value, "built-in" if point.value == BUILT_IN else source)
        )
    return found


def load_pack(name_or_path: str | Path) -> LoadedPack:
    """The pack of a name, or of a path (with a `/`, or ending in .yaml or .yml).

    Raises `ConfigError` if no pack has the name, `DocumentError` with every fault of the file.
    """
    return load([name_or_path])[0]


def load_packs(names_or_paths: Sequence[str | Path]) -> list[Pack]:
    """The packs in that order, checked alone and together.

    A pack that is not asked for but declares an event type that one of them `use:`s comes first, with those
    event types and nothing else. Raises as `load_pack`, with the faults of all.
    """
    loaded = [one.pack for one in load(names_or_paths)]
    return [*_events_only(loaded), *loaded]


def load(names_or_paths: Sequence[str | Path]) -> list[LoadedPack]:
    """The packs that were asked for, in that order. Raises as `load_pack`, with the faults of all."""
    read = [_read(one) for one in dict.fromkeys(names_or_paths)]
    problems: list[Problem] = []
    for _, document, examined in read:
        problems += examined.problems
        if examined.model is not None:
            others = [
                other.model for _, _, other in read if other is not examined and other.model is not None
            ]
            elsewhere = {event for other in others for event in other.events}
            reach = within_reach(examined.model, others)
            problems += check_pack(document, examined.model, reach, examined.broken, elsewhere)
    loaded = [
        LoadedPack(one.model, document, source) for source, document, one in read if one.model is not None
    ]
    problems += _clashes(loaded)
    if problems:
        raise DocumentError(in_order(problems))
    return loaded


def _read(name_or_path: str | Path) -> tuple[str, Document, Examined[Pack]]:
    """Where the pack is from, its file, and what of it has the right shape."""
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in text or text.endswith((".yaml", ".yml")):
        document = read_document(text)
        return text, document, examined_pack(document)
    known = known_packs().get(text)
    if known is None:
        hint = suggest(text, known_packs())
        raise ConfigError(
            f"no pack is called `{text}`. {hint} A file of your own is named by its path, such as ./{text}.yaml."
        )
    try:
        with as_file(files(known.package) / f"{text}.yaml") as path:
            document = read_document(path)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"pack `{text}` of {known.source}: package `{known.package}` is not there: {error}"
        ) from error
    return known.source, document, examined_pack(document)


def examined_pack(document: Document) -> Examined[Pack]:
    """The shape of a pack: every fault, and a model of all that has none."""
    placeholders = {"pack": "unnamed", "version": 1, "title": "unnamed"}
    return examine(document, Pack, _entry, placeholders)


def _entry(path: Path_) -> Path_:
    """The part of a pack that stands or falls with a fault at `path`: one event type, metric, rule, alert."""
    depths = {"recording": 4, "dashboard": 1, "use": 1}
    return path[: depths.get(str(path[0]), 2)] if path else ()


def within_reach(pack: Pack, others: Iterable[Pack] = ()) -> list[Pack]:
    """The packs that `pack` may refer to, whatever else is loaded: those it uses, and our own metrics.

    A pack of `others` is taken before one that is only known by name. If a type that it uses is declared by
    none, all packs come back, so that the message can name what there is.
    """
    beside = {other.pack: other for other in others}
    wanted = {*pack.use}
    found = {name: other for name, other in beside.items() if wanted & {*other.events}}
    wanted -= {event for other in found.values() for event in other.events}
    if pack.pack != OWN_PACK:
        own = beside.get(OWN_PACK) or _known_pack(OWN_PACK)
        found |= {OWN_PACK: own} if own is not None else {}
    if not wanted:
        return list(found.values())
    known = {
        name: other
        for name in known_packs()
        if name not in beside and name != pack.pack and (other := _known_pack(name)) is not None
    }
    found |= {name: other for name, other in known.items() if wanted & {*other.events}}
    wanted -= {event for other in found.values() for event in other.events}
    return [*({**known, **beside} if wanted else found).values()]


def _known_pack(name: str) -> Pack | None:
    """A pack that nobody asked for by name; None if it cannot be read, which is told to those who ask for it."""
    try:
        return _read(name)[2].model
    except EvalgaugeError:
        return None


def _events_only(packs: Sequence[Pack]) -> list[Pack]:
    """What is used and not loaded: of each pack that declares some of it, those event types alone."""
    declared = {event for pack in packs for event in pack.events}
    missing = {event for pack in packs for event in pack.use} - declared
    found = []
    for name in known_packs() if missing else ():
        other = _known_pack(name)
        events = {event: spec for event, spec in other.events.items() if event in missing} if other else {}
        if other is not None and events:
            found.append(Pack(pack=other.pack, version=other.version, title=other.title, events=events))
            missing -= {*events}
    return found


def _clashes(loaded: Sequence[LoadedPack]) -> list[Problem]:
    """What two packs both claim: a name, an event type, an exposed or recorded metric name."""
    claims = _Claims()
    for index, one in enumerate(loaded):
        if any(other.pack.pack == one.pack.pack for other in loaded[:index]):
            message = f"two packs are called `{one.pack.pack}`"
            claims.problems.append(one.document.problem(("pack",), message, "Rename one."))
        else:
            claims.of(one)
    return claims.problems


class _Claims:
    """Which pack was first with each name, and the problems of those that came later."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._owners: dict[str, str] = {}

    def of(self, one: LoadedPack) -> None:
        """Note every name that a pack claims."""
        for event in one.pack.events:
            self._claim(one, ("events", event), f"event type `{event}`", event)
        for name, metric in one.pack.metrics.items():
            for exposed in exposed_names(name, metric):
                if not self._claim(one, ("metrics", name), f"metric name `{exposed}`", exposed):
                    break  # one clash of a metric says it all
        for group, rules in one.pack.recording.items():
            for record in rules.rules:
                self._claim(one, ("recording", group, "rules", record), f"recorded name `{record}`", record)

    def _claim(self, one: LoadedPack, path: Path_, what: str, name: str) -> bool:
        owner = self._owners.setdefault(name, one.pack.pack)
        if owner == one.pack.pack:
            return True
        message = f"{what} is declared by pack `{owner}` already"
        hint = f"Write `use: [{path[1]}]` instead." if path[0] == "events" else "Rename one of them."
        self.problems.append(one.document.problem(path, message, hint, at_key=True))
        return False
