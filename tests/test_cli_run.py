"""`evalgauge run` as a process: ending, reloading, its state folder, its logs."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.parts.part import until
from tests.running import PROGRAM, Running, evalgauge, judgment

if TYPE_CHECKING:
    from pathlib import Path

EXECUTED = "judgment_executions_total"


def config(folder: Path, **more: Any) -> dict[str, Any]:
    """A door, and a log that is followed."""
    inputs = {
        "door": {"type": "http"},
        "batch": {
            "type": "file",
            "path": str(folder / "events.ndjson"),
            "follow": True,
            "poll_interval": "20ms",
        },
    }
    return {"packs": ["judgment"], "inputs": inputs, "shutdown_timeout": "5s", **more}


def write(folder: Path, *lines: bytes) -> None:
    """Append to the log."""
    with (folder / "events.ndjson").open("ab") as log:
        log.write(b"".join(line + b"\n" for line in lines))


def test_events_of_both_inputs_become_metrics_and_sigterm_ends_in_order(tmp_path: Path) -> None:
    """Exit code 0 within the set time, and everything that was taken in is there after a restart."""
    write(tmp_path, judgment(1), judgment(2))
    with Running(tmp_path, config(tmp_path)) as one:
        until(lambda: one.sum(EXECUTED) == 2, "the log to be counted")
        until(lambda: one.get("/readyz").status == 200, "it to be ready")
        # An alert's increase() has to see what happens for the first time.
        assert {"evalgauge_state_takeovers_total 0", 'evalgauge_commits_total{result="failure"} 0'} <= {
            line.removesuffix(".0") for line in one.get("/metrics").text.splitlines()
        }
        assert one.post(judgment(3), judgment(4, method_used="magic")).status == 202
        assert one.sum(EXECUTED) == 3
        assert one.sum("evalgauge_events_rejected_total", input="door", reason="not_in_enum") == 1
        write(tmp_path, *(judgment(number) for number in range(100, 1100)))
        started = time.monotonic()
        assert one.end() == 0
        assert time.monotonic() - started < 30
        assert one.post(judgment(5)).status == 0
    with Running(tmp_path, config(tmp_path)) as again:
        until(lambda: again.sum(EXECUTED) == 1003, "the rest of the log")


def test_sigterm_ends_in_the_set_time_though_a_client_holds_a_request_open(tmp_path: Path) -> None:
    """Nobody can keep the process alive."""
    with Running(tmp_path, config(tmp_path, shutdown_timeout="1s")) as one:
        with socket.create_connection(("127.0.0.1", one.door_port)) as client:
            client.sendall(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n")
            client.sendall(b"Content-Length: 1000\r\n\r\n{")
            started = time.monotonic()
            assert one.end() == 0
        assert time.monotonic() - started < 30


@pytest.mark.parametrize("how", ["signal", "post"])
def test_a_reload_goes_over_to_a_good_configuration_and_stays_with_the_old_at_a_bad_one(
    tmp_path: Path, how: str
) -> None:
    """Counters go on, the metrics say how it went, and nothing that is sent meanwhile is lost."""
    with Running(tmp_path, config(tmp_path)) as one:

        def reload() -> str:
            if how == "post":
                answer = one.get("/-/reload", method="POST")
                return str(answer.json.get("detail", "")) if answer.status != 200 else ""
            one.send(signal.SIGHUP)
            return ""

        assert one.post(judgment(1)).status == 202
        taken = one.sum("evalgauge_config_last_reload_success_timestamp_seconds")

        one.path.write_text("packs: [judgment]\ninputs: {door: {type: http, lisen: x}}\n")
        why = reload()
        if how == "post":
            assert f"{one.path}:2:29: unknown key `lisen`" in why
        until(lambda: one.sum("evalgauge_config_last_reload_successful") == 0, "the reload to fail")
        assert "the old configuration stays" in one.log()
        assert one.post(judgment(2)).status == 202
        assert one.sum(EXECUTED) == 2

        wider = config(tmp_path)
        wider["packs"] = ["judgment", "ahp"]
        one.write(wider)
        assert reload() == ""
        until(lambda: one.sum("evalgauge_config_last_reload_successful") == 1, "the reload to succeed")
        assert one.sum("evalgauge_config_last_reload_success_timestamp_seconds") > taken
        until(lambda: one.post(judgment(3)).status == 202, "the new door")
        data = {"project_id": "p", "evaluation_id": "e", "evaluator_id": "v"}
        started = {"id": "a", "source": "/test", "type": "ahp.evaluation.started", "data": data}
        assert one.post(json.dumps(started).encode()).status == 202
        assert one.sum(EXECUTED) == 3
        assert one.sum("ahp_evaluations_started_total") == 1
        assert one.end() == 0


def test_a_second_process_on_the_folder_ends_with_a_clear_message(tmp_path: Path) -> None:
    """Exit code 3, and the first goes on."""
    with Running(tmp_path, config(tmp_path)) as one:
        assert one.process is not None
        second = evalgauge("run", "--config", one.path)
        assert second.code == 3
        state = tmp_path / "state"
        assert (
            f"the state folder {state} is in use by process {one.process.pid}: stop it, or give" in second.err
        )
        assert "Traceback" not in second.err
        assert one.post(judgment(1)).status == 202


def test_secrets_come_from_variables_and_files(tmp_path: Path) -> None:
    """A token in the environment for /metrics, one in a file for the door."""
    (tmp_path / "token").write_text("open-sesame\n")
    mine = config(tmp_path)
    mine["inputs"]["door"]["tokens"] = [{"name": "t", "token_file": str(tmp_path / "token")}]
    mine["exporters"] = {"metrics": {"type": "prometheus", "token": "${SCRAPE_TOKEN}"}}
    with Running(tmp_path, mine, env={"SCRAPE_TOKEN": "12345"}) as one:
        assert one.get("/metrics").status == 401
        assert one.post(judgment(1)).status == 401
        assert "open-sesame" not in one.log()
        assert "12345" not in one.log()


def test_logs_as_json_have_the_field_names_of_ecs(tmp_path: Path) -> None:
    """Each line is one object that Elasticsearch takes."""
    with Running(tmp_path, config(tmp_path), "--log-format", "json", "--log-level", "debug") as one:
        one.post(judgment(1))
        assert one.end() == 0
        lines = [json.loads(line) for line in one.log().splitlines()]
    assert lines
    for line in lines:
        assert {"@timestamp", "log.level", "message", "ecs.version", "service.name"} <= _flat(line)


def _flat(value: dict[str, Any], above: str = "") -> set[str]:
    keys = set()
    for key, one in value.items():
        keys |= {f"{above}{key}"} | (_flat(one, f"{above}{key}.") if isinstance(one, dict) else set())
    return keys


def corrupt(folder: Path) -> bytes:
    """Overwrite the state file; what stands there now."""
    for part in (folder / "state").glob("state.db-*"):
        part.unlink()
    wreck = b"this is no database\n" * 500
    (folder / "state" / "state.db").write_bytes(wreck)
    return wreck


def counted(tmp_path: Path, count: int = 5) -> None:
    """A first life that has counted a log."""
    write(tmp_path, *(judgment(number) for number in range(count)))
    with Running(tmp_path, config(tmp_path)) as one:
        until(lambda: one.sum(EXECUTED) == count, "the log to be counted")
        assert one.end() == 0


def test_with_lost_state_the_door_opens_and_the_log_waits_for_a_person(tmp_path: Path) -> None:
    """`on_state_loss: hold`: alive, not ready with the reason, the file set aside, and nothing counted again."""
    counted(tmp_path)
    wreck = corrupt(tmp_path)
    for _ in range(2):  # a restart changes nothing
        with Running(tmp_path, config(tmp_path)) as one:
            assert one.get("/healthz").status == 200
            ready = one.get("/readyz")
            assert ready.status == 503
            assert (
                "input batch is held: its position is lost with the state: the file is corrupt" in ready.text
            )
            assert one.post(judgment(time.time_ns())).status == 202
            assert one.sum("evalgauge_state_losses_total") == 1
            assert one.sum("evalgauge_ready") == 0
            assert one.sum("evalgauge_events_received_total", input="batch") == 0
            assert one.end() == 0
    (aside,) = list((tmp_path / "state").glob("state.db.lost-*"))
    assert aside.read_bytes() == wreck
    shown = evalgauge("state", "show", "--state", tmp_path / "state")
    assert "LOST: the file is corrupt" in shown.out
    assert aside.name in shown.out


def test_the_way_out_of_hold_to_the_end_of_the_log(tmp_path: Path) -> None:
    """`--on-state-loss end` for one start: what is there is not counted again, what comes is."""
    counted(tmp_path)
    corrupt(tmp_path)
    with Running(tmp_path, config(tmp_path)) as one:
        assert one.get("/readyz").status == 503
        assert one.end() == 0
    with Running(tmp_path, config(tmp_path), "--on-state-loss", "end") as one:
        until(lambda: one.get("/readyz").status == 200, "it to be ready")
        write(tmp_path, judgment(1000))
        until(lambda: one.sum(EXECUTED) == 1, "what came")
        assert one.end() == 0
    with Running(tmp_path, config(tmp_path)) as one:
        write(tmp_path, judgment(1001))
        until(lambda: one.sum(EXECUTED) == 2, "what came")


def test_what_is_at_the_end_stays_uncounted_though_nothing_came_before_the_next_restart(
    tmp_path: Path,
) -> None:
    """Going on at the end is decided once, and is as durable as a position."""
    counted(tmp_path)
    corrupt(tmp_path)
    with Running(tmp_path, config(tmp_path), "--on-state-loss", "end") as one:
        until(lambda: one.get("/readyz").status == 200, "it to be ready")
        time.sleep(0.3)  # time in which a position could have been committed
        assert one.end() == 0
    with Running(tmp_path, config(tmp_path)) as one:
        write(tmp_path, judgment(1000))
        until(lambda: one.sum(EXECUTED) > 0, "what came")
        assert one.sum(EXECUTED) == 1


@pytest.mark.parametrize("way", ["policy", "forgotten"])
def test_the_ways_out_of_hold_to_count_all_again(tmp_path: Path, way: str) -> None:
    """`on_state_loss: replay`, or `state reset --forget-loss`: as on a first start."""
    counted(tmp_path)
    corrupt(tmp_path)
    if way == "policy":
        again = config(tmp_path, state={"folder": str(tmp_path / "state"), "on_state_loss": "replay"})
    else:
        again = config(tmp_path)
        with Running(tmp_path, again) as one:
            assert one.get("/readyz").status == 503
            locked = evalgauge("state", "reset", "--forget-loss", "--state", tmp_path / "state")
            assert locked.code == 3
            assert one.end() == 0
        done = evalgauge("state", "reset", "--forget-loss", "--state", tmp_path / "state")
        assert done.code == 0
        assert done.out.startswith("no longer held for: the file is corrupt")
    with Running(tmp_path, again) as one:
        until(lambda: one.sum(EXECUTED) == 5, "all of the log, again")


def test_a_state_file_that_cannot_be_opened_is_left_where_it_is(tmp_path: Path) -> None:
    """It may be whole: exit code 3, and a person looks."""
    (tmp_path / "state" / "state.db").mkdir(parents=True)
    (tmp_path / "state" / "state.db" / "x").touch()
    one = Running(tmp_path, config(tmp_path))
    one.start()
    assert one.process is not None
    assert one.process.wait(20) == 3
    assert "cannot be read" in one.log()
    assert "Traceback" not in one.log()
    assert (tmp_path / "state" / "state.db").is_dir()


def test_a_configuration_without_inputs_does_not_start(tmp_path: Path) -> None:
    """It would look alive and count nothing."""
    (tmp_path / "c.yaml").write_text("packs: [judgment]\n")
    done = evalgauge("run", "--config", tmp_path / "c.yaml", cwd=tmp_path)
    assert done.code == 2
    assert "there are no inputs" in done.err
    assert not (tmp_path / "evalgauge-state").exists()


def test_two_servers_on_one_port_end_the_process_with_a_message(tmp_path: Path) -> None:
    """The address is named, and no traceback is shown."""
    with Running(tmp_path, config(tmp_path)) as one:
        words = ["run", "--config", one.path, "--state", tmp_path / "other"]
        with subprocess.Popen([PROGRAM, *map(str, words)], stderr=subprocess.PIPE, cwd=tmp_path) as second:
            _, err = second.communicate(timeout=30)
        assert second.returncode == 2
        assert str(one.metrics_port) in err.decode()
        assert "Traceback" not in err.decode()
