"""The seam of exporters: how committed state leaves the process, and what an exporter may ask of the runtime.

An exporter runs threads of its own. Everything in its context may be called from any thread, at any time
between `start` and `stop`, and none of it waits for a commit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from evalgauge.core.errors import EvalgaugeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import BaseModel

    from evalgauge.core.families import Family


class NotReady(EvalgaugeError):  # noqa: N818 - a state that passes, not a fault
    """State is not restored yet, so there is nothing true to show. Answer 503 with `reasons`, never zeros."""

    def __init__(self, reasons: Sequence[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("not ready: " + ("; ".join(self.reasons) or "state is being restored"))


@dataclass(frozen=True, slots=True)
class InputReport:
    """One input as it stands now, for people."""

    name: str
    type: str
    """The collector's entry point: `file`, `http`."""
    positions: Mapping[str, str] = field(default_factory=dict)
    """Partition → position, in words."""
    lag_bytes: Mapping[str, int] = field(default_factory=dict)
    """Partition → bytes that are there but not read yet."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class StatusReport:
    """What the status page shows of the whole process."""

    version: str
    started: float
    """Unix time."""
    packs: Sequence[str] = ()
    """In words, such as `judgment 1`."""
    inputs: Sequence[InputReport] = ()
    rejects: Mapping[str, int] = field(default_factory=dict)
    """Reason → events refused so far, as of the last commit."""
    last_commit_age: float | None = None
    """Seconds since the last commit; None before the first."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Text → URL, beyond those the exporter serves itself."""


@dataclass(frozen=True, slots=True)
class ExporterContext:
    """What an exporter is given besides its configuration."""

    snapshot: Callable[[], Sequence[Family]]
    """The last committed state, without waiting. Raises `NotReady` until state is restored."""
    request_commit: Callable[[], None]
    """A hint that somebody is looking: commit soon, at most once per `min_commit_interval`. Returns at once."""
    readiness: Callable[[], list[str]]
    """Why this process is not ready, in words; empty when it is."""
    status: Callable[[], StatusReport]
    """The process as it stands now."""
    reload: Callable[[], str | None]
    """Read the configuration again: None if it took effect, else why the old one stays. May take seconds."""
    observe_scrape: Callable[[float], None]
    """Seconds one scrape took, from request to last byte; feeds a self-metric."""


class Exporter(Protocol):
    """One configured way out. Found by the entry-point group `evalgauge.exporters`."""

    Config: ClassVar[type[BaseModel]]
    """Its configuration model; unknown keys are errors."""

    def __init__(self, config: Any, context: ExporterContext) -> None: ...

    def start(self) -> None:
        """Begin to serve or send, in threads of its own. Raises `ConfigError` when it cannot."""

    def stop(self, grace: float) -> None:
        """End within `grace` seconds: finish what is under way, refuse what is new. May be called twice."""
