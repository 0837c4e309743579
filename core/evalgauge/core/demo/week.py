"""A week of people at work: who has a shift when, and how much goes on."""

from __future__ import annotations

from datetime import time
from typing import NamedTuple

MINUTE, HOUR, DAY, WEEK = 60, 3_600, 86_400, 604_800
_MONDAY = 4 * DAY
"""1970-01-05, the first Monday of Unix time."""
NIGHT = 0.12
"""What is left of a working day's bustle at night and at weekends."""


class Zone(NamedTuple):
    """Where people work from nine to five, Monday to Friday, without summer time."""

    name: str
    offset: int
    """Seconds that its clocks are ahead of UTC."""


EUROPE = Zone("europe", 1 * HOUR)
AMERICA = Zone("america", -5 * HOUR)
SHIFT = (9 * HOUR, 17 * HOUR)
"""Local time of day."""


def in_week(at: float) -> float:
    """Seconds since Monday 00:00 UTC."""
    return (at - _MONDAY) % WEEK


def week_of(at: float) -> int:
    """Number of the week."""
    return int((at - _MONDAY) // WEEK)


def bustle(at: float, zone: Zone) -> float:
    """How much goes on in a zone: up to 1 in the middle of a shift, `NIGHT` at night; weekends are quieter."""
    local = in_week(at + zone.offset)
    hours = local % DAY / HOUR
    if not SHIFT[0] / HOUR - 1 < hours < SHIFT[1] / HOUR + 1:
        return NIGHT
    # It takes an hour to get going, an hour to stop, and there is a lull at one.
    edge = min(1.0, (hours - 8) / 2, (18 - hours) / 2)
    lunch = 0.25 * max(0.0, 1 - abs(hours - 13))
    return max(NIGHT, (edge - lunch) * (1.0 if local < 5 * DAY else 0.25))


def busyness(at: float) -> float:
    """Both zones together, `NIGHT` to 1."""
    return max(NIGHT, min(1.0, 0.65 * bustle(at, EUROPE) + 0.45 * bustle(at, AMERICA)))


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def moment(seconds: float) -> str:
    """A time of the week as people say it: `Tue 10:30`."""
    day, rest = divmod(int(seconds), DAY)
    return f"{_DAYS[day]} {rest // HOUR:02}:{rest % HOUR // MINUTE:02}"


def seconds_of(text: str) -> int:
    """Seconds since Monday 00:00 of a time of the week, as `Tue 10:30` or `Tue 10:30:15`.

    Raises `ValueError` for anything else.
    """
    day, _, clock = text.partition(" ")
    when = time.fromisoformat(clock)
    if when.tzinfo or when.microsecond:
        raise ValueError("a time of the week has neither a zone nor parts of a second")
    return _DAYS.index(day) * DAY + when.hour * HOUR + when.minute * MINUTE + when.second
