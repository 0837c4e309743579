"""Questions and answers in three regions, the rooms in which people talk, and their connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalgauge.core.demo.script import MESSAGES, UNANSWERED
from evalgauge.core.demo.timeline import SLICE, Courses, dice, spread, told
from evalgauge.core.demo.week import AMERICA, EUROPE, HOUR, MINUTE, NIGHT, bustle, busyness

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from evalgauge.core.demo.timeline import Told

REGIONS = {"eu": EUROPE, "us": AMERICA, "apac": EUROPE}
"""Region → where those sit who answer."""
ROOMS = {"general": 5.0, "support": 6.0, "random": 4.0}
"""Messages a minute by day."""
_SOURCE = "/demo/questions"
_URGENT_EVERY = 4
"""Minutes; one in each, since somebody is always in a hurry."""
_STAGES = ((1, 5 * MINUTE), (2, 10 * MINUTE))
"""Who hears of a question that waits so long."""
_LONGEST = UNANSWERED.end - UNANSWERED.start + 20 * MINUTE
_LONGEST_CONNECTION = 3 * HOUR


class Questions:
    """A service for questions and answers; what began before `since` (Unix time) is left out."""

    def __init__(self, seed: int, since: float = 0.0) -> None:
        self._seed = seed
        self._asked = Courses(self._questions, SLICE, _LONGEST, since)
        self._connected = Courses(self._connections, SLICE, _LONGEST_CONNECTION, since)

    def during(self, number: int) -> Iterator[Told]:
        """What people ask, answer and write in one slice."""
        yield from self._asked.during(number)
        yield from self._connected.during(number)
        yield from self._messages(number)

    def _questions(self, number: int) -> Iterator[list[Told]]:
        start = number * SLICE
        for region, zone in REGIONS.items():
            roll = dice("questions", self._seed, region, number)
            for place, at in enumerate(spread(roll, 0.2 + 1.8 * bustle(start, zone), start)):
                yield self._course(roll, at, region, "normal", f"q-{self._seed}-{region}-{number}-{place}")
            block, minute = divmod(number, _URGENT_EVERY)
            if dice("urgent", self._seed, region, block).randrange(_URGENT_EVERY) == minute:
                at = start + roll.uniform(0, SLICE)
                yield self._course(roll, at, region, "urgent", f"q-{self._seed}-{region}-{number}-u")

    @staticmethod
    def _course(roll: random.Random, asked: float, region: str, urgency: str, name: str) -> list[Told]:
        data = {"question_id": name, "region": region}
        if urgency == "urgent" or roll.random() < 0.5:
            data["urgency"] = urgency
        course = [told(asked, f"{name}-c", _SOURCE, "question.created", {**data})]
        answered = asked + _wait(roll, urgency)
        if region == "eu" and UNANSWERED.on(asked):
            end = UNANSWERED.begun(asked) + UNANSWERED.end - UNANSWERED.start
            answered = end + roll.uniform(2, 60 if urgency == "urgent" else 5 * MINUTE)
        for stage, patience in _STAGES:
            if asked + patience < answered:
                passed_on = {"question_id": name, "stage": stage}
                course.append(
                    told(asked + patience, f"{name}-e{stage}", _SOURCE, "question.escalated", passed_on)
                )
        for place in range(roll.choice((1, 1, 1, 2, 3))):
            answer = {"question_id": name, "answer_id": f"{name}-a{place}", "region": region}
            course.append(told(answered, f"{name}-a{place}", _SOURCE, "question.answered", answer))
            answered += roll.expovariate(1 / 120)
        return course

    def _connections(self, number: int) -> Iterator[list[Told]]:
        start = number * SLICE
        roll = dice("connections", self._seed, number)
        for place, at in enumerate(spread(roll, 3 * busyness(start), start)):
            connection = {"connection_id": f"c-{self._seed}-{number}-{place}"}
            name = connection["connection_id"]
            course = [told(at, f"{name}-o", _SOURCE, "connection.opened", connection)]
            if roll.random() > 0.01:  # the others are cut off, and nobody says so
                lasts = min(roll.expovariate(1 / (25 * MINUTE)), _LONGEST_CONNECTION - 5 * MINUTE)
                course.append(told(at + lasts, f"{name}-x", _SOURCE, "connection.closed", connection))
            yield course

    def _messages(self, number: int) -> Iterator[Told]:
        start = number * SLICE
        for room, mean in ROOMS.items():
            roll = dice("messages", self._seed, room, number)
            for place, at in enumerate(spread(roll, 1 + mean * busyness(start), start)):
                # At night, when there are few, none is lost: one would be a tenth of them.
                lost = 0.5 if room == "support" and MESSAGES.on(at) else 0.001 * (busyness(at) > 3 * NIGHT)
                data = {"room": room}
                if (failed := roll.random() < lost) or place % 2:
                    data["status"] = "error" if failed else "ok"
                yield told(at, f"m-{self._seed}-{room}-{number}-{place}", _SOURCE, "message.sent", data)


def _wait(roll: random.Random, urgency: str) -> float:
    """Seconds to the first answer while all is well: well within what the alerts allow."""
    if urgency == "urgent":
        return roll.uniform(4, 25)
    return min(8 * MINUTE, max(8.0, roll.lognormvariate(0, 0.7) * 30))
