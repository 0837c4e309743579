"""`evalgauge deadletter`: refused events found, shown, counted after all, thrown away."""

from __future__ import annotations

import http.client
import json
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from evalgauge.core.config import load_config
from evalgauge.core.deadletters import DeadLetterBox, Wanted
from evalgauge.core.resend import replay_here
from evalgauge.core.sqlite_store import SqliteStore
from tests.running import Running, evalgauge, judgment

if TYPE_CHECKING:
    from pathlib import Path

PACK = """\
pack: mine
version: 1
title: Mine
events:
  mine.sold:
    description: Something was sold.
    tenant: shop
    fields:
      shop: {type: string, required: true}
      kind: {type: string, required: true, enum: [book, toy]}
metrics:
  mine_sales:
    type: counter
    help: Sales.
    on: mine.sold
    labels: {shop: shop, kind: kind}
"""
MENDED = PACK.replace("[book, toy]", "[book, toy, game]")


def sale(number: int, kind: str = "game", **more: Any) -> bytes:
    """One sale as a line."""
    data = {"shop": "a", "kind": kind}
    return json.dumps(
        {"id": f"s-{number}", "source": "/till", "type": "mine.sold", "data": data, **more}
    ).encode()


def config(folder: Path, **more: Any) -> dict[str, Any]:
    """One door, one log, one pack."""
    return {
        "packs": [str(folder / "mine.yaml")],
        "inputs": {
            "door": {"type": "http"},
            "log": {"type": "file", "path": str(folder / "e.ndjson"), "follow": True},
        },
        **more,
    }


@pytest.fixture
def refused(tmp_path: Path) -> Running:
    """A process that has refused three sales, one line and one type, and has ended."""
    (tmp_path / "mine.yaml").write_text(PACK)
    one = Running(tmp_path, config(tmp_path))
    with one:
        lines = [
            sale(1, "toy"),
            sale(2),
            sale(3),
            b'{"cut \xff\x1b[2J off',
            sale(4),
            sale(5, type="mine.lost"),
        ]
        assert one.post(*lines).status == 202
        assert one.end() == 0
    return one


def letters(folder: Path, *words: str) -> list[dict[str, Any]]:
    """The letters of a state folder as `list --json` gives them."""
    done = evalgauge("deadletter", "list", "--json", "--state", folder / "state", *words)
    assert done.code == 0, done.err
    return list(json.loads(done.out))


def test_a_list_with_filters(refused: Running, tmp_path: Path) -> None:
    """Numbers, reasons and sentences; never the event itself."""
    found = letters(tmp_path)
    assert [one["reason"] for one in found] == [
        *["not_in_enum"] * 2,
        "invalid_utf8",
        "not_in_enum",
        "unknown_type",
    ]
    assert found[0]["detail"] == "field `kind` must be one of book, toy"
    assert (found[0]["input"], found[0]["type"], found[0]["pack"]) == ("door", "mine.sold", "mine")
    assert "data" not in found[0]
    assert len(letters(tmp_path, "--reason", "not_in_enum")) == 3
    assert len(letters(tmp_path, "--type", "_unknown")) == 2
    assert len(letters(tmp_path, "--newer", "1h", "--input", "door")) == 5
    assert letters(tmp_path, "--older", "1h") == letters(tmp_path, "--input", "log") == []
    assert [one["number"] for one in letters(tmp_path, "--limit", "2")] == [4, 5]
    table = evalgauge("deadletter", "list", "--config", refused.path)
    assert "field `kind` must be one of book, toy" in table.out
    assert table.err == "5 dead letters.\n"


def test_one_letter_shows_its_sentence_position_and_bytes(refused: Running, tmp_path: Path) -> None:
    """What is no text is written in hexadecimal, and nothing steers the terminal."""
    done = evalgauge("deadletter", "show", "3", "--config", refused.path)
    assert done.out.startswith("invalid_utf8: ")
    assert "  input     door\n" in done.out
    assert "  position  " in done.out
    assert '{"cut \\xff\\x1b[2J off' in done.out
    raw = evalgauge("deadletter", "show", "1", "--raw", "--state", tmp_path / "state")
    assert raw.out.encode() == sale(2)
    none = evalgauge("deadletter", "show", "99", "--state", tmp_path / "state")
    assert none.code == 1
    assert "there is no dead letter 99" in none.err


def test_a_replay_here_counts_what_is_accepted_now_and_keeps_the_rest(
    refused: Running, tmp_path: Path
) -> None:
    """After the pack was mended; nothing counts twice, and what is refused again is not counted as refused again."""
    still = evalgauge("deadletter", "replay", "--all", "--config", refused.path)
    assert still.code == 1
    assert "0 accepted, 0 counted before, 5 refused again" in still.out
    (tmp_path / "mine.yaml").write_text(MENDED)
    done = evalgauge("deadletter", "replay", "--all", "--config", refused.path)
    assert done.out.startswith("3 accepted, 0 counted before, 2 refused again\n  3: invalid_utf8: ")
    assert [one["number"] for one in letters(tmp_path)] == [3, 5]
    with refused:
        assert refused.sum("mine_sales_total", kind="game") == 3
        assert refused.sum("evalgauge_events_rejected_total") == 5
        assert refused.sum("evalgauge_events_accepted_total") == 4
        # Its id is known now, so that the sender's own second try is a repeat.
        assert json.loads(refused.post(sale(2)).text)["duplicate"] == 1
        assert refused.sum("mine_sales_total", kind="game") == 3


