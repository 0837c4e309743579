"""What is wrong with a pack beyond its shape: every name that means nothing, every value that cannot be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evalgauge.core.findings import suggest
from evalgauge.core.pack.check_emit import check_internal
from evalgauge.core.pack.check_events import check_events
from evalgauge.core.pack.check_metrics import check_metrics
from evalgauge.core.pack.check_queries import check_queries

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from evalgauge.core.document import Document, Path_
    from evalgauge.core.errors import Problem
    from evalgauge.core.pack.event_model import EventSpec
    from evalgauge.core.pack.model import Pack


@dataclass(slots=True)
class Check:
    """One pack under examination: its file, what it may refer to, and the problems found so far."""

    document: Document
    pack: Pack
    others: Sequence[Pack] = ()
    """Packs whose series and event types it may use."""
    elsewhere: Collection[str] = ()
    """Event types of other packs, which it could use."""
    broken: frozenset[Path_] = frozenset()
    """Entries that are wrong in themselves and so were left out: what refers to them is no second fault."""
    problems: list[Problem] = field(default_factory=list)

    @property
    def events(self) -> Mapping[str, EventSpec]:
        """The event types it declares and uses."""
        used = {
            name: spec
            for other in self.others
            for name, spec in other.events.items()
            if name in self.pack.use
        }
        return {**used, **self.pack.events}

    def report(
        self, path: Sequence[str | int], message: str, hint: str = "", *, at_key: bool = False
    ) -> None:
        """Note a problem at `path` of the file."""
        self.problems.append(self.document.problem(path, message, hint, at_key=at_key))

    def is_broken(self, *path: str | int) -> bool:
        """True where `path` was left out, or something in it was, so that nothing is sure of it."""
        return any(entry[: len(path)] == path or path[: len(entry)] == entry != () for entry in self.broken)


def check_pack(
    document: Document,
    pack: Pack,
    others: Sequence[Pack] = (),
    broken: frozenset[Path_] = frozenset(),
    elsewhere: Collection[str] = (),
) -> list[Problem]:
    """Every problem of a pack that has the right shape.

    `others` are packs it may refer to, `broken` its entries that were left out for their shape, `elsewhere` the
    event types that it could use if it said so.
    """
    check = Check(document, pack, others, elsewhere, broken)
    _check_use(check)
    check_events(check)
    check_internal(check)
    check_metrics(check)
    check_queries(check)
    return check.problems


def _check_use(check: Check) -> None:
    declared = {name for other in check.others for name in other.events}
    for index, name in enumerate(check.pack.use):
        if name in check.pack.events:
            check.report(("use", index), f"`{name}` is declared in this pack", "Leave it out of `use`.")
        elif name not in declared:
            hint = suggest(name, declared) or "Load the pack that declares it as well."
            check.report(("use", index), f"no pack declares the event type `{name}`", hint)
        if name in check.pack.use[:index]:
            check.report(("use", index), f"`{name}` is used twice", "Leave one out.")
