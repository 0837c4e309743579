"""What a push door answers: counts, verdicts for single events, and how to go on when nothing was taken."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from evalgauge.core.collect import EventVerdict, Verdict
from evalgauge.core.event import Reason
from evalgauge.core.web import Refused, problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from evalgauge.collectors.cloudevents_http import Lines

SHOWN = 5
"""Refused events that every answer names; `Prefer: return=representation` names all events."""

SMALL = 1000
"""Events up to which an answer is put together in the event loop."""


def answer(lines: Lines, verdict: Verdict, prefer: str | None) -> web.Response:
    """Answer a request whose events are durable or refused. `prefer` is its header `Prefer`."""
    if prefer is None and not verdict.rejected:
        counts = b'{"received":%d,"accepted":%d,"duplicate":%d,"rejected":0}'
        body = counts % (verdict.received, verdict.accepted, verdict.duplicate)
        return web.Response(status=HTTPStatus.ACCEPTED, body=body, content_type="application/json")
    wish = preferred(prefer or "")
    members: dict[str, Any] = {
        "received": verdict.received,
        "accepted": verdict.accepted,
        "duplicate": verdict.duplicate,
        "rejected": verdict.rejected,
    }
    rejected = [one for one in verdict.exceptions if one.status == "rejected"]
    if rejected and wish != "minimal":
        members["refusals"] = [_shown(one) for one in rejected[:SHOWN]]
    if wish == "representation":
        members["events"] = _events(lines, verdict)
    headers = {"Preference-Applied": f"return={wish}"} if wish else {}
    if verdict.received and verdict.rejected == verdict.received:
        foreign = all(one.reason is Reason.FOREIGN_TENANT for one in rejected)
        status = HTTPStatus.FORBIDDEN if foreign else HTTPStatus.BAD_REQUEST
        title = "The token is for another tenant" if foreign else "Every event was refused"
        return problem(status, title, "Sending them again would not help.", headers=headers, **members)
    body = msgspec.json.encode(members)
    return web.Response(
        status=HTTPStatus.ACCEPTED, body=body, headers=headers, content_type="application/json"
    )


def preferred(header: str) -> str:
    """Read `return=representation` or `return=minimal` out of a `Prefer` header (RFC 7240); else ""."""
    for preference in header.split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        wish = value.strip().strip('"').lower()
        if name.strip().lower() == "return" and wish in {"representation", "minimal"}:
            return wish
    return ""


def _events(lines: Lines, verdict: Verdict) -> list[dict[str, Any]]:
    """What became of each event, in their order; `index` counts lines or items from 0."""
    indexes: Iterable[int] = range(lines.lines)
    if verdict.received != lines.lines:
        indexes = [index for index, line in enumerate(lines.body.split(b"\n")) if line.strip(b" \t\r")]
    exceptions = {one.line: one for one in verdict.exceptions}
    return [
        _shown(exceptions[index]) if index in exceptions else {"index": index, "status": "accepted"}
        for index in indexes
    ]


def _shown(one: EventVerdict) -> dict[str, Any]:
    shown: dict[str, Any] = {"index": one.line, "status": one.status}
    if one.reason is not None:
        shown["reason"] = one.reason.value
    if one.detail:
        shown["detail"] = one.detail
    return shown


def merged(verdicts: Sequence[tuple[int, Verdict]]) -> Verdict:
    """Make one verdict of those of a request's chunks, each with the number of its first line."""
    return Verdict(
        received=sum(verdict.received for _, verdict in verdicts),
        accepted=sum(verdict.accepted for _, verdict in verdicts),
        duplicate=sum(verdict.duplicate for _, verdict in verdicts),
        rejected=sum(verdict.rejected for _, verdict in verdicts),
        exceptions=tuple(
            EventVerdict(first + one.line, one.status, one.reason, one.detail)
            for first, verdict in verdicts
            for one in verdict.exceptions
        ),
        error="; ".join(dict.fromkeys(verdict.error for _, verdict in verdicts if verdict.error)),
    )


def unavailable(title: str, detail: str, retry_after: float) -> Refused:
    """Make the answer 503: nothing is wrong with the request, send it again after so many seconds."""
    headers = {"Retry-After": str(max(1, math.ceil(retry_after)))}
    return Refused(problem(HTTPStatus.SERVICE_UNAVAILABLE, title, detail, headers=headers))
