"""`consistency` through the whole engine, against one event after the other and a power iteration of its own."""

from __future__ import annotations

import bisect
import itertools
import math
import random
import tempfile
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core.document import parse_document
from evalgauge.core.instruments import judgements, keyed_part
from evalgauge.core.keys import joined, parted
from evalgauge.core.pack.check import check_pack
from evalgauge.core.pack.loader import examined_pack
from evalgauge.core.pack.names import exposed_series
from tests.arrivals import AHEAD, after, courses
from tests.engine_helpers import NOON, Lab, lines, pack_of
from tests.test_saaty import HOW_TO, PUBLISHED, matrix_of, power_iteration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TEXT = """\
pack: tree
version: 1
title: Tree
events:
  tree.compared:
    description: Two elements were compared.
    fields:
      node: {type: string, required: true}
      left: {type: string}
      right: {type: string}
      value: {type: number}
      secret: {type: string, payload: true}
  tree.done:
    description: A node is complete.
    fields:
      node: {type: string, required: true}
      team: {type: string, required: true}
      ratio: {type: number, unit: ratio}
      percent: {type: number, unit: percent}
metrics:
  tree_consistency_ratio:
    type: consistency
    help: Consistency of nodes.
    comparison: tree.compared
    left: left
    right: right
    value: value
    complete: tree.done
    given: ratio
    key: node
    labels: {team: team}
    buckets: [0.0317, 0.1017, 0.5017]
    ttl: 50
    keys: 2
"""
PACK = pack_of(TEXT)
TTL, KEYS = 50, 2
BOUNDS = [0.0317, 0.1017, 0.5017]
BEGAN = NOON - 200
RANDOM = {3: 0.58, 4: 0.9, 5: 1.12, 6: 1.24, 7: 1.32, 8: 1.41}


class Compared(NamedTuple):
    """A comparison."""

    node: str
    time: int
    """Seconds after `BEGAN`."""
    left: str | None
    right: str
    value: float | None


class Done(NamedTuple):
    """A completion."""

    node: str
    time: int
    team: str
    ratio: float | None


def line(number: int, one: Compared | Done) -> bytes:
    """It as it comes."""
    data: dict[str, Any] = {key: value for key, value in one._asdict().items() if key != "time"}
    time = datetime.fromtimestamp(BEGAN + one.time, UTC).isoformat()
    type_ = "tree.done" if isinstance(one, Done) else "tree.compared"
    return lines({"id": str(number), "source": "/s", "type": type_, "time": time, "data": data})[0] + b"\n"


class Node:
    """What is known of one."""

    def __init__(self) -> None:
        self.newest, self.told, self.large = -math.inf, False, False
        self.pairs: dict[tuple[str, str], tuple[float, float]] = {}
        """(left, right) → time, value."""


