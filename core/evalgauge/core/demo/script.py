"""What goes wrong in a demo's week, as data: when, for whom, and which alerts must say so, within which time.

Everything else keeps every alert of every pack quiet, but for notices, which tell what is meant to happen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evalgauge.core.demo.week import DAY, HOUR, MINUTE, WEEK, in_week

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TUESDAY = 1 * DAY
NOTICES = frozenset({"EvaluationComplete"})
"""Alerts that tell of what is meant to happen, and so come every day."""


@dataclass(frozen=True, slots=True)
class Expected:
    """An alert that must fire."""

    alert: str
    within: float
    """Seconds from the incident's start after which it fires at the latest, with a scrape and a look each 30 s."""
    gone: float | None
    """Seconds from the incident's end after which it fires no more; None where it stands until somebody acts."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Those that say for whom; others may be there."""


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that goes wrong once a week."""

    name: str
    title: str
    pack: str
    start: float
    """Seconds since Monday 00:00 UTC."""
    end: float
    alerts: tuple[Expected, ...]

    def on(self, at: float) -> bool:
        """Whether it is going on at a Unix time."""
        return self.start <= in_week(at) < self.end

    def begun(self, at: float) -> float:
        """Unix time of its start in the week of `at`."""
        return at - in_week(at) + self.start


def _incident(
    name: str, title: str, pack: str, start: tuple[int, int], minutes: float, *alerts: Expected
) -> Incident:
    begin = _TUESDAY + start[0] * HOUR + start[1] * MINUTE
    return Incident(name, title, pack, begin, begin + minutes * MINUTE, alerts)


JUDGE = _incident(
    "judge",
    "the language model that judges acme's claims is slow and times out",
    "judgment",
    (10, 0),
    90,
    Expected("JudgmentsSlow", 5 * MINUTE, 7 * MINUTE, {"tenant": "acme", "workflow": "claims"}),
    # A judgment that times out took longer than one may, so its record is invalid too.
    Expected("JudgmentRecordsInvalid", 5 * MINUTE, 17 * MINUTE, {"tenant": "acme"}),
    Expected("JudgmentRecordsUnreliable", 8 * MINUTE, 16 * MINUTE, {"tenant": "acme"}),
    Expected("JudgmentErrorBudgetBurn1h", 30 * MINUTE, 7 * MINUTE, {"tenant": "acme"}),
    Expected("JudgmentErrorBudgetBurn6h", 55 * MINUTE, 32 * MINUTE, {"tenant": "acme"}),
    Expected("JudgmentErrorBudgetBurn1d", 80 * MINUTE, 125 * MINUTE, {"tenant": "acme"}),
    Expected("JudgmentErrorBudgetBurn3d", 80 * MINUTE, 370 * MINUTE, {"tenant": "acme"}),
)
RELEASE = _incident(
    "release",
    "a release for birch leaves out one verdict in fourteen",
    "judgment",
    (12, 30),
    40,
    Expected("JudgmentRecordsInvalid", 20 * MINUTE, 17 * MINUTE, {"tenant": "birch"}),
)
STANDSTILL = _incident(
    "standstill",
    "nothing feeds cobalt's workflows",
    "judgment",
    (10, 40),
    30,
    # It makes 22 a minute. Half an hour's mean is below ten 17 minutes after it stops: whoever makes few for so long is
    # taken to be idle on purpose, so it ends by itself.
    Expected("JudgmentThroughputLow", 4 * MINUTE, 0, {"tenant": "cobalt"}),
)
UNANSWERED = _incident(
    "unanswered",
    "nobody answers questions of region eu",
    "qna",
    (10, 20),
    40,
    Expected("SlowUrgentResponse", 10 * MINUTE, 3 * MINUTE, {"region": "eu", "urgency": "urgent"}),
    Expected("SlowResponse", 13 * MINUTE, 10 * MINUTE, {"region": "eu", "urgency": "normal"}),
    # Of those who asked, nobody has an answer within ten minutes; half of them should have one within one minute, and
    # three in four within five, which is too little to ask for that forty minutes of a day matter.
    Expected("QuestionsErrorBudgetBurn1h", 25 * MINUTE, 14 * MINUTE, {"region": "eu", "limit": "600"}),
    Expected("QuestionsErrorBudgetBurn6h", 35 * MINUTE, 40 * MINUTE, {"region": "eu", "limit": "600"}),
    Expected("QuestionsErrorBudgetBurn1d", 50 * MINUTE, 130 * MINUTE, {"region": "eu", "limit": "600"}),
    Expected("QuestionsErrorBudgetBurn3d", 40 * MINUTE, 375 * MINUTE, {"region": "eu", "limit": "600"}),
)
MESSAGES = _incident(
    "messages",
    "every other message to room support is lost",
    "qna",
    (10, 30),
    30,
    Expected("MessagesLost", 9 * MINUTE, 6 * MINUTE, {"room": "support"}),
)
SLOPPY = _incident(
    "sloppy",
    "an evaluator of supplier-choice clicks through the comparisons",
    "ahp",
    (13, 0),
    10,
    Expected(
        "HighAnomaly",
        3 * MINUTE,
        5 * MINUTE,
        {"project": "supplier-choice", "evaluator": "evaluator-99", "anomaly": "rapid_submission"},
    ),
    Expected(
        "HighAnomaly",
        3 * MINUTE,
        5 * MINUTE,
        {"project": "supplier-choice", "evaluator": "evaluator-99", "anomaly": "extreme_values"},
    ),
    # It is the mean of all nodes that were ever finished: it stands until somebody revises them.
    Expected("HighInconsistencyRate", 14 * MINUTE, None, {"project": "supplier-choice"}),
)
HURRIED = _incident(
    "hurried",
    "the deadline of roadmap is a day ahead and much is left to do, until it is put off",
    "ahp",
    (11, 30),
    150,
    # It is put off by the first evaluation in America.
    Expected("DeadlineNear", 2 * MINUTE, 28 * MINUTE, {"project": "roadmap"}),
)
SLUGGISH = _incident(
    "sluggish",
    "the application in which new-office is evaluated is slow",
    "ahp",
    (14, 30),
    45,
    Expected("SlowResponseTime", 18 * MINUTE, 8 * MINUTE, {"project": "new-office"}),
)
OVERLOADED = _incident(
    "overloaded",
    "host db-1 is at the limits of its processors and its memory",
    "server",
    (10, 10),
    40,
    Expected("ServerOverloaded", 3 * MINUTE, 8 * MINUTE, {"host": "db-1"}),
    Expected("ServerCpuExhausted", 3 * MINUTE, 8 * MINUTE, {"host": "db-1"}),
)
SWAPPING = _incident(
    "swapping",
    "host web-3 is short of memory, and busy with that",
    "server",
    (12, 0),
    20,
    Expected("ServerOverloaded", 3 * MINUTE, 8 * MINUTE, {"host": "web-3"}),
)
CUT_OFF = _incident(
    "cut-off",
    "host web-2 is cut off from the network",
    "server",
    (10, 50),
    30,
    Expected("ServerSilent", 6 * MINUTE, 2 * MINUTE, {"host": "web-2"}),
)
PAYMENTS = _incident(
    "payments",
    "nine in ten payments from checkout-eu fail",
    "stream",
    (10, 15),
    30,
    Expected("StreamErrors", 8 * MINUTE, 6 * MINUTE, {"type": "payment.taken"}),
    Expected("StreamErrorBurst", 3 * MINUTE, 6 * MINUTE, {"source": "checkout-eu"}),
    Expected("StreamAnomalyCritical", 4 * MINUTE, 0, {"type": "payment_gap"}),
    Expected("StreamAnomalyHigh", 2 * MINUTE, 6 * MINUTE, {"type": "payment_gap"}),
    Expected("StreamAnomalyBurst", 6 * MINUTE, 6 * MINUTE, {"type": "payment_gap"}),
)

SCRIPT = (
    JUDGE,
    RELEASE,
    STANDSTILL,
    UNANSWERED,
    MESSAGES,
    SLOPPY,
    HURRIED,
    SLUGGISH,
    OVERLOADED,
    SWAPPING,
    CUT_OFF,
    PAYMENTS,
)


def going_on(at: float) -> Iterator[Incident]:
    """What goes wrong at a Unix time."""
    return (one for one in SCRIPT if one.on(at))


def drift(at: float) -> float:
    """How far birch's judge of gradings has drifted: 0 on Monday, 1 at the end of the week, when it is set right.

    No threshold of any pack sees it: it is too slow.
    """
    return in_week(at) / WEEK
