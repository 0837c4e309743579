"""Pairwise-comparison evaluations: evaluators begin, compare item by item, finish nodes, and mostly come to an end."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from evalgauge.core.demo.timeline import SLICE, dice

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECTS = {"new-office": 4, "supplier-choice": 3, "roadmap": 2}
"""Project → weight."""
EVALUATORS = 12
SCALE = (1 / 9, 1 / 7, 1 / 5, 1 / 3, 1, 3, 5, 7, 9)
LONGEST = 45.0
"""Seconds that an evaluation takes at most; a demo has no hours."""
_KEPT = 512

Course = list[tuple[float, dict[str, Any]]]


class Evaluations:
    """Evaluations that begin `rate` times a second; each one's whole course follows from its number."""

    def __init__(self, seed: int, rate: float) -> None:
        self._seed = seed
        self._every = 1 / rate
        self._courses: OrderedDict[int, Course] = OrderedDict()

    def during(self, number: int) -> Iterator[tuple[float, dict[str, Any]]]:
        """What the evaluations that are under way do in one slice."""
        start, end = number * SLICE, (number + 1) * SLICE
        first = max(0, int((start - LONGEST) / self._every))
        for which in range(first, int(end / self._every) + 1):
            course = self._course(which)
            for at, event in course[bisect.bisect_left(course, start, key=lambda one: one[0]) :]:
                if at >= end:
                    break
                yield at, event

    def _course(self, which: int) -> Course:
        course = self._courses.get(which)
        if course is None:
            course = self._courses[which] = self._drawn(which)
            if len(self._courses) > _KEPT:
                self._courses.popitem(last=False)
        return course

    def _drawn(self, which: int) -> Course:
        roll = dice("evaluations", self._seed, which)
        begun = (which + 0.8 * roll.random()) * self._every
        at = begun
        project = roll.choices([*PROJECTS], [*PROJECTS.values()])[0]
        who = {"project_id": project, "evaluator_id": f"evaluator-{roll.randrange(EVALUATORS) + 1:02}"}
        session = {"session_id": f"s-{self._seed}-{which}"}
        whole = who | {"evaluation_id": f"e-{self._seed}-{which}"}
        course: Course = []

        def tell(type_: str, data: dict[str, Any]) -> None:
            identity = f"a-{self._seed}-{which}-{len(course)}"
            envelope = {"specversion": "1.0", "id": identity, "source": "/demo/evaluations", "type": type_}
            course.append((at, envelope | {"data": data}))

        nodes = roll.randint(2, 5)
        gives_up = roll.random() < 0.15
        careless = roll.random() < 0.2
        pace = roll.uniform(0.3, 1.6)
        tell("ahp.session.started", who | session)
        tell("ahp.evaluation.started", whole | {"comparisons_expected": nodes * 3})
        for node in range(nodes):
            here = {"node_id": f"node-{node + 1}", "level": 1 if node == 0 else 2}
            for place in range(3):
                took = roll.lognormvariate(0, 0.4) * pace
                at = min(at + took, begun + LONGEST - 1)
                value = 12 if roll.random() < 0.01 else round(roll.choice(SCALE), 4)
                compared = {"left": f"item-{place + 1}", "right": f"item-{place + 2}", "value": value}
                tell(
                    "ahp.comparison.submitted",
                    whole | session | here | compared | {"duration_ms": round(took * 1000)},
                )
            tell("ahp.progress.updated", who | here | {"progress": 100})
            ratio = abs(roll.gauss(0.16 if careless else 0.06, 0.04))
            tell("ahp.node.completed", whole | here | {"consistency_ratio": round(ratio, 4)})
            if gives_up and node:
                break
        else:
            # Shown as if a second of the demo were a minute of somebody's day.
            tell("ahp.evaluation.completed", whole | {"total_time_ms": round((at - begun) * 60_000)})
        tell("ahp.session.ended", who | session)
        return course
