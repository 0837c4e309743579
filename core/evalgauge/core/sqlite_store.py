"""The embedded checkpoint store: one SQLite file in a state folder that one process holds."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import sqlite3
import threading
import time
from typing import IO, TYPE_CHECKING, ClassVar

import msgspec

from evalgauge.core import failpoints
from evalgauge.core.errors import StateError, StateLockedError
from evalgauge.core.store import Restored, TableInfo
from evalgauge.core.table import Page, PageKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from evalgauge.core.store import Commit, DeadLetterLimits

log = logging.getLogger(__name__)

APPLICATION_ID = 0x65766761
"""`evga`: tells our files from any other SQLite file."""
FORMAT = 1
"""Raised with every change of the schema; `_MIGRATIONS[n]` leads from format n to n + 1."""
_MIGRATIONS: dict[int, str] = {}
FILE = "state.db"
_CHECKPOINT_INTERVAL = 0.25
_OUTSIDE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
"""Errors that say nothing of the file itself."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE tables (meaning TEXT PRIMARY KEY, metric TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE pages (meaning TEXT, kind TEXT, number INTEGER, data BLOB NOT NULL,
                    PRIMARY KEY (meaning, kind, number)) WITHOUT ROWID;
CREATE TABLE positions (input TEXT, partition TEXT, position BLOB NOT NULL,
                        PRIMARY KEY (input, partition)) WITHOUT ROWID;
CREATE TABLE digests (number INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, data BLOB NOT NULL);
CREATE TABLE dead_letters (number INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, input TEXT NOT NULL,
                           partition TEXT NOT NULL, position TEXT NOT NULL, type TEXT NOT NULL, reason TEXT NOT NULL,
                           detail TEXT NOT NULL, pack TEXT NOT NULL, data BLOB NOT NULL,
                           tenant TEXT, kept TEXT NOT NULL, size INTEGER NOT NULL);
