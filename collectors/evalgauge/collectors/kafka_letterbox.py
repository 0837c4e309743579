"""Dead letters of a group, for a command beside its replicas: found, shown, sent back, taken out.

Nothing can be taken out of a topic. What was sent back or thrown away is marked in the changelog instead, under

    ["letters", "TOPIC@TOPIC-ID", NUMBER]

and left out from then on, until retention has removed the letter, and the next command its mark. Sending back and
purging write by one transactional id that the group has for this, so that of two commands at once the later one wins,
and the earlier one learns of it.
"""

from __future__ import annotations

import heapq
import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from evalgauge.collectors.kafka_changelog import STALLED, Owner, key_of
from evalgauge.collectors.kafka_client import EARLIEST, Fenced, Partition, Unavailable
from evalgauge.collectors.kafka_hanging import Endings
from evalgauge.collectors.kafka_keys import text_field
from evalgauge.collectors.kafka_letters import PARTITIONS, letter_of
from evalgauge.collectors.kafka_orphans import Orphans
from evalgauge.collectors.kafka_records import RecordFormat, body_of
from evalgauge.collectors.kafka_sender import Identity, Outgoing, open_sender
from evalgauge.core.errors import EvalgaugeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from evalgauge.collectors.kafka_client import Batch, Client, Cluster
    from evalgauge.collectors.kafka_config import KafkaConfig
    from evalgauge.collectors.kafka_sender import Sender
    from evalgauge.collectors.kafka_store import Library
    from evalgauge.core.deadletters import Wanted
    from evalgauge.core.store import DeadLetter

_log = logging.getLogger(__name__)

_POLL = 0.2
_PATIENCE = 30.0
"""Seconds that brokers may bring nothing; a killed replica's transaction holds reading up for its time-out on top."""
_MARKS = 10_000
"""Letters that one transaction marks at most."""
_STRUCTURED = [("content-type", b"application/cloudevents+json")]


class _Ends(NamedTuple):
    """What there is to read, as it was when it was looked at."""

    begins: dict[Partition, int]
    ends: dict[Partition, int]


