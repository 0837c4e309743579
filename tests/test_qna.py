"""Pack `qna`: shares of questions that are answered in time, where some never are."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from evalgauge.core.pack.loader import load_pack
from tests.engine_helpers import NOON, Lab, event, lines

if TYPE_CHECKING:
    from pathlib import Path

LIMITS = (60, 300, 600)
BEGAN = NOON - 7_200


@pytest.mark.parametrize("seed", range(3))
def test_shares_count_those_that_are_never_answered(tmp_path: Path, seed: int) -> None:
    """20 % get no answer; some get several, of which the first counts; all comes in the order of its time."""
    dice = random.Random(seed)  # noqa: S311 - the same at every run
    told: list[tuple[float, str, str]] = []
    met = dict.fromkeys(LIMITS, 0)
    for number in range(1_000):
        asked = dice.uniform(0, 5_000)
        told.append((asked, "question.created", f"q{number}"))
        if dice.random() < 0.8:
            waits = sorted(dice.expovariate(1 / 200) for _ in range(dice.choice((1, 1, 3))))
            told += [(asked + wait, "question.answered", f"q{number}") for wait in waits]
            for limit in LIMITS:
                # As the instrument sees it: to the microsecond.
                met[limit] += round((asked + waits[0]) * 1e6) - round(asked * 1e6) <= limit * 1_000_000
    told.append((7_000, "message.sent", ""))  # long after the last limit
    stream = [
        event(
            number,
            type_,
            time=iso(seconds),
            **({"question_id": question} if question else {"room": "r"}),
        )
        for number, (seconds, type_, question) in enumerate(sorted(told))
    ]
    with Lab(tmp_path, packs=[load_pack("qna").pack]) as bench:
        for first in range(0, len(stream), 97):
            bench.feed(b"".join(line + b"\n" for line in lines(*stream[first : first + 97])))
            bench.engine.commit()
        for limit in LIMITS:
            counts = [
                bench.value("qna_answer_limits", "", "normal", str(limit), result)
                for result in ("met", "missed")
            ]
            assert counts == [met[limit], 1_000 - met[limit]], limit


def test_a_stage_beyond_the_tenth_counts_as_later(tmp_path: Path) -> None:
    """The event is not refused for it, and the label stays bounded."""
    with Lab(tmp_path, packs=[load_pack("qna").pack]) as bench:
        bench.put(
            *(
                event(number, "question.escalated", time=iso(number), question_id="q", stage=stage)
                for number, stage in enumerate([0, 9, 10, 1_000])
            )
        )
        assert [bench.value("qna_escalations", stage) for stage in ("0", "9", "later")] == [1, 1, 2]
        assert not [*bench.letters()]


def test_a_phone_whose_clock_is_ahead_makes_no_question_missed(tmp_path: Path) -> None:
    """Each is answered after 20 s, while one sender's messages say that it is four minutes later."""
    with Lab(tmp_path, packs=[load_pack("qna").pack]) as bench:
        for number in range(50):
            at = 30.0 * number
            bench.put(
                event(f"q{number}", "question.created", time=iso(at), question_id=f"q{number}"),
                event(f"m{number}", "message.sent", time=iso(at + 240), room="r"),
                arrival=BEGAN + at,
            )
            bench.put(
                event(f"a{number}", "question.answered", time=iso(at + 20), question_id=f"q{number}"),
                arrival=BEGAN + at + 20,
            )
        for limit in LIMITS:
            counts = [
                bench.value("qna_answer_limits", "", "normal", str(limit), result)
                for result in ("met", "missed")
            ]
            assert counts == [50, 0], limit
        assert not [key for key in bench.counted() if key[0] == "evalgauge_events_late"]


def iso(seconds: float) -> str:
    """A time after `BEGAN`, to the microsecond."""
    micros = round(BEGAN * 1e6) + round(seconds * 1e6)
    return (
        datetime.fromtimestamp(micros // 1_000_000, UTC).replace(microsecond=micros % 1_000_000).isoformat()
    )