"""
LETTER = "number, time, input, partition, position, type, reason, detail, pack, data, tenant, kept, size"


class SqliteStore:
    """State in `<folder>/state.db`, write-ahead log, synchronous=FULL: a commit that returned survives power loss.

    Raises `StateLockedError` where another process holds the folder and `StateError` where the file is of a newer
    format. A file that is corrupt or not ours is set aside under another name, and `restore().lost` says so.
    """

    by_partition: ClassVar[bool] = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = lock_folder(folder)
        try:
            self._lost = self._open()
        except BaseException:
            self._lock.close()
            raise
        self.seed = int(self._meta("seed"), 16)
        self._closing = threading.Event()
        self._written = threading.Event()
        self._checkpointer = threading.Thread(target=self._checkpoint, name="checkpoint", daemon=True)
        self._checkpointer.start()

    def _open(self) -> str:
        path = self._folder / FILE
        fresh = path.with_name(f"{FILE}.new")
        if fresh.exists() and not path.exists() and not fault(fresh):
            fresh.rename(path)  # ended between the two renames below
        reason = fault(path) if path.exists() else ""
        if reason or not path.exists():
            aside = _aside(path, "lost")
            lost = f"{reason}; it was set aside as {aside.name}" if reason else ""
            _create(fresh, lost)
            if reason:
                log.error("state file %s: %s", path, lost)
                _move(path, aside)
            fresh.rename(path)
            _sync(self._folder)
        self._db = connect(path)
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > FORMAT:
            self._db.close()
            msg = f"{path} has state format {version}, this evalgauge knows up to {FORMAT}: run the newer version"
            raise StateError(msg)
        for step in range(version, FORMAT):
            with self._transaction():
                for statement in filter(str.strip, _MIGRATIONS[step].split(";")):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {step + 1}")
        return str(self._meta("lost"))

    def _meta(self, key: str) -> str:
        return str(self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.commit()
        except BaseException:
            self._db.rollback()  # COMMIT too may fail, and must not leave its transaction open
            raise

    def restore(self, meanings: Iterable[str], moving: Iterable[str] = (), ids_age: float = 0.0) -> Restored:
        """Read what the last commit left."""
        del moving, ids_age  # nothing moves, and ids are trimmed with each commit
        db = self._db
        pages: dict[str, list[Page]] = {}
        for meaning in meanings:
            rows = db.execute("SELECT kind, number, data FROM pages WHERE meaning = ?", (meaning,))
            pages[meaning] = [Page(PageKind(kind), number, data) for kind, number, data in rows]
        positions = {
            (name, partition): msgspec.json.decode(position)
            for name, partition, position in db.execute("SELECT input, partition, position FROM positions")
        }
        return Restored(
            tables=[TableInfo(*row) for row in db.execute("SELECT meaning, metric FROM tables")],
            pages=pages,
            positions=positions,
            digests=list(db.execute("SELECT time, data FROM digests ORDER BY number")),
            last_commit=float(self._meta("last_commit")),
            lost=self._lost,
        )

    def waits_for(self) -> str:
        """Nothing: files are there or not."""
        return ""

    def stop(self) -> None:
        """Nothing is waited for."""

    def commit(self, commit: Commit, limits: DeadLetterLimits) -> Mapping[str, int]:
        """Write a checkpoint in one transaction. Raises `sqlite3.Error` or `OSError`; then nothing was written."""
        db = self._db
        failpoints.reach("commit.before")
        with self._transaction():
            for meaning in commit.dropped:
                db.execute("DELETE FROM tables WHERE meaning = ?", (meaning,))
                db.execute("DELETE FROM pages WHERE meaning = ?", (meaning,))
            db.executemany("INSERT OR REPLACE INTO tables VALUES (?, ?)", commit.tables)
            db.executemany(
                "INSERT OR REPLACE INTO pages VALUES (?, ?, ?, ?)",
                ((meaning, page.kind.value, page.number, page.data) for meaning, page in commit.pages),
            )
            db.executemany(
                "INSERT OR REPLACE INTO positions VALUES (?, ?, ?)",
                ((*key, msgspec.json.encode(position)) for key, position in commit.positions.items()),
            )
            for digests in filter(None, commit.digests.values()):
                db.execute("INSERT INTO digests (time, data) VALUES (?, ?)", (commit.time, digests))
                self._trim_digests(commit)
            if commit.dead_letters:
                db.executemany(
                    f"INSERT INTO dead_letters ({LETTER[8:]}) VALUES (?{', ?' * 11})",  # noqa: S608 - constants, no values
                    (letter[:-1] for letter in commit.dead_letters),
                )
            dropped = self._trim_letters(commit, limits)
            db.executemany(
                "DELETE FROM dead_letters WHERE number = ?", ((number,) for number in commit.settled)
            )
            db.execute("UPDATE meta SET value = ? WHERE key = 'last_commit'", (commit.time,))
            failpoints.reach("commit.inside")
        failpoints.reach("commit.after")
        self._written.set()
        return dropped

    def _trim_digests(self, commit: Commit) -> None:
        rows = self._db.execute(
            "SELECT number, time, length(data) / 16 FROM digests ORDER BY number DESC"
        ).fetchall()
        kept = 0
        for number, stored, count in rows:
            if kept >= commit.digests_kept or stored < commit.digests_since:
                self._db.execute("DELETE FROM digests WHERE number <= ?", (number,))
                return
            kept += count

    def _trim_letters(self, commit: Commit, limits: DeadLetterLimits) -> dict[str, int]:
        db, dropped = self._db, {}
        since = commit.time - limits.age
        oldest = db.execute("SELECT time FROM dead_letters ORDER BY number LIMIT 1").fetchone()
        if oldest is not None and oldest[0] < since:
            dropped["age"] = db.execute("DELETE FROM dead_letters WHERE time < ?", (since,)).rowcount
        if not commit.dead_letters:
            return dropped
        for cause, most, amount in (("number", limits.number, "1"), ("size", limits.bytes, "length(data)")):
            excess = db.execute(f"SELECT coalesce(sum({amount}), 0) FROM dead_letters").fetchone()[0] - most  # noqa: S608 - constants, no values
            if excess <= 0:
                continue
            for number, one in db.execute(f"SELECT number, {amount} FROM dead_letters ORDER BY number"):  # noqa: S608 - constants, no values
                excess -= one
                if excess <= 0:
                    dropped[cause] = db.execute(
                        "DELETE FROM dead_letters WHERE number <= ?", (number,)
                    ).rowcount
                    break
        return dropped

    def _checkpoint(self) -> None:
        """Fold the write-ahead log back beside the commits: inside one it would cost the slowest of them 10 ms."""
        with contextlib.closing(connect(self._folder / FILE)) as db:
            while not self._closing.wait(_CHECKPOINT_INTERVAL):
                if self._written.is_set():
                    self._written.clear()
                    with contextlib.suppress(sqlite3.OperationalError):  # busy: the next round does it
                        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def facts(self) -> Mapping[str, float]:
        """Nothing but its size."""
        return {}

    def size(self) -> int:
        """Bytes of the file and its write-ahead log."""
        paths = (self._folder / FILE, self._folder / f"{FILE}-wal")
        return sum(path.stat().st_size for path in paths if path.exists())

    def dead_letters(self) -> int:
        """Dead letters waiting, those purged by another process left out."""
        return int(self._db.execute("SELECT count(*) FROM dead_letters").fetchone()[0])

    def forget_loss(self) -> None:
        """The loss was dealt with."""
        with self._transaction():
            self._db.execute("UPDATE meta SET value = '' WHERE key = 'lost'")
        self._lost = ""

    def close(self) -> None:
        """Fold the log, close the file and let the folder go."""
        self._closing.set()
        self._checkpointer.join()
        with contextlib.suppress(sqlite3.OperationalError):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._db.close()
        self._lock.close()


def connect(path: Path) -> sqlite3.Connection:
    """Open a state file as every process does: write-ahead log, a commit survives power loss."""
    db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
    return db


def fault(path: Path) -> str:
    """Why the file cannot be our state, empty if it can. Raises `StateError` where that cannot be told."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=10)) as db:
            application = db.execute("PRAGMA application_id").fetchone()[0]
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if application != APPLICATION_ID:
                return "the file belongs to another program" if path.stat().st_size else "the file is empty"
            if version > FORMAT:
                return ""
            finding = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if finding != "ok":
                return f"the file is corrupt ({finding})"
            db.execute("SELECT value FROM meta WHERE key = 'seed'").fetchone()[0]
    except (sqlite3.DatabaseError, TypeError) as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _OUTSIDE:
            # Such a file may be whole: it must stay where it is.
            msg = f"the state file {path} cannot be read ({error}): see who owns it, who has it open, and the disk"
            raise StateError(msg) from error
        return f"the file is corrupt or no database ({error})"
    return ""


