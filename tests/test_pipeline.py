"""The pipeline around the engine: what it does while the disk is full, and what it tells of its store."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from evalgauge.core.config import load_config
from evalgauge.core.process import Process
from evalgauge.core.sqlite_store import SqliteStore
from tests.parts.part import until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

GOOD = {
    "id": "1",
    "source": "s",
    "type": "judgment.executed",
    "data": {
        "tenant_id": "t",
        "workflow_id": "w",
        "method_used": "rule",
        "status": "success",
        "input_data": "i",
        "final_result": "r",
    },
}
BAD = {**GOOD, "id": "", "note": "x" * 30_000}


def test_a_full_disk_holds_the_inputs_back_and_loses_nothing(tmp_path: Path) -> None:
    """Commits are tried again, no more chunks are taken meanwhile, and all is counted once there is room."""
    log = tmp_path / "events.ndjson"
    log.touch()
    process = Process(
        load_config(
            None,
            {},
            packs=["judgment"],
            inputs={"log": {"type": "file", "path": str(log), "follow": True, "poll_interval": "10ms"}},
            state__folder=str(tmp_path / "state"),
        )
    )
    process.pipeline.start()
    worker = threading.Thread(target=process.pipeline.run, kwargs={"until_done": False})
    worker.start()
    assert isinstance(process._store, SqliteStore)
    engine, database = process.pipeline.engine, process._store._db

    def accepted() -> int:
        return sum(int(f.values.sum()) for f in process.families() if f.name == "evalgauge_events_accepted")

    def write(event: Mapping[str, object], times: int) -> None:
        with log.open("a", encoding="utf-8") as file:
            file.write((json.dumps(event) + "\n") * times)

    try:
        write(GOOD, 10)
        until(lambda: accepted() == 10, "the first events", 10)
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages + 4}").fetchall()
        write(BAD, 20)
        until(lambda: any("commits fail" in why for why in process.readiness()), "failing commits", 10)
        taken = engine.taken
        write(GOOD, 1000)
        until(lambda: process.pipeline._intake.used > 0, "chunks that wait", 10)
        assert engine.taken == taken
        assert accepted() == 10
        database.execute("PRAGMA max_page_count = 1073741823").fetchall()
        until(lambda: accepted() == 1010, "everything after the disk has room again", 10)
        assert not process.readiness()
    finally:
        process.end()
        worker.join(20)
        process.pipeline.close()
        process.close()
    assert not worker.is_alive()


DOORS = {"log": {"type": "file", "path": "events.ndjson"}}
GROUP = {"k": {"type": "kafka", "bootstrap": "127.0.0.1:1", "topics": ["t"], "group": {"id": "g"}}}


@pytest.mark.parametrize(("inputs", "told"), [(DOORS, [0.0]), (GROUP, [])])
def test_how_many_dead_letters_are_kept_is_told_only_where_it_is_known(
    tmp_path: Path, inputs: dict[str, object], told: list[float]
) -> None:
    """The letters of a group are in a topic: a 0 would say that there are none."""
    config = load_config(
        None, {}, packs=["judgment"], inputs=inputs, replica="r1", state__folder=str(tmp_path / "state")
    )
    process = Process(config)
    try:
        process.pipeline._look_around()  # before it is started: no broker is needed to know this
        families = {family.name: family for family in process._metrics.families()}
        assert list(families["evalgauge_queue_bytes"].values) == [0.0]
        shown = families.get("evalgauge_dead_letters")
        assert (list(shown.values) if shown else []) == told
    finally:
        process.pipeline.close()
        process.close()
