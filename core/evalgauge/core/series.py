"""Label sets to numbers: locally and fast while a batch is reduced, durably and within limits in the state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evalgauge.core.arrays import Growing

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from numpy.typing import NDArray

OTHER = "_other"
"""The label value that everything beyond a limit collapses to."""

_DENSE_BITS = 24
_PACKED_BITS = 62
"""Codes side by side that fit into an integer."""


class Encoder(dict[Any, int]):
    """Values of one field → small codes, in order of first appearance; `texts[code]` is the label text.

    A value is translated once, when first met; None stands for an absent field.
    """

    def __init__(self, translate: Callable[[Any], str | None]) -> None:
        super().__init__()
        self._translate = translate
        self._given: dict[str, int] = {}
        self._known: tuple[tuple[str, ...], NDArray[np.intp]] = ((), np.empty(0, np.intp))
        self._from: Growing | None = None
        self.texts: list[str | None] = []
        self.characters = 0
        """Length of all values: what they cost in memory."""

    def __missing__(self, value: Hashable) -> int:
        """Give a new value the next code."""
        code = self[value] = self._new(self._translate(value))
        self.characters += len(value) if isinstance(value, str) else 0
        return code

    @property
    def remembered(self) -> int:
        """How much it remembers."""
        return len(self)

    def _new(self, text: str | None) -> int:
        self.texts.append(text)
        return len(self.texts) - 1

    def codes_of(self, values: tuple[str, ...], numbers: NDArray[np.intp]) -> NDArray[np.intp]:
        """Codes (n,) of values that are given by their `numbers` (n,) among these; -1 is an absent field."""
        if self._known[0] is not values:
            self._known = values, np.full(len(values) + 1, -1, np.intp)
        table = self._known[1]
        codes: NDArray[np.intp] = table[numbers]
        new = numbers[codes < 0]
        if len(new):
            for number in dict.fromkeys(new.tolist()):
                table[number] = self[None if number < 0 else values[number]]
            codes = table[numbers]
        return codes

    def codes_from(
        self, codes: NDArray[np.intp], texts: Sequence[str | None], translate: Callable[[str], str]
    ) -> NDArray[np.intp]:
        """Codes (n,) of what `texts` become that another encoder, always the same one, gave `codes` (n,)."""
        if self._from is None:
            self._from = Growing((), np.intp, fill=-1)
        table = self._from.reserve(len(texts))
        found: NDArray[np.intp] = table[codes]
        new = codes[found < 0]
        if len(new):
            for code in dict.fromkeys(new.tolist()):
                text = texts[code]
                table[code] = self[None if text is None else translate(text)]
            found = table[codes]
        return found

    def code_of_text(self, text: str) -> int:
        """The code of a label text that is no value of the field, and so is not translated."""
        code = self._given.get(text)
        if code is None:
            code = self._given[text] = self._new(text)
        return code


class ScalarEncoder(Encoder):
    """An `Encoder` of a field that may hold any JSON scalar.

    `true`, `1` and `1.0` are one key to a dict. Whichever came first must not decide what the others are called,
    so whatever is no text is looked up together with its type.
    """

    def __init__(self, translate: Callable[[Any], str | None]) -> None:
        super().__init__(translate)
        self._typed: dict[tuple[type, Hashable], int] = {}

    def __missing__(self, value: Hashable) -> int:
        """Give a new value the next code, told apart by its type too: `1` and `true` are equal as keys."""
        if value is None or isinstance(value, str):
            return super().__missing__(value)
        key = (type(value), value)
        code = self._typed.get(key)
        if code is None:
            code = self._typed[key] = self._new(self._translate(value))
        return code


def passing(
    codes: NDArray[np.intp], texts: Sequence[str | None], test: Callable[[str | None], bool]
) -> NDArray[np.bool_]:
    """Shape (n,): whether the text of each code (n,) passes a test.

    An encoder may remember a million texts: no more are asked than there are codes.
    """
    if len(texts) <= len(codes):
        return np.array([test(text) for text in texts], np.bool_)[codes]
    found, places = np.unique(codes, return_inverse=True)
    return np.array([test(texts[code]) for code in found.tolist()], np.bool_)[places]


class LocalIndex:
    """Combinations of label codes → local slots, in order of first appearance.

    The codes of a combination are packed side by side into one integer. Up to 24 bits that integer
    indexes a dense table, which stays flat however many series there are; beyond that a dict takes over.
    """

    def __init__(self, width: int) -> None:
        self._bits = [2] * width
        self._codes: list[NDArray[np.intp]] = []
        self._numbers: list[NDArray[np.int32]] = []
        self._table: NDArray[np.int32] | None = np.zeros(1 << sum(self._bits), np.int32)
        """Slot plus one, 0 where the combination is new."""
        self._sparse: dict[Any, int] = {}
        """By the packed integer, or where that would be too wide by the codes themselves."""
        self._met_with, self._met_slot = Growing((), np.int64, fill=-1), Growing((), np.intp)
        """By the code of the label that has most: the packed integer it was last met with, and the slot of that."""

    def slots(
        self, columns: Sequence[NDArray[np.intp]], sizes: Sequence[int], following: int
    ) -> tuple[NDArray[np.intp], list[int]]:
        """Slots (N,) of N rows, and the rows at which a new slot appeared, in slot order.

        `columns` holds one array (N,) of codes for each label, `sizes` a bound for each label's codes. New slots
        are numbered from `following`: several indexes may share one numbering.
        """
        if any(size > 1 << bits for size, bits in zip(sizes, self._bits, strict=True)):
            self._widen(sizes)
        if self._table is None:
            return self._sparse_slots(columns, sizes, following)
        key = self._packed(columns)
        found = self._table[key]
        unknown = np.flatnonzero(found == 0)
        if not len(unknown):
            return (found - 1).astype(np.intp), []
        fresh, first = np.unique(key[unknown], return_index=True)
        order = np.argsort(first)
        fresh, rows = fresh[order], unknown[first[order]]
        numbers = np.arange(following + 1, following + 1 + len(fresh), dtype=np.int32)
        self._table[fresh] = numbers
        self._codes.append(np.stack([column[rows] for column in columns], axis=1))
        self._numbers.append(numbers)
        return (self._table[key] - 1).astype(np.intp), rows.tolist()

    def _packed(self, columns: Sequence[NDArray[np.intp]]) -> NDArray[np.intp]:
        key = columns[0]
        for column, bits in zip(columns[1:], self._bits[1:], strict=True):
            key = (key << bits) | column
        return key

    def _sparse_slots(
        self, columns: Sequence[NDArray[np.intp]], sizes: Sequence[int], following: int
    ) -> tuple[NDArray[np.intp], list[int]]:
        if sum(self._bits) > _PACKED_BITS:
            return self._looked_up(columns, np.arange(len(columns[0])), following)
        # Parts of a key mostly go together: what a session's id was met with before it is met with again.
        code, packed = columns[sizes.index(max(sizes))], self._packed(columns)
        rows = int(code.max(initial=-1)) + 1
        with_, slot = self._met_with.reserve(rows), self._met_slot.reserve(rows)
        found: NDArray[np.intp] = slot[code]
        rest = np.flatnonzero(with_[code] != packed)
        if not len(rest):
            return found, []
        found[rest], births = self._looked_up([column[rest] for column in columns], rest, following)
        with_[code[rest]], slot[code[rest]] = packed[rest], found[rest]
        return found, births

    def _looked_up(
        self, columns: Sequence[NDArray[np.intp]], rows: NDArray[np.intp], following: int
    ) -> tuple[NDArray[np.intp], list[int]]:
        """Slots (n,) of combinations (n,) that are at these `rows` (n,), and the rows at which a new one appeared."""
        keys = self._keys(columns)
        found: list[Any] = list(map(self._sparse.get, keys))
        new: list[int] = []
        if None in found:
            for place, slot in enumerate(found):
                if slot is None:
                    next_ = following + len(new)
                    found[place] = self._sparse.setdefault(keys[place], next_)
                    if found[place] == next_:
                        new.append(place)
            self._codes.append(np.stack([column[new] for column in columns], axis=1))
            self._numbers.append(np.arange(following + 1, following + 1 + len(new), dtype=np.int32))
        return np.array(found, np.intp), rows[new].tolist()

    def _keys(self, columns: Sequence[NDArray[np.intp]]) -> list[Any]:
        if sum(self._bits) <= _PACKED_BITS:
            found: list[Any] = self._packed(columns).tolist()
            return found
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def _widen(self, sizes: Sequence[int]) -> None:
        self._bits = [
            max(bits, (size - 1).bit_length() + 1) for size, bits in zip(sizes, self._bits, strict=True)
        ]
        codes = np.concatenate([np.empty((0, len(sizes)), np.intp), *self._codes])
        numbers = np.concatenate([np.empty(0, np.int32), *self._numbers])
        columns = list(codes.T)
        if sum(self._bits) <= _DENSE_BITS:
            self._table = np.zeros(1 << sum(self._bits), np.int32)
            self._table[self._packed(columns)] = numbers
        else:
            self._table = None
            self._met_with = Growing((), np.int64, fill=-1)
            self._sparse = dict(zip(self._keys(columns), (numbers - 1).tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class LabelRule:
    """How one label is admitted: `bounded` values (enum, constant, table) have no limit."""

    name: str
    limit: int
    bounded: bool


class SeriesIndex:
    """Label sets of one metric → slots of its state, in order of admission and within the limits.

    A label over its limit collapses to `_other` in that label alone, so that sums over it stay exact. At the
    metric's own limit a new combination takes `_other` in every label that is not bounded. What was refused
    is never remembered: memory is bounded by the limits, whatever is sent.
    """

    def __init__(self, rules: Sequence[LabelRule], limit: int) -> None:
        self._rules = tuple(rules)
        self.limit = limit
        self._admitted: list[set[str]] = [set() for _ in rules]
        self._slots: dict[tuple[str, ...], int] = {}
        self.series: list[tuple[str, ...]] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Label names, in the order of every series tuple."""
        return tuple(rule.name for rule in self._rules)

    def resolve(self, values: tuple[str, ...]) -> tuple[int, bool]:
        """The slot of a label set, admitted now if it is new, and whether a limit changed it."""
        slot = self._slots.get(values)
        if slot is not None:
            overflow = any(v == OTHER and not r.bounded for v, r in zip(values, self._rules, strict=True))
            return slot, overflow
        overflow = False
        admitted = []
        for value, rule, known in zip(values, self._rules, self._admitted, strict=True):
            if rule.bounded or value in known or (value != OTHER and len(known) < rule.limit):
                admitted.append(value)
            else:
                admitted.append(OTHER)
                overflow = True
        combination = tuple(admitted)
        slot = self._slots.get(combination)
        if slot is not None:
            return slot, overflow
        if len(self.series) >= self.limit:
            collapsed = tuple(v if r.bounded else OTHER for v, r in zip(values, self._rules, strict=True))
            if collapsed != combination:
                combination, overflow = collapsed, True
            slot = self._slots.get(combination)
            if slot is not None:
                return slot, overflow
        return self._admit(combination), overflow

    def restore(self, series: Sequence[tuple[str, ...]]) -> None:
        """Take back label sets in slot order, at start."""
        for combination in series:
            self._admit(combination)

    def _admit(self, combination: tuple[str, ...]) -> int:
        for value, known in zip(combination, self._admitted, strict=True):
            if value != OTHER:
                known.add(value)
        slot = self._slots[combination] = len(self.series)
        self.series.append(combination)
        return slot


