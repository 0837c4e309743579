"""Keys to numbers: once for all metrics that go by the same fields, and without Python for a key that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xxhash

from evalgauge.core.arrays import Growing
from evalgauge.core.series import Encoder, LocalIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from evalgauge.core.instrument import Declared
    from evalgauge.core.keytable import KeyTable

_KEPT = 256
"""Characters of a part of a key that are kept as they are: state must not grow with what an event makes of its id."""

NO_KEY = -1
"""Number of an event that lacks a part of its key."""
_UNKNOWN = -2


class KeyNumbers(Encoder):
    """Keys → numbers, in order of first appearance; `texts[number]` is the key. Lives where batches are reduced."""

    def __init__(self) -> None:
        super().__init__(str)
        self._numbers: dict[str, Growing] = {}
        """Event type → number by code of the field, or of the combination of fields."""
        self._indexes: dict[str, LocalIndex] = {}
        self._combinations: dict[str, int] = {}
        """Event type → combinations met."""

    @property
    def remembered(self) -> int:
        """Keys, or combinations of fields of which one may be absent: whichever are more."""
        return max(len(self), *self._combinations.values(), 0)

    def known(self, first: int) -> list[str]:
        """The keys from number `first` on."""
        return [str(text) for text in self.texts[first:]]

    def of(
        self,
        type_: str,
        parts: Sequence[tuple[NDArray[np.intp], Sequence[str | None]]],
        *,
        tenanted: bool,
    ) -> NDArray[np.intp]:
        """Numbers (n,) of the keys of n events of a type.

        `parts` holds codes (n,) of each field, and the text of each code. Where they are `tenanted` the first may be
        absent, and stands for nobody's.
        """
        places, size = parts[0][0], len(parts[0][1])
        if len(parts) > 1:
            index = self._indexes.setdefault(type_, LocalIndex(len(parts)))
            size = self._combinations.get(type_, 0)
            sizes = [len(texts) for _, texts in parts]
            places, births = index.slots([codes for codes, _ in parts], sizes, size)
            size = self._combinations[type_] = size + len(births)
        table = self._numbers.setdefault(type_, Growing((), np.int64, fill=_UNKNOWN)).reserve(size)
        numbers: NDArray[np.intp] = table[places].astype(np.intp)
        unknown = np.flatnonzero(numbers == _UNKNOWN)
        if len(unknown):
            fresh, first = np.unique(places[unknown], return_index=True)
            rows = unknown[first]
            named = [[texts[code] for code in codes[rows].tolist()] for codes, texts in parts]
            for place, *found in zip(fresh.tolist(), *named, strict=True):
                if tenanted:
                    found[0] = found[0] or ""
                table[place] = NO_KEY if None in found else self[joined(map(_bounded, found))]
            numbers = table[places].astype(np.intp)
        return numbers


class LocalKeys:
    """Numbers of keys in one reducer → keys, and their slots in one table by key, looked up when first met."""

    def __init__(self, texts: list[str]) -> None:
        """`texts` are those announced so far; who announces more adds them."""
        self._texts = texts
        self._slots = Growing((), np.int64, fill=-1)
        self._serials = Growing((), np.int64)

    def texts(self, keys: NDArray[np.intp]) -> list[str]:
        """The keys of these numbers (n,)."""
        texts = self._texts
        return [texts[key] for key in keys.tolist()]

    def slots(self, table: KeyTable, keys: NDArray[np.intp]) -> NDArray[np.int64]:
        """By number: the slot of each of `keys` (n,), -1 where the table does not hold it.

        It may be written to for these keys, and then `note` must follow before any slot is freed.
        """
        slots = self._slots.reserve(len(self._texts))
        serials = self._serials.reserve(len(slots))
        found = slots[keys]
        held = found >= 0
        held[held] = table.serials(found[held]) == serials[keys[held]]
        unknown = np.unique(keys[~held])
        slots[unknown] = table.find(self.texts(unknown))
        self.note(table, unknown)
        return slots

    def given(self, table: KeyTable, keys: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
        """By number: the slot of each of `keys` (n,), a new one of zeros where the table did not hold it; and those."""
        slots = self.slots(table, keys)
        new = np.unique(keys[slots[keys] < 0])
        if len(new):
            slots[new] = table.give(self.texts(new))
            self.note(table, new)
        return slots, new

    def note(self, table: KeyTable, keys: NDArray[np.intp]) -> None:
        """The slots of these `keys` (n,) are as the table has them now."""
        slots = self._slots.data[keys]
        self._serials.reserve(len(self._slots.data))[keys] = np.where(slots >= 0, table.serials(slots), 0)


def key_fields(declared: Declared, key: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """By event type the fields that make a key. Tenants have keys of their own, where all events can say whose."""
    tenants = {type_: event.tenant for type_, event in declared.types.items()}
    own = None not in tenants.values() and not all(tenant in key for tenant in tenants.values())
    return {type_: (*([str(tenant)] if own else []), *key) for type_, tenant in tenants.items()}


def _bounded(part: str | None) -> str:
    """A part of a key; of a long one its beginning and a digest."""
    text = str(part)
    if len(text) <= _KEPT:
        return text
    digest = xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))
    return f"{text[: _KEPT - len(digest)]}{digest}"


def joined(parts: Iterable[str]) -> str:
    """A key of several texts. The length of each but the last stands before it, so that no two give the same."""
    *first, last = parts
    return "".join(f"{len(part)}:{part}" for part in first) + last


def parted(key: str, count: int) -> list[str]:
    """The texts that `joined` made a key of."""
    parts = []
    for _ in range(count - 1):
        length, _, rest = key.partition(":")
        parts.append(rest[: int(length)])
        key = rest[int(length) :]
    return [*parts, key]
