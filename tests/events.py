"""Seeded events of the built-in packs: ordinary ones, and now and then what tries the edges of a schema."""

from __future__ import annotations

import itertools
import json
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Event = dict[str, Any]

TENANTS = ("acme", "globex", 'q"uo\\te', "кот", "new\nline")
_EDGES_MS = (0, 50, 50.0, 100, 250, 500, 1000, 2500, 5000, 5000.000001, 10000, 30000, 0.1, 1e-7, 3.3e-310)
_ODD_MS = (-5, -0.0, 30000.5, 45000, 5e6)
_EDGES_CONFIDENCE = (0, 0.1, 0.5, 0.95, 0.99, 1, 1.0, 1.25, -0.1, 5e-324)
_SCORES = (
    ("helpfulness", 5),
    ("toxicity", -1),
    ("elo", 1024.5),
    (None, 0.3),
    ("helpfulness", 4.7),
    ("toxicity", -0.25),
)
_EMPTY: tuple[Any, ...] = (None, "", {}, [])


def judgments(
    seed: object,
    *,
    prefix: str = "j",
    tenants: Sequence[str] = TENANTS,
    births: int = 0,
) -> Iterator[Event]:
    """Judgment events without end, all of them accepted by pack `judgment`, the same for the same seed.

    With `births`, a new tenant appears after each so many events.
    """
    rng = random.Random(f"judgments {seed}")  # noqa: S311 - reproducible, no secret
    for number in itertools.count():
        pool = tenants if not births else (*tenants, f"born-{number // births}")
        yield _event(f"{prefix}-{number}", f"/engine/{seed}", "judgment.executed", _judgment(rng, pool))


def _judgment(rng: random.Random, tenants: Sequence[str]) -> Event:
    data: Event = {
        "tenant_id": rng.choice(tenants),
        "workflow_id": f"flow-{rng.randrange(2)}",
        "method_used": rng.choice(("rule", "llm", "hybrid")),
        "status": rng.choices(("success", "error", "timeout"), (90, 7, 3))[0],
        "input_data": {"text": 'Is this [all] right? {"no"}'},
        "final_result": rng.choice(("yes", ["no"], {"answer": 1}, False, 0)),
        "confidence_score": round(rng.random(), rng.randrange(2, 17)),
        "execution_time_ms": rng.choice((rng.randrange(1, 9000), rng.lognormvariate(6, 1.5))),
        "unknown_field": "passed over",
    }
    odd = rng.random()
    if odd < 0.05:
        data["execution_time_ms"] = rng.choice(_EDGES_MS)
        data["confidence_score"] = rng.choice(_EDGES_CONFIDENCE)
    elif odd < 0.07:
        data["execution_time_ms"] = rng.choice(_ODD_MS)
    elif odd < 0.10:
        del data[rng.choice(("execution_time_ms", "confidence_score", "input_data"))]
    elif odd < 0.13:
        data[rng.choice(("input_data", "final_result"))] = rng.choice(_EMPTY)
    if rng.random() < 0.3:
        name, score = rng.choice(_SCORES)
        data |= {"score": score} if name is None else {"score": score, "score_name": name}
    return data


def comparisons(seed: object, *, prefix: str = "a", projects: int = 4) -> Iterator[Event]:
    """AHP events without end, all of them accepted by pack `ahp`: comparisons, and nodes and evaluations between."""
    rng = random.Random(f"comparisons {seed}")  # noqa: S311 - reproducible, no secret
    for number in itertools.count():
        data: Event = {
            "project_id": f"project-{rng.randrange(projects)}",
            "evaluation_id": f"evaluation-{rng.randrange(10)}",
            "evaluator_id": f"evaluator-{rng.randrange(20)}",
            "node_id": f"node-{rng.randrange(12)}",
            "level": rng.randrange(4),
        }
        kind = rng.random()
        if kind < 0.8:
            type_ = "ahp.comparison.submitted"
            data |= {
                "value": rng.choice((1 / 9, 1 / 3, 1, 3, 5, 9, 10)),
                "duration_ms": rng.lognormvariate(7, 1),
            }
        elif kind < 0.95:
            type_ = "ahp.node.completed"
            data |= {"consistency_ratio": rng.random() / 4}
        else:
            type_ = "ahp.evaluation.completed"
            data |= {"total_time_ms": rng.randrange(1, 10**7)}
        yield _event(f"{prefix}-{number}", f"/ahp/{seed}", type_, data)


def _event(identity: str, source: str, type_: str, data: Event) -> Event:
    return {"specversion": "1.0", "id": identity, "source": source, "type": type_, "data": data}


def at(event: Event, unix_time: float) -> Event:
    """The same event with a time."""
    return event | {"time": datetime.fromtimestamp(unix_time, UTC).isoformat()}


def line(event: Event) -> bytes:
    """One event as a line of NDJSON."""
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def lines(events: Iterable[Event]) -> bytes:
    """Events as NDJSON."""
    return b"".join(map(line, events))