class Touched:
    """Which local slots a batch touched, with the place in the stream at which each was first met."""

    _NEVER = np.iinfo(np.int64).max

    def __init__(self) -> None:
        self._first = Growing((), np.int64, fill=self._NEVER)
        self._slots: list[NDArray[np.intp]] = []
        self._last = -1

    def mark(self, slots: NDArray[np.intp], ordinals: NDArray[np.int64], size: int) -> None:
        """Rows with `slots` (N,) stand at `ordinals` (N,), ascending, of the stream; `size` slots exist."""
        first = self._first.reserve(size)
        new = first[slots] == self._NEVER
        if new.any():
            met, places = slots[new], ordinals[new]
            # Of several writes to one slot the last stays: backwards, that is the first of the stream.
            first[met[::-1]] = places[::-1]
            self._slots.append(met[first[met] == places])
        # The types of one batch are reduced one after the other, so that an earlier line may come later.
        if len(ordinals) and ordinals[0] < self._last:
            np.minimum.at(first, slots, ordinals)
        if len(ordinals):
            self._last = max(self._last, int(ordinals[-1]))

    def take(self) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """The touched slots (k,) and the place of each (k,); forgets them."""
        slots = np.concatenate([np.empty(0, np.intp), *self._slots])
        self._slots, self._last = [], -1
        first = self._first.data
        places = first[slots]
        first[slots] = self._NEVER
        return slots, places
