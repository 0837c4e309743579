"""What every shape of incoming events can do, and what decoding makes of a piece of a chunk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    import msgspec
    import numpy as np
    from numpy.typing import NDArray

    from evalgauge.core.columns import TypeReader
    from evalgauge.core.event import Finding, Refusal


@dataclass(slots=True)
class Decoded:
    """What a piece of a chunk held: accepted events by type, each with their lines, and what was refused."""

    received: int = 0
    lines: int = 0
    """Lines of the piece, blank ones included."""
    groups: list[tuple[TypeReader, list[Any], NDArray[np.int64]]] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


class Shape(Protocol):
    """One shape of incoming events: the CloudEvents envelope, or what a mapping describes."""

    least_brackets: int
    """Objects and lists that every event of this shape has, itself included."""

    def events(self, body: bytes | memoryview, count: int) -> list[Any] | None:
        """The events of `count` plain lines; None where the lines are not one event each."""

    def decoder(self) -> msgspec.json.Decoder[Any]:
        """The quickest decoder now. It may refuse what `decode` accepts, never the other way round."""

    def decode(self, line: bytes) -> Any:
        """Decode one line. Raises `msgspec.DecodeError`, `UnicodeDecodeError` or `RecursionError`."""

    def reconsider(self, line: bytes) -> bool:
        """Look at an event that `decode` took alone: True if `decoder` was out of date, and is another from now on."""

    def learn(self, events: list[Any]) -> None:
        """Get to know events that `events` did not decode; some may still be refused."""

    def explain(self, line: bytes) -> Finding | None:
        """Why a line is refused, judged slowly and with care; None where nothing is wrong with it."""

    def group(
        self, events: list[Any], lines: NDArray[np.int64], bad: list[int]
    ) -> Iterable[tuple[TypeReader, list[Any], NDArray[np.int64]]]:
        """Events by type, all from one decoder. Lines that only now turn out to be wrong are added to `bad`."""
