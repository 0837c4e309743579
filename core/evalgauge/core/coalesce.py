"""Small pushed chunks as one: a batch costs far more than an event, so senders who wait together share one."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from evalgauge.core.collect import Chunk, EventVerdict, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT_BYTES = 512 << 10
"""Bytes of chunks that are worked on as one at most."""


def coalesced(chunks: Sequence[Chunk]) -> Chunk:
    """One chunk for several of one input and one tenant, all of bytes; each still gets its own verdict."""
    if len(chunks) == 1:
        return chunks[0]
    bodies = []
    firsts = [0]
    for chunk in chunks:
        assert isinstance(chunk.body, bytes)  # noqa: S101 - for the type checker, and against a fault of the caller
        body = chunk.body if chunk.body.endswith(b"\n") else chunk.body + b"\n"
        bodies.append(body)
        firsts.append(firsts[-1] + body.count(b"\n"))
    starts = firsts[:-1]

    def locate(line: int) -> str:
        place = bisect_right(starts, line) - 1
        return chunks[place].locate(line - starts[place])

    def acknowledge(verdict: Verdict) -> None:
        shares = _shares(verdict, bodies, firsts)
        for chunk, share in zip(chunks, shares, strict=True):
            if chunk.acknowledge is not None:
                chunk.acknowledge(share)

    last = chunks[-1]
    return Chunk(
        last.partition,
        b"".join(bodies),
        locate,
        tenant=last.tenant,
        arrival=last.arrival,
        acknowledge=acknowledge,
    )


def _shares(verdict: Verdict, bodies: Sequence[bytes], firsts: Sequence[int]) -> list[Verdict]:
    """What became of each body."""
    if verdict.error:
        return [verdict] * len(bodies)
    exceptions: list[list[EventVerdict]] = [[] for _ in bodies]
    for one in verdict.exceptions:
        place = bisect_right(firsts, one.line) - 1
        exceptions[place].append(one._replace(line=one.line - firsts[place]))
    blank = verdict.received != firsts[-1]
    shares = []
    for place, body in enumerate(bodies):
        received = firsts[place + 1] - firsts[place]
        if blank:
            received = sum(bool(line.strip(b" \t\r")) for line in body.split(b"\n"))
        own = exceptions[place]
        duplicate = sum(one.status == "duplicate" for one in own)
        rejected = sum(one.status == "rejected" for one in own)
        shares.append(Verdict(received, received - len(own), duplicate, rejected, tuple(own)))
    return shares
