"""`evalgauge kafka create`: a topic is there as wanted afterwards, or it is said why not."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from evalgauge.collectors import kafka_command, kafka_topics
from tests.parts.part import free_port
from tests.running import Done, evalgauge

if TYPE_CHECKING:
    from tests.parts.kafka import Kafka


def create(kafka: Kafka, topic: str, *flags: str) -> Done:
    """Run the command against the broker."""
    return evalgauge("kafka", "create", topic, "--bootstrap", kafka.bootstrap, *flags)


def described(kafka: Kafka, topic: str) -> tuple[int, set[int], dict[str, Any]]:
    """Partitions, numbers of copies and the topic's own settings, as another client sees them."""
    with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin:
        [one] = admin.describe_topics([topic])
        settings = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])["topic"][topic]
    copies = {len(partition["replica_nodes"]) for partition in one["partitions"]}
    own = {
        key: setting["value"]
        for key, setting in settings.items()
        if setting["config_source"] == "DYNAMIC_TOPIC_CONFIG"
    }
    return len(one["partitions"]), copies, own


def test_a_topic_is_made_as_wanted(kafka: Kafka, topic: str) -> None:
    """With partitions, replication and settings; nothing else is set."""
    done = create(
        kafka,
        topic,
        *("--partitions", "3", "--replication", "1"),
        *("--config", "cleanup.policy=compact", "--config", "segment.ms=60000"),
    )
    assert done == Done(
        0,
        f"topic `{topic}`: created: 3 partitions, replication 1, cleanup.policy=compact, segment.ms=60000\n",
        "",
    )
    assert described(kafka, topic) == (3, {1}, {"cleanup.policy": "compact", "segment.ms": "60000"})


def test_what_is_not_said_is_left_to_the_broker(kafka: Kafka, topic: str) -> None:
    """Its defaults are one partition and one copy."""
    assert create(kafka, topic).out == f"topic `{topic}`: created: 1 partition, replication 1\n"
    assert described(kafka, topic) == (1, {1}, {})


def test_a_topic_that_is_there_as_wanted_is_left_as_it_is(kafka: Kafka, topic: str) -> None:
    """However its settings are written, and whatever it has that nobody asked about."""
    flags = ["--partitions", "2", "--config", "cleanup.policy=compact,delete", "--config", "segment.ms=60000"]
    assert create(kafka, topic, *flags, "--config", "unclean.leader.election.enable=true").code == 0
    before = described(kafka, topic)
    done = create(
        kafka,
        topic,
        *("--replication", "1", "--config", "unclean.leader.election.enable=TRUE"),
        *("--config", "cleanup.policy=delete, compact", "--config", "segment.ms=060000"),
    )
    assert (done.code, done.err) == (0, "")
    assert "there already, as wanted: 2 partitions, replication 1, cleanup.policy=compact,delete" in done.out
    assert described(kafka, topic) == before


def test_a_topic_that_is_there_otherwise_is_refused_with_every_difference(kafka: Kafka, topic: str) -> None:
    """And left as it is: a topic with data is not for a development command to change."""
    create(kafka, topic, "--partitions", "2", "--config", "segment.ms=60000")
    before = described(kafka, topic)
    done = create(
        kafka,
        topic,
        *("--partitions", "4", "--replication", "3", "--config", "cleanup.policy=compact"),
        *("--config", "segment.ms=60001", "--config", "retention.mss=1", "--config", "retention.bytes=much"),
    )
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"evalgauge: topic `{topic}` is there already, and not as wanted. It was left as it is:\n"
        "  partitions: 2, not 4\n"
        "  replication: 1, not 3\n"
        "  cleanup.policy: delete, not compact\n"
        "  segment.ms: 60000, not 60001\n"
        "  retention.mss: the broker knows no such setting. Did you mean `retention.ms`?\n"
        "  retention.bytes: -1, not much\n"
        "Take another name, ask for what is there, or change the topic with Kafka's own tools.\n"
    )
    assert described(kafka, topic) == before


