"""The seam of collectors: how events reach the engine, and how the engine answers.

A collector runs in a thread of its own and hands over chunks: whole events as newline-delimited JSON,
with the position that may be committed once the chunk is durable. What is pushed (HTTP) has no
position; its chunk carries an acknowledgement instead, called after the commit that holds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from evalgauge.core.turns import Turns

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from pydantic import BaseModel

    from evalgauge.core.deadletters import ReturningBox
    from evalgauge.core.event import Reason
    from evalgauge.core.store import KeptStore, Store
    from evalgauge.core.table import Page

Position = Any
"""What a collector needs to go on from: a JSON value, opaque to the engine."""


@dataclass(frozen=True, slots=True)
class FileRange:
    """Bytes of a plain file that hold whole lines; a worker reads them itself, so they never cross a pipe."""

    path: str
    offset: int
    length: int


class EventVerdict(NamedTuple):
    """What became of one event of a chunk that is not simply accepted; `line` counts from 0."""

    line: int
    status: str
    """`duplicate` or `rejected`."""
    reason: Reason | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a chunk, once that is durable. `error` set: nothing of it was kept, send it again."""

    received: int = 0
    accepted: int = 0
    duplicate: int = 0
    rejected: int = 0
    exceptions: tuple[EventVerdict, ...] = ()
    error: str = ""


class PartitionPages(NamedTuple):
    """The state that a partition comes with, where the store keeps state by partition (`Store.by_partition`)."""

    pages: Mapping[str, list[Page]]
    """Meaning → pages."""
    digests: list[tuple[float, bytes]]
    """(Unix time, digests of 16 bytes), oldest first."""


class Departed(NamedTuple):
    """What a replica of a group had counted when it left for good."""

    metrics: Mapping[str, str]
    """Meaning → metric."""
    pages: Mapping[str, list[Page]]
    """Meaning → pages."""


@dataclass(slots=True)
class Chunk:
    """Whole events of one partition of one input, in order.

    `body` holds one JSON value per line; the last line may lack its newline. `locate(i)` names the position
    of line i (from 0) for people and dead letters; it is called for refused lines only.
    `commit` is the position after this chunk; None where the input pushes.
    """

    partition: str
    body: bytes | FileRange
    locate: Callable[[int], str]
    commit: Position = None
    tenant: str | None = None
    """The tenant of the token the events came with: written into each event, and a different one is refused."""
    base: int = 0
    """Place of the body's first byte in the partition's stream, ascending; gives events without an id a stable one."""
    arrival: float = 0.0
    """Unix time the chunk was received; 0 means now."""
    acknowledge: Callable[[Verdict], None] | None = None
    """Called once, from the engine's thread, after the commit (or with `error` when that failed)."""
    adopt: PartitionPages | None = None
    """The first chunk of a partition that has become ours: its state."""
    release: Callable[[], None] | None = None
    """The partition goes to somebody else: called from the engine's thread after a commit, once its state is let go.

    Such a chunk overtakes all that waits: what waits of the partition is not wanted any more, whoever has it next
    reads it from the committed position.
    """
    departed: Mapping[str, Departed] | None = None
    """By name, every replica whose totals are to be shown, frozen, from now on and as long as the partition is ours."""


class Sink(Protocol):
    """Where a collector puts its chunks."""

    def put(self, chunk: Chunk) -> None:
        """Hand over a chunk; blocks while the engine is behind. Raises `Stopped` when the engine ends."""

    def offer(self, chunk: Chunk) -> bool:
        """Hand over a chunk if there is room now; False means push back on the sender."""


class Stopped(Exception):  # noqa: N818 - a signal, not a fault
    """The engine takes no more chunks: return from `run`."""


@dataclass(slots=True)
class InputStatus:
    """What an input says of itself, for the status page and the self-metrics; written by its thread only."""

    positions: dict[str, str] = field(default_factory=dict)
    """Partition → position read so far, in words."""
    lag_bytes: dict[str, int] = field(default_factory=dict)
    """Partition → bytes that are there but not read yet."""
    lag_events: dict[str, int] = field(default_factory=dict)
    """Partition → events that are there but not read yet, where a log counts its records and not its bytes."""
    lag_seconds: dict[str, float] = field(default_factory=dict)
    """Partition → age of what is to be read next, growing while nothing is read; 0 where nothing waits."""
    withheld_seconds: dict[str, float] = field(default_factory=dict)
    """Partition → how long an open transaction has kept what is there from being read; 0 where none does."""
    lost_events: int = 0
    """Events that were deleted before they were read, at most; only ever grows."""
    key_mismatches: int | None = None
    """Records whose key is not the field that it should be; only ever grows. None where keys are not looked at."""
    not_ready: str = ""
    """Why events cannot come in yet, in words; empty once they can."""
    holds_time: bool = False
    """What it reads happened long ago, or nobody can tell whether more is there: time must not go on by itself."""
    note: str = ""
    """Anything a person on call should know, such as a file that is missing."""


@dataclass(slots=True)
class InputContext:
    """What a collector is given besides its configuration."""

    name: str
    """The input's name in the configuration."""
    positions: Mapping[str, Position]
    """Partition → committed position to go on from; empty at a first start."""
    sink: Sink
    stop: threading.Event
    """Set when the input should hand over what it has read, and return."""
    status: InputStatus
    start_at_end: bool = False
    """A partition without a position starts at its end (`on_state_loss: end`)."""
    max_event_bytes: int = 1 << 20
    """Longer events are refused: of a longer line no more than one byte beyond this need be handed over."""
    max_chunk_bytes: int = 8 << 20
    """Upper bound of a chunk's body; a larger one costs memory and latency without gain."""
    engine_idle: Callable[[], bool] = lambda: True
    """Whether nothing waits for the engine. While something does, an input that can had better let chunks grow."""
    turns: Turns = field(default_factory=Turns)
    """An input that does much for each event takes turns with the engine; whoever mostly waits need not."""
    store: Store | None = None
    """Where the process keeps its state, for an input that keeps it (`StateKeeper`); None where nothing is to run."""


class Collector(Protocol):
    """One configured input. Found by the entry-point group `evalgauge.collectors`."""

    Config: ClassVar[type[BaseModel]]
    """Its configuration model; unknown keys are errors."""
    pushes: ClassVar[bool]
    """True where events are pushed here and acknowledged; False where they can be read again from a position."""

    def __init__(self, config: Any, context: InputContext) -> None: ...

    def run(self) -> None:
        """Bring chunks until there are no more or `context.stop` is set, then return."""


class StateKeeper(Protocol):
    """A kind of collector that can keep the process's state with its positions; what it has besides.

    Where its partitions come and go, its configuration has `keyed_by`: by which field events are partitioned, or None.
    """

    @staticmethod
    def open_store(config: Any, name: str, replica: str) -> KeptStore | None:
        """The store of an input configured so; None where it leaves state to the state folder. Raises `ConfigError`."""

    @staticmethod
    def open_letters(config: Any, name: str) -> ReturningBox | None:
        """The dead letters that it keeps; None where they are in the state folder. Raises `ConfigError`."""