def set_aside(path: Path, why: str) -> Path:
    """Rename a state file, with its log, out of the way; returns its new path."""
    aside = _aside(path, why)
    _move(path, aside)
    return aside


def _aside(path: Path, why: str) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    return path.with_name(f"{path.name}.{why}-{stamp}-{secrets.token_hex(2)}")


def _move(path: Path, aside: Path) -> None:
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))


def _create(path: Path, lost: str) -> None:
    """Make a new state file beside the place it goes to, so that no crash leaves half of one there."""
    for suffix in ("", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.touch(mode=0o600)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        # A page of a table with its key fits in a quarter of it: with 4096 each would need an overflow page.
        db.execute("PRAGMA page_size = 16384")
        db.execute("BEGIN")
        for statement in filter(str.strip, _SCHEMA.split(";")):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {FORMAT}")
        rows = [("seed", f"{secrets.randbits(64):x}"), ("last_commit", 0.0), ("lost", lost)]
        db.executemany("INSERT INTO meta VALUES (?, ?)", rows)
        db.execute("COMMIT")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_folder(folder: Path) -> IO[str]:
    """Take the folder for this process until the file is closed. Raises `StateLockedError`."""
    file = (folder / "lock").open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        msg = (
            f"the state folder {folder} is in use by process {holder}: stop it, "
            "or give this one a folder of its own (`state.folder`, --state)"
        )
        raise StateLockedError(msg) from error
    file.seek(0)
    file.truncate()
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
