"""Places at which a process can be told to die, so that recovery is tested where it is hardest.

`EVALGAUGE_FAILPOINT=commit.inside:3` ends the process with SIGKILL when it reaches that place for the third time.
Without the variable nothing happens.
"""

from __future__ import annotations

import os
import signal

PLACES = ("commit.before", "commit.inside", "commit.after")

_name, _, _count = os.environ.get("EVALGAUGE_FAILPOINT", "").partition(":")
_left = {_name: int(_count or 1)} if _name else {}


def reach(place: str) -> None:
    """Die here if it is time to."""
    if place in _left:
        _left[place] -= 1
        if not _left[place]:
            os.kill(os.getpid(), signal.SIGKILL)
