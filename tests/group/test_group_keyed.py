"""State by key moves with its partition: what a group remembers stays exact through kills, joins and leaves."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest

from tests import every_kind
from tests.group.feed import Producer, chance, make_topic
from tests.group.harness import INPUT, SETTLE_SECONDS, SOAK, Group, configuration, told

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

    from confluent_kafka import KafkaError, Message

    from tests.conftest import Tell
    from tests.every_kind import Event
    from tests.group.harness import KafkaClient
    from tests.kill.life import Death
    from tests.parts.kafka import Kafka

ROUNDS, PARTITIONS, RATE = (20, 12, 500) if SOAK else (3, 6, 300)
KEYS = [f"k{number:02}" for number in range(4 * PARTITIONS)]
EACH = 4 * PARTITIONS
"""Events in a second of theirs: some four in each partition."""
AIMS = ("before", "in", "any")
_KEY_MISMATCHES = "evalgauge_input_key_mismatches_total"


class KeyedProducer(Producer):
    """Sends every kind of event, keyed, and knows to which partition each key went."""

    def __init__(self, bootstrap: str, topic: str, seed: object) -> None:
        super().__init__(bootstrap, topic, seed, RATE)
        self._kept: list[Event] = []
        self._partition: dict[str, int] = {}
        self._records = self._made(every_kind.stream(chance(seed), KEYS, EACH, wide=True))

    def _made(self, events: Iterator[Event]) -> Iterator[tuple[bytes, bytes]]:
        for number, one in enumerate(events):
            self._kept.append(one)
            yield one.key.encode(), json.dumps(one.json(number)).encode()

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        super()._delivered(error, message)
        key, partition = message.key(), message.partition()
        if isinstance(key, bytes) and partition is not None and error is None:
            assert self._partition.setdefault(key.decode(), partition) == partition

    def expected(self) -> every_kind.Samples:
        """What each partition's events come to, together."""
        parts: defaultdict[int, list[Event]] = defaultdict(list)
        for one in self._kept[: self.sent]:
            parts[self._partition[one.key]].append(one)
        assert len(parts) > PARTITIONS // 2, "the keys are in few partitions"
        samples = [every_kind.expected(part, wide=True) for part in parts.values()]
        return _without_windows(every_kind.together(samples, alone=["build_progress"]))


def _without_windows(samples: every_kind.Samples) -> every_kind.Samples:
    """Windows are of whatever partitions one replica has: only what is counted of them adds up."""
    return {
        key: value
        for key, value in samples.items()
        if not key[0].startswith("track_") or key[0].endswith("_total")
    }


def _shown(group: Group) -> every_kind.Samples:
    """What all replicas show together; no key is shown by two of them."""
    texts = [one.metrics() for one in group.running()]
    samples = [every_kind.shown(text) for text in texts if text is not None]
    return _without_windows(every_kind.together(samples, alone=["build_progress"]))


def _round(group: Group, rng: random.Random) -> tuple[list[Death], list[str]]:
    """One is killed at its work, another one leaves in order; partitions move to and fro."""
    group.wait_ready()
    first, second = rng.sample(group.running(), 2)
    deaths = [first.strike(rng, rng.choice(AIMS))]
    if rng.random() < 0.5:
        # Others have its partitions before it is back.
        group.await_members(*(one.name for one in group.running()))
    first.start()
    group.wait_ready()
    second.end()
    group.await_members(*(one.name for one in group.running()))
    deaths.append(rng.choice(group.running()).strike(rng, rng.choice(AIMS)))
    for one in group.replicas.values():
        if not one.running:
            one.start()
    group.check()
    return deaths, ["left", "joined"]


def _settled(group: Group, producer: KeyedProducer) -> tuple[int, list[str]]:
    """How many samples were compared, and what is wrong when everything sent is counted."""
    expected = producer.expected()
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        group.check()
        counted = group.accepted()
        wrong = every_kind.wrong(_shown(group), expected) if counted == producer.sent else []
        if (counted == producer.sent and not wrong) or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    if counted != producer.sent:
        wrong.append(f"{counted} events counted of {producer.sent} sent")
    strange = group.summed(_KEY_MISMATCHES)[0]
    wrong += [f"{name}: {value}" for (name, _), value in strange.items() if value]
    return len(expected), wrong


@pytest.mark.soak
@pytest.mark.timeout(0 if SOAK else 900)
@pytest.mark.parametrize("client", ["confluent", *(["kafka-python"] if SOAK else [])])
def test_state_by_key_moves_with_its_partition_through_kills_joins_and_leaves(
    client: KafkaClient, kafka: Kafka, topic: str, tmp_path: Path, tell: Tell
) -> None:
    """Sums over replicas and what is open equal the oracles of the partitions; each milestone is counted once."""
    rng = chance(f"keyed {client}")
    began = time.monotonic()
    make_topic(kafka.bootstrap, topic, PARTITIONS)
    files = []
    for name, text in every_kind.packs(wide=True).items():
        files.append(str(tmp_path / f"{name}.yaml"))
        (tmp_path / f"{name}.yaml").write_text(text)
    # The events are of long ago: where the clock of this machine came in, all of them would be late.
    config = configuration(
        rng, kafka.bootstrap, topic, client=client, packs=files, engine={"idle_after": "1d"}
    )
    config["inputs"][INPUT]["keyed_by"] = "subject"
    producer = KeyedProducer(kafka.bootstrap, topic, f"keyed {client}")
    deaths: list[Death] = []
    moves: Counter[str] = Counter()
    with Group(kafka.bootstrap, topic, tmp_path, config, replicas=3, grows=every_kind.GROWS) as group:
        producer.start()
        for _ in range(ROUNDS):
            died, moved = _round(group, rng)
            deaths += died
            moves.update(moved)
        group.wait_ready()
        sent = producer.sent
        producer.reach(sent + RATE)
        producer.finish()
        samples, wrong = _settled(group, producer)
        scrapes = group.finish()
    tell(
        f"group keyed, {client}: {producer.sent:,} events, {PARTITIONS} partitions, 3 replicas, {len(deaths)} "
        f"kills ({told(death.place for death in deaths)}), {told(moves.elements())}; {scrapes:,} scrapes without "
        f"a decrease; {len(wrong)} differences in {samples:,} samples; {time.monotonic() - began:.0f} s"
    )
    assert wrong[:10] == []
    assert all(death.hit_work for death in deaths), deaths
    assert producer.sent > sent
