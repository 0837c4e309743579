"""Hosts that measure themselves: busy by day, now and then at their limits, and silent when they are cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from evalgauge.core.demo.script import CUT_OFF, OVERLOADED, SWAPPING
from evalgauge.core.demo.timeline import SLICE, dice, told
from evalgauge.core.demo.week import DAY, HOUR, busyness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evalgauge.core.demo.timeline import Told

EVERY = 30
"""Seconds between two samples of a host."""
_SOURCE = "/demo/servers"


class Host(NamedTuple):
    """How busy a host is: at night, and how much more by day; in percent."""

    cpu: float
    more: float
    memory: float
    connections: int


HOSTS = {
    "web-1": Host(12, 40, 48, 400),
    "web-2": Host(12, 42, 50, 420),
    "web-3": Host(11, 38, 52, 380),
    "db-1": Host(20, 35, 62, 120),
    "db-2": Host(8, 12, 58, 40),
    "batch-1": Host(35, 25, 40, 10),
}


class Servers:
    """The hosts of a small company."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def during(self, number: int) -> Iterator[Told]:
        """What hosts report in one slice."""
        start = number * SLICE
        for place, (name, host) in enumerate(HOSTS.items()):
            if name == "web-2" and CUT_OFF.on(start):
                continue
            roll = dice("servers", self._seed, name, number)
            for at in range(start, start + SLICE, EVERY):
                busy = busyness(at)
                cpu = host.cpu + host.more * busy + roll.gauss(0, 3)
                # Backups at two in the morning, and memory that grows until the nightly restart.
                cpu += 15 * (name == "db-2" and at % DAY // HOUR == 2)
                memory = host.memory + 8 * (at % DAY) / DAY + roll.gauss(0, 1)
                if name == "db-1" and OVERLOADED.on(at):
                    cpu, memory = roll.uniform(94, 99), roll.uniform(86, 93)
                if name == "web-3" and SWAPPING.on(at):
                    cpu, memory = roll.uniform(86, 89), roll.uniform(88, 96)
                moved = host.connections * busy * roll.uniform(4e3, 6e3)
                data = {
                    "host": name,
                    "cpu": round(min(100.0, max(1.0, cpu)), 1),
                    "memory": round(memory, 1),
                    "disk": round(40 + 3 * place + 10 * (at % (7 * DAY)) / (7 * DAY), 2),
                    "network_in_bytes": round(moved),
                    "network_out_bytes": round(moved * roll.uniform(3, 9)),
                    "connections": round(host.connections * busy * roll.uniform(0.9, 1.1)),
                }
                when = at + place + roll.random()
                yield told(when, f"h-{self._seed}-{name}-{at}", _SOURCE, "server.sampled", data)