def test_two_who_make_the_same_topic_at_once_both_have_it(kafka: Kafka, topic: str) -> None:
    """One makes it, the others find it."""

    def made(_: int) -> str:
        with kafka_command.connected([kafka.bootstrap]) as admin:
            return kafka_topics.created(admin, kafka_topics.Topic(topic, 2, 1))

    with ThreadPoolExecutor(4) as threads:
        said = sorted(threads.map(made, range(4)))
    assert said == [
        f"topic `{topic}`: created: 2 partitions, replication 1",
        *[f"topic `{topic}`: there already, as wanted: 2 partitions, replication 1"] * 3,
    ]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--replication", "3"], r"only 1 broker\(s\) are registered"),
        (["--config", "retention.mss=1"], "Unknown topic config name: retention.mss"),
        (["--config", "retention.ms=soon"], "Invalid value soon for configuration retention.ms"),
    ],
)
def test_what_the_broker_refuses_is_said_in_its_words(
    flags: list[str], said: str, kafka: Kafka, topic: str
) -> None:
    """And there is no topic."""
    done = create(kafka, topic, *flags)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"evalgauge: topic `{topic}` was not created: ")
    assert re.search(said, done.err)
    with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin:
        assert topic not in admin.list_topics()


def test_a_name_that_no_topic_can_have_is_refused(kafka: Kafka) -> None:
    """Control characters do not reach the terminal."""
    done = create(kafka, "orders/\x1b[2J")
    assert done.code == 1
    assert "contains one or more characters other than ASCII alphanumerics" in done.err
    assert "\x1b" not in done.err


def test_where_nothing_listens_each_address_is_named_with_its_reason() -> None:
    """At once: nobody waits for a client to give up."""
    nobody = f"127.0.0.1:{free_port()}"
    done = evalgauge("kafka", "create", "t", "--bootstrap", f"{nobody}, [::1]:99999")
    assert done.code == 1
    assert done.err.startswith(
        f"evalgauge: no Kafka broker can be reached. {nobody}: Connection refused; [::1]:"
    )


def test_one_broker_that_is_gone_is_no_hindrance(kafka: Kafka, topic: str) -> None:
    """That is what several addresses are for."""
    brokers = f"127.0.0.1:{free_port()},{kafka.bootstrap}"
    assert evalgauge("kafka", "create", topic, "--bootstrap", brokers).code == 0


def test_what_is_no_broker_is_not_waited_for_for_ever() -> None:
    """It takes the connection and says nothing; the command is a process of its own, and ends."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        quickly = (
            "from evalgauge.collectors import kafka_command; from evalgauge.core import cli; "
            "kafka_command.ANSWER_SECONDS = 1; cli.main()"
        )
        command = [sys.executable, "-c", quickly, "kafka", "create", "t", "--bootstrap", address]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"what listens at {address} did not answer within 1 s as a Kafka broker does" in done.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--bootstrap", "localhost"], "`localhost` is not host:port"),
        (["--bootstrap", "a:1,,b:2"], "`` is not host:port"),
        (["--bootstrap", "a:1", "--partitions", "0"], "0 is not in the range"),
        (["--bootstrap", "a:1", "--config", "retention.ms"], "`retention.ms` is not key=value"),
        (["--bootstrap", "a:1", "--config", "a=1", "--config", "a=2"], "`a` is given twice"),
        ([], "Missing option '--bootstrap'"),
    ],
)
def test_a_wrong_flag_is_found_before_anything_is_asked(flags: list[str], said: str) -> None:
    """Exit code 2: nothing was done."""
    done = evalgauge("kafka", "create", "t", *flags)
    assert done.code == 2
    assert said in done.err


def test_without_the_client_it_says_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As every part that needs an extra does."""
    monkeypatch.setitem(sys.modules, "kafka", None)
    done = evalgauge("kafka", "create", "t", "--bootstrap", "127.0.0.1:9092")
    assert (done.code, done.out) == (2, "")
    assert "pip install 'evalgauge[kafka]'" in done.err
