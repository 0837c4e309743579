"""What a pattern is: from the events of a key, in the order of the stream, to the places at which it is complete.

Each keeps columns of a table by key, and takes one event of each of several keys at a time. Where a pattern is complete
the key begins anew.
"""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evalgauge.core.keytable import KeyTable

NEVER = int(np.iinfo(np.int64).min) // 2
"""Before every event, and far enough from the least number that a time may be taken from it."""


class Matcher(Protocol):
    """One kind of pattern."""

    columns: dict[str, tuple[tuple[int, ...], type[np.generic]]]
    """What it keeps of each key."""

    def begin(self, keys: KeyTable, slots: NDArray[np.intp]) -> None:
        """Nothing is known of these keys."""

    def take(
        self, keys: KeyTable, slots: NDArray[np.intp], types: NDArray[np.intp], times: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """One event (n,) of each key; whether it completes the pattern (n,), so that its key begins anew."""

    def state(self, keys: KeyTable, slot: int) -> list[int]:
        """What is kept of one key, for `take_one`."""

    def fresh(self) -> list[int]:
        """The state of a key of which nothing is known."""

    def keep(self, keys: KeyTable, slot: int, state: list[int]) -> None:
        """Write a state back."""

    def take_one(self, state: list[int], type_: int, time: int) -> bool:
        """The same as `take` for one event of one key, in its `state`."""


class Every:
    """Each event by itself."""

    columns: dict[str, tuple[tuple[int, ...], type[np.generic]]]

    def __init__(self) -> None:
        self.columns = {}

    def begin(self, keys: KeyTable, slots: NDArray[np.intp]) -> None:
        """It remembers nothing."""

    @staticmethod
    def take(
        keys: KeyTable, slots: NDArray[np.intp], types: NDArray[np.intp], times: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Always."""
        del keys, types, times
        return np.ones(len(slots), np.bool_)

    @staticmethod
    def state(keys: KeyTable, slot: int) -> list[int]:
        """It remembers nothing."""
        del keys, slot
        return []

    @staticmethod
    def fresh() -> list[int]:
        """It remembers nothing."""
        return []

    def keep(self, keys: KeyTable, slot: int, state: list[int]) -> None:
        """It remembers nothing."""

    @staticmethod
    def take_one(state: list[int], type_: int, time: int) -> bool:
        """Always."""
        del state, type_, time
        return True


class OftenWithin:
    """So many events whose times, the newest of them, lie within a time, both ends included."""

    columns: dict[str, tuple[tuple[int, ...], type[np.generic]]]

    def __init__(self, count: int, within: int) -> None:
        """`within` in microseconds."""
        self._count, self._within = count, within
        self.columns = {"times": ((count,), np.int64)}

    def begin(self, keys: KeyTable, slots: NDArray[np.intp]) -> None:
        """No event yet."""
        keys.column("times")[slots] = NEVER

    def take(
        self, keys: KeyTable, slots: NDArray[np.intp], types: NDArray[np.intp], times: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """The oldest of them gives way to the new one, unless that is older still."""
        del types
        kept = keys.column("times")
        # Ascending, so that the first is the oldest.
        mine = np.sort(np.column_stack((np.maximum(kept[slots, 0], times), kept[slots, 1:])), axis=1)
        complete: NDArray[np.bool_] = mine[:, -1] - mine[:, 0] <= self._within
        mine[complete] = NEVER
        kept[slots] = mine
        return complete

    @staticmethod
    def state(keys: KeyTable, slot: int) -> list[int]:
        """Times, ascending."""
        found: list[int] = keys.column("times")[slot].tolist()
        return found

    def fresh(self) -> list[int]:
        """No event yet."""
        return [NEVER] * self._count

    @staticmethod
    def keep(keys: KeyTable, slot: int, state: list[int]) -> None:
        """Write them back."""
        keys.column("times")[slot] = state

    def take_one(self, state: list[int], type_: int, time: int) -> bool:
        """See `take`."""
        del type_
        if time > state[0]:
            del state[0]
            insort(state, time)
        complete = state[-1] - state[0] <= self._within
        if complete:
            state[:] = self.fresh()
        return complete


class OftenAmong:
    """So many events among the last so many of a key."""

    columns: dict[str, tuple[tuple[int, ...], type[np.generic]]]

    def __init__(self, count: int, among: int, wanted: NDArray[np.bool_]) -> None:
        """`among` up to 64; `wanted` by type: whether it is one of those that are counted."""
        self._count, self._wanted = count, wanted
        self._mask = np.uint64((1 << among) - 1)
        self.columns = {"recent": ((), np.uint64)}

    def begin(self, keys: KeyTable, slots: NDArray[np.intp]) -> None:
        """No event yet."""
        keys.column("recent")[slots] = 0

    def take(
        self, keys: KeyTable, slots: NDArray[np.intp], types: NDArray[np.intp], times: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """A bit for each of the last events: 1 where it is one of those."""
        del times
        kept = keys.column("recent")
        mine = ((kept[slots] << np.uint64(1)) | self._wanted[types].astype(np.uint64)) & self._mask
        bits = np.unpackbits(mine.view(np.uint8).reshape(len(mine), 8), axis=1).sum(axis=1)
        complete: NDArray[np.bool_] = self._wanted[types] & (bits >= self._count)
        mine[complete] = 0
        kept[slots] = mine
        return complete

    @staticmethod
    def state(keys: KeyTable, slot: int) -> list[int]:
        """One number of bits."""
        return [int(keys.column("recent")[slot])]

    @staticmethod
    def fresh() -> list[int]:
        """No event yet."""
        return [0]

    @staticmethod
    def keep(keys: KeyTable, slot: int, state: list[int]) -> None:
        """Write it back."""
        keys.column("recent")[slot] = state[0]

    def take_one(self, state: list[int], type_: int, time: int) -> bool:
        """See `take`."""
        del time
        wanted = bool(self._wanted[type_])
        mine = ((state[0] << 1) | wanted) & int(self._mask)
        complete = wanted and mine.bit_count() >= self._count
        state[0] = 0 if complete else mine
        return complete


class InOrder:
    """Types one after the other, others in between, from the first to the last within a time or a number of events."""

    columns: dict[str, tuple[tuple[int, ...], type[np.generic]]]

    def __init__(self, steps: NDArray[np.intp], within: int | None, among: int | None) -> None:
        """`steps` (m,) are types; `within` in microseconds, or `among` so many events, one of them None."""
        self._steps, self._within, self._among = steps, within, among
        self._listed: list[int] = steps.tolist()
        # Where the best way to have come so far began: the latest beginning leaves most room for what follows.
        self.columns = {"begun": ((len(steps),), np.int64), "number": ((), np.int64)}

    def begin(self, keys: KeyTable, slots: NDArray[np.intp]) -> None:
        """No event yet."""
        keys.column("begun")[slots] = NEVER
        keys.column("number")[slots] = 0

    def take(
        self, keys: KeyTable, slots: NDArray[np.intp], types: NDArray[np.intp], times: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Each step goes on from the one before it, the last step first: an event takes one step only."""
        begun, number = keys.column("begun"), keys.column("number")
        number[slots] += 1
        now = times if self._among is None else number[slots]
        room = self._within if self._among is None else self._among - 1
        mine = begun[slots]
        for step in range(len(self._steps) - 1, 0, -1):
            here, before = mine[:, step], mine[:, step - 1]
            np.maximum(here, before, out=here, where=types == self._steps[step])
        np.maximum(mine[:, 0], now, out=mine[:, 0], where=types == self._steps[0])
        last = mine[:, -1]
        complete: NDArray[np.bool_] = (
            (types == self._steps[-1]) & (last > NEVER) & (now - np.maximum(last, NEVER) <= room)
        )
        mine[complete] = NEVER
        begun[slots] = mine
        return complete

    @staticmethod
    def state(keys: KeyTable, slot: int) -> list[int]:
        """Number of events, then where each step's best way began."""
        return [int(keys.column("number")[slot]), *keys.column("begun")[slot].tolist()]

    def fresh(self) -> list[int]:
        """No event yet."""
        return [0, *[NEVER] * len(self._steps)]

    @staticmethod
    def keep(keys: KeyTable, slot: int, state: list[int]) -> None:
        """Write them back."""
        keys.column("number")[slot], keys.column("begun")[slot] = state[0], state[1:]

    def take_one(self, state: list[int], type_: int, time: int) -> bool:
        """See `take`."""
        steps = self._listed
        state[0] += 1
        now = time if self._among is None else state[0]
        room = self._within if self._among is None else self._among - 1
        for step in range(len(steps) - 1, 0, -1):
            if steps[step] == type_:
                state[step + 1] = max(state[step + 1], state[step])
        if steps[0] == type_:
            state[1] = max(state[1], now)
        complete = steps[-1] == type_ and state[-1] > NEVER and now - state[-1] <= (room or 0)
        if complete:
            state[1:] = [NEVER] * len(steps)
        return complete
