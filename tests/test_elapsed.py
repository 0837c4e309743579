"""`elapsed` through the whole engine, against one event after the other."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from evalgauge.core.instruments import keyed_part
from evalgauge.exporters.prometheus import PrometheusExporter
from tests.arrivals import AHEAD, after, courses
from tests.engine_helpers import NOON, Lab, lines, pack_of

PACK = """\
pack: desk
version: 1
title: Desk
events:
  desk.asked:
    description: Somebody asked.
    fields:
      who: {type: string, required: true}
      room: {type: string, required: true, enum: [a, b]}
  desk.answered:
    description: Somebody answered.
    fields: {who: {type: string, required: true}}
  desk.closed:
    description: It was closed without an answer.
    fields: {who: {type: string, required: true}}
  desk.opened:
    description: The desk opened, which is nobody's question.
    fields: {who: {type: string}}
metrics:
  desk_answer_seconds:
    type: elapsed
    help: Time to an answer.
    begin: desk.asked
    end: [desk.answered, desk.closed]
    key: who
    labels: {room: room}
    buckets: [10, 60]
    within: [10, 60]
    lateness: 5
    ttl: 100
    keys: 3
  desk_touches:
    type: counter
    help: Anything at all.
    on: [desk.asked, desk.answered, desk.closed, desk.opened]
"""
DESK = pack_of(PACK)
LIMITS, LATENESS, TTL, KEYS = (10, 60), 5, 100, 3
BEGAN = NOON - 200


class Told(NamedTuple):
    """One event."""

    what: str
    who: str
    room: str
    time: int
    """Seconds after `BEGAN`."""

    def line(self, number: int) -> bytes:
        """It as it comes."""
        data: dict[str, Any] = {"who": self.who}
        if self.what == "asked":
            data["room"] = self.room
        time = datetime.fromtimestamp(BEGAN + self.time, UTC).isoformat()
        one = {"id": str(number), "source": "/s", "type": f"desk.{self.what}", "time": time, "data": data}
        return lines(one)[0] + b"\n"


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Oracle:
    """By the words of the documentation, one event after the other."""

    def __init__(self, every: int = 1 << 16, arrival: float = NOON) -> None:
        """`every`: events after which surplus keys go; `arrival`: when those came that are told next."""
        self.every, self.arrival = every, arrival
        self.clock = float("-inf")
        self.begun: dict[str, tuple[int, str]] = {}
        self.ended: dict[str, int] = {}
        self.settled: set[tuple[str, int]] = set()
        self.found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self.late = self.seen = 0
        self.rooms: set[str] = set()

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Count."""
        key = f"desk_answer_{name}", tuple(sorted(labels.items()))
        self.found[key] = self.found.get(key, 0) + amount

    def settle(self, who: str, limit: int, result: str) -> None:
        """A limit is decided once a key."""
        if (who, limit) not in self.settled:
            self.settled.add((who, limit))
            self.add("limits_total", room=self.begun[who][1], limit=str(limit), result=result)

    def first(self, who: str) -> int:
        """When a key is old from."""
        return self.begun[who][0] if who in self.begun else self.ended[who]

    def rank(self, who: str) -> tuple[bool, int, str]:
        """What goes first where there are too many."""
        return who in self.begun and who not in self.ended, self.first(who), who

    def forget(self, who: str, counter: str) -> None:
        """A key goes."""
        if who in self.begun and who not in self.ended:
            for limit in LIMITS:
                self.settle(who, limit, "missed")
            if counter == "expired_total":
                self.add(counter, room=self.begun[who][1])
        elif who not in self.begun and counter == "expired_total":
            self.add("unmatched_total")
        if counter == "evicted_total":
            self.add(counter)
        self.begun.pop(who, None)
        self.ended.pop(who, None)
        self.settled -= {(who, limit) for limit in LIMITS}

    def pass_time(self) -> None:
        """What time decides."""
        for who in {*self.begun, *self.ended}:
            if self.first(who) + TTL <= self.clock:
                self.forget(who, "expired_total")
            elif who in self.begun and who not in self.ended:
                for limit in LIMITS:
                    if self.begun[who][0] + limit + LATENESS <= self.clock:
                        self.settle(who, limit, "missed")

    def tell(self, one: Told) -> None:
        """One event."""
        self.pass_time()
        arrived = self.arrival - BEGAN
        before, ahead = self.clock, one.time > arrived + AHEAD
        self.clock = before if ahead else max(before, min(one.time, arrived))
        if one.what == "opened":
            return
        if ahead:
            self.late += 1
            return
        if one.time + TTL <= before:
            self.late += 1
        else:
            self.take(one, before)
        if one.what == "asked":
            self.rooms.add(one.room)
        self.seen += 1
        if self.seen % self.every == 0:
            self.pass_time()
            while len(who := {*self.begun, *self.ended}) > KEYS:
                self.forget(min(who, key=self.rank), "evicted_total")

    def take(self, one: Told, before: float) -> None:
        """One event that is in time."""
        paired = one.who in self.begun and one.who in self.ended
        if one.what == "asked":
            self.begun.setdefault(one.who, (one.time, one.room))
        else:
            self.ended.setdefault(one.who, one.time)
        if paired or one.who not in self.begun or one.who not in self.ended:
            return
        time, room = self.begun[one.who]
        took = max(0, self.ended[one.who] - time)
        self.add("seconds_count", room=room)
        self.add("seconds_sum", took, room=room)
        for bound in ("10.0", "60.0", "+Inf"):
            self.add("seconds_bucket", float(took <= float(bound)), room=room, le=bound)
        for limit in LIMITS:
            in_time = one.what == "asked" or before < time + limit + LATENESS
            self.settle(one.who, limit, "met" if took <= limit and in_time else "missed")

    def samples(self) -> Samples:
        """Everything that is not zero, and the age of the oldest."""
        self.pass_time()
        found = {key: value for key, value in self.found.items() if value}
        for who, (time, room) in self.begun.items():
            if who not in self.ended:
                key = ("desk_answer_open", (("room", room),))
                found[key] = found.get(key, 0) + 1
                oldest = ("desk_answer_oldest_open_timestamp_seconds", (("room", room),))
                found[oldest] = min(found.get(oldest, float("inf")), BEGAN + time)
        return found


