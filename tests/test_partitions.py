"""State that moves with its partition, between engines that share nothing but what they committed."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from evalgauge.core.collect import Chunk, PartitionPages
from evalgauge.core.deduplicate import Window
from evalgauge.core.engine import Engine, EngineOptions, InputRules
from evalgauge.core.errors import StateError
from evalgauge.core.selfmetrics import SelfMetrics
from evalgauge.core.store import Restored
from tests.engine_helpers import INPUT, KINDS, NOON, Clock, event, lab, lines, own_pack

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from evalgauge.core.pack.model import Pack
    from evalgauge.core.store import Commit, DeadLetterLimits
    from evalgauge.core.table import Page, PageKind

PARTITIONS = ("t/0", "t/1", "t/2", "t/3")


class Log:
    """What all replicas have committed: pages by their keys, as a compacted topic keeps them."""

    def __init__(self) -> None:
        self.replicas: dict[str, dict[tuple[str, PageKind, int], Page]] = {}
        self.partitions: dict[str, dict[tuple[str, PageKind, int], Page]] = {}
        self.digests: dict[str, list[tuple[float, bytes]]] = {}
        self.tables: dict[str, list[Any]] = {}

    def of(self, partition: str) -> PartitionPages:
        """What a partition comes with."""
        pages: dict[str, list[Page]] = {}
        for (meaning, _, _), page in self.partitions.get(partition, {}).items():
            pages.setdefault(meaning, []).append(page)
        return PartitionPages(pages, list(self.digests.get(partition, [])))


class ReplicaStore:
    """A store of one replica over the log."""

    by_partition: ClassVar[bool] = True
    seed = 7

    def __init__(self, log: Log, name: str) -> None:
        self._log, self._name = log, name
        self.moving: list[str] = []
        self.ids_age = 0.0

    def restore(self, meanings: Iterable[str], moving: Iterable[str] = (), ids_age: float = 0.0) -> Restored:
        """The replica's own pages."""
        self.moving, self.ids_age = list(moving), ids_age
        pages: dict[str, list[Page]] = {meaning: [] for meaning in meanings}
        for (meaning, _, _), page in self._log.replicas.get(self._name, {}).items():
            pages[meaning].append(page)
        return Restored(self._log.tables.get(self._name, []), pages, {}, [], 0.0, "")

    def commit(self, commit: Commit, limits: DeadLetterLimits) -> Mapping[str, int]:
        """Keep the last of each key."""
        del limits
        own = self._log.replicas.setdefault(self._name, {})
        own.update({(meaning, page.kind, page.number): page for meaning, page in commit.pages})
        for partition, meaning, page in commit.partition_pages:
            self._log.partitions.setdefault(partition, {})[meaning, page.kind, page.number] = page
        for partition, digests in commit.digests.items():
            self._log.digests.setdefault(partition, []).append((commit.time, digests))
        self._log.tables.setdefault(self._name, []).extend(commit.tables)
        return {}

    def waits_for(self) -> str:
        """Nothing."""
        return ""

    def facts(self) -> Mapping[str, float]:
        """None."""
        return {}

    def stop(self) -> None:
        """Nothing is waited for."""

    def size(self) -> int:
        """Nobody asks."""
        return 0

    def dead_letters(self) -> None:
        """Nobody asks."""

    def forget_loss(self) -> None:
        """Nothing is lost."""

    def close(self) -> None:
        """Nothing is open."""


