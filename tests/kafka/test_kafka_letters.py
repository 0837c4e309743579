"""Dead letters of a group, on a real broker: found by a command, counted after all by the replicas, thrown away."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from kafka import KafkaAdminClient

from evalgauge.collectors import kafka_changelog
from evalgauge.collectors.kafka_config import KafkaConfig
from evalgauge.collectors.kafka_letterbox import KafkaLetterBox
from evalgauge.collectors.kafka_letters import PARTITIONS
from evalgauge.collectors.kafka_pure import PureLibrary
from evalgauge.core.deadletters import Wanted
from evalgauge.core.errors import EvalgaugeError
from evalgauge.core.store import DeadLetter
from tests.parts.part import until
from tests.running import PROGRAM, Done, Running, evalgauge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import MakeTopic
    from tests.parts.kafka import Kafka

SECONDS = 120
PACK = """\
pack: mine
version: 1
title: Mine
events:
  mine.sold:
    description: Something was sold.
    fields:
      shop: {type: string, required: true}
      kind: {type: string, required: true, enum: [book, toy]}
metrics:
  mine_sales:
    type: counter
    help: Sales.
    on: mine.sold
    labels: {shop: shop, kind: kind}
"""
MENDED = PACK.replace("[book, toy]", "[book, toy, game]")
CLIENTS = ["kafka-python", "confluent"]


def sale(number: int, kind: str = "book") -> bytes:
    """One sale as a line."""
    data = {"shop": f"shop-{number % 3}", "kind": kind}
    return json.dumps({"id": f"s-{number}", "source": "/till", "type": "mine.sold", "data": data}).encode()


class Shop:
    """A group of one replica, its topic and its pack, and commands that share its configuration."""

    def __init__(self, kafka: Kafka, topic: str, folder: Path, **given: Any) -> None:
        self.kafka, self.topic, self.folder = kafka, topic, folder
        self.pack = folder / "mine.yaml"
        self.pack.write_text(PACK)
        group = {"id": f"g-{topic}", "session_timeout": "6s", "transaction_timeout": "4s"}
        self.input = {
            "type": "kafka",
            "bootstrap": kafka.bootstrap,
            "topics": topic,
            "refresh": "200ms",
            "group": group,
            **given,
        }
        self.config = {"replica": "r1", "packs": [str(self.pack)], "inputs": {"sales": self.input}}
        self.replica = Running(folder, self.config)

    def send(self, *values: bytes, partition: int = 0, headers: Any = None) -> None:
        """Records of one partition."""
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap, "log_level": 0})
        for value in values:
            producer.produce(self.topic, value, partition=partition, headers=headers)
        assert producer.flush(SECONDS) == 0

    def wait(self, accepted: int, rejected: int | None = None) -> None:
        """Wait until the replica shows so many."""

        def shown() -> bool:
            assert not self.replica.ended(), self.replica.log()
            return self.replica.sum("mine_sales_total") == accepted and (
                rejected is None or self.replica.sum("evalgauge_events_rejected_total") == rejected
            )

        until(shown, f"{accepted} sales and {rejected} refusals", SECONDS)

    def command(self, *words: str, **more: Any) -> Done:
        """`evalgauge deadletter` to its end."""
        return evalgauge("deadletter", *words, "--config", self.replica.path, **more)

    def letters(self, *words: str) -> list[dict[str, Any]]:
        """As `list --json` gives them."""
        done = self.command("list", "--json", *words)
        assert done.code == 0, done.err
        return list(json.loads(done.out))

    def killed(self, failpoint: str, *words: str) -> None:
        """A command that ends itself at a failpoint."""
        done = subprocess.run(
            [PROGRAM, "deadletter", *words, "--config", self.replica.path],
            env={**os.environ, "EVALGAUGE_FAILPOINT": failpoint},
            capture_output=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == -9, (done.stdout, done.stderr)

    def box(self) -> KafkaLetterBox:
        """The letters, as a command sees them."""
        given = {key: value for key, value in self.input.items() if key != "type"}
        config = KafkaConfig.model_validate(given)
        return KafkaLetterBox(config, PureLibrary(config, "sales"), "sales")


@pytest.fixture
def started() -> Iterator[ExitStack]:
    """What must end with the test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def shop(kafka: Kafka, make_topic: MakeTopic, tmp_path: Path, started: ExitStack) -> Callable[..., Shop]:
    """Start a group of one replica over a topic of two partitions."""

    def start(**given: Any) -> Shop:
        one = Shop(kafka, make_topic(2), tmp_path, **given)
        started.enter_context(one.replica)
        return one

    return start