def samples(bench: Lab) -> Samples:
    """What is exposed of `desk_answer_…` and is not zero."""
    text = PrometheusExporter.render(bench.families()).decode()
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.value and one.name.startswith("desk_answer") and not one.name.endswith("_created")
    }


TIMES = (
    st.integers(0, 60).map(lambda fives: 5 * fives)
    | st.integers(38, 102).map(lambda fives: 5 * fives)
    | st.sampled_from([-86_400, 86_400 * 365])
)
"""Coarse, so that limits are often met to the microsecond; some clocks are ahead, a day late, or ahead by a year."""
EVENTS = st.builds(
    Told,
    st.sampled_from(["asked", "answered", "closed", "opened"]),
    st.sampled_from("vwxyz"),
    st.sampled_from("ab"),
    TIMES,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=60), st.data())
def test_what_is_exposed_is_what_the_events_say_wherever_the_stream_is_cut(
    stream: list[Told], data: st.DataObject
) -> None:
    """In any order, with repeats, wrong clocks, lone ends, ends that never come, too many keys, and restarts."""
    every = data.draw(st.integers(1, 8))
    course = data.draw(courses(len(stream)))
    oracle = Oracle(every)
    for one, oracle.arrival in zip(stream, course.came, strict=True):
        oracle.tell(one)
    told = [one.line(number) for number, one in enumerate(stream)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keyed_part, "BOUND_EVERY", every)
        with tempfile.TemporaryDirectory() as name:
            bench = after(Path(name), DESK, told, course)
            assert samples(bench) == oracle.samples()
            assert bench.value("evalgauge_events_late", "desk_answer_seconds") == oracle.late
            bench.store.close()