class Oracle:
    """What a stream comes to."""

    def __init__(self, every: int, most: int) -> None:
        """Surplus nodes go after each `every` events; a node of more than `most` elements has no ratio."""
        self.every, self.most = every, most
        self.clock, self.seen = -math.inf, 0
        self.came: Iterator[float] = itertools.repeat(NOON)
        """Arrivals of what is taken next."""
        self.nodes: dict[str, Node] = {}
        self.ratios: dict[str, list[float]] = defaultdict(list)
        self.counts: Counter[tuple[str, ...]] = Counter()

    def run(self, stream: Iterable[Compared | Done]) -> None:
        """Take all of it."""
        for one, arrival in zip(stream, self.came, strict=False):
            before, ahead = self.clock, BEGAN + one.time > arrival + AHEAD
            self.clock = before if ahead else max(before, min(one.time, arrival - BEGAN))
            if isinstance(one, Compared) and not self._fit(one):
                self.counts["unobserved",] += 1
                continue
            if ahead:
                self.counts["late",] += 1
                continue
            self.seen += 1
            if one.time + TTL <= before:
                self.counts["late",] += 1
            else:
                node = self.nodes.get(one.node)
                if node is not None and node.newest + TTL <= before:
                    del self.nodes[one.node]
                if isinstance(one, Compared):
                    self._compare(one)
                else:
                    self._complete(one)
            if self.seen % self.every == 0 and len(self.nodes) > KEYS:
                self.nodes = {
                    name: node for name, node in self.nodes.items() if node.newest + TTL > self.clock
                }
                oldest = sorted(self.nodes, key=lambda name: (self.nodes[name].newest, name))
                for name in oldest[: max(0, len(self.nodes) - KEYS)]:
                    del self.nodes[name]
                    self.counts["evicted",] += 1

    @staticmethod
    def _fit(one: Compared) -> bool:
        return one.left is not None and one.left != one.right and one.value is not None and one.value > 0

    def _compare(self, one: Compared) -> None:
        assert one.left is not None
        assert one.value is not None
        node = self.nodes.setdefault(one.node, Node())
        node.newest = max(node.newest, one.time)
        pair, value = (one.left, one.right), one.value
        if one.left > one.right:
            pair, value = (one.right, one.left), 1.0 / one.value
        if pair not in node.pairs and len(node.pairs) == self.most * (self.most - 1) // 2:
            if not node.large:
                node.large, node.told = True, False
            return
        time, known = node.pairs.get(pair, (-math.inf, 0.0))
        if one.time > time or (one.time == time and value != known):
            node.pairs[pair] = (one.time, value)
            node.told = False

    def _complete(self, one: Done) -> None:
        node = self.nodes.get(one.node)
        if node is not None:
            node.newest = max(node.newest, one.time)
            if node.told:
                self.counts[one.team, "repeated"] += 1
                return
            node.told = True
        if one.ratio is not None:
            if one.ratio < 0:
                self.counts["unobserved",] += 1
            else:
                self._observe(one.team, "given", one.ratio)
            return
        names = sorted({name for pair in node.pairs for name in pair}) if node is not None else []
        if node is not None and (node.large or (self._whole(node, names) and len(names) > self.most)):
            self.counts[one.team, "large"] += 1
        elif node is None or not self._whole(node, names):
            self.counts[one.team, "missing"] += 1
        else:
            self._observe(one.team, "computed", self._ratio(node, names))

    @staticmethod
    def _whole(node: Node, names: list[str]) -> bool:
        return all(pair in node.pairs for pair in itertools.combinations(names, 2))

    @staticmethod
    def _ratio(node: Node, names: list[str]) -> float:
        if len(names) <= 2:
            return 0.0
        matrix = [[1.0] * len(names) for _ in names]
        for (i, left), (j, right) in itertools.combinations(enumerate(names), 2):
            matrix[i][j] = node.pairs[left, right][1]
            matrix[j][i] = 1 / matrix[i][j]
        return max(0.0, (power_iteration(matrix) - len(names)) / (len(names) - 1) / RANDOM[len(names)])

    def _observe(self, team: str, source: str, ratio: float) -> None:
        self.ratios[team].append(ratio)
        self.counts[team, source] += 1


def compare(bench: Lab, oracle: Oracle) -> None:
    """What the engine shows is what the oracle says."""
    name = "tree_consistency_ratio"
    found: Counter[tuple[str, ...]] = Counter()
    found["late",] = int(bench.value("evalgauge_events_late", name))
    found["unobserved",] = int(bench.value("evalgauge_values_unobserved", name))
    found["evicted",] = int(bench.value("tree_consistency_evicted"))
    for team in "ab":
        found[team, "repeated"] = int(bench.value("tree_consistency_repeated", team))
        for source in ("given", "computed"):
            found[team, source] = int(bench.value("tree_consistency_observed", team, source))
        for reason in ("missing", "large"):
            found[team, reason] = int(bench.value("tree_consistency_incomplete", team, reason))
    assert +found == +oracle.counts
    family = next(one for one in bench.families() if one.name == name)
    assert family.buckets is not None
    for row, (team,) in enumerate(family.series):
        buckets = [0] * (len(BOUNDS) + 1)
        for ratio in oracle.ratios[team]:
            buckets[bisect.bisect_left(BOUNDS, ratio)] += 1
        assert family.buckets[row].tolist() == buckets
        assert float(family.values[row]) == pytest.approx(sum(oracle.ratios[team]), abs=1e-9)
    assert {team for team, ratios in oracle.ratios.items() if ratios} <= {team for (team,) in family.series}


