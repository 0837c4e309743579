"""`evalgauge kafka repartition` on a real broker: keys, partitions and order, once each through kill -9."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import closing
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from kafka.partitioner.default import murmur2 as reference

from evalgauge.collectors.kafka_repartition import _configured, murmur2, partition_of
from tests.parts.part import until
from tests.running import PROGRAM, Running, evalgauge, judgment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeTopic
    from tests.parts.kafka import Kafka

SECONDS = 120
START = (int(time.time()) - 40_000) * 1000
"""Milliseconds; long ago enough for a record each second, and within what topics keep."""


class Copied(NamedTuple):
    """A record as it is found in the target."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: Any
    time: int


def event(number: int, tenant: object) -> bytes:
    """One event of a tenant."""
    return json.dumps(
        {"id": str(number), "source": "/s", "type": "t", "data": {"n": number, "tenant": tenant}}
    ).encode()


def send(kafka: Kafka, topic: str, values: list[bytes | None], partition: int, **more: Any) -> None:
    """Records of one partition, a second apart."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    for number, value in enumerate(values):
        producer.produce(topic, value, partition=partition, timestamp=START + number * 1000, **more)
    assert producer.flush(SECONDS) == 0


def found(kafka: Kafka, topic: str, partitions: int) -> list[Copied]:
    """All that is committed in a topic, by partition and offset."""
    reader = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "group.id": "any",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    records = []
    with closing(reader):
        for partition in range(partitions):
            reader.assign([TopicPartition(topic, partition, 0)])

            def read() -> bool:
                for message in reader.consume(10_000, 1):
                    if message.error() is not None:
                        return True
                    at, stamp = message.partition() or 0, message.timestamp()[1]
                    records.append(Copied(at, message.key(), message.value(), message.headers(), stamp))
                return False

            until(read, f"{topic}/{partition} to be read", SECONDS)
    return records


def copy(kafka: Kafka, source: str, target: str, *flags: str) -> Any:
    """The command to its end."""
    words = (source, target, "--key", "tenant", "--bootstrap", kafka.bootstrap, *flags)
    return evalgauge("kafka", "repartition", *words)


def test_the_hash_is_that_of_kafka() -> None:
    """Beside kafka-python's, which is held to Java's."""
    for length in range(40):
        data = bytes(range(200, 200 + length))
        assert murmur2(data) == reference(data) & 0xFFFFFFFF
    # As Kafka's own tests of murmur2 have it.
    assert murmur2(b"21") == -973932308 & 0xFFFFFFFF
    assert partition_of(b"foobar", 1 << 31) == -790332482 & 0x7FFFFFFF


@pytest.mark.parametrize("fast", [True, False], ids=["confluent", "kafka-python"])
def test_events_of_a_key_come_together_in_their_order(
    kafka: Kafka, make_topic: MakeTopic, *, fast: bool
) -> None:
    """With value, headers and time as they were; what has no such field keeps its key."""
    source, target = make_topic(3), f"{make_topic()}-by-tenant"
    headers: Any = [("trace", b"abc"), ("trace", b"def")]
    sent = {
        partition: [
            event(number, f"tenant-{number % 5}") for number in range(partition * 50, partition * 50 + 50)
        ]
        for partition in range(3)
    }
    for partition, values in sent.items():
        send(kafka, source, list(values), partition, key="old", headers=headers)
    others = [b"no event", event(900, None), None, event(901, {"a": 1}), event(1, 17), b'{"data": 3}']
    send(kafka, source, others, 1, key="old")
    installed = find_spec if fast else lambda _: None
    with mock.patch("evalgauge.collectors.kafka_repartition.find_spec", installed):
        done = copy(kafka, source, target)
    assert done.code == 0, done
    assert done.out.splitlines() == [
        f"topic `{target}`: created: 3 partitions, replication 1",
        f"156 records copied from `{source}` to `{target}`; 5 of them have no `tenant`, and kept their key",
    ]
    records = found(kafka, target, 3)
    assert len(records) == 156
    assert sorted(str(one.value) for one in records) == sorted(
        map(str, [*others, *(value for values in sent.values() for value in values)])
    )
    for one in records:
        told = json.loads(one.value or b"0") if one.value not in {b"no event", None} else {}
        data = told.get("data")
        tenant = data.get("tenant") if isinstance(data, dict) else None
        text = str(tenant).encode() if isinstance(tenant, str | int) else b"old"
        assert one.key == text
        assert one.partition == partition_of(text, 3)
    by_tenant = [one for one in records if (one.key or b"").startswith(b"tenant-")]
    assert all(one.headers == headers for one in by_tenant)
    for partition, values in sent.items():
        for tenant in range(5):
            mine = [value for value in values if f'"tenant-{tenant}"'.encode() in value]
            kept = [one for one in by_tenant if one.value in mine]
            assert [one.value for one in kept] == mine, "the order within a source partition is kept"
            assert [one.time for one in kept] == [START + values.index(value) * 1000 for value in mine], (
                partition
            )
    again = copy(kafka, source, target)
    assert (again.code, again.out.splitlines()[1][:2]) == (0, "0 "), again
    send(kafka, source, [event(1000, "late")], 2)
    assert copy(kafka, source, target).out.splitlines()[1].startswith("1 records copied")


def test_each_record_is_copied_once_through_kill_9(kafka: Kafka, make_topic: MakeTopic) -> None:
    """Killed with everything written and nothing committed, after a commit, and while it follows."""
    source, target = make_topic(2), f"{make_topic()}-copy"
    total = 60_000
    for partition in range(2):
        values: list[bytes | None] = [event(n, f"tenant-{n % 97}") for n in range(partition, total, 2)]
        send(kafka, source, values, partition)
    words: list[str | Path] = [
        PROGRAM,
        "kafka",
        "repartition",
        source,
        target,
        "--key",
        "tenant",
        "--bootstrap",
        kafka.bootstrap,
    ]
    for failpoint in ("sender.inside:1", "sender.after:1", "sender.inside:1"):
        done = subprocess.run(
            [*words, "--partitions", "4"],
            env={**os.environ, "EVALGAUGE_FAILPOINT": failpoint},
            capture_output=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == -9, (done.stdout, done.stderr)
    following = subprocess.Popen([*words, "--follow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        until(lambda: copied_to(kafka, source, target) >= total, "all to be copied", SECONDS)
        send(kafka, source, [event(total, "late")], 0)
        until(lambda: copied_to(kafka, source, target) > total, "the late one to be copied", SECONDS)
    finally:
        following.kill()
        following.communicate()
    numbers = sorted(json.loads(one.value or b"")["data"]["n"] for one in found(kafka, target, 4))
    assert numbers == list(range(total + 1))


def copied_to(kafka: Kafka, source: str, target: str) -> int:
    """How far the copying says it is."""
    group = f"evalgauge-repartition-{source}-{target}"
    reader = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": group, "log_level": 0})
    with closing(reader):
        positions = reader.committed([TopicPartition(source, number) for number in range(2)], timeout=SECONDS)
    return sum(max(one.offset, 0) for one in positions)


def test_wrong_keys_are_counted_and_mended_by_the_copy(
    kafka: Kafka, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """By the process that reads, for each input that says what its keys are."""
    source, target = make_topic(2), f"{make_topic()}-by-tenant"
    lines = [judgment(number, tenant_id=f"tenant-{number % 3}") for number in range(30)]
    send(kafka, source, list(lines), 0, key="tenant-1")
    send(kafka, source, [judgment(99, tenant_id="tenant-1")], 1)
    done = evalgauge(
        *("kafka", "repartition", source, target, "--key", "tenant_id", "--bootstrap", kafka.bootstrap)
    )
    assert done.code == 0, done
    given = {"type": "kafka", "bootstrap": kafka.bootstrap}
    inputs = {
        "old": {**given, "topics": source, "keyed_by": "tenant_id"},
        "new": {**given, "topics": target, "keyed_by": "tenant_id", "client": "confluent"},
        "silent": {**given, "topics": target},
    }
    with Running(tmp_path, {"packs": ["judgment"], "inputs": inputs}) as one:
        name = "evalgauge_input_key_mismatches_total"
        until(lambda: one.sum("judgment_executions_total") == 93, "all to be counted", SECONDS)
        until(lambda: one.sum(name, input="old") == 21, "20 wrong keys and one that is missing", SECONDS)
        assert f'{name}{{input="new"}} 0' in one.get("/metrics").text
        assert f'{name}{{input="silent"' not in one.get("/metrics").text


def test_what_cannot_be_copied_is_refused(kafka: Kafka, make_topic: MakeTopic, topic: str) -> None:
    """With what to do."""
    source = make_topic(2)
    assert copy(kafka, source, source).code == 2
    assert f"there is no topic `{topic}`" in copy(kafka, topic, f"{topic}-copy").err
    other = make_topic(3)
    done = copy(kafka, source, other, "--partitions", "5")
    assert (done.code, "partitions: 3, not 5" in done.err) == (1, True)
    assert evalgauge("kafka", "repartition", "a", "b", "--key", "x", "--bootstrap", "nowhere").code == 2


def test_a_source_that_has_lost_records_is_not_gone_on_from(kafka: Kafka, make_topic: MakeTopic) -> None:
    """A position beyond the end is of another log: going on would leave records out."""
    source, target = make_topic(1), f"{make_topic()}-copy"
    send(kafka, source, [event(n, "a") for n in range(3)], 0)
    group = f"evalgauge-repartition-{source}-{target}"
    reader = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": group, "log_level": 0})
    with closing(reader):
        reader.commit(offsets=[TopicPartition(source, 0, 10)], asynchronous=False)
    done = copy(kafka, source, target)
    assert done.code == 1
    assert "was copied up to offset 10, but ends at 3" in done.err
    assert f"kafka-consumer-groups.sh --delete --group {group}" in done.err


@pytest.mark.parametrize(
    ("topics", "reader"), [(("b", "b-keyed"), "named"), (("c2", "d"), "by pattern"), (("x", "y"), "first")]
)
def test_of_several_inputs_the_one_that_reads_the_topic_says_how(
    tmp_path: Path, topics: tuple[str, str], reader: str
) -> None:
    """Its client and options are right for that topic; where none reads it, any of the cluster's inputs is as good."""
    reading: dict[str, dict[str, Any]] = {
        "first": {"topics": ["a"]},
        "named": {"topics": ["z", "b"]},
        "by pattern": {"topic_pattern": "c[0-9]"},
    }
    inputs = {
        name.replace(" ", "_"): {
            "type": "kafka",
            "bootstrap": "127.0.0.1:9",
            "client": "confluent",
            "client_options": {"client.rack": name},
            **one,
        }
        for name, one in reading.items()
    }
    path = tmp_path / "evalgauge.yaml"
    path.write_text(json.dumps({"packs": ["judgment"], "inputs": inputs}))
    assert _configured(path, *topics).client_options == {"client.rack": reader}