def refuse(one: Shop) -> None:
    """Six sales that count, three that do not, and a line that is none."""
    one.send(*map(sale, range(3)), sale(100, "game"), sale(101, "game"), partition=0)
    one.send(*map(sale, range(3, 6)), b'{"cut', sale(102, "game"), partition=1)
    one.wait(6, 4)


@pytest.mark.parametrize("client", CLIENTS)
def test_poison_is_listed_mended_sent_back_and_counted_once(shop: Callable[..., Shop], client: str) -> None:
    """The whole way, with a replica that runs all the time but for the moment in which it takes the mended pack."""
    one = shop(client=client)
    refuse(one)
    found = one.letters()
    assert sorted((row["partition"], row["position"], row["reason"]) for row in found) == [
        (f"{one.topic}/0", "offset 3", "not_in_enum"),
        (f"{one.topic}/0", "offset 4", "not_in_enum"),
        (f"{one.topic}/1", "offset 3", "malformed_json"),
        (f"{one.topic}/1", "offset 4", "not_in_enum"),
    ]
    assert {row["detail"] for row in found if row["reason"] == "not_in_enum"} == {
        "field `kind` must be one of book, toy"
    }
    assert len(one.letters("--reason", "malformed_json")) == 1
    assert len(one.letters("--newer", "1h", "--input", "sales")) == 4
    assert one.letters("--older", "1h") == one.letters("--input", "other") == []
    assert one.letters("--limit", "2") == found[-2:]
    number = next(row["number"] for row in found if row["reason"] == "malformed_json")
    assert one.command("show", str(number), "--raw").out == '{"cut'
    assert "there is no dead letter 999999" in one.command("show", "999999").err

    done = one.command("replay", "--all")
    assert (done.code, one.letters()) == (1, found), done
    assert done.out.startswith(f"0 sent, to be counted by group `g-{one.topic}`; 4 refused again\n")

    one.pack.write_text(MENDED)
    reloaded = one.replica.get("/-/reload", method="POST")
    if reloaded.status != 200:
        assert one.replica.end() == 0
        one.replica.start()
    one.wait(6)
    done = one.command("replay", "--all")
    assert done.code == 1, done
    assert done.out.splitlines()[:3] == [
        f"3 sent, to be counted by group `g-{one.topic}`; 1 refused again",
        f"  2 sent to {one.topic}/0",
        f"  1 sent to {one.topic}/1",
    ]
    one.wait(9)
    assert [row["number"] for row in one.letters()] == [number]
    assert (
        one.command(
            "show", str(found[0]["number"] if found[0]["number"] != number else found[1]["number"])
        ).code
        == 1
    )
    done = one.command("replay", "--reason", "not_in_enum")
    assert (done.code, done.out) == (0, f"0 sent, to be counted by group `g-{one.topic}`; 0 refused again\n")
    one.send(sale(7))
    one.wait(10)


