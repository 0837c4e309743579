"""Replicas that leave for good: their totals stay in the sum, shown frozen by one of those that are left."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

from evalgauge.collectors.kafka_retired import first_partition
from tests.group.feed import Producer, chance
from tests.group.harness import Group, configuration, expectation
from tests.group.watchers import GROWS
from tests.oracle import Samples, differences, exposed
from tests.parts.part import until
from tests.running import evalgauge

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeTopic
    from tests.group.replica import Replica
    from tests.parts.kafka import Kafka
    from tests.running import Done

SECONDS = 240
RATE = 100
PARTITIONS = 6
_BYTES = "evalgauge_input_bytes_total"
"""Newlines between events are part of it, and whether one stands there depends on how chunks were cut."""
_FROZEN = re.compile(r'\{(?:.*,)?replica="([^"]+)"')


def command(folder: Path, *words: str) -> Done:
    """Run `evalgauge kafka …` with the configuration that the replicas run with."""
    return evalgauge("kafka", *words, "--config", str(folder / "r1" / "evalgauge.yaml"))


def standings(folder: Path) -> dict[str, dict[str, Any]]:
    """What `evalgauge kafka replicas` says of each."""
    done = command(folder, "replicas", "--json")
    assert done.code == 0, done.err
    return {one["replica"]: one for one in json.loads(done.out)}


def summed(group: Group) -> Samples:
    """Counters and histograms over all processes, whoever shows them; nothing while one of them shows nothing."""
    total: Samples = {}
    for one in group.running():
        text = one.metrics()
        if text is None:
            return {}
        for (name, labels), value in exposed(text, *GROWS).items():
            if name.endswith(("_total", "_bucket", "_sum", "_count")) and name != _BYTES:
                own = (name, tuple(label for label in labels if label[0] != "replica"))
                total[own] = total.get(own, 0.0) + value
    return total


def frozen_in(replica: Replica) -> set[str]:
    """The retired replicas whose totals a process shows."""
    return set(_FROZEN.findall(replica.metrics() or ""))


def await_exact(group: Group, producer: Producer, keeper: str, retired: str) -> None:
    """Wait until the sum is the oracle's and `keeper` alone shows what `retired` counted."""
    expected = expectation(producer.oracle())
    last: list[str] = []

    def exact() -> bool:
        for one in group.running():
            one.check()
        last[:] = differences(expected, summed(group))[:5]
        shows = {one.name: frozen_in(one) for one in group.running()}
        last.append(f"frozen: {shows}")
        return len(last) == 1 and shows == {
            one.name: {retired} if one.name == keeper else set() for one in group.running()
        }

    try:
        until(exact, "the sum over all processes to be the oracle's", SECONDS)
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *last])) from error


def keeper_of(group: Group, folder: Path) -> str:
    """The replica that reads the first partition, once the group has settled on one."""
    found: list[str] = []

    def there() -> bool:
        first = str(first_partition([group.topic]))
        found[:] = [name for name, one in standings(folder).items() if first in one["partitions"]]
        return bool(found)

    until(there, "somebody to read the first partition", SECONDS)
    return found[0]


def refuses(replica: Replica) -> None:
    """Wait until a process has ended because its name was retired."""
    until(lambda: not replica.running, f"{replica.name} to end by itself", SECONDS)
    with pytest.raises(AssertionError, match="has ended by itself, with 3"):
        replica.check()
    assert f"replica {replica.name} was retired on" in replica.log()


def send(producer: Producer, more: int) -> None:
    """Wait until so many events more were sent."""
    producer.reach(producer.sent + more)