TIMES = (
    st.integers(0, 12).map(lambda fives: 5 * fives)
    | st.integers(0, 12).map(lambda fives: 5 * fives)
    | st.integers(38, 60).map(lambda fives: 5 * fives)
    | st.sampled_from([-86_400, 495, 500, 505, 86_400 * 365])
)
ELEMENTS = st.sampled_from("pqrs")
EVENTS = st.one_of(
    st.builds(
        Compared,
        st.sampled_from("xyz"),
        TIMES,
        st.none() | ELEMENTS | ELEMENTS | ELEMENTS,
        ELEMENTS,
        st.sampled_from([None, 0, -3, 1, 2, 5, 9, 1 / 3, 1 / 9, 2, 7]),
    ),
    st.builds(
        Done,
        st.sampled_from("xyz"),
        TIMES,
        st.sampled_from("ab"),
        st.sampled_from([None, None, None, 0, 0.05, 0.3, -0.1]),
    ),
)


@st.composite
def rounds_of_a_node(draw: st.DrawFn) -> list[Compared | Done]:
    """All pairs of some elements, in any order and either way round, then completions and changes."""
    node, time = draw(st.sampled_from("xyz")), draw(TIMES)
    names = draw(st.lists(ELEMENTS, min_size=2, max_size=4, unique=True))
    pairs = draw(st.permutations([draw(st.permutations(pair)) for pair in itertools.combinations(names, 2)]))
    value = st.sampled_from([1, 2, 3, 5, 9, 1 / 2, 1 / 5, 1 / 9])
    found: list[Compared | Done] = [
        Compared(node, time + draw(st.integers(0, 4)), left, right, draw(value)) for left, right in pairs
    ]
    for _ in range(draw(st.integers(1, 3))):
        found.append(Done(node, time + draw(st.integers(0, 6)), draw(st.sampled_from("ab")), None))
        if draw(st.booleans()):
            found.append(
                Compared(node, time + draw(st.integers(0, 6)), pairs[0][0], pairs[0][1], draw(value))
            )
    return found


STREAMS = st.lists(st.one_of(EVENTS.map(lambda one: [one]), rounds_of_a_node()), max_size=14).map(
    lambda parts: list(itertools.chain(*parts))
)