class Replica:
    """An engine with the partitions it has."""

    def __init__(
        self, log: Log, name: str, *, deduplicate: bool = False, ids: int = 1000, pack: Pack | None = None
    ) -> None:
        self.log = log
        self.store = ReplicaStore(log, name)
        self.engine = Engine(
            [pack or lab(), own_pack()],
            {INPUT: InputRules(deduplicate=deduplicate)},
            KINDS,
            self.store,
            SelfMetrics(own_pack()),
            EngineOptions(window=Window(ids, 1e9)),
            clock=Clock(),
        )
        self.engine.restore()
        self.has: set[str] = set()

    def adopt(self, partition: str) -> None:
        """Take a partition over, with what was committed of it."""
        self.engine.adopt(partition, self.log.of(partition))
        self.has.add(partition)

    def release(self, partition: str) -> None:
        """Commit, and let go."""
        self.engine.commit()
        self.engine.release(partition)
        self.has.discard(partition)

    def feed(self, partition: str, *events: Any) -> None:
        """Take events in; the position is of no interest here."""
        body = b"".join(line + b"\n" for line in lines(*events))
        self.engine.process(INPUT, Chunk(partition, body, str, commit=1, arrival=NOON))

    def shown(self, name: str) -> dict[tuple[str, ...], float]:
        """Series of a family, as committed."""
        family = next(one for one in self.engine.families() if one.name == name)
        return dict(zip(family.series, family.values.tolist(), strict=False))


