"""Who reads which file: finds a file again after it was renamed, copied, compressed or replaced."""

# Names are text, matched by patterns.
# ruff: noqa: PTH113, PTH116, PTH119, PTH120, PTH122

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

from evalgauge.collectors.file_bytes import (
    HEAD_BYTES,
    BrokenFileError,
    Compression,
    Identity,
    Likeness,
    Mark,
    SourceFile,
)
from evalgauge.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_COMPRESSED = r"(?:\.(?:gz|gzip|zst|zstd))"
_TURN = r"(?:\.\d[\d._T-]*|-\d{4}-?\d\d[\d._T-]*|[.-]old)"
_SUFFIX = rf"(?:{_TURN}{_COMPRESSED}?|{_COMPRESSED})"
_ENDS_ROTATED = re.compile(rf"{_SUFFIX}$")
_TRIES = 10
Mine = Callable[[str], bool]
"""Whether a path may be read by the partition that asks."""
READ_ERRORS = (OSError, BrokenFileError, ConfigError)
"""What opening or reading one file may raise; the other files go on."""


def is_rotation_of(name: str, current: str) -> bool:
    """Whether `name` is what a log rotation makes of `current`: `app.log.1`, `app.log-20260101.gz`, `app.1.log`."""
    return _rotations_of(current).fullmatch(name) is not None


@functools.lru_cache(maxsize=1024)
def _rotations_of(current: str) -> re.Pattern[str]:
    stem, extension = os.path.splitext(current)
    forms = re.escape(current) + _SUFFIX
    if extension:
        forms += f"|{re.escape(stem)}{_TURN}{re.escape(extension)}{_COMPRESSED}?"
    return re.compile(forms)


def base_of(path: str) -> str:
    """The path a rotated file was at, by its ending; itself, if the name does not end like that.

    A number before the extension (`app.1.log`) is no sign here: sharded files are named like that, and grow.
    """
    return _ENDS_ROTATED.sub("", path)


def related(path: str, other: str) -> bool:
    """Whether one of two paths may come from the other by rotation."""
    if os.path.dirname(path) != os.path.dirname(other):
        return False
    name, second = os.path.basename(path), os.path.basename(other)
    if is_rotation_of(name, second) or is_rotation_of(second, name):
        return True
    return base_of(name) == base_of(second)


def relatives(path: str) -> dict[str, int]:
    """Paths beside `path` that may come from it by rotation, each with its inode."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError), os.scandir(os.path.dirname(path)) as entries:
        found = {entry.path: entry.inode() for entry in entries if related(entry.path, path)}
    found.pop(path, None)
    return found


def find(mark: Mark, paths: Iterable[str], mine: Mine, compression: Compression) -> SourceFile | None:
    """The file that holds the place `mark`, at one of `paths` or rotated: by inode, else by content.

    A rotation that is under way can hide a file: looks again as long as names change.
    """
    for path in paths:
        status = status_of(path)
        there = status is not None and Identity.of(status) == mark.identity and mine(path)
        if there and (file := _like(mark, path, compression)) is not None:
            return file  # where it was: no need to look at the whole folder
    for _ in range(_TRIES):
        beside = {name: inode for path in paths for name, inode in relatives(path).items()}
        names = [name for name in dict.fromkeys((*paths, *beside)) if mine(name)]
        if (file := _find_among(mark, names, compression)) is not None:
            return file
        if beside == {name: inode for path in paths for name, inode in relatives(path).items()}:
            return None
    return None


def _find_among(mark: Mark, names: Iterable[str], compression: Compression) -> SourceFile | None:
    rest: list[str] = []
    for name in names:
        status = status_of(name)
        if status is None or Identity.of(status) != mark.identity:
            rest.append(name)
        elif (file := _like(mark, name, compression)) is not None:
            return file
    if mark.head.size:
        for name in rest:
            if (file := _like(mark, name, compression)) is not None:
                return file
    return None


def status_of(path: str) -> os.stat_result | None:
    """`os.stat`, or None where nothing can be seen."""
    try:
        return os.stat(path)
    except OSError:
        return None


def _like(mark: Mark, path: str, compression: Compression) -> SourceFile | None:
    try:
        if not os.path.isfile(path):
            return None
        file = SourceFile(path, compression)
    except OSError:
        return None
    if file.compare(mark) is Likeness.SAME:
        return file
    file.close()
    return None


class Reader(Protocol):
    """A partition, as far as others must know it."""

    path: str
    finished: list[Mark]
    """Where it stopped in the files it has read to their end, oldest first."""

    @property
    def mark(self) -> Mark:
        """Where it stands in the file it reads."""

    def holds(self, identity: Identity) -> bool:
        """Whether it reads this file, or will read it next."""


class Novelty(Enum):
    """What a file that nobody reads is to the readers there are."""

    NEW = auto()
    KNOWN = auto()
    """It was read before, under another name or uncompressed."""
    UNDECIDED = auto()
    """So far it is the beginning of another file: perhaps a copy, before the other one is truncated."""


class Readers:
    """All partitions of an input: each file is read by one of them, once."""

    def __init__(self) -> None:
        self._readers: dict[str, Reader] = {}

    def __contains__(self, path: str) -> bool:
        """Whether a partition of this path exists."""
        return path in self._readers

    def add(self, reader: Reader) -> None:
        """Make a partition known."""
        self._readers[reader.path] = reader

    def owner(self, identity: Identity) -> Reader | None:
        """The partition that reads this file."""
        return next((reader for reader in self._readers.values() if reader.holds(identity)), None)

    def judge(self, file: SourceFile) -> Novelty:
        """Whether a file that nobody reads is new. A copy of a finished file takes that one's place."""
        verdict = Novelty.NEW
        for reader in self._readers.values():
            near = related(reader.path, file.path)
            for at, mark in self._marks(reader):
                same_inode = mark.identity == file.identity
                if not same_inode and not (near and mark.head.size):
                    continue
                likeness = file.compare(mark)
                if likeness is Likeness.SAME:
                    if at is not None:
                        reader.finished[at] = mark._replace(identity=file.identity)
                    return Novelty.KNOWN
                if likeness is Likeness.SHORTER and not same_inode:
                    verdict = Novelty.UNDECIDED
            if near and verdict is Novelty.NEW and _begins_like(file, reader.path):
                verdict = Novelty.UNDECIDED
        return verdict

    @staticmethod
    def _marks(reader: Reader) -> Iterator[tuple[int | None, Mark]]:
        yield None, reader.mark
        yield from reversed(list(enumerate(reader.finished)))