@settings(max_examples=70)
@given(STREAMS, st.data())
def test_ratios_are_what_the_events_say_wherever_the_stream_is_cut(
    stream: list[Compared | Done], data: st.DataObject
) -> None:
    """With pairs that are missing, repeats, changes, late events, too many nodes and elements, and restarts."""
    every, most = data.draw(st.integers(1, 8)), data.draw(st.integers(3, 5))
    stream = stream + data.draw(st.lists(st.sampled_from(stream), max_size=4)) if stream else stream
    told = [line(number, one) for number, one in enumerate(stream)]
    course = data.draw(courses(len(stream)))
    oracle = Oracle(every, most)
    oracle.came = iter(course.came)
    oracle.run(stream)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        patch.setattr(keyed_part, "BOUND_EVERY", every)
        patch.setattr(judgements, "MOST", most)
        patch.setattr(judgements, "_MOST_PAIRS", most * (most - 1) // 2)
        bench = after(Path(name), PACK, told, course)
        compare(bench, oracle)
        bench.store.close()


@pytest.mark.parametrize("largest", [2, 60, 600, 4000])
def test_many_nodes_in_a_long_stream_that_outlives_them(tmp_path: Path, largest: int) -> None:
    """Some are completed again and again, some are forgotten and come back; in chunks of up to so many events."""
    dice = random.Random(11)  # noqa: S311 - the same stream at every run
    stream: list[Compared | Done] = []
    nodes = [f"n{number}" for number in range(60)]

    def now() -> int:
        return len(stream) // 25 + dice.randrange(40)

    while len(stream) < (4000 if largest > 2 else 1000):
        node = dice.choice([*nodes, "hot", "hot", "hot"])
        if dice.random() < 0.7:
            names = "pqrstu"[: dice.randrange(2, 7)]
            for left, right in itertools.combinations(names, 2):
                if dice.random() < 0.98:
                    stream.append(Compared(node, now(), left, right, dice.choice([1, 2, 3, 5, 1 / 4])))
        times = dice.choice([0, 1, 1, 2])
        stream += [Done(node, now(), dice.choice("ab"), None) for _ in range(times)]
    oracle = Oracle(1 << 30, 15)
    oracle.run(stream)
    for what, least in (("computed", 20), ("repeated", 20), ("missing", 20)):
        assert oracle.counts["a", what] >= least
    with Lab(tmp_path, packs=[pack_of(TEXT.replace("keys: 2", "keys: 1000"))]) as bench:
        told = [line(number, one) for number, one in enumerate(stream)]
        at = 0
        while at < len(told):
            size = dice.randrange(1, largest + 1)
            bench.feed(b"".join(told[at : at + size]))
            at += size
            if dice.random() < 0.5:
                bench.engine.commit()
        bench.engine.commit()
        compare(bench, oracle)


@pytest.mark.parametrize("source", [one for one in PUBLISHED if one.startswith(HOW_TO)])
def test_a_published_matrix_comes_to_its_published_ratio(tmp_path: Path, source: str) -> None:
    """From its comparisons, some of them the other way round."""
    comparisons: list[Compared | Done] = [
        Compared("x", 1, left, right, value) if value >= 1 else Compared("x", 1, right, left, 1 / value)
        for (left, right), value in matrix_of(PUBLISHED[source].rows).items()
        if left != right
    ]
    with Lab(tmp_path, packs=[PACK]) as bench:
        bench.put(*(line(number, one) for number, one in enumerate([*comparisons, Done("x", 2, "a", None)])))
        assert f"{bench.value('tree_consistency_ratio', 'a'):.3f}" == PUBLISHED[source].ratio
        assert bench.value("tree_consistency_observed", "a", "computed") == 1


def test_more_than_15_elements_have_no_ratio(tmp_path: Path) -> None:
    """Saaty gives no random index, and a node keeps no more pairs than 15 elements have."""
    names = [f"e{number:02}" for number in range(17)]
    for count, fate in (
        (15, ("observed", "computed")),
        (16, ("incomplete", "large")),
        (17, ("incomplete", "large")),
    ):
        pairs = itertools.combinations(names[:count], 2)
        stream: list[Compared | Done] = [Compared("x", 1, *pair, 2) for pair in pairs]
        with Lab(tmp_path / str(count), packs=[PACK]) as bench:
            bench.put(*(line(number, one) for number, one in enumerate([*stream, Done("x", 2, "a", None)])))
            assert bench.value(f"tree_consistency_{fate[0]}", "a", fate[1]) == 1
            part = bench.engine._partitions.of("p").parts[0]
            pairs_held = part._pairs  # type: ignore[attr-defined]
            assert len(pairs_held) == min(count * (count - 1) // 2, 105)


def test_values_that_no_double_can_turn_are_left_out(tmp_path: Path) -> None:
    """And ratios that no double can hold."""
    far: list[Compared | Done] = [
        Compared("x", 1, "p", "q", 5e-324),
        Compared("y", 1, "p", "q", 1e300),
        Compared("y", 1, "q", "r", 1e300),
        Compared("y", 1, "p", "r", 1e-300),
        Done("y", 2, "a", None),
        Done("x", 2, "a", None),
    ]
    with Lab(tmp_path, packs=[PACK]) as bench:
        bench.put(*(line(number, one) for number, one in enumerate(far)))
        assert bench.value("tree_consistency_incomplete", "a", "missing") == 1
        assert math.isfinite(bench.value("tree_consistency_ratio", "a"))
        observed = bench.value("tree_consistency_observed", "a", "computed")
        assert observed + bench.value("evalgauge_values_unobserved", "tree_consistency_ratio") == 2


@given(st.lists(st.text(max_size=5), min_size=1, max_size=4))
def test_a_key_is_split_into_what_it_was_joined_of(parts: list[str]) -> None:
    """Whatever the texts hold, colons and digits too."""
    assert parted(joined(parts), len(parts)) == parts


def test_what_is_exposed() -> None:
    """Every series that rules may ask for, with its labels."""
    assert exposed_series(PACK) == {
        "tree_consistency_ratio_bucket": {"team", "le"},
        "tree_consistency_ratio_sum": {"team"},
        "tree_consistency_ratio_count": {"team"},
        "tree_consistency_observed_total": {"team", "source"},
        "tree_consistency_incomplete_total": {"team", "reason"},
        "tree_consistency_repeated_total": {"team"},
        "tree_consistency_evicted_total": set(),
    }


FAULTS = {
    "left: left": ("left: lef", "left `lef` is no field of `tree.compared`", "Did you mean `left`?"),
    "right: right": ("right: left", "`left` and `right` are both `left`", "two elements"),
    "value: value": ("value: node", "value `node` of `tree.compared` is of type `string`", "a number"),
    "left: left\n    right": (
        "left: value\n    right",
        "left `value` of `tree.compared` is of type `number`",
        "text",
    ),
    "right: right\n    value": (
        "right: secret\n    value",
        "right `secret` of `tree.compared` is payload",
        "",
    ),
    "complete: tree.done": (
        "complete: tree.compared",
        "`tree.compared` is the comparison",
        "Name the event type",
    ),
    "complete: tree.done\n": ("complete: tree.don\n", "no event type `tree.don` is declared", "`tree.done`?"),
    "comparison: tree.compared": ("comparison: tree.compare", "no event type `tree.compare` is declared", ""),
    "given: ratio": ("given: rate", "given `rate` is no field of `tree.done`", "Did you mean `ratio`?"),
    "given: ratio\n": ("given: percent\n", "`given` is in `percent`", "must be `ratio`"),
    "given: ratio\n    key": ("given: team\n    key", "given `team` of `tree.done` is of type `string`", ""),
    "key: node": ("key: team", "key `team` is no field of `tree.compared`", ""),
    "buckets: [0.0317, 0.1017": (
        "buckets: [0.1017, 0.0317",
        "bucket 0.0317 comes after 0.1017",
        "Sort them.",
    ),
    "labels: {team: team}": ("labels: {team: left}", "names no field of `tree.done`", ""),
    "{team: team}": (
        "{reason: team}",
        "label `reason` is one that `consistency` adds itself",
        "another name",
    ),
    "tree_consistency_ratio:": ("tree_consistency:", "must end in its base unit `_ratio`", ""),
    "    ttl: 50": ("    ttl: 0", "`ttl` must be from 1 ms to 100 years", ""),
}


@pytest.mark.parametrize("change", FAULTS)
def test_faults_are_told(change: str) -> None:
    """With the mend."""
    by, message, hint = FAULTS[change]
    text = TEXT.replace(change, by)
    assert text != TEXT
    document = parse_document(text, "tree.yaml")
    examined = examined_pack(document)
    assert examined.model is not None
    found = [
        str(one) for one in [*examined.problems, *check_pack(document, examined.model, (), examined.broken)]
    ]
    assert any(message in one and hint in one for one in found), found