def test_what_the_sender_has_sent_again_himself_counts_once(refused: Running, tmp_path: Path) -> None:
    """The replay recognises it, and the letter goes."""
    (tmp_path / "mine.yaml").write_text(MENDED)
    with refused:
        assert refused.post(sale(2)).status == 202
        assert refused.end() == 0
    done = evalgauge("deadletter", "replay", "--reason", "not_in_enum", "--config", refused.path)
    assert (done.code, done.out) == (0, "2 accepted, 1 counted before, 0 refused again\n")
    with refused:
        assert refused.sum("mine_sales_total", kind="game") == 3


def test_a_replay_here_needs_the_folder_for_itself(refused: Running) -> None:
    """Exit code 3, and the way that works."""
    with refused:
        done = evalgauge("deadletter", "replay", "--all", "--config", refused.path)
        assert done.code == 3
        assert "in use by process" in done.err
        assert "--url" in done.err


def test_a_running_process_counts_letters_that_are_sent_to_its_door(refused: Running, tmp_path: Path) -> None:
    """Accepted ones go, refused ones stay once, though the door refused them once more."""
    (tmp_path / "mine.yaml").write_text(MENDED)
    with refused:
        done = evalgauge("deadletter", "replay", "--all", "--config", refused.path, "--url", refused.door)
        assert done.out.startswith("3 accepted, 0 counted before, 2 refused again\n")
        assert done.code == 1
        assert [one["number"] for one in letters(tmp_path)] == [3, 5]
        assert refused.sum("mine_sales_total", kind="game") == 3
        again = evalgauge("deadletter", "replay", "1", "--config", refused.path, "--url", refused.door)
        assert again.out == "0 accepted, 0 counted before, 0 refused again\n"


def test_a_door_that_is_not_there_costs_no_letter(refused: Running, tmp_path: Path) -> None:
    """And says so."""
    done = evalgauge("deadletter", "replay", "--all", "--config", refused.path, "--url", refused.door)
    assert done.code == 1
    assert "cannot be reached" in done.err
    assert len(letters(tmp_path)) == 5


def test_what_was_not_kept_whole_is_not_sent(tmp_path: Path) -> None:
    """A part of an event is another event."""
    (tmp_path / "mine.yaml").write_text(PACK)
    for keep, more in (("bytes", {"max_event_size": 40}), ("redacted", {}), ("reason", {})):
        folder = tmp_path / keep
        folder.mkdir()
        mine = {**config(tmp_path), "dead_letters": {"keep": keep, **more}}
        with Running(folder, mine) as one:
            assert one.post(sale(1, "toy"), sale(2)).status == 202
            assert one.end() == 0
        (tmp_path / "mine.yaml").write_text(MENDED)
        done = evalgauge("deadletter", "replay", "--all", "--config", one.path)
        assert done.code == 1
        assert "1: not sent: " in done.out
        shown = evalgauge("deadletter", "show", "1", "--config", one.path).out
        words = {
            "bytes": "only the first 40 of",
            "redacted": "payload fields were taken out",
            "reason": "was not kept",
        }
        assert words[keep] in shown
        assert len(letters(folder)) == 1
        (tmp_path / "mine.yaml").write_text(PACK)


def test_the_tenant_of_the_token_is_remembered(tmp_path: Path) -> None:
    """An event that names another tenant stays refused, and one that names none gets the sender's."""
    (tmp_path / "mine.yaml").write_text(PACK)
    mine = config(tmp_path)
    mine["inputs"]["door"]["tokens"] = [{"name": "t", "token": "hush", "tenant": "b"}]
    one = Running(tmp_path, mine)
    with one:
        lines = [sale(1, "toy"), sale(2, "toy", data={"kind": "game"})]
        connection = http.client.HTTPConnection("127.0.0.1", one.door_port, timeout=30)
        headers = {"Content-Type": "application/x-ndjson", "Authorization": "Bearer hush"}
        connection.request("POST", "/v1/events", b"\n".join(lines), headers)
        assert connection.getresponse().status == 400
        connection.close()
        unsent = evalgauge("deadletter", "replay", "--all", "--config", one.path, "--url", one.door)
        assert "1: not sent: it came with the token of tenant 'b'" in unsent.out
        assert one.end() == 0
    (tmp_path / "mine.yaml").write_text(MENDED)
    done = evalgauge("deadletter", "replay", "--all", "--config", one.path)
    assert done.out.startswith("1 accepted, 0 counted before, 1 refused again\n  1: foreign_tenant: ")
    with one:
        assert one.sum("mine_sales_total", shop="b", kind="game") == 1
        assert one.sum("mine_sales_total") == 1


