"""Our membership of a group: which partitions are ours, since when, and whether what was read of them may be committed.

It lives in a thread of its own, because the group must hear of us while the engine commits and while state is restored.
"""

from __future__ import annotations

import itertools
import logging
import threading
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple, Protocol

from evalgauge.collectors.kafka_client import Fenced, Unavailable, Unstable
from evalgauge.core.errors import EvalgaugeError, FencedError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from evalgauge.collectors.kafka_client import Committed, Member, Ownership, Partition, Standing
    from evalgauge.collectors.kafka_name import ReplicaName
    from evalgauge.collectors.kafka_orphans import Orphans

_log = logging.getLogger(__name__)
_POLL = 0.1
_BUSY_POLL = 0.01
_RETRY = 0.5
_END = 5.0
_SHOWN = 8


class _Stage(Enum):
    ASKED = auto()
    """Ours; its position is not known yet."""
    KNOWN = auto()
    """Its position is known; the input has not begun."""
    READ = auto()
    """The input reads it."""
    LEAVING = auto()
    """The input is to let it go."""


_BEGUN = {_Stage.READ, _Stage.LEAVING}


class Known(NamedTuple):
    """A partition that is ours and waits for the input to begin."""

    committed: Committed | None
    """Its position in the group; None where it has none."""
    term: int
    """Of our holding it: differs if it was somebody else's in between, who may have moved it on."""


class _Held:
    __slots__ = ("committed", "member_id", "stage", "term")

    def __init__(self, term: int, member_id: str) -> None:
        self.term = term
        self.member_id = member_id
        """As which member it was given to us; as another we may commit nothing that was read of it."""
        self.stage = _Stage.ASKED
        self.committed: Committed | None = None


class Joining(Protocol):
    """Makes members."""

    def member(self, ownership: Ownership, name: ReplicaName) -> Member:
        """Join; does not wait for the brokers. Raises `Unavailable`."""