class Story:
    """Replicas that read, commit, die and hand partitions over, and beside them a plain count of what is committed."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)  # noqa: S311 - the same story at every run
        self.log = Log()
        self.replicas = {name: self._begin(name) for name in ("r1", "r2", "r3")}
        for partition in PARTITIONS:
            self._anybody().adopt(partition)
        self.runs: Counter[tuple[str, str]] = Counter()
        self.newest: dict[str, dict[str, tuple[tuple[int, str, str], float]]] = {
            one: {} for one in PARTITIONS
        }
        self._seen: dict[str, set[str]] = {one: set() for one in PARTITIONS}
        self._waiting: dict[str, list[tuple[str, dict[str, Any]]]] = {name: [] for name in self.replicas}

    def _begin(self, name: str) -> Replica:
        return Replica(self.log, name, deduplicate=True)

    def _anybody(self) -> Replica:
        return self.replicas[self.dice.choice(sorted(self.replicas))]

    def feed(self, name: str, step: int) -> None:
        """One event, which may be a repeat, in one of its partitions."""
        dice, replica = self.dice, self.replicas[name]
        if not replica.has:
            return
        partition = dice.choice(sorted(replica.has))
        one = event(
            dice.randrange(120),
            who=dice.choice(["ann", "bob"]),
            kind=dice.choice("ab"),
            tenant=dice.choice(["t", "u"]),
            level=float(step),
            time=f"2023-01-01T00:00:{dice.randrange(60):02}Z",
        )
        replica.feed(partition, one)
        self._waiting[name].append((partition, one))

    def commit(self, name: str) -> None:
        """All it has read is kept."""
        self.replicas[name].engine.commit()
        self._settle(name)

    def move(self, name: str) -> None:
        """One of its partitions goes to somebody."""
        replica = self.replicas[name]
        if replica.has:
            partition = self.dice.choice(sorted(replica.has))
            replica.release(partition)
            self._settle(name)
            self._anybody().adopt(partition)

    def die(self, name: str) -> None:
        """What it has not committed is lost with it, and its partitions go to others."""
        orphans = sorted(self.replicas[name].has)
        self.replicas[name] = self._begin(name)
        self._waiting[name].clear()
        for partition in orphans:
            self._anybody().adopt(partition)

    def _settle(self, name: str) -> None:
        for partition, one in self._waiting[name]:
            if one["id"] not in self._seen[partition]:
                self._seen[partition].add(one["id"])
                data, newest = one["data"], self.newest[partition]
                self.runs[data["tenant"], data["kind"]] += 1
                key = (int(one["time"][17:19]), one["source"], one["id"])
                if data["who"] not in newest or key >= newest[data["who"]][0]:
                    newest[data["who"]] = (key, data["level"])
        self._waiting[name].clear()


@pytest.mark.parametrize("seed", range(12))
def test_sums_over_replicas_and_gauges_survive_any_moves(seed: int) -> None:
    """Restarts that throw away what is not committed included."""
    story = Story(seed)
    for step in range(150):
        name = story.dice.choice(sorted(story.replicas))
        match story.dice.randrange(6):
            case 0:
                story.commit(name)
            case 1:
                story.move(name)
            case 2:
                story.die(name)
            case _:
                story.feed(name, step)
    total: Counter[tuple[str, str]] = Counter()
    for name, replica in story.replicas.items():
        story.commit(name)
        for (tenant, kind, _), value in replica.shown("lab_runs").items():
            total[tenant, kind] += int(value)
        expected: dict[str, tuple[tuple[int, str, str], float]] = {}
        for partition in replica.has:
            for who, setting in story.newest[partition].items():
                expected[who] = max(expected.get(who, setting), setting)
        shown = {who: value for (who,), value in replica.shown("lab_level").items()}
        assert shown == {who: value for who, (_, value) in expected.items()}
    assert total == story.runs


def test_a_gauge_vanishes_with_its_partition_and_comes_back_with_it() -> None:
    """The value moves; counters stay with whoever counted."""
    log = Log()
    one, two = Replica(log, "r1"), Replica(log, "r2")
    one.adopt("t/0")
    one.feed("t/0", event(1, who="ann", level=5.0))
    one.engine.commit()
    assert one.shown("lab_level") == {("ann",): 5.0}
    one.release("t/0")
    assert one.shown("lab_level") == {}
    assert sum(one.shown("lab_runs").values()) == 1
    two.adopt("t/0")
    assert two.shown("lab_level") == {("ann",): 5.0}
    assert sum(two.shown("lab_runs").values()) == 0


def test_a_partition_that_begins_anew_in_place_forgets_its_gauges() -> None:
    """Its topic was deleted and made again under a running replica: nothing is released in between."""
    one = Replica(Log(), "r1")
    one.adopt("t/0")
    one.feed("t/0", *(event(number, who=f"who-{number}", level=5.0) for number in range(2)))
    one.engine.commit()
    assert one.shown("lab_level") == {("who-0",): 5.0, ("who-1",): 5.0}
    one.engine.adopt("t/0", PartitionPages({}, []))
    one.feed("t/0", event(3, who="who-1", level=7.0))
    one.engine.commit()
    assert one.shown("lab_level") == {("who-1",): 7.0}
    assert sum(one.shown("lab_runs").values()) == 3


def test_an_id_is_remembered_by_partition_and_moves_with_it() -> None:
    """A repeat in the same partition counts once, whoever reads it; in another partition it is another event."""
    log = Log()
    one, two = Replica(log, "r1", deduplicate=True), Replica(log, "r2", deduplicate=True)
    for partition in ("t/0", "t/1"):
        one.adopt(partition)
        one.feed(partition, event(1))
    one.release("t/0")
    assert sum(one.shown("lab_runs").values()) == 2
    two.adopt("t/0")
    two.feed("t/0", event(1), event(2))
    two.engine.commit()
    assert sum(two.shown("lab_runs").values()) == 1
    assert two.shown("evalgauge_events_duplicated") == {(INPUT,): 1}


def test_state_that_cannot_be_read_back_names_the_metric_and_the_partition() -> None:
    """For whoever has to find the record in the changelog."""
    log = Log()
    one = Replica(log, "r1")
    one.adopt("t/0")
    one.feed("t/0", event(1, who="ann", level=5.0))
    one.release("t/0")
    for key, page in log.partitions["t/0"].items():
        log.partitions["t/0"][key] = page._replace(data=page.data[:-1])
    with pytest.raises(StateError, match=r"metric lab_level for t/0 cannot be read back"):
        Replica(log, "r2").adopt("t/0")


def test_the_store_is_told_what_moves_and_for_how_long_ids_are_kept() -> None:
    """So that a group without either restores nothing of partitions."""
    with_ids, without = Replica(Log(), "r1", deduplicate=True), Replica(Log(), "r1")
    assert len(with_ids.store.moving) == 1
    assert (with_ids.store.ids_age, without.store.ids_age) == (1e9, 0)
