"""Flight recorder: a few words in a mapped file that tell, after a process died, what it was doing.

The file is shared memory of the page cache, so a SIGKILL loses nothing of it and a write costs no system call.
"""

from __future__ import annotations

import mmap
import os
import struct
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

FILE = "flight"
_FORM = struct.Struct("<8sqqqq")
_MAGIC = b"evgaflt1"


class Phase(IntEnum):
    """What the engine is at."""

    ENDED = 0
    IDLE = 1
    WORKING = 2
    COMMITTING = 3
    COMMITTED = 4
    """The commit is durable, but not shown and acknowledged yet."""


class Record(NamedTuple):
    """The last words of a process."""

    pid: int
    phase: Phase
    uncommitted: int
    """Events taken in and not durable yet."""
    commits: int


class FlightRecorder:
    """Writes the record of this process."""

    def __init__(self, folder: Path) -> None:
        with (folder / FILE).open("w+b") as file:
            file.truncate(mmap.PAGESIZE)
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self._commits = 0
        self.note(Phase.IDLE, 0)

    def note(self, phase: Phase, uncommitted: int) -> None:
        """What the engine is at, and how many events are not durable yet."""
        if phase is Phase.COMMITTED:
            self._commits += 1
        _FORM.pack_into(self._map, 0, _MAGIC, os.getpid(), phase, uncommitted, self._commits)

    def close(self) -> None:
        """The process ends as it should."""
        self.note(Phase.ENDED, 0)
        self._map.close()


def read(folder: Path) -> Record | None:
    """The record that the last process left; None if there is none."""
    try:
        data = (folder / FILE).read_bytes()[: _FORM.size]
    except OSError:
        return None
    if len(data) < _FORM.size or not data.startswith(_MAGIC):
        return None
    _, pid, phase, uncommitted, commits = _FORM.unpack(data)
    return Record(pid, Phase(phase), uncommitted, commits)
