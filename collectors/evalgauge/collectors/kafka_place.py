"""Where a partition has been read to, as chunks carry it, and as the group holds it."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from evalgauge.collectors.kafka_client import Committed


class Place(NamedTuple):
    """A position of a partition, as it is committed."""

    offset: int
    """Of the record to read next."""
    bytes: int = 0
    """Of all bodies before it, newlines included: the place of the next byte in the stream.

    It gives events without an id a stable one. Offsets cannot: a chunk has one base, and records between have sizes.
    """
    topic_id: str = ""
    leader_epoch: int | None = None

    @classmethod
    def of(cls, position: Any) -> Place:
        """The place that a committed position is. Raises TypeError where it is none."""
        if not isinstance(position, dict) or not isinstance(position.get("offset"), int):
            raise TypeError(f"{position!r} is no position of a Kafka partition")
        return cls(
            position["offset"],
            position.get("bytes", 0),
            position.get("topic_id", ""),
            position.get("leader_epoch"),
        )

    def position(self) -> dict[str, Any]:
        """The same as JSON."""
        return {key: value for key, value in self._asdict().items() if value not in {None, ""}}


def committed_of(place: Place) -> Committed:
    """What the group is to hold of a place: the offset, and the rest as metadata."""
    rest = {key: value for key, value in place.position().items() if key != "offset"}
    return Committed(place.offset, msgspec.json.encode(rest).decode())


def place_of(committed: Committed) -> Place:
    """The place that the group holds: by us with all of it, by others perhaps with the offset alone."""
    try:
        rest = (
            msgspec.json.decode(committed.metadata.encode(), type=dict[str, Any])
            if committed.metadata
            else {}
        )
        return Place.of({"bytes": _bytes_at(committed.offset), **rest, "offset": committed.offset})
    except (msgspec.DecodeError, msgspec.ValidationError, TypeError):
        return Place(committed.offset, _bytes_at(committed.offset))


def _bytes_at(offset: int) -> int:
    """A place in the stream that no event had before, where only the offset is known, as others commit it."""
    return offset << 20
