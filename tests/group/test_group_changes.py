"""What may change around a group while it runs: its size, its topic, its packs, its names."""

from __future__ import annotations

import json
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer as Client
from kafka import KafkaAdminClient
from kafka.admin import NewPartitions

from evalgauge.collectors.kafka_changelog import PARTITIONS, Owner
from tests.group.feed import Producer, chance, make_topic
from tests.group.harness import INPUT, Group, configuration
from tests.parts.part import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.group.harness import KafkaClient
    from tests.group.replica import Replica
    from tests.parts.kafka import Kafka

pytestmark = pytest.mark.timeout(600)
PACK = Path(__file__).parents[2] / "packs/evalgauge/packs/judgment.yaml"
SECONDS = 120.0


def send(bootstrap: str, topic: str, *events: dict[str, Any], partition: int = 0) -> None:
    """Write events, one a record, to one partition."""
    client = Client({"bootstrap.servers": bootstrap, "log_level": 0})
    for event in events:
        client.produce(topic, json.dumps(event).encode(), partition=partition)
    assert client.flush(60) == 0


def judgment(number: int, **data: Any) -> dict[str, Any]:
    """An event of pack `judgment`."""
    known = {"tenant_id": "t", "workflow_id": "w", "method_used": "llm", "status": "success"}
    return {"id": f"e{number}", "source": "/s", "type": "judgment.executed", "data": known | data}


def total(group: Group, name: str) -> float:
    """A metric's samples, summed over the replicas that run."""
    found, _ = group.summed(name)
    return sum(value for (sample, _), value in found.items() if sample == name)


def readers(group: Group) -> list[Replica]:
    """Replicas that have a partition."""
    return [
        one for one in group.running() if "evalgauge_input_partition_lag_events{" in (one.metrics() or "")
    ]


@contextmanager
def ended_after_one(kafka: Kafka, topic: str, folder: Path) -> Iterator[tuple[Group, Replica]]:
    """A group whose only replica has counted one event, and has ended."""
    make_topic(kafka.bootstrap, topic, 1)
    config = configuration(chance("one"), kafka.bootstrap, topic)
    with Group(kafka.bootstrap, topic, folder, config, 1, watch=False) as group:
        send(kafka.bootstrap, topic, judgment(1))
        until(lambda: total(group, "judgment_executions_total") == 1, "the event", SECONDS)
        group.replicas["r1"].end()
        yield group, group.replicas["r1"]


