"""Print two hours of a made-up helpdesk as NDJSON, the same each time: `python make_events.py > events.ndjson`."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

BEGIN = datetime(2026, 3, 2, 8, tzinfo=UTC)
Moment = tuple[float, str, dict[str, object]]
"""Seconds after `BEGIN`, event type, data."""


def tickets(rng: random.Random) -> Iterator[Moment]:
    """Forty tickets. One in ten is never answered, and one in eight comes back."""
    for number in range(40):
        team = rng.choice(("billing", "billing", "accounts"))
        about: dict[str, object] = {"team": team, "ticket_id": f"t{number}"}
        at = rng.uniform(0, 5400)
        customer = rng.choice(("ann@example.org", "Ann@Example.org", "bo@example.org", "", None))
        channel = rng.choice(("mail", "chat", "phone"))
        yield (
            at,
            "ticket.opened",
            about
            | {
                "customer": customer,
                "channel": channel,
                "words": rng.randrange(5, 900),
            },
        )
        if number % 10 == 0:
            continue
        for _ in range(1 + (number % 8 == 1)):
            drafted = rng.expovariate(1 / 150)
            sent = drafted + rng.uniform(4, 90)
            yield (
                at + sent,
                "ticket.answered",
                about
                | {
                    "agent_id": rng.choice(("kim", "lee", "mia")),
                    "outcome": rng.choice(("solved", "solved", "solved", "asked_back", "failed")),
                    "drafted_ms": round(drafted * 1000),
                    "sent_ms": round(sent * 1000),
                    "model_cost_usd": round(rng.uniform(0.001, 0.02), 4),
                    "tokens": rng.randrange(500, 4000),
                },
            )
            yield at + sent + 30, "ticket.closed", about
            if number % 8 == 1:
                at += sent + 120
                yield at, "ticket.reopened", about


def flood() -> Iterator[Moment]:
    """A program that answers its own mails."""
    for number in range(6):
        data = {"team": "accounts", "ticket_id": f"f{number}", "channel": "mail", "words": 12}
        yield 3000 + 40 * number, "ticket.opened", data | {"customer": "noreply@example.com"}


def rest(rng: random.Random) -> Iterator[Moment]:
    """The phone's queue, reviews of three replies each, and a rewrite by two writers."""
    for minute in range(0, 120, 10):
        yield 60 * minute, "queue.measured", {"team": "billing", "waiting": rng.randrange(9)}
    for number in range(3):
        review: dict[str, object] = {"team": "billing", "review_id": f"r{number}"}
        for left, right, preference in (("a", "b", 2), ("b", "c", 3), ("a", "c", rng.choice((5, 6, 7)))):
            pair: dict[str, object] = {"left": left, "right": right, "preference": preference}
            yield 1000 * number + 10, "replies.compared", review | pair
        yield 1000 * number + 60, "review.completed", review
    yield 0, "rewrite.announced", {"rewrite_id": "spring", "parts": 8}
    for number in range(14):
        writer = ("pat", "sam")[number // 4 % 2]
        article: dict[str, object] = {
            "rewrite_id": "spring",
            "article_id": f"a{number % 4}",
            "writer_id": writer,
        }
        yield 500 * number + 250, "article.rewritten", article | {"done": 50 + 50 * (number // 8)}


def main() -> None:
    """Write them to standard output, by time."""
    rng = random.Random(7)
    moments = sorted([*tickets(rng), *flood(), *rest(rng)], key=lambda moment: moment[0])
    for number, (seconds, type_, data) in enumerate(moments):
        at = BEGIN + timedelta(milliseconds=round(seconds * 1000))
        event = {
            "specversion": "1.0",
            "id": str(number),
            "source": "/helpdesk",
            "type": f"helpdesk.{type_}",
            "time": at.isoformat(timespec="milliseconds"),
            "data": {key: value for key, value in data.items() if value is not None},
        }
        print(json.dumps(event))


if __name__ == "__main__":
    main()