@pytest.mark.timeout(1200)
def test_a_replica_that_was_retired_stays_in_the_sum(
    kafka: Kafka, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """One of three is stopped for good and retired: one process shows its totals, then the next, and none of its name.

    A live replica is not retired, nor one that the group has never had.
    """
    topic = make_topic(PARTITIONS)
    config = configuration(chance("retired"), kafka.bootstrap, topic, timeout="3s")
    producer = Producer(kafka.bootstrap, topic, "retired", RATE)
    with Group(kafka.bootstrap, topic, tmp_path, config, replicas=3, watch=False) as group:
        group.await_members("r1", "r2", "r3")
        producer.start()
        send(producer, 500)
        until(
            lambda: (
                all(one["series"] for one in standings(tmp_path).values()) and len(standings(tmp_path)) == 3
            ),
            "each replica to have committed something",
            SECONDS,
        )
        assert {one["state"] for one in standings(tmp_path).values()} == {"live"}
        read = [partition for one in standings(tmp_path).values() for partition in one["partitions"]]
        assert sorted(read) == [f"{topic}/{number}" for number in range(PARTITIONS)]
        refused = command(tmp_path, "retire", "r3", "--yes")
        assert refused.code == 1
        assert "replica r3 is a member of group" in refused.err
        unknown = command(tmp_path, "retire", "r33", "--yes")
        assert unknown.code == 1
        assert "Did you mean `r3`?" in unknown.err

        group.replicas["r3"].end()
        group.await_members("r1", "r2")
        assert standings(tmp_path)["r3"]["state"] == "absent"
        done = command(tmp_path, "retire", "r3", "--yes")
        assert done.code == 0, done.err
        assert standings(tmp_path)["r3"]["state"] == "retired"
        assert "retired already" in command(tmp_path, "retire", "r3", "--yes").out
        send(producer, 500)
        producer.finish()
        keeper = keeper_of(group, tmp_path)
        await_exact(group, producer, keeper, "r3")

        again = group.replicas["r3"]
        again.start()
        refuses(again)

        group.replicas[keeper].end()
        [heir] = {"r1", "r2"} - {keeper}
        group.await_members(heir)
        until(lambda: frozen_in(group.replicas[heir]) == {"r3"}, "the heir to show what r3 counted", SECONDS)
        group.replicas[keeper].start()
        group.await_members("r1", "r2")
        group.wait_ready()
        until(
            lambda: sum(bool(one["partitions"]) for one in standings(tmp_path).values()) == 2,
            "partitions to be shared again",
            SECONDS,
        )
        await_exact(group, producer, keeper_of(group, tmp_path), "r3")
        group.finish()


@pytest.mark.timeout(900)
def test_a_replica_that_is_not_heard_of_for_long_is_retired_by_the_keeper(
    kafka: Kafka, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """Frozen past `retire_after`, it is retired; when it is continued it ends, and has counted nothing twice."""
    topic = make_topic(PARTITIONS)
    config = configuration(chance("aged"), kafka.bootstrap, topic, client="kafka-python", timeout="3s")
    config["inputs"]["judgments"]["group"]["retire_after"] = "10s"
    producer = Producer(kafka.bootstrap, topic, "aged", RATE)
    with Group(kafka.bootstrap, topic, tmp_path, config, replicas=2, watch=False) as group:
        group.await_members("r1", "r2")
        producer.start()
        until(
            lambda: (
                len(standings(tmp_path)) == 2 and all(one["series"] for one in standings(tmp_path).values())
            ),
            "both to have committed something",
            SECONDS,
        )
        frozen = group.replicas["r2"]
        frozen.freeze(chance("freeze"))
        until(lambda: standings(tmp_path)["r2"]["state"] == "retired", "it to be retired", SECONDS)
        assert standings(tmp_path)["r2"]["retired_by"] == "replica r1 (`retire_after`)"
        frozen.thaw()
        refuses(frozen)
        producer.finish()
        await_exact(group, producer, "r1", "r2")
        group.finish()


@pytest.mark.timeout(900)
def test_a_standby_that_was_retired_while_it_was_frozen_reads_nothing_any_more(
    kafka: Kafka, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """It had no partition to lose, so it comes back into the group as if nothing had been; the mark stops it."""
    topic = make_topic(1)
    config = configuration(chance("standby"), kafka.bootstrap, topic, timeout="3s")
    producer = Producer(kafka.bootstrap, topic, "standby", RATE)
    with Group(kafka.bootstrap, topic, tmp_path, config, replicas=2, watch=False) as group:
        group.await_members("r1", "r2")
        producer.start()
        send(producer, 300)
        producer.finish()
        until(lambda: group.accepted() == producer.sent, "all to be counted", SECONDS)
        counted = group.replicas[keeper_of(group, tmp_path)]
        [other] = [one for one in group.replicas.values() if one is not counted]
        counted.end()
        group.await_members(other.name)
        until(lambda: keeper_of(group, tmp_path) == other.name, "the other to read", SECONDS)
        counted.start()
        group.await_members("r1", "r2")
        group.wait_ready()
        assert keeper_of(group, tmp_path) == other.name

        os.kill(counted.pid, signal.SIGSTOP)
        group.await_members(other.name)
        done = command(tmp_path, "retire", counted.name, "--yes")
        assert done.code == 0, done.err
        os.kill(counted.pid, signal.SIGCONT)
        group.await_members("r1", "r2")
        until(lambda: frozen_in(other) == {counted.name}, "its totals to be shown", SECONDS)
        other.end()
        refuses(counted)
        other.start()
        group.wait_ready()
        await_exact(group, producer, other.name, counted.name)
        group.finish()
