"""Bad records are refused alone: a thousand of ten kinds among a hundred thousand, on their way through a group."""

from __future__ import annotations

import itertools
import statistics
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.events import judgments, line
from tests.group.feed import chance, make_topic, stream
from tests.group.harness import INPUT, SOAK, Group, configuration
from tests.oracle import Oracle, differences
from tests.parts.part import until
from tests.test_poison import KINDS, LIMITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from confluent_kafka import KafkaError, Message

    from tests.conftest import Tell
    from tests.events import Event
    from tests.parts.kafka import Kafka

EVENTS, POISON = 100_000, 1_000
PARTITIONS = 3
BLOCK = 5_000
"""So many events of one workflow, all in one partition."""
ADMITTED = 100
"""Of a block's 2,000 tenants the first so many have a series of their own, and no others: a witness of the order."""
STRETCH, PAIRS = (250_000, 9) if SOAK else (100_000, 3)
"""Events of one kind in a row, and how many such rows of each kind are timed."""
UNTIMED = 1

Sent = tuple[str, "Event", bytes]
"""Reason or nothing, the good event, the record as sent."""
Place = tuple[int, int]
"""Partition and offset."""


def _poisoned(events: Iterable[Event], number: int) -> Iterator[Sent]:
    """So many events, one in a hundred of them spoilt, each kind as often as another."""
    bad = chance("poison").sample(range(number), number // 100)
    reasons = dict(zip(bad, itertools.cycle(KINDS), strict=False))
    for place, event in enumerate(itertools.islice(events, number)):
        reason = reasons.get(place, "")
        yield reason, event, (KINDS[reason](event) if reason else line(event)).rstrip(b"\n")


def _blocks() -> Iterator[Event]:
    """Judgments of many tenants, the workflow another one in each block."""
    tenants = [f"tenant-{number:04}" for number in range(2000)]
    for number, event in enumerate(judgments("blocks", tenants=tenants)):
        yield event | {"data": event["data"] | {"workflow_id": f"block-{number // BLOCK}"}}


def _pack(path: Path) -> Path:
    """A pack in which the first tenants of each block are admitted, in stream order."""
    text: dict[str, Any] = {"type": "string", "required": True, "max_length": 128, "description": "Text."}
    number = {"type": "number", "description": "A number."}
    payload = {"type": "any", "payload": True, "description": "Anything."}
    fields = {
        "tenant_id": text,
        "workflow_id": text,
        "method_used": text | {"enum": ["rule", "llm", "hybrid"]},
        "execution_time_ms": number | {"unit": "ms"},
        "input_data": payload,
    }
    metrics = {
        f"ordered_block_{block}": {
            "type": "counter",
            "help": "Judgments of a block, by the tenants that came first.",
            "on": "judgment.executed",
            "where": {"workflow_id": f"block-{block}"},
            "labels": {"tenant": {"field": "tenant_id", "limit": ADMITTED}},
        }
        for block in range(EVENTS // BLOCK)
    }
    pack = {
        "pack": "ordered",
        "version": 1,
        "title": "Order",
        "description": "Shows in which order events were counted.",
        "events": {"judgment.executed": {"description": "One judgment.", "fields": fields}},
        "metrics": metrics,
    }
    path.write_text(yaml.safe_dump(pack, sort_keys=False))
    return path


def _fill(
    kafka: Kafka, topic: str, sent: Iterable[Sent], partition_of: Mapping[int, int]
) -> dict[Place, Sent]:
    """Write records in order, number → partition; where the spoilt ones are."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True, "log_level": 0})
    places: dict[Place, Sent] = {}
    refused: list[KafkaError] = []
    for number, one in enumerate(sent):

        def delivered(error: KafkaError | None, message: Message, one: Sent = one) -> None:
            if error is not None:
                refused.append(error)
            elif one[0]:
                places[message.partition() or 0, message.offset() or 0] = one

        while True:
            try:
                producer.produce(topic, one[2], partition=partition_of[number], on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
        if not number % 1000:
            producer.poll(0)
    assert producer.flush(120) == 0
    assert refused == []
    return places


def _letters(kafka: Kafka, topic: str) -> list[tuple[dict[str, str], bytes]]:
    """Headers and value of all committed records of the dead-letter topic, in order of each partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "group.id": "reader",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    try:
        partitions = list(consumer.list_topics(topic, timeout=60).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        found = []
        ended: set[int] = set()
        deadline = time.monotonic() + 60
        while len(ended) < len(partitions):
            assert time.monotonic() < deadline, f"{topic} is not read to its end in 60 s"
            message = consumer.poll(1)
            if message is None:
                continue
            if message.error():
                ended.add(message.partition() or 0)  # the end of a partition is told as an error
                continue
            headers: dict[str, Any] = dict(message.headers() or [])
            found.append(({name: value.decode() for name, value in headers.items()}, message.value() or b""))
        return found
    finally:
        consumer.close()


def test_poison_in_a_topic_is_refused_alone(kafka: Kafka, topic: str, tmp_path: Path, tell: Tell) -> None:
    """The dead-letter topic holds exactly the poison, with reason and place; the rest is counted in order."""
    pack = _pack(tmp_path / "ordered.yaml")
    sent = list(_poisoned(_blocks(), EVENTS))
    oracle = Oracle(pack)
    oracle.add_all(event for reason, event, _ in sent if not reason)
    make_topic(kafka.bootstrap, topic, PARTITIONS)
    # Nobody may take a partition over in the middle of a block: another replica admits tenants of its own.
    config = configuration(chance("poison"), kafka.bootstrap, topic, timeout="60s") | {
        "packs": [str(pack)],
        "engine": LIMITS,
    }
    config["inputs"][INPUT]["unknown_types"] = "refuse"
    with Group(kafka.bootstrap, topic, tmp_path / "group", config, replicas=2) as group:
        partitions = {number: number // BLOCK % PARTITIONS for number in range(EVENTS)}
        places = _fill(kafka, topic, sent, partitions)
        group.await_committed(group.view.ends())
        until(lambda: group.accepted() == EVENTS - POISON, f"{EVENTS - POISON} events to be counted", 60)
        found, silent = group.summed("ordered_", "evalgauge_events_rejected_total")
        group.finish()
    assert not silent
    rejected: Counter[str] = Counter()
    for one in [one for one in found if one[0] == "evalgauge_events_rejected_total"]:
        rejected[dict(one[1])["reason"]] += int(found.pop(one))
    assert rejected == dict.fromkeys(KINDS, POISON // len(KINDS))
    assert differences(oracle.samples(), found) == []
    letters = _letters(kafka, f"{group.id}-dead-letters")
    assert Counter((headers["evalgauge-reason"], value) for headers, value in letters) == Counter(
        (reason, value) for reason, _, value in places.values()
    )
    order = defaultdict(list)
    for headers, value in letters:
        place = _place(headers, topic)
        assert places[place][2] == value, f"another record stands at {place}"
        assert headers["evalgauge-input"] == INPUT
        order[place[0]].append(place[1])
    assert all(offsets == sorted(set(offsets)) for offsets in order.values()), "letters are out of order"
    tell(
        f"group and poison: {len(letters):,} dead letters of {len(rejected)} kinds at their places, in order; "
        f"{EVENTS - POISON:,} events counted in order"
    )


def _place(headers: Mapping[str, str], topic: str) -> Place:
    """The place that a letter names."""
    name, _, partition = headers["evalgauge-partition"].rpartition("/")
    words = headers["evalgauge-position"].split()
    assert (name, words[0], len(words)) == (topic, "offset", 2), headers
    return int(partition), int(words[1])


@pytest.mark.soak
@pytest.mark.timeout(0 if SOAK else 600)
def test_throughput_of_a_poisoned_topic_is_that_of_a_clean_one(
    kafka: Kafka, topic: str, tmp_path: Path, tell: Tell
) -> None:
    """One replica reads stretches with one record in a hundred spoilt and stretches without, by turns, in one topic.

    Neighbours are compared: the machine is not the same from one minute to the next.
    """
    dirty = list(_poisoned(stream("throughput", births=0), STRETCH))
    clean = [("", event, line(event)[:-1]) for _, event, _ in dirty]
    spoilt = [turn % 4 in {0, 3} for turn in range(2 * PAIRS)]
    make_topic(kafka.bootstrap, topic, 1)
    # What comes first is not timed: there the replica starts, and gets to know the events.
    for kind in (*[clean] * UNTIMED, *(dirty if one else clean for one in spoilt)):
        _fill(kafka, topic, kind, dict.fromkeys(range(STRETCH), 0))
    rates = _rates(kafka, topic, tmp_path / "group", len(spoilt))
    ratios = [
        before / after if first else after / before
        for first, before, after in zip(spoilt[::2], rates[::2], rates[1::2], strict=True)
    ]
    rate = statistics.median(itertools.compress(rates, spoilt))
    median = statistics.median(ratios)
    tell(
        f"1 % poison of {len(KINDS)} kinds in a topic: {rate:,.0f} events a second, {median:.0%} of "
        f"clean (median of {len(ratios)} pairs: {', '.join(f'{one:.0%}' for one in ratios)})"
    )
    if SOAK:  # what a loaded machine cannot promise
        assert median >= 0.8


def _rates(kafka: Kafka, topic: str, folder: Path, stretches: int) -> list[float]:
    """Events a second that one replica takes in of each of the last stretches, by the positions that it commits."""
    # Commits as they are without a word about them: as often as the tests of crashes want them, they take their share.
    config = configuration(chance("rate"), kafka.bootstrap, topic, timeout="60s") | {
        "engine": LIMITS,
        "state": {},
    }
    config["inputs"][INPUT]["unknown_types"] = "refuse"
    group = Group(kafka.bootstrap, topic, folder, config, replicas=1, watch=False)
    records = STRETCH * (UNTIMED + stretches)
    seen = [(time.perf_counter(), 0)]
    try:
        group.replicas["r1"].start()

        def ended() -> bool:  # a scrape would cost the replica far more than the broker's word
            position = sum(group.view.committed().values())
            if position > seen[-1][1]:
                seen.append((time.perf_counter(), position))
            return position == records

        until(ended, f"{records} events to be committed", 600)
        assert group.received() == records
        group.finish()
    finally:
        group.abandon()
    return [
        STRETCH / (_reached(seen, first + STRETCH) - _reached(seen, first))
        for first in range(UNTIMED * STRETCH, records, STRETCH)
    ]


def _reached(seen: list[tuple[float, int]], position: int) -> float:
    """When a position was reached, between the commits before and after it: one may hold more than a stretch."""
    (began, first), (ended, last) = next(two for two in itertools.pairwise(seen) if two[1][1] >= position)
    return began + (ended - began) * (position - first) / (last - first)
