"""Refused events in a topic: the original bytes, with headers that say why and where they came from."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from evalgauge.collectors.kafka_client import Record
from evalgauge.core.store import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTITIONS = 4
"""Partitions of a topic of dead letters that are used; letters from one source partition stay in order."""
SETTINGS = {"cleanup.policy": "delete", "retention.ms": str(7 * 86_400_000)}
_PREFIX = "evalgauge-"
_TEXTS = ("input", "partition", "position", "type", "reason", "detail", "pack", "tenant", "kept")


def letter_record(topic: str, letter: DeadLetter) -> Record:
    """A dead letter as a record: its value is the event, its key the partition that it came from."""
    headers = [
        (_PREFIX + name, value.encode())
        for name in _TEXTS
        if (value := getattr(letter, name)) is not None and value != ""
    ]
    headers += [
        (f"{_PREFIX}time", f"{letter.time:.6f}".encode()),
        (f"{_PREFIX}size", str(letter.size).encode()),
    ]
    key = letter.partition.encode()
    return Record(topic, crc32(key) % PARTITIONS, key, letter.data, headers)


def letter_of(value: bytes | None, headers: Sequence[tuple[str, bytes]], number: int) -> DeadLetter:
    """The dead letter that a record is. Raises ValueError where it is none."""
    told = {name.removeprefix(_PREFIX): text.decode() for name, text in headers if name.startswith(_PREFIX)}
    if "reason" not in told or "input" not in told:
        raise ValueError("it has no header evalgauge-reason and evalgauge-input")
    return DeadLetter(
        time=float(told.get("time", 0)),
        input=told["input"],
        partition=told.get("partition", ""),
        position=told.get("position", ""),
        type=told.get("type", ""),
        reason=told["reason"],
        detail=told.get("detail", ""),
        pack=told.get("pack", ""),
        data=value or b"",
        tenant=told.get("tenant"),
        kept=told.get("kept", "bytes"),
        size=int(told.get("size", 0)),
        number=number,
    )