class KafkaLetterBox:
    """The letters in a group's topic. The number of a letter is its place: it stays the same."""

    def __init__(self, config: KafkaConfig, library: Library, name: str) -> None:
        """Connect to nothing yet."""
        assert config.group is not None  # noqa: S101 - for the type checker: without a group there is no such box
        self._config, self._library, self._name = config, library, name
        self._group = config.group
        self._topic = self._group.dead_letter_topic
        self.readers = f"group `{self._group.id}`"
        self._patience = _PATIENCE + self._group.transaction_timeout
        self._orphans = Orphans(config, name, replica="")
        self._identity = Identity(
            f"{self._group.id}/deadletter-replay", self._group.transaction_timeout, self._group.id
        )
        self._endings = Endings(config, name)
        self._client: Client | None = None
        self._cluster: Cluster | None = None
        self._sender: Sender | None = None
        self._there: _Ends | None = None
        self._owner = Owner("letters", self._topic)
        self._marks: set[int] = set()
        """Numbers that are left out."""
        self._partitions: dict[str, set[int]] = {}
        """Topic → its partitions, as far as was asked."""

    # -- reading ------------------------------------------------------------------------------------------

    def count(self, wanted: Wanted) -> int:
        """How many there are."""
        return sum(1 for _ in self.letters(wanted))

    def newest(self, wanted: Wanted, limit: int) -> list[DeadLetter]:
        """The newest letters, oldest first."""
        found = self.letters(wanted)
        if limit < 0:
            return sorted(found, key=_age)
        return sorted(heapq.nlargest(limit, found, key=_age), key=_age)

    def letters(self, wanted: Wanted) -> Iterator[DeadLetter]:
        """The letters that were there when this box first looked; those of one partition oldest first."""
        there = self._look()
        begins, ends = dict(there.begins), dict(there.ends)
        if wanted.numbers:
            begins, ends = _around(wanted.numbers, begins, ends)
        elif wanted.since is not None:
            # A letter is written after it was refused, so none that is wanted is older in the topic.
            later = self._asked("offsets", dict.fromkeys(begins, max(0, int(wanted.since * 1000))))
            begins = {one: max(begin, later.get(one, begin)) for one, begin in begins.items()}
        strange = 0
        for batch in self._read(begins, ends):
            for index, (offset, value) in enumerate(zip(batch.offsets, batch.values, strict=True)):
                number = _number(batch.partition.number, offset)
                if offset >= ends[batch.partition] or number in self._marks:
                    continue
                try:
                    letter = letter_of(value, batch.headers(index), number)
                except ValueError:
                    strange += 1
                    continue
                if wanted.meets(letter):
                    yield letter
        if strange:
            _log.warning(
                "topic %s holds %s records that are no dead letters: give the group a topic of its own "
                "(`dead_letters`)",
                self._topic,
                strange,
            )

    def _look(self) -> _Ends:
        """Look what there is, the first time, and read which letters are marked."""
        if self._there is not None:
            return self._there
        changelog = self._group.changelog_topic
        found = self._asked("topics", [self._topic, changelog])
        for topic in (self._topic, changelog):
            if topic not in found:
                raise EvalgaugeError(
                    f"there is no topic `{topic}` at {', '.join(self._config.bootstrap)}: the first replica of "
                    f"{self.readers} makes it. Is the configuration the one that the group runs with?"
                )
        topic = found[self._topic]
        self._owner = Owner("letters", f"{self._topic}@{topic.id}")
        letters = [Partition(self._topic, one) for one in topic.partitions if one < PARTITIONS]
        marks = Partition(changelog, self._owner.slot)
        begins = self._asked("offsets", dict.fromkeys([*letters, marks], EARLIEST))
        # To the end of what is written, open transactions included: one of them may stand before marks that count.
        ends = self._asked("written", [*letters, marks])
        if missing := {*letters, marks} - (begins.keys() & ends.keys()):
            raise EvalgaugeError(f"partition {min(missing)} has no leader now: try again")
        self._marks = set()
        for batch in self._read({marks: begins.pop(marks)}, {marks: ends.pop(marks)}):
            for key, value in zip(batch.keys(), batch.values, strict=True):
                self._mark(key, marked=value is not None)
        self._there = _Ends(begins, ends)
        return self._there

    def _mark(self, key: bytes | None, *, marked: bool) -> None:
        try:
            told = msgspec.json.decode(key or b"", type=list[str | int])
        except (msgspec.DecodeError, ValueError):
            return  # replicas complain of it when they start
        if tuple(told[:2]) == self._owner and len(told) == 3 and isinstance(told[2], int):  # noqa: PLR2004 - with a number
            (self._marks.add if marked else self._marks.discard)(told[2])

    def _read(self, begins: Mapping[Partition, int], ends: Mapping[Partition, int]) -> Iterator[Batch]:
        """Batches of these partitions, up to their ends and perhaps beyond. Raises `EvalgaugeError`."""
        todo = {one: end for one, end in ends.items() if begins[one] < end}
        if not todo:
            return
        client = self._connected()
        client.assign({one: begins[one] for one in todo})
        heard = time.monotonic()
        trouble = ""
        try:
            while any((client.position(one) or 0) < end for one, end in todo.items()):
                polled = client.poll(_POLL)
                trouble = polled.trouble or trouble
                for batch in polled.batches:
                    if batch.partition in todo:
                        yield batch
                if polled.strayed:
                    # Retention removed what was to be read next.
                    now = self._asked("offsets", dict.fromkeys(polled.strayed, EARLIEST))
                    client.assign({one: now[one] for one in polled.strayed if one in now})
                if polled.batches or polled.strayed:
                    heard = time.monotonic()
                    continue
                if time.monotonic() - heard > STALLED:
                    self._orphans.settle()
                if time.monotonic() - heard > self._patience:
                    raise EvalgaugeError(
                        f"{', '.join(self._config.bootstrap)}: nothing more came of "
                        f"{', '.join(map(str, sorted(todo)))} for {self._patience:g} s, though more is written: "
                        f"{trouble or 'a transaction is open there, or the brokers do not answer'}"
                    )
        finally:
            client.drop(todo)

    def _connected(self) -> Client:
        if self._client is None:
            try:
                self._client = self._library.client()
            except Unavailable as error:
                raise self._failed(error) from error
        return self._client

    def _asked(self, what: str, about: Any) -> Any:
        """What the cluster says. Raises `EvalgaugeError`."""
        try:
            if self._cluster is None:
                self._cluster = self._library.cluster()
            return getattr(self._cluster, what)(about)
        except Unavailable as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> EvalgaugeError:
        return EvalgaugeError(f"Kafka at {', '.join(self._config.bootstrap)}: {error}")

    # -- writing ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Be the only process that marks letters; what is marked is read anew after that."""
        if self._sender is None:
            self._sender = open_sender(self._config, self._name, self._identity)
        try:
            self._sender.begin()
        except Unavailable as error:
            raise self._failed(error) from error
        self._there = None

    def hindrance(self, letter: DeadLetter) -> str:
        """Why a letter cannot be sent back, empty if it can."""
        try:
            partition = Partition.named(letter.partition)
        except ValueError:
            return f"`{letter.partition}` is no partition of a topic"
        if letter.input != self._name:
            return f"the group's input is `{self._name}`, not `{letter.input}`"
        if partition.topic not in self._partitions:
            found = self._asked("topics", [partition.topic]).get(partition.topic)
            self._partitions[partition.topic] = set() if found is None else set(found.partitions)
        if partition.number not in self._partitions[partition.topic]:
            return f"there is no partition {partition} any more"
        value, headers = self._value(letter)
        body = body_of(self._config.format, [value], lambda _: headers)
        if body.data != letter.data or body.firsts is not None:
            return (
                f"as a record of its own it would not be read as it was (format {self._config.format}): send it as the "
                "producer does"
            )
        return ""

    def _value(self, letter: DeadLetter) -> tuple[bytes, list[tuple[str, bytes]]]:
        """The value and the headers by which a record is the event."""
        return letter.data, _STRUCTURED if self._config.format is RecordFormat.CLOUDEVENTS else []

    def send_back(self, letters: Sequence[DeadLetter]) -> None:
        """Send these back and mark them, in one transaction."""
        self._write([*self._events(letters), *self._marks_of([one.number for one in letters], "replayed")])

    def _events(self, letters: Iterable[DeadLetter]) -> Iterator[Outgoing]:
        keyed_by = self._config.keyed_by
        for letter in letters:
            value, headers = self._value(letter)
            key = None if keyed_by is None else text_field(letter.data, keyed_by)
            yield Outgoing(*Partition.named(letter.partition), key, value, headers)

    def purge(self, wanted: Wanted) -> int:
        """Mark what meets the conditions."""
        self.begin()
        numbers = [one.number for one in self.letters(wanted)]
        for first in range(0, len(numbers), _MARKS):
            self._write(self._marks_of(numbers[first : first + _MARKS], "purged"))
        return len(numbers)

    def _marks_of(self, numbers: Sequence[int], what: str) -> Iterator[Outgoing]:
        """Marks of these, and the end of those whose letters retention has removed."""
        assert self._there is not None  # noqa: S101 - for the type checker: letters were read, so this is known
        value = msgspec.json.encode({"time": time.time(), "what": what})
        begins = {one.number: begin for one, begin in self._there.begins.items()}
        stale = sorted(one for one in self._marks if _offset(one) < begins.get(_partition(one), 0))[:_MARKS]
        for number, said in [*((one, None) for one in stale), *((one, value) for one in numbers)]:
            key = key_of(self._owner, number)
            yield Outgoing(self._group.changelog_topic, self._owner.slot, key, said)
        self._marks -= set(stale)

    def _write(self, records: Iterable[Outgoing]) -> None:
        assert self._sender is not None  # noqa: S101 - for the type checker, and against a fault of the caller
        written: set[Partition] = set()

        def noted() -> Iterator[Outgoing]:
            for record in records:
                written.add(Partition(record.topic, record.partition))
                yield record

        try:
            self._sender.write(noted())
            # Nobody else looks after it, and the next would become a part of it where it is still open.
            self._endings.confirm(self._identity.transactional_id, written, committed=True)
        except Fenced as error:
            raise EvalgaugeError(
                f"another `evalgauge deadletter replay` or `purge` of {self.readers} has begun since this one did, and "
                f"only the later one goes on: {error}"
            ) from error
        except Unavailable as error:
            raise EvalgaugeError(
                f"{self._failed(error)}. What was under way was written whole or not at all: `evalgauge deadletter "
                "list` tells"
            ) from error

    def close(self) -> None:
        """Let go of connections and threads."""
        for one in (self._client, self._cluster, self._sender):
            if one is not None:
                one.close()
        self._endings.close()
        self._client = self._cluster = self._sender = None


def _age(letter: DeadLetter) -> tuple[float, int]:
    return letter.time, letter.number


def _number(partition: int, offset: int) -> int:
    return offset * PARTITIONS + partition + 1


def _partition(number: int) -> int:
    return (number - 1) % PARTITIONS


def _offset(number: int) -> int:
    return (number - 1) // PARTITIONS


def _around(
    numbers: Iterable[int], begins: Mapping[Partition, int], ends: Mapping[Partition, int]
) -> tuple[dict[Partition, int], dict[Partition, int]]:
    """As much of what is there as holds these letters."""
    offsets: dict[int, list[int]] = {}
    for number in numbers:
        offsets.setdefault(_partition(number), []).append(_offset(number))
    held = [one for one in begins if one.number in offsets]
    first = {one: max(begins[one], min(offsets[one.number])) for one in held}
    return first, {one: min(ends[one], max(offsets[one.number]) + 1) for one in held}