@pytest.mark.parametrize(
    ("client", "place"),
    [*((client, "sender.inside") for client in CLIENTS), ("confluent", "sender.after")],
)
def test_a_replay_that_is_killed_neither_loses_nor_doubles_a_letter(
    shop: Callable[..., Shop], client: str, place: str
) -> None:
    """Before its commit nothing of it counts, and after it everything, mark and event alike."""
    one = shop(client=client)
    one.send(*(sale(number, "game") for number in range(20)), partition=0)
    one.send(*(sale(number, "game") for number in range(20, 30)), partition=1)
    one.wait(0, 30)
    assert one.replica.end() == 0
    one.pack.write_text(MENDED)
    one.killed(f"{place}:1", "replay", "--all")
    one.replica.start()
    left = 30 if place == "sender.inside" else 0
    assert len(one.letters()) == left
    done = one.command("replay", "--all")
    assert done.code == 0, done
    assert done.out.startswith(f"{left} sent, ")
    one.send(sale(99))
    one.wait(31)
    assert one.letters() == []


def test_what_a_dead_replica_left_open_among_the_letters_is_ended(shop: Callable[..., Shop]) -> None:
    """Whoever lists them waits behind its transaction, which the brokers would end after ten minutes."""
    one = shop()
    refuse(one)
    letters = f"g-{one.topic}-dead-letters"
    dead = Producer(
        {
            "bootstrap.servers": one.kafka.bootstrap,
            "transactional.id": f"g-{one.topic}/r9/{uuid.uuid4()}",
            "transaction.timeout.ms": 600_000,
        }
    )
    dead.init_transactions(SECONDS)
    dead.begin_transaction()
    for number in range(PARTITIONS):
        dead.produce(letters, b"never committed", partition=number)
    assert dead.flush(SECONDS) == 0
    assert len(one.letters()) == 4


def test_purge_takes_what_the_filters_say(shop: Callable[..., Shop]) -> None:
    """Marked, and gone from every list, while replicas go on."""
    one = shop()
    refuse(one)
    numbers = [row["number"] for row in one.letters("--reason", "not_in_enum")]
    assert one.command("purge").code == 2
    assert one.command("purge", "--older", "1h", "--yes").out == "0 purged\n"
    assert one.command("purge", str(numbers[0]), "--yes").out == "1 purged\n"
    assert one.command("purge", str(numbers[0]), "--yes").out == "0 purged\n"
    assert [row["number"] for row in one.letters("--reason", "not_in_enum")] == numbers[1:]
    assert one.command("purge", "--reason", "malformed_json", "--yes").out == "1 purged\n"
    assert one.command("purge", "--all", "--yes").out == "2 purged\n"
    assert one.letters() == []
    one.send(sale(200, "game"))
    one.wait(6, 5)
    [new] = one.letters()
    assert new["number"] not in numbers
    # A replica restores past the marks.
    assert one.replica.end() == 0
    one.replica.start()
    one.wait(6, 5)


@pytest.mark.parametrize("client", CLIENTS)
def test_of_two_who_send_back_at_once_only_the_later_goes_on(
    shop: Callable[..., Shop], started: ExitStack, client: str
) -> None:
    """The earlier one is told so, and has sent nothing that the later one sends again."""
    one = shop(client=client)
    refuse(one)
    first, second = (started.enter_context(closing(one.box())) for _ in range(2))
    wanted = Wanted(reason="not_in_enum")
    first.begin()
    letters = list(first.letters(wanted))
    second.begin()
    with pytest.raises(
        EvalgaugeError, match=r"another `evalgauge deadletter replay` or `purge` .* has begun"
    ):
        first.send_back(letters)
    second.begin()
    second.send_back(list(second.letters(wanted)))
    # The replica has not the mended pack, so it refuses all of them once more, as new letters.
    one.wait(6, 7)
    now = {row["number"] for row in one.letters()}
    assert len(now) == 4
    assert not now & {letter.number for letter in letters}


