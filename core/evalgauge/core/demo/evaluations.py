"""Pairwise-comparison evaluations: a shift of sittings for each evaluator, node by node, and one who does not care."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from evalgauge.core.demo.script import HURRIED, SLOPPY, SLUGGISH
from evalgauge.core.demo.timeline import Courses, dice, told
from evalgauge.core.demo.week import AMERICA, DAY, EUROPE, HOUR, MINUTE, SHIFT, WEEK, in_week, week_of

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from evalgauge.core.demo.timeline import Told
    from evalgauge.core.demo.week import Zone

ITEMS = 4
"""Compared in each node, two by two."""
_PAIRS = [(left, right) for left in range(ITEMS) for right in range(left + 1, ITEMS)]
_RANDOM_INDEX = 0.9
"""Saaty's, of a matrix of four."""
_SITTINGS, _NODES = 8, 2
"""In a shift, and in a sitting."""
_WORKDAYS = 5
_SOURCE = "/demo/evaluations"


class Evaluator(NamedTuple):
    """Somebody who evaluates for one project."""

    name: str
    project: str
    zone: Zone


EVALUATORS = [
    Evaluator(f"evaluator-{number:02}", project, zone)
    for number, (project, zone) in enumerate(
        [("new-office", EUROPE)] * 6
        + [("new-office", AMERICA)] * 4
        + [("supplier-choice", EUROPE)] * 3
        + [("supplier-choice", AMERICA)] * 2
        + [("roadmap", EUROPE)] * 3
        + [("roadmap", AMERICA)] * 2,
        1,
    )
]
SLOPPY_ONE = Evaluator("evaluator-99", "supplier-choice", EUROPE)


