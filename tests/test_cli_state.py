"""`evalgauge state`: looking in, backing up while a process works, and back to zero."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from evalgauge.core.sqlite_store import FORMAT, SqliteStore, connect
from tests.running import Running, evalgauge, judgment

if TYPE_CHECKING:
    from pathlib import Path


def config(folder: Path) -> dict[str, Any]:
    """A door and a log."""
    log = {"type": "file", "path": str(folder / "e.ndjson"), "follow": True, "poll_interval": "20ms"}
    return {"packs": ["judgment"], "inputs": {"door": {"type": "http"}, "log": log}}


def shown(folder: Path) -> dict[str, Any]:
    """What `state show --json` says."""
    done = evalgauge("state", "show", "--json", "--state", folder)
    assert done.code == 0, done.err
    return dict(json.loads(done.out))


def test_tables_positions_and_the_holder_are_shown(tmp_path: Path) -> None:
    """While a process works and after it has ended."""
    (tmp_path / "e.ndjson").write_bytes(judgment(1) + b"\n")
    state = tmp_path / "state"
    with Running(tmp_path, config(tmp_path)) as one:
        assert one.post(*(judgment(number, tenant_id=f"t{number}") for number in range(300))).status == 202
        now = shown(state)
        assert one.process is not None
        assert now["holder"] == one.process.pid
        assert now["digests"] == 300
        table = next(table for table in now["tables"] if table["metric"] == "judgment_executions")
        assert table["series"] in {300, 301}
        assert table["pages"] == 6  # labels, births and values of two pages of 256
        assert one.end() == 0
    after = shown(state)
    assert (after["holder"], after["lost"], after["format"], after["dead_letters"]) == (None, "", FORMAT, 0)
    (position,) = after["positions"]
    assert (position["input"], position["partition"]) == ("log", str(tmp_path / "e.ndjson"))
    assert position["position"]["offset"] == len(judgment(1)) + 1
    text = evalgauge("state", "show", "--config", tmp_path / "evalgauge.yaml").out
    assert "in use by no process" in text
    assert "  judgment_executions " in text


def test_a_backup_is_of_one_commit_and_can_be_run_with(tmp_path: Path) -> None:
    """Made while events come in: its counts, positions and ids fit together."""
    with Running(tmp_path, config(tmp_path)) as one:
        stop = threading.Event()
        sent = 0

        def send() -> None:
            nonlocal sent
            while not stop.is_set():
                assert one.post(judgment(sent)).status == 202
                sent += 1

        sender = threading.Thread(target=send)
        sender.start()
        try:
            for number in range(5):
                done = evalgauge("state", "backup", tmp_path / f"b{number}", "--state", tmp_path / "state")
                assert done.code == 0, done.err
        finally:
            stop.set()
            sender.join()
        assert one.end() == 0
    for number in range(5):
        found = shown(tmp_path / f"b{number}")
        assert found["holder"] is None
        assert {path.name for path in (tmp_path / f"b{number}").iterdir()} >= {"state.db"}
    assert shown(tmp_path / "b4")["digests"] <= sent
    with Running(tmp_path, config(tmp_path), "--state", str(tmp_path / "b4")) as restored:
        counted = restored.sum("judgment_executions_total")
        assert counted == restored.sum("evalgauge_deduplication_ids") or counted > 0
        assert restored.post(*(judgment(number) for number in range(sent))).status == 202
        assert restored.sum("judgment_executions_total") == sent


def test_no_backup_is_overwritten(tmp_path: Path) -> None:
    """Exit code 3, and the first stays."""
    with closing(SqliteStore(tmp_path / "state")):
        pass
    assert evalgauge("state", "backup", tmp_path / "b", "--state", tmp_path / "state").code == 0
    before = (tmp_path / "b" / "state.db").read_bytes()
    again = evalgauge("state", "backup", tmp_path / "b", "--state", tmp_path / "state")
    assert again.code == 3
    assert "is there already" in again.err
    assert (tmp_path / "b" / "state.db").read_bytes() == before
    assert (tmp_path / "b" / "state.db").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["state.db"]


def test_a_reset_asks_puts_aside_and_begins_at_zero(tmp_path: Path) -> None:
    """And is refused while a process holds the folder."""
    (tmp_path / "e.ndjson").write_bytes(judgment(1) + b"\n")
    state = tmp_path / "state"
    words = ("replay", tmp_path / "e.ndjson", "--pack", "judgment", "--state", state)
    assert evalgauge(*words).code == 0
    with closing(SqliteStore(state)):
        held = evalgauge("state", "reset", "--yes", "--state", state)
        assert held.code == 3
        assert "in use by process" in held.err
    assert evalgauge("state", "reset", "--state", state, stdin=b"n\n").code == 130
    assert shown(state)["positions"]
    done = evalgauge("state", "reset", "--state", state, stdin=b"y\n")
    assert done.code == 0
    (aside,) = state.glob("state.db.reset-*")
    assert str(aside) in done.out
    assert evalgauge("state", "show", "--state", state).code == 3
    assert "1 accepted" in evalgauge(*words).err
    assert shown(state)["set_aside"] == [aside.name]


@pytest.mark.parametrize(
    "words", [("show",), ("backup", "b"), ("reset", "--yes"), ("reset", "--forget-loss")]
)
def test_a_folder_without_state_is_named_and_not_made(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Exit code 3."""
    done = evalgauge("state", *words, "--state", tmp_path / "none", cwd=tmp_path)
    assert done.code == 3
    assert f"{tmp_path / 'none'} holds no state" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_newer_format_is_left_to_the_newer_version(tmp_path: Path) -> None:
    """Neither shown wrongly nor set aside."""
    with closing(SqliteStore(tmp_path)):
        pass
    with closing(connect(tmp_path / "state.db")) as db:
        db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    for words in (("state", "show"), ("state", "backup", tmp_path / "b"), ("deadletter", "list")):
        done = evalgauge(*words, "--state", tmp_path)
        assert done.code == 3
        assert f"state format {FORMAT + 1}" in done.err


def test_the_folder_is_found_by_flag_configuration_and_default(tmp_path: Path) -> None:
    """In that order; without any it is `evalgauge-state` here."""
    for name in ("a", "b", "evalgauge-state"):
        with closing(SqliteStore(tmp_path / name)):
            pass
    (tmp_path / "c.yaml").write_text("packs: [judgment]\nstate: {folder: b}\n")

    def folder(*words: str | Path) -> str:
        return evalgauge("state", "show", *words, cwd=tmp_path).out.split("/state.db")[0]

    assert folder("--state", "a", "--config", "c.yaml") == "a"
    assert folder("--config", "c.yaml") == "b"
    assert folder() == "evalgauge-state"
