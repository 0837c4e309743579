"""The embedded store: a file that is whole, one that is not, and a folder that has an owner."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from evalgauge.core.errors import StateError, StateLockedError
from evalgauge.core.sqlite_store import APPLICATION_ID, FILE, FORMAT, SqliteStore, set_aside
from evalgauge.core.store import Commit, DeadLetterLimits, TableInfo
from evalgauge.core.table import Page, PageKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIMITS = DeadLetterLimits()


def filled(folder: Path) -> int:
    """Make a state folder with something in it; its seed."""
    store = SqliteStore(folder)
    commit = Commit(
        1.0,
        [TableInfo("m", "metric")],
        [],
        [("m", Page(PageKind.VALUES, 0, b"x" * 90_000))],
        {("i", "p"): [1]},
    )
    store.commit(commit, LIMITS)
    store.close()
    return store.seed


def garbage(path: Path) -> None:
    """Bytes that never were a database."""
    path.write_bytes(b"not a database at all" * 100)


def truncated(path: Path) -> None:
    """A file that lost its second half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def beheaded(path: Path) -> None:
    """A file whose first page was overwritten behind its header."""
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xff" * 3996
    path.write_bytes(content)


def foreign(path: Path) -> None:
    """A database of another program."""
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()


def empty(path: Path) -> None:
    """Nothing left of it: our own files are never empty, for they are made beside their place."""
    path.write_bytes(b"")


def bare(path: Path) -> None:
    """Ours by its number, without a table."""
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {FORMAT}")
    db.close()


@pytest.mark.parametrize("harm", [garbage, truncated, beheaded, foreign, empty, bare])
def test_a_file_that_is_not_our_state_is_set_aside(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    """Never overwritten; the loss is told until somebody has dealt with it, through restarts."""
    filled(tmp_path)
    path = tmp_path / FILE
    harm(path)
    content = path.read_bytes()
    for last_commit in (0.0, 2.0):
        store = SqliteStore(tmp_path)
        restored = store.restore(["m"])
        assert "set aside" in restored.lost
        assert (restored.pages["m"], restored.positions, restored.last_commit) == ([], {}, last_commit)
        store.commit(Commit(2.0, positions={}), LIMITS)
        store.close()
    aside = [one for one in tmp_path.iterdir() if one.name.startswith(f"{FILE}.lost-")]
    assert [one.read_bytes() for one in aside] == [content]
    assert aside[0].name in restored.lost
    store = SqliteStore(tmp_path)
    store.forget_loss()
    assert store.restore([]).lost == ""
    store.close()
    store = SqliteStore(tmp_path)
    assert store.restore([]).lost == ""
    store.close()


def test_a_process_that_ends_while_it_sets_a_file_aside_still_tells_the_loss(tmp_path: Path) -> None:
    """The new file, with the loss in it, is made before the old one goes."""
    filled(tmp_path)
    garbage(tmp_path / FILE)
    SqliteStore(tmp_path).close()
    (tmp_path / FILE).rename(tmp_path / f"{FILE}.new")
    store = SqliteStore(tmp_path)
    assert "set aside" in store.restore([]).lost
    store.close()
    (tmp_path / f"{FILE}.new").write_bytes(b"half")
    store = SqliteStore(tmp_path)
    assert "set aside" in store.restore([]).lost
    store.close()


def test_what_was_committed_is_there_again(tmp_path: Path) -> None:
    """Pages, tables, positions, and the secret of the digests; a new folder has lost nothing."""
    seed = filled(tmp_path)
    store = SqliteStore(tmp_path)
    restored = store.restore(["m", "other"])
    assert store.seed == seed
    assert restored.tables == [TableInfo("m", "metric")]
    assert restored.pages == {"m": [Page(PageKind.VALUES, 0, b"x" * 90_000)], "other": []}
    assert (restored.positions, restored.last_commit, restored.lost) == ({("i", "p"): [1]}, 1.0, "")
    assert store.size() > 90_000
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0
    store.close()
    store.seed = 0
    assert filled(tmp_path / "another") != seed


def test_a_table_that_is_dropped_goes_with_its_pages(tmp_path: Path) -> None:
    """So that a way back starts at zero."""
    filled(tmp_path)
    store = SqliteStore(tmp_path)
    store.commit(Commit(2.0, dropped=["m"]), LIMITS)
    restored = store.restore(["m"])
    assert (restored.tables, restored.pages) == ([], {"m": []})
    store.close()


def test_state_of_a_newer_format_is_left_alone(tmp_path: Path) -> None:
    """The older program says which one to run."""
    filled(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    db.close()
    content = (tmp_path / FILE).read_bytes()
    with pytest.raises(StateError, match=f"format {FORMAT + 1}.*newer version"):
        SqliteStore(tmp_path)
    assert (tmp_path / FILE).read_bytes() == content
    with pytest.raises(StateError, match="newer version"):
        SqliteStore(tmp_path)


def test_a_file_that_cannot_be_read_now_is_left_alone(tmp_path: Path) -> None:
    """It may be whole: a wrong owner or a full disk is no loss."""
    tmp_path.joinpath(FILE).mkdir()
    with pytest.raises(StateError, match="cannot be read"):
        SqliteStore(tmp_path)
    assert tmp_path.joinpath(FILE).is_dir()


def test_a_folder_belongs_to_one_process(tmp_path: Path) -> None:
    """The second is told which process holds it; once that is gone, however it went, the folder is free."""
    code = "import sys, pathlib; from evalgauge.core.sqlite_store import SqliteStore; "
    code += "SqliteStore(pathlib.Path(sys.argv[1])); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        with pytest.raises(StateLockedError, match=rf"process {owner.pid}\b.*--state"):
            SqliteStore(tmp_path)
        owner.kill()
        owner.wait()
    SqliteStore(tmp_path).close()


def test_what_is_set_aside_keeps_its_log(tmp_path: Path) -> None:
    """Or half of it would be lost."""
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"{FILE}{suffix}").write_text(suffix)
    aside = set_aside(tmp_path / FILE, "reset")
    assert [aside.with_name(aside.name + suffix).read_text() for suffix in ("", "-wal", "-shm")] == [
        "",
        "-wal",
        "-shm",
    ]
    assert not (tmp_path / FILE).exists()


def test_another_process_that_writes_delays_no_commit_for_good(tmp_path: Path) -> None:
    """A commit that could not be made leaves nothing behind, and the next one works."""
    store = SqliteStore(tmp_path)
    store._db.execute("PRAGMA busy_timeout = 1").fetchall()
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        store.commit(Commit(1.0, positions={("i", "p"): 1}), LIMITS)
    other.execute("ROLLBACK")
    other.close()
    store.commit(Commit(2.0, positions={("i", "p"): 2}), LIMITS)
    assert store.restore([]).positions == {("i", "p"): 2}
    store.close()