class Evaluations:
    """The evaluations of a company; those that began before `since` (Unix time) are left out."""

    def __init__(self, seed: int, since: float = 0.0) -> None:
        self._seed = seed
        self._courses = Courses(self._drawn, DAY, 2 * DAY, since)

    def during(self, number: int) -> Iterator[Told]:
        """What evaluators do in one slice."""
        return self._courses.during(number)

    def _drawn(self, day: int) -> Iterator[list[Told]]:
        """Everybody's day, which begins at midnight UTC."""
        for evaluator in EVALUATORS:
            roll = dice("evaluations", self._seed, evaluator.name, day)
            weekday = int(in_week(day * DAY) // DAY)
            if roll.random() < (0.95 if weekday < _WORKDAYS else 0.15):
                yield _Shift(self._seed, roll, evaluator, day).told
        if int(SLOPPY.start // DAY) == int(in_week(day * DAY) // DAY):
            yield _Shift(self._seed, dice("sloppy", self._seed, day), SLOPPY_ONE, day, sloppy=True).told


class _Shift:
    """One evaluator's day: one evaluation, in as many sittings as the shift has hours."""

    def __init__(
        self, seed: int, roll: random.Random, evaluator: Evaluator, day: int, *, sloppy: bool = False
    ) -> None:
        self.told: list[Told] = []
        self._roll, self._evaluator, self._sloppy = roll, evaluator, sloppy
        self._who = {"project_id": evaluator.project, "evaluator_id": evaluator.name}
        self._name = f"{seed}-{evaluator.name}-{day}"
        self._whole = self._who | {"evaluation_id": f"e-{self._name}"}
        self._day, self._week = day, week_of(day * DAY)
        self._weekday = int(in_week(day * DAY) // DAY)
        if sloppy:
            self._click_through(SLOPPY.begun(day * DAY))
        else:
            begin = day * DAY + SHIFT[0] - evaluator.zone.offset
            self._work(begin + roll.uniform(0, 25 * MINUTE), _SITTINGS if self._weekday < _WORKDAYS else 2)

    def _tell(self, at: float, type_: str, data: dict[str, Any]) -> None:
        self.told.append(told(at, f"a-{self._name}-{len(self.told)}", _SOURCE, type_, data))

    def _work(self, begin: float, sittings: int) -> None:
        roll, at = self._roll, begin
        gives_up = roll.randrange(2, sittings) if roll.random() < 0.1 and sittings > 2 else sittings
        for sitting in range(gives_up):
            at = max(at, begin + sitting * HOUR + roll.uniform(0, 3 * MINUTE))
            session = self._who | {"session_id": f"s-{self._name}-{sitting}"}
            self._tell(at, "ahp.session.started", session)
            if not sitting:
                self._begin(at + 1, sittings)
            at += 10
            for number in range(_NODES):
                at = self._node(at, sitting * _NODES + number, session["session_id"], (170, 260))
            at += 1
            if sitting == sittings - 1:
                # Nobody waits for the last minute of a shift, but for its own.
                self._tell(
                    at, "ahp.evaluation.completed", self._whole | {"total_time_ms": round((at - begin) * 1e3)}
                )
            self._tell(at + 1, "ahp.session.ended", session)

    def _begin(self, at: float, sittings: int) -> None:
        plan = {
            "comparisons_expected": sittings * _NODES * len(_PAIRS),
            "deadline": _deadline(self._evaluator.project, at),
        }
        self._tell(at, "ahp.evaluation.started", self._whole | plan)
        if self._weekday < _WORKDAYS:
            for number in range(sittings * _NODES):
                self._progress(at + 1, number, 0)

    def _click_through(self, begin: float) -> None:
        at = begin + 5
        session = self._who | {"session_id": f"s-{self._name}-0"}
        self._tell(at, "ahp.session.started", session)
        self._begin(at, _SITTINGS)
        number = 0
        while at < begin + SLOPPY.end - SLOPPY.start - 40:
            at = self._node(at, number, session["session_id"], (2, 4))
            number += 1
        self._tell(at + 1, "ahp.session.ended", session)

    def _node(self, at: float, number: int, session: str, pace: tuple[float, float]) -> float:
        roll = self._roll
        here = self._here(number)
        matrix = _careless(roll) if self._sloppy else _considered(roll)
        for done, (left, right) in enumerate(_PAIRS):
            at += roll.uniform(*pace)
            compared = {
                "left": f"item-{left + 1}",
                "right": f"item-{right + 1}",
                "value": round(matrix[left][right], 4),
            }
            took = {"duration_ms": round(self._duration(at) * 1000)}
            self._tell(
                at,
                "ahp.comparison.submitted",
                self._whole | {"session_id": session} | here | compared | took,
            )
            if done == len(_PAIRS) // 2:
                self._progress(at, number, 50)
        self._progress(at, number, 100)
        self._tell(
            at + 0.5,
            "ahp.node.completed",
            self._whole | here | {"consistency_ratio": round(consistency(matrix), 4)},
        )
        return at + 1

    def _duration(self, at: float) -> float:
        if self._sloppy:
            return self._roll.uniform(0.15, 0.3)
        took = min(1.7, self._roll.lognormvariate(0, 0.35) * 0.7)
        if self._evaluator.project == "new-office" and SLUGGISH.on(at):
            return took + 2.2
        return took

    def _here(self, number: int) -> dict[str, Any]:
        place = self._weekday * _SITTINGS * _NODES + number
        level = 1 if number < _NODES else 2 if number < 3 * _NODES else 3
        return {"node_id": f"w{self._week}-node-{place + 1:03}", "level": level}

    def _progress(self, at: float, number: int, percent: int) -> None:
        self._tell(at, "ahp.progress.updated", self._who | self._here(number) | {"progress": percent})


def _deadline(project: str, at: float) -> int:
    """When a project should be done, in Unix time, as is said at a time.

    What is not done this week has two more; roadmap alone is hurried.
    """
    monday = at - in_week(at)
    if project == "roadmap" and in_week(at) < HURRIED.end:
        return round(monday + HURRIED.start + DAY)
    return round(monday + 3 * WEEK)


Matrix = list[list[float]]
_STEPS = [1 / 7, 1 / 6, 1 / 5, 1 / 4, 1 / 3, 1 / 2, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
"""Saaty's scale without its ends, which are for those who do not weigh."""


def _considered(roll: random.Random) -> Matrix:
    """How somebody compares who has weights in mind."""
    weights = [math.exp(roll.gauss(0, 0.5)) for _ in range(ITEMS)]

    def said(left: int, right: int) -> float:
        meant = math.log(weights[left] / weights[right]) + roll.gauss(0, 0.3)
        return min(_STEPS, key=lambda step: abs(math.log(step) - meant))

    return _filled(said)


def _careless(roll: random.Random) -> Matrix:
    """How somebody compares who does not look: one end of the scale or the other."""
    return _filled(lambda _left, _right: roll.choice((1 / 9, 9.0)))


def _filled(said: Any) -> Matrix:
    matrix = [[1.0] * ITEMS for _ in range(ITEMS)]
    for left, right in _PAIRS:
        matrix[left][right] = said(left, right)
        matrix[right][left] = 1 / matrix[left][right]
    return matrix


def consistency(matrix: Matrix) -> float:
    """Saaty's consistency ratio of four items, λmax by the row geometric means; 0 is perfect."""
    weights = [math.prod(row) ** (1 / ITEMS) for row in matrix]
    rows = (
        sum(value * weight for value, weight in zip(row, weights, strict=True)) / own
        for row, own in zip(matrix, weights, strict=True)
    )
    largest = sum(rows) / ITEMS
    return max(0.0, (largest - ITEMS) / (ITEMS - 1) / _RANDOM_INDEX)
