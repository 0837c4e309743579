"""Dead letters, for a process beside the one that runs: found, shown, taken out; those of a state folder among them."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from evalgauge.core.errors import StateError
from evalgauge.core.sqlite_store import FILE, FORMAT, LETTER, connect, fault
from evalgauge.core.store import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_ROWS = 500
"""Letters read at a time: while rows are read one by one, a running process could not fold its log."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters: all that meet every condition that is set."""

    numbers: tuple[int, ...] = ()
    input: str | None = None
    reason: str | None = None
    type: str | None = None
    since: float | None = None
    """Kept at this Unix time or later."""
    before: float | None = None
    """Kept before this Unix time."""

    @property
    def everything(self) -> bool:
        """No condition is set."""
        return self == Wanted()

    def meets(self, letter: DeadLetter) -> bool:
        """Whether a letter is among them."""
        return (
            (not self.numbers or letter.number in self.numbers)
            and self.input in {None, letter.input}
            and self.reason in {None, letter.reason}
            and self.type in {None, letter.type}
            and (self.since is None or letter.time >= self.since)
            and (self.before is None or letter.time < self.before)
        )

    def sql(self) -> tuple[str, list[object]]:
        """The condition in SQL over the columns of a letter, and its values."""
        tests: list[str] = []
        values: list[object] = []
        if self.numbers:
            tests.append(f"number IN ({', '.join('?' * len(self.numbers))})")
            values += self.numbers
        for test, value in (
            ("input = ?", self.input),
            ("reason = ?", self.reason),
            ("type = ?", self.type),
            ("time >= ?", self.since),
            ("time < ?", self.before),
        ):
            if value is not None:
                tests.append(test)
                values.append(value)
        return " AND ".join(tests) or "1", values


class LetterBox(Protocol):
    """Where dead letters are kept. All of it raises `EvalgaugeError` where they cannot be read or written now."""

    def count(self, wanted: Wanted) -> int:
        """How many there are."""

    def newest(self, wanted: Wanted, limit: int) -> list[DeadLetter]:
        """The newest letters, at most so many (all if negative), oldest first."""

    def letters(self, wanted: Wanted) -> Iterator[DeadLetter]:
        """The letters; those of one partition oldest first."""

    def purge(self, wanted: Wanted) -> int:
        """Remove what meets the conditions; how many there were."""

    def close(self) -> None:
        """Let go of it."""


class ReturningBox(LetterBox, Protocol):
    """Letters of an input that can be written to again: each goes back to where it came from."""

    readers: str
    """Who reads and counts what is sent back, in words."""

    def begin(self) -> None:
        """Be the only process that sends back, before anything is read."""

    def hindrance(self, letter: DeadLetter) -> str:
        """Why a letter cannot be sent back, empty if it can."""

    def send_back(self, letters: Sequence[DeadLetter]) -> None:
        """Send these back and take them out, both or neither, whatever happens in between."""


class DeadLetterBox:
    """The letters of a state folder, whether or not a process holds it."""

    def __init__(self, folder: Path) -> None:
        """Open the state file. Raises `StateError` where there is none, or it is not ours."""
        path = folder / FILE
        if not path.exists():
            msg = f"{folder} holds no state (no {FILE}): is `state.folder` the one that evalgauge runs with?"
            raise StateError(msg)
        reason = fault(path)
        if reason:
            msg = f"{path}: {reason}; `evalgauge run` will set it aside"
            raise StateError(msg)
        self._db = connect(path)
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version != FORMAT:
            self._db.close()
            msg = f"{path} has state format {version}, this evalgauge works with {FORMAT}: use the one that runs"
            raise StateError(msg)

    def letters(self, wanted: Wanted, *, after: int = 0) -> Iterator[DeadLetter]:
        """Letters with a number above `after`, oldest first."""
        where, values = wanted.sql()
        query = f"SELECT {LETTER} FROM dead_letters WHERE number > ? AND {where} ORDER BY number LIMIT ?"  # noqa: S608 - our own words
        while True:
            rows = self._db.execute(query, (after, *values, _ROWS)).fetchall()
            for row in rows:
                after = row[0]
                yield _letter(row)
            if len(rows) < _ROWS:
                return

    def newest(self, wanted: Wanted, limit: int) -> list[DeadLetter]:
        """The newest letters, at most so many, oldest first."""
        where, values = wanted.sql()
        query = f"SELECT {LETTER} FROM dead_letters WHERE {where} ORDER BY number DESC LIMIT ?"  # noqa: S608 - our own words
        rows = self._db.execute(query, (*values, limit)).fetchall()
        return [_letter(row) for row in reversed(rows)]

    def count(self, wanted: Wanted) -> int:
        """How many there are."""
        where, values = wanted.sql()
        query = f"SELECT count(*) FROM dead_letters WHERE {where}"  # noqa: S608 - our own words
        return int(self._db.execute(query, values).fetchone()[0])

    def last(self) -> int:
        """The highest number ever given."""
        found = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'dead_letters'").fetchone()
        return int(found[0]) if found else 0

    def delete(self, numbers: Iterable[int]) -> int:
        """Remove letters, all or none; how many there were."""
        with self._transaction():
            cursor = self._db.executemany(
                "DELETE FROM dead_letters WHERE number = ?", ((n,) for n in numbers)
            )
            return cursor.rowcount

    def purge(self, wanted: Wanted) -> int:
        """Remove what meets the conditions; how many there were."""
        where, values = wanted.sql()
        with self._transaction():
            return self._db.execute(f"DELETE FROM dead_letters WHERE {where}", values).rowcount  # noqa: S608

    def drop_copy(self, letter: DeadLetter, after: int) -> None:
        """Remove one letter that came after number `after` and is another refusal of the same bytes."""
        query = """DELETE FROM dead_letters WHERE number = (SELECT max(number) FROM dead_letters
                   WHERE number > ? AND data = ? AND number <> ?)"""
        with self._transaction():
            self._db.execute(query, (after, letter.data, letter.number))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            msg = f"the running process does not let anybody write for so long: {error}; try again"
            raise StateError(msg) from error
        try:
            yield
        except BaseException:
            self._db.rollback()
            raise
        self._db.commit()

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _letter(row: tuple[Any, ...]) -> DeadLetter:
    return DeadLetter(*row[1:], *row[:1])
