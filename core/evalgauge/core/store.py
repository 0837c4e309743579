"""The seam of checkpoints: state pages, positions, digests and dead letters, written together or not at all.

State is the replica's (what this process counted, for as long as it has its name) or a partition's (it moves with
the partition). Where one process has all partitions for good, as with a state folder, there is no difference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from evalgauge.core.collect import Position
    from evalgauge.core.table import Page


class DeadLetter(NamedTuple):
    """A refused event as it is kept. `data` holds its original bytes unless the configuration says otherwise."""

    time: float
    input: str
    partition: str
    position: str
    type: str
    reason: str
    detail: str
    pack: str
    data: bytes
    tenant: str | None = None
    """The tenant of the token it came with."""
    kept: str = "bytes"
    """What `data` is: all the `bytes`, `cut` off at the limit, `redacted`, or nothing but the `reason`."""
    size: int = 0
    """Bytes of the event as it came."""
    number: int = 0
    """Given by the store, ascending."""


class TableInfo(NamedTuple):
    """What a table is, for people: `evalgauge state show` and the log of a pack change."""

    meaning: str
    metric: str


@dataclass(slots=True)
class Commit:
    """Everything one checkpoint changes."""

    time: float
    tables: list[TableInfo] = field(default_factory=list)
    """Tables that are new in this commit."""
    dropped: list[str] = field(default_factory=list)
    """Meanings of tables that are no longer declared."""
    pages: list[tuple[str, Page]] = field(default_factory=list)
    """(meaning, page) of the replica's tables."""
    positions: dict[tuple[str, str], Position] = field(default_factory=dict)
    """(input, partition) → position."""
    digests: dict[str, bytes] = field(default_factory=dict)
    """Partition → de-duplication digests of the events accepted since the last commit, 16 bytes each.

    The partition is "" where they do not come and go.
    """
    digests_kept: int = 0
    """Digests that are still wanted, newest first; older ones may go."""
    digests_since: float = 0.0
    """Digests from before this Unix time may go."""
    dead_letters: list[DeadLetter] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)
    """Numbers of dead letters that were replayed and count now: gone with this commit."""
    partition_pages: list[tuple[str, str, Page]] = field(default_factory=list)
    """(partition, meaning, page) where partitions come and go."""


@dataclass(slots=True)
class Restored:
    """What a store held when it was opened."""

    tables: list[TableInfo]
    pages: dict[str, list[Page]]
    """Meaning → pages, for the meanings asked for."""
    positions: dict[tuple[str, str], Position]
    digests: list[tuple[float, bytes]]
    """(Unix time, digests of 16 bytes), oldest first."""
    last_commit: float
    """Unix time; 0 where nothing was ever committed."""
    lost: str
    """Why earlier state is gone, empty if it is not."""


class Store(Protocol):
    """Where checkpoints live. One process has one store."""

    by_partition: ClassVar[bool]
    """Partitions come and go while we run, and take their state with them: the input brings it as `Adopt`."""

    @property
    def seed(self) -> int:
        """Secret of the de-duplication digests, 64 bits, the same for the life of the store."""

    def restore(self, meanings: Iterable[str], moving: Iterable[str] = (), ids_age: float = 0.0) -> Restored:
        """Read what the last commit left of the replica's tables; `moving` are those of partitions, which come later.

        `ids_age`: seconds that ids are remembered, 0 where no input de-duplicates. Raises `StateError`, and `Stopped`
        once `stop` was called.
        """

    def waits_for(self) -> str:
        """What `restore` waits for, in words; empty if it does not wait."""

    def stop(self) -> None:
        """Wait for nothing any more; from any thread."""

    def commit(self, commit: Commit, limits: DeadLetterLimits) -> Mapping[str, int]:
        """Write a checkpoint durably; dead letters dropped for room by cause. On any error nothing of it is kept.

        Raises `StoreUnavailableError`, `OSError` or `sqlite3.Error` where another try may succeed, and `FencedError`
        where somebody else has taken over what the checkpoint holds.
        """

    def facts(self) -> Mapping[str, float]:
        """Gauges of pack `evalgauge`, without labels, that this store has to say of itself."""

    def size(self) -> int:
        """Bytes on disk; 0 where they are not ours alone."""

    def dead_letters(self) -> int | None:
        """Dead letters waiting here; None where they go elsewhere, and nobody knows how many wait."""

    def forget_loss(self) -> None:
        """The loss was dealt with: `lost` is empty from now on."""

    def close(self) -> None:
        """Let go of the store; another process may open it."""


@dataclass(frozen=True, slots=True)
class DeadLetterLimits:
    """How much is kept of what was refused; the oldest goes first."""

    number: int = 100_000
    bytes: int = 256 << 20
    age: float = 7 * 86400.0
    """Seconds."""


class KeptStore(Store, Protocol):
    """A store that an input keeps, with its positions."""

    @property
    def where(self) -> str:
        """Where state and dead letters are, in words."""