class Membership:
    """Joins a group and keeps track. `close` ends it; every other call may come from any thread."""

    def __init__(
        self, library: Joining, orphans: Orphans, replica: ReplicaName, drain: float, name: str
    ) -> None:
        """`drain`: seconds that the input has to let go of partitions that are revoked."""
        self._library = library
        self._orphans = orphans
        self._replica = replica
        self._drain = drain
        self._name = name
        self._held: dict[Partition, _Held] = {}
        self._terms = itertools.count()
        self._changed = threading.Condition()
        self._member: Member | None = None
        self._begun = False
        """The input has begun with a partition."""
        self._waits = False
        """Somebody is held up by a transaction that is open."""
        self._broken = ""
        """Why nothing more can be committed, once that is so."""
        self._failed: EvalgaugeError | None = None
        self._ended = False
        self._trouble = "the brokers have not answered yet"
        self._thread = threading.Thread(target=self._run, name=f"{name}-member", daemon=True)
        self._thread.start()

    # -- for the input ------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise `FencedError` once partitions were lost, and `EvalgaugeError` where the membership ended."""
        with self._changed:
            if self._failed is not None:
                raise self._failed
            if self._broken:
                raise FencedError(self._broken)

    def known(self) -> dict[Partition, Known]:
        """Partitions that are ours and wait for the input to begin."""
        with self._changed:
            return {
                one: Known(held.committed, held.term)
                for one, held in self._held.items()
                if held.stage is _Stage.KNOWN
            }

    def ask_again(self, partition: Partition, term: int) -> None:
        """Its position may be another by now."""
        with self._changed:
            held = self._held.get(partition)
            if held is not None and held.term == term and held.stage is _Stage.KNOWN:
                held.stage, held.term = _Stage.ASKED, next(self._terms)

    def begin(self, partition: Partition, term: int) -> bool:
        """The input reads it from now on, or again; False if it is ours no more, or only again."""
        with self._changed:
            held = self._held.get(partition)
            if held is None or held.term != term or held.stage not in {_Stage.KNOWN, _Stage.READ}:
                return False
            held.stage = _Stage.READ
            self._begun = True
            return True

    def leaving(self) -> list[Partition]:
        """Partitions that the input is to let go of."""
        with self._changed:
            return [one for one, held in self._held.items() if held.stage is _Stage.LEAVING]

    def let_go(self, partition: Partition) -> None:
        """All that was read of it is committed, and nothing more will be."""
        with self._changed:
            self._held.pop(partition, None)
            self._changed.notify_all()

    def trouble(self) -> str:
        """What keeps us from being a member, in words."""
        return self._trouble

    def joined(self) -> bool:
        """Whether the group knows us. Raises as `check` does."""
        self.check()
        member = self._member
        if member is None:
            return False
        try:
            member.metadata()
        except Fenced:
            return False
        return True

    # -- for the store ------------------------------------------------------------------------------------

    def standing(self, partitions: Iterable[Partition]) -> Standing:
        """What fences a transaction that commits positions of these.

        Raises `FencedError` where one of them is not ours any more, whoever has it now, or not ours again.
        """
        member = self._member
        if member is None:
            raise StoreUnavailableError("the group has not been joined yet")
        try:
            standing = member.metadata()
        except Fenced as error:
            # It may be on its way back into the group: `lost` tells, in its thread, what that means for us.
            self.check()
            raise StoreUnavailableError(f"the group does not know us at the moment: {error}") from error
        # Only now: were they lost before, this could be of a later generation, and would fence nothing.
        self.check()
        with self._changed:
            for one in partitions:
                held = self._held.get(one)
                if held is None or held.stage not in _BEGUN or held.member_id != standing.member_id:
                    raise FencedError(f"input {self._name}: partition {one} is not ours")
        return standing

    def reads(self, partition: Partition) -> bool:
        """Whether it is ours, and the input reads it."""
        with self._changed:
            held = self._held.get(partition)
            return held is not None and held.stage is _Stage.READ

    def held_up(self) -> None:
        """An open transaction keeps state from being read: have it ended if nobody is left to do it."""
        self._waits = True

    def break_(self, why: str) -> None:
        """Nothing more can be committed; the input and the store learn of it at their next call."""
        with self._changed:
            self._broken = self._broken or why
            self._changed.notify_all()

    # -- told by the member, in its thread ----------------------------------------------------------------

    def assigned(self, partitions: Sequence[Partition]) -> None:
        """These are ours from now on."""
        if partitions:
            _log.info("input %s: now ours: %s", self._name, _listed(partitions))
        member_id = self._member_id()
        # librdkafka may give a member that was expelled while it was stopped the same ones again, and say no more.
        self.lost([one for one in partitions if one in self._held])
        with self._changed:
            for partition in partitions:
                self._held[partition] = _Held(next(self._terms), member_id)

    def _member_id(self) -> str:
        """Empty while the group does not know us: then nothing can be committed either."""
        try:
            return "" if self._member is None else self._member.metadata().member_id
        except Fenced:
            return ""

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Wait until the input has let go of these."""
        # librdkafka tells a member this too that was expelled while it was stopped, once it has joined anew.
        member_id = self._member_id()
        foreign = [one for one in partitions if one in self._held and self._held[one].member_id != member_id]
        self.lost(foreign)
        partitions = [one for one in partitions if one not in foreign]
        if partitions:
            _log.info("input %s: to be given up: %s", self._name, _listed(partitions))
        with self._changed:
            for partition in partitions:
                held = self._held.get(partition)
                if held is not None and held.stage is _Stage.READ:
                    held.stage = _Stage.LEAVING
                else:
                    self._held.pop(partition, None)
            done = self._changed.wait_for(
                lambda: self._ended or self._broken or not self._held.keys() & set(partitions), self._drain
            )
            for partition in partitions:
                self._held.pop(partition, None)
        if not done:
            self.break_(
                f"input {self._name}: what was read of {_listed(partitions)} could not be committed within "
                f"{self._drain:g} s (`drain_timeout`), and the partitions go to another member"
            )

    def lost(self, partitions: Sequence[Partition]) -> None:
        """These may be somebody else's already."""
        with self._changed:
            begun = [one for one in partitions if one in self._held and self._held[one].stage in _BEGUN]
            for partition in partitions:
                self._held.pop(partition, None)
        if begun:
            self.break_(
                f"input {self._name}: the group has taken {_listed(begun)} from us, because it did not hear of us in "
                "time (`session_timeout`)"
            )

    # -- the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._ended:
                try:
                    self._step()
                except Unavailable as error:
                    self._trouble = str(error)
                    self._pause()
        except Fenced as error:
            self._failed = EvalgaugeError(str(error))
        except EvalgaugeError as error:
            self._failed = error
        except Exception as error:  # noqa: BLE001 - a library may raise anything, and the input must learn of it
            _log.exception("input %s: the membership of the group failed", self._name)
            self._failed = EvalgaugeError(f"input {self._name}: {type(error).__name__}: {error}")
        finally:
            self.break_("the membership has ended")
            if self._member is not None:
                self._member.close()

    def _pause(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended, _RETRY)

    def _step(self) -> None:
        if self._member is None:
            self._member = self._library.member(self, self._replica)
        asked = [one for one, held in self._held.items() if held.stage is _Stage.ASKED]
        self._member.poll(_BUSY_POLL if asked else _POLL)
        self._trouble = self._member.trouble()
        if self._waits:
            self._waits = False
            self._settle()
        asked = [one for one, held in self._held.items() if held.stage is _Stage.ASKED]
        if not asked:
            return
        try:
            found = self._member.committed(asked)
        except Unstable:
            self._settle()
            raise
        with self._changed:
            for partition, committed in found.items():
                held = self._held.get(partition)
                if held is not None and held.stage is _Stage.ASKED:
                    held.committed, held.stage = committed, _Stage.KNOWN

    def _settle(self) -> None:
        # Before anything was read there is nothing to commit: what is open under our name is of an earlier life.
        self._orphans.settle(own=not self._begun)

    def close(self) -> None:
        """Leave it to the group to notice, as a static member does."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(_END)


def _listed(partitions: Sequence[Partition]) -> str:
    shown = ", ".join(str(one) for one in sorted(partitions)[:_SHOWN])
    return shown if len(partitions) <= _SHOWN else f"{shown} and {len(partitions) - _SHOWN} more"