def test_replicas_that_find_no_partition_wait_and_take_over(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    """Three replicas for two partitions: all are ready, and whoever has none is there when one is killed."""
    make_topic(kafka.bootstrap, topic, 2)
    config = configuration(chance("idle"), kafka.bootstrap, topic)
    producer = Producer(kafka.bootstrap, topic, "idle", 500)
    with Group(kafka.bootstrap, topic, tmp_path, config, 3) as group:
        producer.start()
        producer.reach(1000)
        until(lambda: len(readers(group)) == 2, "two to read", SECONDS)
        killed = readers(group)[0]
        killed.kill()
        producer.reach(2000)
        group.await_members(*(one.name for one in group.running()))
        until(lambda: len(readers(group)) == 2, "the third to read", SECONDS)
        killed.start()
        producer.finish()
        assert group.settle(producer).wrong == []
        group.finish()


def test_a_partition_added_while_running_is_read_from_its_beginning(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    """And shared like the others."""
    make_topic(kafka.bootstrap, topic, 2)
    config = configuration(chance("added"), kafka.bootstrap, topic)
    with Group(kafka.bootstrap, topic, tmp_path, config, 2) as group:
        send(kafka.bootstrap, topic, *(judgment(number) for number in range(100)))
        until(lambda: total(group, "judgment_executions_total") == 100, "the old partitions", SECONDS)
        with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin:
            admin.create_partitions({topic: NewPartitions(total_count=4)})
        for partition in range(4):
            send(kafka.bootstrap, topic, *(judgment(number) for number in range(25)), partition=partition)
        until(lambda: total(group, "judgment_executions_total") == 200, "the new partitions too", SECONDS)
        group.finish()


def test_a_partition_added_while_the_group_is_down_is_read_from_its_beginning(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    """With `start: latest` too, which is about what was there before the group was."""
    make_topic(kafka.bootstrap, topic, 1)
    send(kafka.bootstrap, topic, *(judgment(number) for number in range(5)))
    config = configuration(chance("latest"), kafka.bootstrap, topic)
    config["inputs"][INPUT]["start"] = "latest"
    with Group(kafka.bootstrap, topic, tmp_path, config, 1, watch=False) as group:
        replica = group.replicas["r1"]
        until(lambda: readers(group), "it to begin", SECONDS)
        send(kafka.bootstrap, topic, judgment(10))
        until(lambda: total(group, "judgment_executions_total") == 1, "what came since", SECONDS)
        replica.end()
        with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin:
            admin.create_partitions({topic: NewPartitions(total_count=2)})
        send(kafka.bootstrap, topic, *(judgment(number) for number in range(20, 27)), partition=1)
        replica.start()
        until(lambda: total(group, "judgment_executions_total") == 8, "the new partition", SECONDS)
        replica.end()


def test_a_topic_deleted_and_made_again_counts_on(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    """The new topic is read from its beginning; what was counted of the old one stays, and so do its ids."""
    make_topic(kafka.bootstrap, topic, 2)
    config = configuration(chance("again"), kafka.bootstrap, topic)
    with Group(kafka.bootstrap, topic, tmp_path, config, 2, watch=False) as group:
        send(kafka.bootstrap, topic, *(judgment(number) for number in range(30)))
        until(lambda: total(group, "judgment_executions_total") == 30, "the old topic", SECONDS)
        with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin:
            admin.delete_topics([topic])
        gone = time.monotonic() + 1.5
        until(lambda: time.monotonic() > gone, "the group to see that it is gone", 10)
        make_topic(kafka.bootstrap, topic, 2)
        send(kafka.bootstrap, topic, *(judgment(number) for number in range(7)))
        until(lambda: total(group, "judgment_executions_total") == 37, "the new topic", SECONDS)
        for one in group.running():
            one.end()


def test_half_of_the_replicas_may_have_a_newer_pack(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    """What kept its meaning keeps its values on all; what did not starts at zero where the pack is new."""
    make_topic(kafka.bootstrap, topic, 4)
    newer = tmp_path / "judgment.yaml"
    text = PACK.read_text(encoding="utf-8")
    assert text.count("buckets: [") >= 1
    newer.write_text(text.replace("buckets: [", "buckets: [0.007, ", 1), encoding="utf-8")
    config = configuration(chance("half"), kafka.bootstrap, topic)
    with Group(kafka.bootstrap, topic, tmp_path / "group", config, 2, watch=False) as group:
        for partition in range(4):
            send(
                kafka.bootstrap,
                topic,
                *(judgment(n, execution_time_ms=5) for n in range(10)),
                partition=partition,
            )
        until(lambda: total(group, "judgment_executions_total") == 40, "the first events", SECONDS)
        first = group.replicas["r1"]
        counted = Group._total("judgment_duration_seconds_count", first)
        first.end()
        path = first._config
        path.write_text(path.read_text().replace("- judgment\n", f"- {newer}\n"))
        first.start()
        first.wait_ready()
        assert total(group, "judgment_executions_total") == 40
        until(
            lambda: total(group, "judgment_duration_seconds_count") == 40 - counted,
            "the new meaning",
            SECONDS,
        )
        for partition in range(4):
            send(
                kafka.bootstrap,
                topic,
                *(judgment(n, execution_time_ms=5) for n in range(3)),
                partition=partition,
            )
        until(lambda: total(group, "judgment_executions_total") == 52, "the rest", SECONDS)
        assert total(group, "judgment_duration_seconds_count") == 52 - counted
        for one in group.running():
            one.end()


@pytest.mark.parametrize("client", ["confluent", "kafka-python"])
def test_a_second_process_of_the_same_name_takes_over(
    kafka: Kafka, topic: str, tmp_path: Path, client: KafkaClient
) -> None:
    """The first can commit nothing any more, says who has its name, and ends; nothing is counted twice."""
    make_topic(kafka.bootstrap, topic, 2)
    config = configuration(chance("name"), kafka.bootstrap, topic, client=client)
    with (
        Group(kafka.bootstrap, topic, tmp_path / "one", config, 1) as one,
        Group(kafka.bootstrap, topic, tmp_path / "two", config, 1, watch=False) as two,
    ):
        first, second = one.replicas["r1"], two.replicas["r1"]
        until(lambda: not first.running, "the first to end", SECONDS)
        assert "another process has joined group" in first.log()
        assert "another process" not in second.log(), "it never had to defend the name"
        send(kafka.bootstrap, topic, *(judgment(number) for number in range(10)))
        until(lambda: total(two, "judgment_executions_total") == 10, "the second to count", SECONDS)
        second.end()


def test_positions_without_state_are_an_error_that_counts_nothing(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    """To go on would start all counters at zero, and nobody would know."""
    with ended_after_one(kafka, topic, tmp_path) as (_, replica):
        path = replica._config
        path.write_text(
            path.read_text().replace("session_timeout", f"changelog: {topic}-other\n      session_timeout")
        )
        replica.start()
        until(lambda: not replica.running, "it to end", SECONDS)
        assert f"the changelog {topic}-other is empty" in replica.log()


def test_state_without_positions_is_an_error_that_counts_nothing(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    """Brokers forget a group that is away for long: to begin anew would count everything twice."""
    with ended_after_one(kafka, topic, tmp_path) as (group, replica):
        group.await_members()
        with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin:
            admin.delete_groups([group.id])
        replica.start()
        until(lambda: not replica.running, "it to end", SECONDS)
        assert f"group {group.id} has no position of {topic}/0, though" in replica.log()


_AS_IDS = {"cleanup.policy": "delete"}


@pytest.mark.parametrize(
    ("suffix", "partitions", "settings", "message"),
    [
        ("changelog", PARTITIONS, {"cleanup.policy": "delete"}, "cleanup.policy: delete, not compact"),
        (
            "changelog",
            5,
            {"cleanup.policy": "compact"},
            f"has 5 partitions, and a changelog needs {PARTITIONS}",
        ),
        ("changelog-ids", PARTITIONS, _AS_IDS | {"retention.ms": "60000"}, "retention.ms: 60000, not "),
        ("changelog-ids", 5, _AS_IDS, f"partitions: 5, at least {PARTITIONS} are needed"),
        ("dead-letters", 1, {}, "partitions: 1, at least "),
    ],
)
def test_a_topic_in_which_state_would_be_lost_is_refused_at_start(
    kafka: Kafka,
    topic: str,
    tmp_path: Path,
    suffix: str,
    partitions: int,
    settings: dict[str, str],
    message: str,
) -> None:
    """What was there before us is compared, and left as it is."""
    make_topic(kafka.bootstrap, topic, 1)
    config = configuration(chance("unsound"), kafka.bootstrap, topic)
    config["inputs"][INPUT]["deduplicate"] = True
    with Group(kafka.bootstrap, topic, tmp_path, config, 0, watch=False) as group:
        with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin:
            wanted = {"num_partitions": partitions, "replication_factor": 1, "configs": settings}
            admin.create_topics({f"{group.id}-{suffix}": wanted}, wait_for_metadata=True)
        replica = group.add("r1")
        replica.start()
        until(lambda: not replica.running, "it to end", SECONDS)
        assert f"topic {group.id}-{suffix}" in replica.log().replace("`", "")
        assert message in replica.log()


def test_a_changelog_with_records_of_others_is_refused(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    """Somebody else writes to it: nothing that is read from it can be relied upon."""
    with ended_after_one(kafka, topic, tmp_path) as (group, replica):
        client = Client({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
        client.produce(f"{group.id}-changelog", b"{}", b"user-17", Owner("replica", "r1").slot)
        assert client.flush(60) == 0
        replica.start()
        until(lambda: not replica.running, "it to end", SECONDS)
        assert "holds a record that is not ours, with the key b'user-17'" in replica.log()


def test_a_gauge_and_remembered_ids_move_with_their_partition(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    """After a kill they are at the heir, and who lets one go shows it no more; a repeat that comes counts as one."""
    pack = tmp_path / "level.yaml"
    pack.write_text(
        """\
pack: level
version: 1
title: Levels
events:
  level.read:
    description: A level was read.
    fields:
      who: {type: string, required: true}
      level: {type: number, required: true, unit: "1"}
metrics:
  level_reads: {type: counter, help: Readings., on: level.read}
  level_last: {type: gauge, help: Level., on: level.read, value: level, labels: {who: who}, across: last}
""",
        encoding="utf-8",
    )

    def reading(number: int, who: str, level: float) -> dict[str, Any]:
        data = {"who": who, "level": level}
        return {"id": f"l{number}", "source": "/s", "type": "level.read", "data": data}

    make_topic(kafka.bootstrap, topic, 2)
    config = configuration(chance("gauge"), kafka.bootstrap, topic, packs=[str(pack)])
    config["inputs"][INPUT]["deduplicate"] = True
    with Group(kafka.bootstrap, topic, tmp_path / "group", config, 2, watch=False) as group:
        for partition in range(2):
            send(
                kafka.bootstrap,
                topic,
                reading(partition, f"p{partition}", 4.0 + partition),
                partition=partition,
            )
        until(lambda: total(group, "level_reads_total") == 2, "both readings", SECONDS)
        first, second = group.replicas.values()
        first.kill()
        group.await_members(second.name)

        def shown(replica: Replica) -> set[str]:
            rows = (replica.metrics() or "").splitlines()
            return {row for row in rows if row.startswith("level_last{")}

        both = {'level_last{who="p0"} 4.0', 'level_last{who="p1"} 5.0'}
        until(lambda: shown(second) == both, "both gauges", SECONDS)
        # It has them from a living replica now, which lets one of them go.
        first.start()
        until(lambda: shown(first), "a gauge to move", SECONDS)
        assert shown(second) == both - shown(first)
        assert len(shown(second)) == 1
        for partition in range(2):
            again = reading(partition, f"p{partition}", 9.0)
            send(kafka.bootstrap, topic, again, reading(10 + partition, "new", 1.0), partition=partition)
        first.wait_ready()
        until(lambda: total(group, "level_reads_total") == 4, "the new readings", SECONDS)
        assert total(group, "evalgauge_events_duplicated_total") == 2
        for one in group.running():
            one.end()