def test_marks_go_when_retention_has_removed_their_letters(shop: Callable[..., Shop], kafka: Kafka) -> None:
    """The changelog does not keep them for ever."""
    one = shop()
    refuse(one)
    assert one.command("purge", "--reason", "not_in_enum", "--yes").out == "3 purged\n"
    letters = f"g-{one.topic}-dead-letters"
    with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin:
        admin.delete_records(dict.fromkeys(map(_tp(letters), range(PARTITIONS)), -1))
    assert one.letters() == []
    one.send(sale(300, "game"), b"[]")
    one.wait(6, 6)
    assert one.command("purge", "--all", "--yes").out == "2 purged\n"
    held: dict[bytes, bytes | None] = {}
    reader = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "any", "log_level": 0})
    with closing(reader):
        changelog = f"g-{one.topic}-changelog"
        for partition in range(kafka_changelog.PARTITIONS):
            low, high = reader.get_watermark_offsets(TopicPartition(changelog, partition), SECONDS)
            reader.assign([TopicPartition(changelog, partition, low)])
            while low < high:
                message = reader.poll(0.2)
                if message is not None and message.error() is None:
                    held[message.key() or b""] = message.value()
                [at] = reader.position([TopicPartition(changelog, partition)])
                low = max(low, at.offset)
    marks = {key: value for key, value in held.items() if key.startswith(b'["letters"')}
    assert len(marks) == 5
    assert sum(value is None for value in marks.values()) == 3


def _tp(topic: str) -> Any:
    from kafka import TopicPartition as Pure  # noqa: PLC0415 - the other library's has the same name

    return lambda number: Pure(topic, number)


def test_a_cloudevent_in_binary_mode_is_sent_back_as_the_same_event(shop: Callable[..., Shop]) -> None:
    """It goes in structured mode, since what its headers were is not known."""
    one = shop(format="cloudevents")
    headers = [
        *(("ce_specversion", "1.0"), ("ce_id", "b-1"), ("ce_source", "/till"), ("ce_type", "mine.sold")),
        ("content-type", "application/json"),
    ]
    one.send(b'{"shop": "a", "kind": "game"}', headers=headers)
    one.send(sale(1))
    one.wait(1, 1)
    assert one.replica.end() == 0
    one.pack.write_text(MENDED)
    one.replica.start()
    assert one.command("replay", "--all").code == 0
    one.wait(2, 1)


def test_what_cannot_be_sent_back_is_said(shop: Callable[..., Shop]) -> None:
    """Cut letters, partitions that are gone, inputs that are another's."""
    one = shop()
    one.send(sale(1))
    one.wait(1)
    with closing(one.box()) as box:
        good = DeadLetter(0, "sales", f"{one.topic}/1", "offset 0", "t", "r", "d", "mine", sale(1))
        assert box.hindrance(good) == ""
        assert "no partition" in box.hindrance(good._replace(partition=f"{one.topic}/7"))
        assert "no partition" in box.hindrance(good._replace(partition="gone/0"))
        assert "the group's input is `sales`" in box.hindrance(good._replace(input="other"))
        assert "would not be read as it was" in box.hindrance(good._replace(data=b"{}\n{}"))


def test_a_large_letter_that_was_cut_is_told_and_stays(shop: Callable[..., Shop]) -> None:
    """Its end was not kept, so nobody could count it."""
    one = shop()
    one.send(sale(1, "x" * 100_000))
    one.wait(0, 1)
    [letter] = one.letters()
    assert letter["kept"] == "cut"
    done = one.command("replay", "--all")
    assert done.code == 1
    assert f"  {letter['number']}: not sent: it is too long, its end was not kept\n" in done.out


def test_flags_for_a_state_folder_are_refused_in_a_group(shop: Callable[..., Shop], tmp_path: Path) -> None:
    """There is nothing in one."""
    one = shop()
    done = one.command("list", "--state", str(tmp_path))
    assert (done.code, "Leave --state out" in done.err) == (2, True)
    done = one.command("replay", "--all", "--url", "http://127.0.0.1:1/v1/events")
    assert (done.code, "leave --url out" in done.err) == (2, True)


def test_a_group_that_never_ran_is_named(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    """Rather than showing no letters."""
    one = Shop(kafka, topic, tmp_path)
    done = one.command("list")
    assert done.code == 1
    assert f"there is no topic `g-{topic}-dead-letters`" in done.err
