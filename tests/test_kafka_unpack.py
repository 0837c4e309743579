"""Batches as kafka-python writes them, read here and read by itself: the same records, and the same refusals."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.legacy_records import LegacyRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords

from evalgauge.collectors import kafka_unpack

PLAIN, GZIP = 0, 1
PARTITION = TopicPartition("topic", 3)


def batch(
    records: list[dict[str, Any]], *, compression: int = PLAIN, base: int = 0, **more: Any
) -> bytearray:
    """Return a batch of format 2 with these records, its first offset `base`."""
    settings = {
        "magic": 2,
        "compression_type": compression,
        "is_transactional": False,
        "producer_id": -1,
        "producer_epoch": -1,
        "base_sequence": -1,
        "batch_size": 1 << 27,
        **more,
    }
    builder = DefaultRecordBatchBuilder(**settings)
    for number, record in enumerate(records):
        made = {"timestamp": 1_700_000_000_000, "key": None, "value": b"{}", "headers": [], **record}
        assert builder.append(number, **made) is not None, "the batch is full"
    data = bytearray(builder.build())
    data[:8] = base.to_bytes(8)  # not part of the checksum
    return data


def read(kind: Any, data: bytes, *, at: int = 0, **more: Any) -> tuple[list[tuple[Any, ...]], int]:
    """Return what a class of the fetcher makes of an answer of a broker, and the offset it would read next."""
    found = kind(at, PARTITION, MemoryRecords(bytes(data)), **more)
    records = []
    while found:
        some = found.take(7)
        records += [
            (one.offset, one.timestamp, one.key, one.value, list(one.headers), one.leader_epoch)
            for one in some
        ]
    return records, found.next_fetch_offset


def both(data: bytes, **more: Any) -> tuple[list[tuple[Any, ...]], int]:
    """Return what we read, which must be what the library reads."""
    ours = read(kafka_unpack._Records, data, **more)
    assert ours == read(Fetcher.PartitionRecords, data, **more)
    return ours


@pytest.mark.parametrize("compression", [PLAIN, GZIP])
def test_records_are_read_as_the_library_reads_them(compression: int) -> None:
    """Sizes on both sides of what one, two and three bytes can say, times that go back, keys, headers, tombstones."""
    draw = random.Random(7)  # noqa: S311 - no secret
    sizes = [0, 1, 63, 64, 127, 128, 300, 8191, 8192, 20_000, 1_100_000]
    records = [
        {
            "timestamp": 1_700_000_000_000
            + draw.choice([0, 1, 63, 64, -1, -64, -65, 10_000, -(10**9), 10**12]),
            "key": draw.choice([None, b"", b"key", b"k" * 200]),
            "value": draw.choice([None, *(b"v" * size for size in sizes)]),
            "headers": draw.choice(
                [[], [], [("a", b"1")], [("ü" * 70, None), ("b", b""), ("c", b"x" * 9000)]]
            ),
        }
        for _ in range(400)
    ]
    read_, after = both(bytes(batch(records, compression=compression, base=5_000_000_000)))
    assert [one[3] for one in read_] == [record["value"] for record in records]
    assert after == 5_000_000_400


def test_reading_begins_within_a_batch_and_goes_on_through_several() -> None:
    """A broker gives whole batches, whatever offset was asked for."""
    data = batch([{"value": b"%d" % n} for n in range(10)]) + batch(
        [{"value": b"%d" % n} for n in range(10, 300)], base=10
    )
    records, after = both(bytes(data), at=4)
    assert [one[0] for one in records] == list(range(4, 300))
    assert after == 300


def test_records_of_the_old_formats_are_read_too() -> None:
    """As topics hold them that were written before Kafka 0.11."""
    builder = LegacyRecordBatchBuilder(magic=1, compression_type=0, batch_size=1 << 20)
    for number in range(3):
        builder.append(number, timestamp=7, key=None, value=b"old")
    records, _ = both(bytes(builder.build()))
    assert [one[3] for one in records] == [b"old"] * 3


def test_a_batch_that_was_changed_on_its_way_is_refused_by_both() -> None:
    """Its checksum says so."""
    data = batch([{"value": b"value"}])
    data[-3] ^= 1
    for kind in (kafka_unpack._Records, Fetcher.PartitionRecords):
        with pytest.raises(CorruptRecordError):
            read(kind, bytes(data))


@pytest.mark.parametrize("place", range(61, 75))
def test_a_record_that_is_wrong_in_itself_is_never_read_as_another(place: int) -> None:
    """Whichever byte is wrong: refused, or the library takes it too."""
    data = batch([{"value": b"value"}, {"value": b"other"}])
    data[place] ^= 0x40
    try:
        expected: Any = read(Fetcher.PartitionRecords, bytes(data), check_crcs=False)
    except CorruptRecordError:
        with pytest.raises(CorruptRecordError):
            read(kafka_unpack._Records, bytes(data), check_crcs=False)
    else:
        with contextlib.suppress(CorruptRecordError):  # we may be stricter
            assert read(kafka_unpack._Records, bytes(data), check_crcs=False) == expected


def test_a_library_that_is_made_otherwise_is_left_alone() -> None:
    """It reads by itself then, only slower."""

    class Consumer:
        _fetcher = object()

    assert not kafka_unpack.quicken(Consumer())
    assert not kafka_unpack.quicken(object())
