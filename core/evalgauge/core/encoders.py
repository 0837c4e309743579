"""What a reducer remembers of label values: codes of each text field, and of the fields that are read together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evalgauge.core.arrays import Growing
from evalgauge.core.series import Encoder, ScalarEncoder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from evalgauge.core.columns import TypeReader

MOST_VALUES = 1 << 10
"""Values of a field that is read together with others, at most."""
MOST_COMBINATIONS = 1 << 14
"""Combinations of values that are remembered: more would not stay in the processor's caches."""


class Combination(dict[tuple[Any, ...], int]):
    """Values of several fields of one event type → a number, and that number → the code of each value.

    Labels have few values and few combinations. One look-up of a tuple costs an event what one look-up of a string
    does, so that reading four fields together takes a third of the time that they take one by one.
    """

    def __init__(self, reader: TypeReader, encoders: dict[str, Encoder]) -> None:
        super().__init__()
        self.fields = tuple(encoders)
        self._encoders = list(encoders.values())
        self._texts: dict[Any, Any] = {}
        self._codes = [Growing((), np.intp) for _ in encoders]
        chains = [path.chain for field in encoders if (path := reader.fields[field].path) is not None]
        values = ", ".join(f"event.{chain}" for chain in chains)
        # Compiled for the reason that `Path` gives; a chain is made of our own identifiers.
        self._read = eval(f"lambda events, known: [known[{values}] for event in events]")  # noqa: S307 - see above

    def __missing__(self, values: tuple[Any, ...]) -> int:
        """Give a new combination the next number."""
        number = len(self)
        for column, encoder, value in zip(self._codes, self._encoders, values, strict=True):
            column.reserve(number + 1)[number] = encoder[value]
        # One text for all combinations that hold it: else they would not stay in the processor's caches.
        self[tuple(self._texts.setdefault(value, value) for value in values)] = number
        return number

    def codes(self, bodies: Sequence[Any]) -> dict[str, NDArray[np.intp]] | None:
        """Field → codes (n,) of the bodies' values; None where an object that holds some of them is not there."""
        try:
            found = self._read(bodies, self)
        except AttributeError:
            return None
        numbers = np.fromiter(found, np.intp, len(bodies))
        return {field: codes.data[numbers] for field, codes in zip(self.fields, self._codes, strict=True)}


class Encoders:
    """The encoders of all event types that one reducer meets."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, str], Encoder] = {}
        self._asked: dict[str, dict[str, Encoder]] = {}
        """Event type → fields whose codes are wanted and that may be read together."""
        self._combinations: dict[str, Combination] = {}

    def __iter__(self) -> Iterator[Encoder]:
        """All encoders."""
        return iter(self._of.values())

    def of(self, reader: TypeReader, field: str) -> Encoder:
        """The value → code table of a text field; it outlives the batch."""
        key = (reader.type, field)
        encoder = self._of.get(key)
        if encoder is None:
            one = reader.fields[field]
            encoder = self._of[key] = (ScalarEncoder if one.scalar else Encoder)(one.translate)
            # `true` and `1` are equal within a tuple too, and only a scalar's encoder tells them apart.
            if one.path is not None and not one.scalar:
                self._asked.setdefault(reader.type, {})[field] = encoder
        return encoder

    def combination(self, reader: TypeReader) -> Combination | None:
        """The fields to read together in the next batch of a type, None where there are not two of them."""
        asked = self._asked.get(reader.type, {})
        for name in [name for name, encoder in asked.items() if len(encoder) > MOST_VALUES]:
            del asked[name]
        known = self._combinations.get(reader.type)
        if known is not None and len(known) > MOST_COMBINATIONS:
            del asked[max(asked, key=lambda name: len(asked[name]))]
        if len(asked) < 2:  # noqa: PLR2004 - one field is no combination
            self._combinations.pop(reader.type, None)
            return None
        if known is None or known.fields != tuple(asked):
            known = self._combinations[reader.type] = Combination(reader, asked)
        return known
