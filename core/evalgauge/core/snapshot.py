"""A state folder seen from outside: what is in it, a copy of it, the way back to zero."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from evalgauge.core import flight
from evalgauge.core.errors import StateError
from evalgauge.core.flight import Phase
from evalgauge.core.sqlite_store import FILE, FORMAT, connect, fault, lock_folder, set_aside
from evalgauge.core.table import PageKind

if TYPE_CHECKING:
    from pathlib import Path


class TableSize(NamedTuple):
    """One state table."""

    metric: str
    meaning: str
    series: int
    pages: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What a state file holds, as of its last commit."""

    file: Path
    bytes: int
    """On disk, write-ahead log included."""
    format: int
    last_commit: float
    """Unix time; 0 where nothing was ever committed."""
    lost: str
    """Why earlier state is gone, empty if it is not."""
    holder: int | None
    """The process that works with it now."""
    tables: list[TableSize] = field(default_factory=list)
    positions: list[tuple[str, str, str]] = field(default_factory=list)
    """(input, partition, position as JSON)."""
    digests: int = 0
    dead_letters: int = 0
    set_aside: list[str] = field(default_factory=list)
    """Names of earlier state files beside it."""


def contents(folder: Path) -> Contents:
    """Look into a state folder, whether or not a process works with it. Raises `StateError`."""
    path = _sound(folder)
    with contextlib.closing(connect(path)) as db:
        db.execute("BEGIN").fetchall()  # one view of all tables
        meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
        sizes: dict[str, list[int]] = {}
        for meaning, count, size in db.execute(
            "SELECT meaning, count(*), sum(length(data)) FROM pages GROUP BY meaning"
        ):
            sizes[meaning] = [0, count, size]
        labels = "SELECT meaning, data FROM pages WHERE kind = ?"
        for meaning, data in db.execute(labels, (PageKind.LABELS.value,)):
            sizes[meaning][0] += len(msgspec.msgpack.decode(data))
        tables = [
            TableSize(metric, meaning, *sizes.get(meaning, [0, 0, 0]))
            for meaning, metric in db.execute("SELECT meaning, metric FROM tables ORDER BY metric, meaning")
        ]
        positions = [
            (name, partition, bytes(position).decode())
            for name, partition, position in db.execute("SELECT * FROM positions ORDER BY input, partition")
        ]
        return Contents(
            file=path,
            bytes=sum(one.stat().st_size for one in (path, path.with_name(f"{FILE}-wal")) if one.exists()),
            format=db.execute("PRAGMA user_version").fetchone()[0],
            last_commit=float(meta["last_commit"]),
            lost=str(meta["lost"]),
            holder=_holder(folder),
            tables=tables,
            positions=positions,
            digests=db.execute("SELECT coalesce(sum(length(data)), 0) / 16 FROM digests").fetchone()[0],
            dead_letters=db.execute("SELECT count(*) FROM dead_letters").fetchone()[0],
            set_aside=sorted(
                one.name for one in folder.glob(f"{FILE}.*-*") if not one.name.endswith(("-wal", "-shm"))
            ),
        )


def present(folder: Path) -> Path:
    """The path of the state file. Raises `StateError` where there is none."""
    path = folder / FILE
    if not path.exists():
        msg = f"{folder} holds no state (no {FILE}): is `state.folder` the one that evalgauge runs with?"
        raise StateError(msg)
    return path


def _sound(folder: Path) -> Path:
    path = present(folder)
    reason = fault(path)
    if reason:
        msg = f"{path}: {reason}; `evalgauge run` will set it aside"
        raise StateError(msg)
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > FORMAT:
        msg = f"{path} has state format {version}, this evalgauge knows up to {FORMAT}: use the newer version"
        raise StateError(msg)
    return path


def _holder(folder: Path) -> int | None:
    record = flight.read(folder)
    if record is None or record.phase is Phase.ENDED:
        return None
    try:
        os.kill(record.pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # alive, and somebody else's
    return record.pid


def backup(folder: Path, destination: Path) -> int:
    """Copy the state as of one commit into another folder, ready to run with; its bytes.

    A process may go on working meanwhile. Raises `StateError` where the destination holds a state already: then
    nothing was changed.
    """
    path = _sound(folder)
    target = destination / FILE
    if target.exists():
        msg = f"{target} is there already: name a folder without state, so that no backup is overwritten"
        raise StateError(msg)
    destination.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = destination / f".{FILE}.partial-{os.getpid()}"
    try:
        partial.touch(mode=0o600)
        with (
            contextlib.closing(connect(path)) as source,
            contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as copy,
        ):
            source.backup(copy)
            finding = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
            # One file, so that the name below is given to all of it.
            copy.execute("PRAGMA journal_mode = DELETE").fetchall()
        if finding != "ok":
            msg = f"the copy is not sound ({finding}): is the disk full or failing?"
            raise StateError(msg)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.rename(target)
    finally:
        for left in destination.glob(f"{partial.name}*"):
            left.unlink()
    return target.stat().st_size


def reset(folder: Path) -> Path:
    """Put the state file aside, so that the next start begins at zero; its new path. Raises `StateLockedError`."""
    path = present(folder)
    with lock_folder(folder):
        return set_aside(path, "reset")


def forget_loss(folder: Path) -> str:
    """Clear the mark that earlier state was lost; what it said, empty if there was none. Raises `StateLockedError`."""
    path = _sound(folder)
    with lock_folder(folder), contextlib.closing(connect(path)) as db:
        lost = str(db.execute("SELECT value FROM meta WHERE key = 'lost'").fetchone()[0])
        db.execute("UPDATE meta SET value = '' WHERE key = 'lost'")
    return lost
