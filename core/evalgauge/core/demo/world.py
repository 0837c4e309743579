"""The whole made-up world: who does what for which pack."""

from __future__ import annotations

from evalgauge.core.demo.evaluations import Evaluations
from evalgauge.core.demo.judgments import Judgments
from evalgauge.core.demo.questions import Questions
from evalgauge.core.demo.servers import Servers
from evalgauge.core.demo.streams import Streams
from evalgauge.core.demo.timeline import Timeline

PACKS = ("judgment", "ahp", "qna", "stream", "server")
"""Built-in packs whose events it has."""


def world(seed: int, since: float, rate: float = 1.0, ahead: int = 0) -> Timeline:
    """Everything that happens from `since` (Unix time) on; `rate` is how many times as many judgments are made.

    The world's clock is `ahead` seconds ahead of the real one: it can be its Tuesday on any day.
    """
    begun = since + ahead
    return Timeline(
        Judgments(seed, rate),
        Evaluations(seed, begun),
        Questions(seed, begun),
        Streams(seed),
        Servers(seed),
        ahead=ahead,
    )
