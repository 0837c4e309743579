"""`evalgauge replay`: files in, metrics out, the same bytes however they come in."""

from __future__ import annotations

import gzip
import os
import pty
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
import zstandard

from tests.events import judgments, line
from tests.parts.part import until
from tests.running import PROGRAM, evalgauge, judgment

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = 20_000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some megabytes of events, some of them bad."""
    path = tmp_path_factory.mktemp("replay") / "events.ndjson"
    made = judgments(7)
    with path.open("wb") as file:
        for number in range(EVENTS):
            file.write(line(next(made)))
            if number % 1000 == 0:
                file.write(b'{"cut off\n')
    return path


@pytest.fixture(scope="module")
def metrics(log: Path) -> bytes:
    """What one worker makes of them."""
    done = evalgauge("replay", log, "--pack", "judgment", "--out", log.with_name("one.prom"))
    assert done.code == 0
    assert f"{EVENTS:,} accepted, {EVENTS // 1000} rejected, 0 duplicated" in done.err
    assert f"rejected as malformed_json: {EVENTS // 1000}" in done.err
    return log.with_name("one.prom").read_bytes()


def test_two_workers_give_the_same_bytes(log: Path, metrics: bytes, tmp_path: Path) -> None:
    """To the last digit."""
    done = evalgauge("replay", log, "--pack", "judgment", "--out", tmp_path / "two.prom", "--workers", "2")
    assert done.code == 0
    assert (tmp_path / "two.prom").read_bytes() == metrics
    assert b"evalgauge_" not in metrics


@pytest.mark.parametrize("form", ["gzip", "zstd", "standard input", "gzip on standard input"])
def test_other_forms_give_the_same_bytes(log: Path, metrics: bytes, tmp_path: Path, form: str) -> None:
    """Compressed or piped, out to a file or to standard output."""
    data = log.read_bytes()
    packed = tmp_path / ("events.ndjson.zst" if form == "zstd" else "events.ndjson.gz")
    packed.write_bytes(zstandard.compress(data) if form == "zstd" else gzip.compress(data))
    if "standard input" in form:
        words, stdin = ("-",), packed.read_bytes() if "gzip" in form else data
    else:
        words, stdin = (str(packed),), b""
    done = evalgauge("replay", *words, "--pack", "judgment", "--out", "-", stdin=stdin)
    assert done.code == 0
    assert done.out.encode() == metrics


def test_strict_ends_with_1_if_anything_was_refused(tmp_path: Path) -> None:
    """The metrics are written all the same."""
    good, bad = tmp_path / "good.ndjson", tmp_path / "bad.ndjson"
    good.write_bytes(judgment(1))
    bad.write_bytes(judgment(2) + b"\n" + judgment(3, method_used="magic"))
    assert evalgauge("replay", good, "--pack", "judgment", "--strict").code == 0
    assert evalgauge("replay", bad, "--pack", "judgment").code == 0
    done = evalgauge("replay", bad, "--pack", "judgment", "--strict", "--out", tmp_path / "m.prom")
    assert done.code == 1
    assert "1 accepted, 1 rejected" in done.err
    assert "judgment_executions_total" in (tmp_path / "m.prom").read_text()


def test_repeats_are_counted_once_where_that_is_asked_for(tmp_path: Path) -> None:
    """Files can be read again, so by default a line is an event."""
    log = tmp_path / "e.ndjson"
    log.write_bytes(b"\n".join([judgment(1), judgment(1), judgment(2)]))
    assert "3 accepted, 0 rejected, 0 duplicated" in evalgauge("replay", log, "--pack", "judgment").err
    assert (
        "2 accepted, 0 rejected, 1 duplicated"
        in evalgauge("replay", log, "-p", "judgment", "--deduplicate").err
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Exit code 2, and no metrics file appears."""
    done = evalgauge("replay", tmp_path / "none.ndjson", "--pack", "judgment", "--out", tmp_path / "m.prom")
    assert done.code == 2
    assert f"{tmp_path / 'none.ndjson'} does not exist" in done.err
    assert list(tmp_path.iterdir()) == []


def test_with_state_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    """And what was refused can be looked at."""
    log, state = tmp_path / "e.ndjson", tmp_path / "state"
    log.write_bytes(judgment(1) + b"\n" + judgment(2, method_used="magic") + b"\n")
    words = ("replay", log, "--pack", "judgment", "--state", state, "--out", "-")
    first = evalgauge(*words)
    with log.open("ab") as file:
        file.write(judgment(3) + b"\n")
    second = evalgauge(*words)
    sample = 'judgment_executions_total{tenant="acme",workflow="w",method="rule",status="success"} '
    assert f"{sample}1" in first.out
    assert f"{sample}2" in second.out
    assert "not_in_enum" in evalgauge("deadletter", "list", "--state", state).out


def test_openmetrics_says_so(tmp_path: Path) -> None:
    """With its end mark."""
    log = tmp_path / "e.ndjson"
    log.write_bytes(judgment(1))
    done = evalgauge("replay", log, "--pack", "judgment", "--openmetrics", "--out", "-")
    assert done.out.endswith("# EOF\n")
    assert "judgment_executions_created{" in done.out


def test_a_terminal_sees_how_far_it_is(log: Path) -> None:
    """A bar that is taken away again before the summary; a pipe sees none."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [PROGRAM, "replay", log, "--pack", "judgment"], stdout=follower, stderr=follower
    ) as replay:
        os.close(follower)
        seen = b""
        while True:
            try:
                part = os.read(leader, 4096)
            except OSError:  # the other end is gone
                break
            if not part:
                break
            seen += part
    os.close(leader)
    assert replay.returncode == 0
    bar, _, summary = seen.rpartition(b"\x1b[K")
    assert b" events, " in bar
    assert b"[####" in bar
    assert f"{EVENTS:,} accepted".encode() in summary


def test_an_interrupted_replay_writes_no_metrics_and_goes_on_with_its_state(tmp_path: Path) -> None:
    """Half of the counts would be taken for the whole. Exit code 130."""
    pipe, state, out = tmp_path / "pipe", tmp_path / "state", tmp_path / "m.prom"
    os.mkfifo(pipe)
    words = [
        str(PROGRAM),
        "replay",
        str(pipe),
        "--pack",
        "judgment",
        "--state",
        str(state),
        "--out",
        str(out),
    ]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as replay, pipe.open("wb", buffering=0) as writer:
        writer.write(judgment(1) + b"\n")
        until(
            lambda: b"evalgauge_events_accepted" in (state / "state.db-wal").read_bytes(),
            "the first commit",
        )
        replay.send_signal(signal.SIGINT)
        _, err = replay.communicate(timeout=30)
    assert replay.returncode == 130
    assert b"Interrupted; no metrics were written, run it again to go on." in err
    assert not out.exists()
