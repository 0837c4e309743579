"""Weekday and hour of event times in a time zone, as labels show them."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Part = Literal["weekday", "hour"]
NAMES: dict[str, tuple[str, ...]] = {
    "weekday": ("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
    "hour": tuple(f"{hour:02}" for hour in range(24)),
}
"""Label values, in order of their codes."""
_QUARTER = 900
"""Seconds; no zone changes its offset in between."""
_MICROSECONDS = 1_000_000


@lru_cache(1 << 16)
def _offset(zone: str, quarter: int) -> int:
    """Seconds east of UTC."""
    try:
        offset = datetime.fromtimestamp(quarter * _QUARTER, ZoneInfo(zone)).utcoffset()
    except (OverflowError, ValueError):  # at either end of what a date can be
        return 0
    return 0 if offset is None else round(offset.total_seconds())


def calendar_codes(times: NDArray[np.int64], part: Part, zone: str) -> NDArray[np.intp]:
    """Place in `NAMES` (n,) of times (n,) in microseconds since 1970. Raises ZoneInfoNotFoundError."""
    seconds = times // _MICROSECONDS
    quarters, places = np.unique(seconds // _QUARTER, return_inverse=True)
    offsets = np.array([_offset(zone, quarter) for quarter in quarters.tolist()], np.int64)
    local = seconds + offsets[places]
    # The first of January 1970 was a Thursday.
    found = local // 3600 % 24 if part == "hour" else (local // 86_400 + 3) % 7
    return found.astype(np.intp)
