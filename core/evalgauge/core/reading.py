"""Attribute chains of decoded events, read of one event or of all events of a batch at once."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class Path:
    """A chain of attributes, such as `data.f_status`. Where an object on the way is None, the value is None.

    `column` is compiled for each chain: the interpreter specialises an attribute load that stands in a loop of its
    own, which makes it twice as fast as `map(attrgetter(chain), events)`.
    """

    __slots__ = ("_get", "_quick")

    def __init__(self, chain: str) -> None:
        """`chain` is made of our own identifiers, never of names from a file."""
        if not all(part.isidentifier() for part in chain.split(".")):
            msg = f"{chain!r} is no chain of attributes"
            raise ValueError(msg)
        self._get = attrgetter(chain)
        self._quick = eval(f"lambda events: [event.{chain} for event in events]")  # noqa: S307 - see the class

    def one(self, event: Any) -> Any:
        """The value of one event."""
        try:
            return self._get(event)
        except AttributeError:
            return None

    def column(self, events: Sequence[Any]) -> list[Any]:
        """The values of all events."""
        try:
            found: list[Any] = self._quick(events)
        except AttributeError:
            return [self.one(event) for event in events]
        return found