def test_other_packs_than_the_states_are_refused(refused: Running, tmp_path: Path) -> None:
    """Their metrics would lose their values by the commit of the replay."""
    refused.write({**config(tmp_path), "packs": ["judgment"]})
    done = evalgauge("deadletter", "replay", "--all", "--config", refused.path)
    assert done.code == 2
    assert "these packs are not those that the state was written with" in done.err
    assert len(letters(tmp_path)) == 5


def test_a_letter_and_its_count_are_one_transaction(
    refused: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails within the commit, neither is there; tried again, both are, once."""
    (tmp_path / "mine.yaml").write_text(MENDED)
    loaded = load_config(refused.path, {})

    def broken(point: str) -> None:
        if point == "commit.inside":
            raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr("evalgauge.core.failpoints.reach", broken)
        with pytest.raises(sqlite3.OperationalError):
            replay_here(loaded, Wanted())
    assert len(letters(tmp_path)) == 5
    assert replay_here(loaded, Wanted()).accepted == 3
    assert len(letters(tmp_path)) == 2
    with refused:
        assert refused.sum("mine_sales_total", kind="game") == 3


def test_purging_beside_a_running_process(refused: Running, tmp_path: Path) -> None:
    """By number, reason, age or all; asked first unless told not to."""
    with refused:
        state = tmp_path / "state"
        assert evalgauge("deadletter", "purge", "--state", state).code == 2
        assert evalgauge("deadletter", "purge", "--all", "--state", state, stdin=b"n\n").code == 130
        assert len(letters(tmp_path)) == 5
        assert evalgauge("deadletter", "purge", "1", "2", "--yes", "--state", state).out == "2 purged\n"
        assert (
            evalgauge("deadletter", "purge", "--reason", "unknown_type", "--yes", "--state", state).out
            == "1 purged\n"
        )
        assert (
            evalgauge("deadletter", "purge", "--older", "1h", "--yes", "--state", state).out == "0 purged\n"
        )
        assert evalgauge("deadletter", "purge", "--all", "--state", state, stdin=b"y\n").code == 0
        assert letters(tmp_path) == []
        assert refused.post(sale(7, "toy"), sale(8)).status == 202
        assert [one["number"] for one in letters(tmp_path)] == [6]


def test_letters_can_go_while_a_process_commits(tmp_path: Path) -> None:
    """Two writers of one file wait for each other."""
    (tmp_path / "mine.yaml").write_text(PACK)
    with Running(tmp_path, config(tmp_path)) as one:
        assert one.post(sale(0)).status == 400
        stop = threading.Event()

        def work() -> None:
            with closing(DeadLetterBox(tmp_path / "state")) as box:
                while not stop.is_set():
                    box.purge(Wanted())

        purger = threading.Thread(target=work)
        purger.start()
        try:
            for number in range(100):
                assert one.post(sale(number, "toy"), sale(1000 + number)).status == 202
        finally:
            stop.set()
            purger.join()
        assert one.sum("mine_sales_total") == 100
        assert one.sum("evalgauge_events_rejected_total") == 101


def test_a_folder_without_state_is_named(tmp_path: Path) -> None:
    """Exit code 3."""
    done = evalgauge("deadletter", "list", "--state", tmp_path / "none")
    assert done.code == 3
    assert "holds no state" in done.err
    assert not (tmp_path / "none").exists()


def test_a_foreign_state_file_is_left_alone(tmp_path: Path) -> None:
    """Looking at it sets nothing aside."""
    with closing(sqlite3.connect(tmp_path / "state.db")) as db:
        db.execute("CREATE TABLE theirs (x)")
    done = evalgauge("deadletter", "list", "--state", tmp_path)
    assert done.code == 3
    assert "the file belongs to another program" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["state.db"]


def test_the_state_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """It holds what was sent."""
    with closing(SqliteStore(tmp_path / "state")):
        assert (tmp_path / "state" / "state.db").stat().st_mode & 0o777 == 0o600


def test_the_position_of_a_log_line_is_its_byte(tmp_path: Path) -> None:
    """So that it can be found in the file."""
    (tmp_path / "mine.yaml").write_text(PACK)
    first = judgment(1)
    (tmp_path / "e.ndjson").write_bytes(first + b"\n" + sale(2) + b"\n")
    words = ("replay", tmp_path / "e.ndjson", "--pack", tmp_path / "mine.yaml", "--state", tmp_path / "state")
    assert evalgauge(*words).code == 0
    assert [one["position"] for one in letters(tmp_path)] == [
        f"{tmp_path}/e.ndjson@{at}" for at in (0, len(first) + 1)
    ]