def _begins_like(file: SourceFile, path: str) -> bool:
    """Whether `file` is, byte for byte where one looks, the beginning of another file that is at `path` now."""
    try:
        other = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        now, size = os.fstat(other), file.status().st_size
        if Identity.of(now) == file.identity or size > now.st_size:
            return False
        end = max(0, size - HEAD_BYTES)
        return all(
            os.pread(file.fd, HEAD_BYTES, at) == os.pread(other, HEAD_BYTES, at)[:size] for at in (0, end)
        )
    finally:
        os.close(other)


def unread_rotations(current: SourceFile, path: str, since: int, readers: Readers) -> list[SourceFile]:
    """Files that were at `path` before `current` and were rotated away before anybody read them.

    `since` is when the last one that was read was last written (ns). Oldest first, and opened, so that the
    next rotation cannot take them away.
    """
    found: list[SourceFile] = []
    names: dict[str, int] | None = None
    for _ in range(_TRIES):  # again, if names changed while looking
        if names == (now := relatives(path)):
            break
        names = now
        for file in found:
            file.close()
        found = [one for name in names if (one := _unread(name, current, path, since, readers)) is not None]
    return sorted(found, key=age)


def _unread(name: str, current: SourceFile, path: str, since: int, readers: Readers) -> SourceFile | None:
    status, at_path = status_of(name), status_of(path)
    if status is None or not status.st_size or status.st_mtime_ns < since:
        return None
    rotated = at_path is None or Identity.of(at_path) != current.identity
    if rotated and status.st_mtime_ns >= current.modified:
        return None  # it came after the current one, which was rotated as well
    identity = Identity.of(status)
    mine = is_rotation_of(os.path.basename(name), os.path.basename(path))
    if not mine or identity == current.identity or readers.owner(identity) is not None:
        return None
    try:
        file = SourceFile(name, current.compression)
    except READ_ERRORS:
        return None
    if readers.judge(file) is Novelty.NEW:
        return file
    file.close()
    return None


def age(file: SourceFile) -> tuple[int, int, str]:
    """Sorts the oldest first; file systems count time in ticks of some milliseconds, then the name decides."""
    number = re.search(r"[.-](\d{1,5})(?=\.|$)", os.path.basename(file.path))
    return file.modified, -int(number[1]) if number else 0, file.path
