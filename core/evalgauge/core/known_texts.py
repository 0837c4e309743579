"""A decoder that knows the texts which fields have had, so that an event brings no new copy of them.

Most fields that become labels have few values. Decoded as one of the texts that are known, a value is found in the
text's own hash table and is always the same object: no memory is taken for it, none is given back, its hash is known,
and a look-up of it in a dictionary compares nothing. Where a text becomes nothing but a label, that object can be its
number besides, and need not be looked up at all. Such a decoder refuses what the plain one accepts as soon as a text is
new; then the plain one decodes the piece, and what it brings is learnt.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

from evalgauge.core.errors import UNDECODABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    import msgspec

MOST_TEXTS = 256
"""Texts of a field that is worth knowing, at most."""
STEADY = 4
"""Pieces in a row that must bring no new text before a decoder is built; doubled whenever one came too early."""
_MOST_STEADY = 1 << 10
FEWEST_EVENTS = 256
"""Events of a piece that teaches: what is learnt from fewer costs more than it will save."""


Key = TypeVar("Key", bound="Hashable")


class KnownTexts(Generic[Key]):
    """The decoding of whole pieces for one shape of events."""

    def __init__(
        self,
        plain: msgspec.json.Decoder[Any],
        texts_of: Callable[[list[Any]], Iterable[tuple[Key, Iterable[Any]]]],
        build: Callable[[Mapping[Key, tuple[str, ...]]], msgspec.json.Decoder[Any]],
    ) -> None:
        """`texts_of` gives the values of each field that may be known, `build` a decoder for what is known of them."""
        self._plain = plain
        self._texts_of = texts_of
        self._build = build
        self._knowing: msgspec.json.Decoder[Any] | None = None
        self._texts: dict[Key, set[str]] = {}
        self._dropped: set[Key] = set()
        self._steady = 0
        self._enough = STEADY

    def events(self, body: bytes | memoryview, count: int) -> list[Any] | None:
        """The events of `count` plain lines; None where the lines are not one event each."""
        if self._knowing is not None:
            events = _decoded(self._knowing, body, count)
            if events is not None:
                return events
        events = _decoded(self._plain, body, count)
        if events is not None:
            self._forget()
            self.learn(events)
        return events

    def decoder(self) -> msgspec.json.Decoder[Any]:
        """The decoder to try first."""
        return self._plain if self._knowing is None else self._knowing

    def reconsider(self, line: bytes) -> bool:
        """Look at an event that was decoded some other way: whether it has a text that is new, which ends knowing."""
        if (
            self._knowing is not None
            and _decoded(self._knowing, line, 1) is None
            and _decoded(self._plain, line, 1) is not None
        ):
            self._forget()
            return True
        return False

    def _forget(self) -> None:
        if self._knowing is not None:
            self._knowing, self._steady = None, 0
            self._enough = min(2 * self._enough, _MOST_STEADY)

    def learn(self, events: list[Any]) -> None:
        """Learn from the events of a piece, unless enough is known."""
        if self._knowing is not None or len(events) < FEWEST_EVENTS:
            return
        new = False
        for key, values in self._texts_of(events):
            if key in self._dropped:
                continue
            known = self._texts.setdefault(key, set())
            before = len(known)
            # Only texts are looked up: what else a field may hold need not even be hashable.
            known.update({value for value in values if isinstance(value, str)})
            if len(known) > MOST_TEXTS:
                self._dropped.add(key)
                del self._texts[key]
            else:
                new |= len(known) > before
        self._steady = 0 if new else self._steady + 1
        if self._steady >= self._enough and any(self._texts.values()):
            self._knowing = self._build(
                {key: tuple(sorted(texts)) for key, texts in self._texts.items() if texts}
            )


def known(type_: Any, texts: tuple[str, ...] | None) -> Any:
    """The msgspec type of a field that is one of these texts; None leaves its type as it is."""
    return type_ if texts is None else Literal[texts]


class _Numbered(float, Enum):
    """A text that is known, in arithmetic its number: a float, which msgspec allows for a text and packs quickly."""

    def __new__(cls, number: int, text: str) -> Self:
        one = float.__new__(cls, number)
        one._value_ = text
        return one

    def __repr__(self) -> str:
        return repr(self._value_)


def numbered(texts: tuple[str, ...]) -> Any:
    """The msgspec type of a field that is one of these texts, each decoded as a number: its place among them."""
    members: Any = {f"text_{number}": (number, text) for number, text in enumerate(texts)}
    kind: Any = _Numbered
    return kind("KnownText", members)


def _decoded(decoder: msgspec.json.Decoder[Any], body: bytes | memoryview, count: int) -> list[Any] | None:
    try:
        events = decoder.decode_lines(body)
    except UNDECODABLE:
        return None
    return events if len(events) == count else None
