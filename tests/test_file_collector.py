"""The collector `file`: every line once, in order, at its exact position, whatever happens to the files."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from evalgauge.collectors.file import FileCollector, FileConfig
from evalgauge.collectors.file_bytes import BrokenFileError, Decompressed, RawFile, detect
from evalgauge.collectors.file_lines import LineCutter, LineLocator, cut_file
from evalgauge.collectors.file_rotation import is_rotation_of, related
from evalgauge.core.collect import FileRange, InputContext, InputStatus
from evalgauge.core.errors import ConfigError, EvalgaugeError, StateError
from tests.conformance.sink import MemorySink, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def lines(first: int, last: int, word: str = "event") -> list[bytes]:
    """Distinct lines, first included, last excluded."""
    return [json.dumps({"id": f"{word}-{n}", "pad": "x" * (n % 50)}).encode() for n in range(first, last)]


def text(some: list[bytes]) -> bytes:
    """Lines as they stand in a file."""
    return b"".join(line + b"\n" for line in some)


def append(path: Path, data: bytes) -> None:
    """Write on, as a logger does."""
    with path.open("ab") as file:
        file.write(data)


class Run:
    """A collector in its thread, with the status it keeps."""

    def __init__(
        self,
        sink: MemorySink,
        chunk: int = 4 << 20,
        event: int = 1 << 20,
        *,
        at_end: bool = False,
        **config: object,
    ) -> None:
        config.setdefault("poll_interval", 0.01)
        config.setdefault("rotate_wait", 0)
        self.stop = threading.Event()
        self.status = InputStatus()
        sink.revive()
        context = InputContext(
            "files",
            dict(sink.positions),
            sink,
            self.stop,
            self.status,
            start_at_end=at_end,
            max_event_bytes=event,
            max_chunk_bytes=chunk,
        )
        self.error: BaseException | None = None
        self.collector = FileCollector(FileConfig.model_validate(config), context)
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.collector.run()
        except BaseException as error:  # noqa: BLE001 - shown by whoever looks
            self.error = error

    def end(self) -> None:
        """Wait for its own end."""
        self.thread.join(20)
        assert not self.thread.is_alive()


@contextmanager
def running(sink: MemorySink, **config: object) -> Iterator[Run]:
    """A collector that runs until the block ends."""
    run = Run(sink, **config)  # type: ignore[arg-type]
    run.thread.start()
    try:
        yield run
    finally:
        run.stop.set()
        run.end()
    if run.error:
        raise run.error


def read_all(sink: MemorySink, **config: object) -> Run:
    """Run over files that are not followed, to the end."""
    run = Run(sink, **config)  # type: ignore[arg-type]
    run.thread.start()
    run.end()
    if run.error:
        raise run.error
    return run


# -- cutting ---------------------------------------------------------------------------------------------------


def cut(content: bytes, sizes: list[int], target: int, bound: int) -> list[tuple[int, bytes]]:
    """(offset, line) of every line that a cutter gives for content fed in blocks of these sizes, over and over."""
    cutter, at, turn = LineCutter(0, target, bound), 0, 0
    cuts = []
    while at < len(content):
        size = sizes[turn % len(sizes)]
        cuts += cutter.feed(content[at : at + size])
        at, turn = at + size, turn + 1
    cuts += cutter.finish()
    found, expected = [], 0
    for piece in cuts:
        assert piece.start == expected
        expected = piece.end
        assert isinstance(piece.body, bytes)
        assert len(piece.body) <= max(target, bound + 2) or piece.body.count(b"\n") <= 1
        start = piece.start
        for line in piece.body.split(b"\n")[: -1 if piece.body.endswith(b"\n") else None]:
            found.append((start, line))
            start += len(line) + 1
        if piece.whole:
            assert content[piece.start : piece.end] == piece.body
        assert piece.lines == content[piece.start : piece.end].count(b"\n")
    assert expected == len(content)
    return found


def truth(content: bytes) -> list[tuple[int, bytes]]:
    """(offset, line) by definition."""
    found, at = [], 0
    parts = content.split(b"\n")
    for part in parts[: -1 if content.endswith(b"\n") else None] if content else []:
        found.append((at, part))
        at += len(part) + 1
    return found


CONTENT = st.lists(
    st.sampled_from([b"", b"a", b"{}", b"x" * 9, b"long" * 20, b"\r", b"\xff\x00"]), max_size=40
).map(b"\n".join)


@settings(max_examples=300)
@given(
    CONTENT, st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(1, 120), st.integers(5, 200)
)
def test_lines_and_offsets_do_not_depend_on_how_a_stream_is_cut(
    content: bytes, sizes: list[int], target: int, bound: int
) -> None:
    """Design invariant 10; of lines above the bound the beginning, the length to refuse it, and the offset hold."""
    for (at, line), (true_at, true_line) in zip(
        cut(content, sizes, target, bound), truth(content), strict=True
    ):
        assert at == true_at
        if len(true_line) <= bound:
            assert line == true_line
        else:
            assert true_line.startswith(line)
            assert len(line) > bound


@settings(max_examples=200)
@given(CONTENT, st.integers(1, 120), st.integers(5, 200))
def test_a_file_cut_near_the_ends_of_ranges_gives_the_same_lines(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, target: int, bound: int
) -> None:
    """Ranges are cut by looking at their ends only."""
    path = tmp_path_factory.getbasetemp() / "cut"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    found, at = [], 0
    while (piece := cut_file(str(path), fd, at, target, bound, threading.Event())) is not None:
        assert piece.start == at
        assert isinstance(piece.body, bytes)
        start = at
        for line in piece.body.split(b"\n")[: -1 if piece.body.endswith(b"\n") else None]:
            found.append((start, line))
            start += len(line) + 1
        at = piece.end
    os.close(fd)
    for (at, line), (true_at, true_line) in zip(found, truth(content), strict=True):
        assert at == true_at
        assert line == true_line or (true_line.startswith(line) and len(line) > bound)


def test_a_position_names_the_byte_where_its_line_starts(tmp_path: Path) -> None:
    """It is an id for events without one, so bytes and ranges must agree."""
    body = b'{"a":1}\n\n{"b":2}\nlast'
    (tmp_path / "f").write_bytes(b"skipped\n" + body)
    for source in (body, FileRange(str(tmp_path / "f"), 8, len(body))):
        locate = LineLocator("f@", 8, source)
        assert [locate(n) for n in range(4)] == ["f@8", "f@16", "f@17", "f@25"]


# -- whole files -------------------------------------------------------------------------------------------------


def test_a_large_plain_file_goes_out_as_ranges_of_whole_lines(tmp_path: Path) -> None:
    """Workers read them; only the ends of the ranges were read to cut them."""
    some = lines(0, 20_000)
    (tmp_path / "a.ndjson").write_bytes(text(some))
    sink = MemorySink()
    run = read_all(sink, path=str(tmp_path / "a.ndjson"), chunk=200_000)
    assert sink.lines() == some
    ranges = [chunk.body for chunk in sink.chunks if isinstance(chunk.body, FileRange)]
    assert len(ranges) == len(sink.chunks) >= 5 or len(sink.chunks) - len(ranges) == 1
    assert all(span.length <= 200_000 for span in ranges)
    assert run.status.lag_bytes == {str(tmp_path / "a.ndjson"): 0}


def members(data: bytes) -> bytes:
    """Gzip of several members with padding between, as `cat a.gz b.gz` and tapes leave it."""
    return (
        gzip.compress(data[:100]) + b"\0" * 512 + gzip.compress(data[100:5000]) + gzip.compress(data[5000:])
    )


def frames(data: bytes) -> bytes:
    """Zstd of several frames, a skippable one first."""
    compress = zstandard.ZstdCompressor().compress
    return b"\x50\x2a\x4d\x18\x04\0\0\0skip" + compress(data[:100]) + compress(data[100:])


@pytest.mark.parametrize(
    "name", ["a.ndjson", "a.ndjson.gz", "a.ndjson.zst", "by-magic-gzip", "by-magic-zstd"]
)
def test_plain_gzip_and_zstd_give_the_same_lines_and_positions(tmp_path: Path, name: str) -> None:
    """By name or by first bytes; several members or frames; the last line without newline."""
    some = lines(0, 3000)
    data = text(some)[:-1]
    pack = members if "gz" in name else frames if "zst" in name else bytes
    (tmp_path / name).write_bytes(pack(data))
    sink = MemorySink()
    read_all(sink, path=str(tmp_path / name), chunk=10_000)
    assert sink.lines() == some
    offsets = [int(where.rpartition("@")[2]) for _, where, _ in sink.committed]
    assert offsets == [at for at, _ in truth(data)]
    assert sink.positions[str(tmp_path / name)]["offset"] == len(data)
    assert max(len(chunk.body) for chunk in sink.chunks if isinstance(chunk.body, bytes)) <= 10_000


@pytest.mark.parametrize("name", ["a", "a.gz", "a.zst"])
def test_reading_resumes_at_the_exact_byte_wherever_it_stopped(tmp_path: Path, name: str) -> None:
    """Crashed after each of its chunks in turn, nothing is lost and nothing comes twice."""
    some = lines(0, 400)
    data = text(some)
    (tmp_path / name).write_bytes({"a": data, "a.gz": members(data), "a.zst": frames(data)}[name])
    whole = MemorySink()
    read_all(whole, path=str(tmp_path / name), chunk=900)
    for stop_after in range(1, len(whole.chunks), 3):
        sink = MemorySink(automatic=False, room=stop_after)
        run = Run(sink, path=str(tmp_path / name), chunk=900)
        run.thread.start()
        wait_until(lambda: len(sink.chunks) >= stop_after)  # noqa: B023 - called at once
        sink.commit()
        sink.crash()
        run.end()
        again = MemorySink()
        again.positions = json.loads(json.dumps(sink.positions))
        read_all(again, path=str(tmp_path / name), chunk=700)
        assert sink.lines() + again.lines() == some
        assert [w for _, w, _ in sink.committed + again.committed] == [w for _, w, _ in whole.committed]


def test_a_finished_file_that_has_grown_is_read_on(tmp_path: Path) -> None:
    """Run by run, without following."""
    path = tmp_path / "a"
    sink = MemorySink()
    path.write_bytes(text(lines(0, 10)))
    read_all(sink, path=str(path))
    read_all(sink, path=str(path))
    append(path, text(lines(10, 20)))
    read_all(sink, path=str(path))
    assert sink.lines() == lines(0, 20)


def test_globs_lists_and_folders_below(tmp_path: Path) -> None:
    """Each file once, even if two patterns or two links lead to it."""
    deep = tmp_path / "x" / "y"
    deep.mkdir(parents=True)
    (tmp_path / "a.ndjson").write_bytes(text(lines(0, 5, "a")))
    (deep / "b.ndjson").write_bytes(text(lines(0, 5, "b")))
    (tmp_path / "link.ndjson").symlink_to(deep / "b.ndjson")
    sink = MemorySink()
    read_all(sink, path=[f"{tmp_path}/**/*.ndjson", f"{tmp_path}/a.ndjson"])
    assert sorted(sink.lines()) == sorted(lines(0, 5, "a") + lines(0, 5, "b"))


def test_two_equal_files_are_two_files(tmp_path: Path) -> None:
    """Content is never an id."""
    for name in ("a.1.ndjson", "a.2.ndjson"):
        (tmp_path / name).write_bytes(text(lines(0, 100)))
    sink = MemorySink()
    read_all(sink, path=f"{tmp_path}/*.ndjson")
    assert sink.lines() == lines(0, 100) * 2


def test_an_empty_file_gives_nothing(tmp_path: Path) -> None:
    """And no error, plain or compressed."""
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "b.gz").write_bytes(gzip.compress(b""))
    sink = MemorySink()
    read_all(sink, path=f"{tmp_path}/*")
    assert sink.chunks == []


def test_a_byte_order_mark_is_no_part_of_the_first_event(tmp_path: Path) -> None:
    """Editors of one vendor write it; offsets count it."""
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbf" + text(lines(0, 3)))
    sink = MemorySink()
    read_all(sink, path=str(tmp_path / "a"))
    assert sink.lines() == lines(0, 3)
    assert sink.committed[0][1].endswith("@3")


def test_a_line_without_end_is_refused_without_being_kept(tmp_path: Path) -> None:
    """Its beginning goes out, longer than the engine's limit; what follows it is read at its place."""
    path = tmp_path / "a"
    path.write_bytes(text(lines(0, 3)) + b"x" * 3_000_000 + b"\n" + text(lines(3, 6)) + b"y" * 2_000_000)
    for name in ("a", "a.gz"):
        if name == "a.gz":
            (tmp_path / name).write_bytes(gzip.compress(path.read_bytes()))
        sink = MemorySink()
        read_all(sink, path=str(tmp_path / name), chunk=100_000, event=50_000)
        long = [line for line in sink.lines() if len(line) > 1000]
        assert [line[:1] for line in long] == [b"x", b"y"]
        assert all(50_000 < len(line) <= 350_000 for line in long)
        assert [line for line in sink.lines() if len(line) < 1000] == lines(0, 6)
        assert sink.positions[str(tmp_path / name)]["offset"] == path.stat().st_size


def test_a_damaged_file_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    """What comes before the damage is handed over; the run fails at its end."""
    (tmp_path / "b.ndjson").write_bytes(text(lines(0, 5)))
    (tmp_path / "a.gz").write_bytes(gzip.compress(text(lines(0, 20_000, "z"))) + b"\x1f\x8b of another kind")
    (tmp_path / "c.gz").write_bytes(gzip.compress(text(lines(0, 50)))[:-20])
    sink = MemorySink()
    with pytest.raises(
        EvalgaugeError, match=r"(?s)a\.gz: damaged gzip data near byte \d+.*c\.gz ends in the middle"
    ):
        read_all(sink, path=f"{tmp_path}/*")
    assert sink.lines(str(tmp_path / "b.ndjson")) == lines(0, 5)
    assert sink.lines(str(tmp_path / "a.gz")) == lines(0, 20_000, "z")


def test_what_cannot_be_read_says_how_to_mend_it(tmp_path: Path) -> None:
    """For the person at three in the morning."""
    (tmp_path / "plain.gz").write_bytes(b'{"a":1}\n')
    cases: tuple[tuple[dict[str, object], str], ...] = (
        ({"path": str(tmp_path / "none")}, "does not exist; with `follow: true`"),
        ({"path": str(tmp_path / "*.none")}, "no file matches"),
        ({"path": str(tmp_path)}, "is a folder; name its files"),
        (
            {"path": str(tmp_path / "plain.gz")},
            "is named .gz, but does not begin like gzip; set `compression: none`",
        ),
    )
    for config, message in cases:
        with pytest.raises(EvalgaugeError) as caught:
            read_all(MemorySink(), **config)
        assert message in str(caught.value)
    sink = MemorySink()
    sink.positions[str(tmp_path / "plain.gz")] = {"lsn": 7}
    with pytest.raises(StateError, match="not one of a file"):
        read_all(sink, path=str(tmp_path / "plain.gz"), compression="none")


def test_the_configuration_is_strict() -> None:
    """Unknown keys and contradictions are errors."""
    wrong: tuple[dict[str, object], ...] = (
        {"path": "a", "folow": True},
        {"path": []},
        {"path": ["-", "a"], "follow": True},
        {"path": ""},
    )
    for config in wrong:
        with pytest.raises(ValidationError):
            FileConfig.model_validate(config)


def test_zstd_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Extras are optional."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "a.zst").write_bytes(zstandard.ZstdCompressor().compress(b"{}\n"))
    with pytest.raises(EvalgaugeError, match=r"pip install 'evalgauge\[zstd\]'"):
        read_all(MemorySink(), path=str(tmp_path / "a.zst"))


def test_a_bomb_is_inflated_piece_by_piece(tmp_path: Path) -> None:
    """A gigabyte of zeros costs a few megabytes at a time."""
    squeeze = zlib.compressobj(wbits=31)
    (tmp_path / "a.gz").write_bytes(
        b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(64)) + squeeze.flush()
    )
    fd = os.open(tmp_path / "a.gz", os.O_RDONLY)
    stream = Decompressed(RawFile(fd), "gzip", "a.gz")
    largest = max(len(part) for part in iter(lambda: stream.read(1 << 20), b""))
    os.close(fd)
    assert largest <= 6 << 20


def test_the_kind_of_a_file_is_told_as_soon_as_its_bytes_allow() -> None:
    """A file that has only begun to be written is neither refused nor misread."""
    assert detect(b"", "a.gz", "auto") is None
    assert detect(b"\x1f", "a", "auto") is None
    assert detect(b"{", "a", "auto") == "none"
    assert detect(b"\x28\xb5\x2f\xfd", "a", "zstd") == "zstd"
    with pytest.raises(ConfigError):
        detect(b"{}\n", "a", "gzip")


# -- standard input ----------------------------------------------------------------------------------------------

_PIPE = """
import sys, threading
from evalgauge.collectors.file import FileCollector, FileConfig
from evalgauge.core.collect import InputContext, InputStatus
from tests.conformance.sink import MemorySink
sink = MemorySink()
context = InputContext("in", {}, sink, threading.Event(), InputStatus())
FileCollector(FileConfig(path="-"), context).run()
for _, where, line in sink.committed:
    print(where, line.decode())
"""


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.ZstdCompressor().compress])
def test_standard_input_is_read_to_its_end(pack: object, pytestconfig: pytest.Config) -> None:
    """Plain or compressed, in order."""
    root = pytestconfig.rootpath
    path = os.pathsep.join(str(root / name) for name in ("", "core", "collectors"))
    data = pack(text(lines(0, 5000)))  # type: ignore[operator]
    done = subprocess.run(
        [sys.executable, "-c", _PIPE],
        input=data,
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    seen = [line.split(b" ", 1) for line in done.stdout.splitlines()]
    assert [line for _, line in seen] == lines(0, 5000)
    assert seen[1][0] == b"-@%d" % (len(lines(0, 1)[0]) + 1)


def test_a_named_pipe_is_read_like_standard_input(tmp_path: Path) -> None:
    """`<(zcat …)` gives one; whole lines go out as they come, and a stop is noticed while it is silent."""
    os.mkfifo(tmp_path / "pipe")
    sink = MemorySink()
    run = Run(sink, path=str(tmp_path / "pipe"))
    run.thread.start()
    with (tmp_path / "pipe").open("wb", buffering=0) as pipe:
        pipe.write(text(lines(0, 2)) + b"{")
        wait_until(lambda: len(sink.lines()) == 2)
        run.stop.set()
        run.end()
    assert run.error is None
    assert sink.lines() == lines(0, 2)


# -- files that grow ---------------------------------------------------------------------------------------------


def test_a_followed_line_waits_for_its_newline(tmp_path: Path) -> None:
    """Half a line is no event; it stays uncommitted over a restart."""
    path = tmp_path / "a"
    sink = MemorySink()
    with running(sink, path=str(path), follow=True) as run:
        wait_until(lambda: "does not exist yet" in run.status.note)
        append(path, text(lines(0, 2)) + lines(2, 3)[0][:5])
        wait_until(lambda: len(sink.lines()) == 2)
        wait_until(lambda: run.status.note == "")
    assert sink.positions[str(path)]["offset"] == len(text(lines(0, 2)))
    assert sink.positions[str(path)]["line"] == 2
    with running(sink, path=str(path), follow=True):
        append(path, lines(2, 3)[0][5:] + b"\n")
        wait_until(lambda: len(sink.lines()) == 3)
    assert sink.lines() == lines(0, 3)


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
@pytest.mark.parametrize(
    ("turn", "down"),
    [
        (turn, down)
        for turn in (
            "rename",
            "rename+gzip",
            "copytruncate",
            "copytruncate+gzip",
            "dateext",
            "twice",
            "symlink",
        )
        for down in (False, True)
    ]
    + [("recreate", False)],
)
def test_no_rotation_loses_a_line_or_gives_it_twice(
    tmp_path: Path, pattern: str, turn: str, *, down: bool
) -> None:
    """Rotated with unread lines in the old file, whether a glob matches the old name or not."""
    path, first, second = tmp_path / "app.log", tmp_path / "app.log.1", tmp_path / "app.log.2"
    if turn == "symlink":
        (tmp_path / "one").write_bytes(b"")
        path.symlink_to(tmp_path / "one")
    sink = MemorySink()
    config = {"path": str(tmp_path / pattern), "follow": True, "chunk": 500}
    append(path, text(lines(0, 50)))
    expected = lines(0, 50)
    with running(sink, **config):
        wait_until(lambda: len(sink.lines()) == 50)
        if not down:
            _rotate(turn, path, first, second)
            expected += _expected(turn)
            wait_until(lambda: len(sink.lines()) >= len(expected))
    if down:
        _rotate(turn, path, first, second)
        expected += _expected(turn)
        with running(sink, **config):
            wait_until(lambda: len(sink.lines()) >= len(expected))
    with running(sink, **config):  # once more from the last position: nothing may come again
        append(path, text(lines(900, 905)))
        expected += lines(900, 905)
        wait_until(lambda: sink.lines()[-1:] == lines(904, 905))
    assert sink.lines() == expected
    assert {name for name, _, _ in sink.committed} == {str(path)}
    assert len({where for _, where, _ in sink.committed}) == len(expected)


def _expected(turn: str) -> list[bytes]:
    middle = lines(100, 160) if turn == "twice" else []
    return (lines(50, 80) if turn != "recreate" else []) + middle + lines(200, 260)


def _rotate(turn: str, path: Path, first: Path, second: Path) -> None:
    if turn == "recreate":
        path.unlink()
        path.write_bytes(text(lines(200, 260)))
        return
    append(path, text(lines(50, 80)))
    if turn.startswith("copytruncate"):
        shutil.copy(path, first)
        if turn.endswith("gzip"):
            (path.parent / "app.log.1.gz").write_bytes(gzip.compress(first.read_bytes()))
            first.unlink()
        os.truncate(path, 0)
        append(path, text(lines(200, 260)))
        return
    if turn == "symlink":
        target = path.parent / "two"
        target.write_bytes(text(lines(200, 260)))
        other = path.parent / "new-link"
        other.symlink_to(target)
        other.rename(path)
        return
    if turn == "rename+gzip":
        modified = path.stat().st_mtime_ns
        packed = path.parent / "app.log.1.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        os.utime(packed, ns=(modified, modified))
        path.unlink()
    elif turn == "dateext":
        path.rename(path.parent / "app.log-20261121")
    else:
        path.rename(first)
    if turn == "twice":
        path.write_bytes(text(lines(100, 160)))
        first.rename(second)
        path.rename(first)
    path.write_bytes(text(lines(200, 260)))


@pytest.mark.parametrize("follow", [False, True])
def test_rotated_files_that_are_there_at_a_first_start_are_read_before_their_path(
    tmp_path: Path, *, follow: bool
) -> None:
    """One stream, the oldest first, whatever its files are called; the next rotation does not bring them again."""
    for at, name in enumerate(["app.log.3.gz", "app.log.2", "app.log.1", "app.log"]):
        data = text(lines(at * 10, at * 10 + 10))
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        os.utime(tmp_path / name, (1_700_000_000 + at, 1_700_000_000 + at))
    sink = MemorySink()
    for count in (40, 50, 50):
        run = Run(sink, path=f"{tmp_path}/app.log*", follow=follow, rotate_wait=60)
        run.thread.start()
        wait_until(lambda: len(sink.lines()) >= count)  # noqa: B023 - called at once
        if follow:
            run.stop.set()
        run.end()
        assert run.error is None
        if count == 40:
            (tmp_path / "app.log.2").rename(tmp_path / "app.log.4")
            (tmp_path / "app.log.1").rename(tmp_path / "app.log.2")
            append(tmp_path / "app.log", text(lines(40, 50)))
    assert sink.lines() == lines(0, 50)
    assert list(sink.positions) == [str(tmp_path / "app.log")]


def test_a_run_that_does_not_follow_finds_what_was_rotated_since_the_last(tmp_path: Path) -> None:
    """A nightly run after the log rotation reads the rest of the old file, then the new one."""
    path = tmp_path / "app.log"
    sink = MemorySink()
    for turn in range(4):
        append(path, text(lines(turn * 10, turn * 10 + 7)))
        read_all(sink, path=str(path))
        append(path, text(lines(turn * 10 + 7, turn * 10 + 10)))
        path.rename(tmp_path / f"app.log-2026112{turn}")
    append(path, text(lines(40, 41)))
    read_all(sink, path=str(path))
    assert sink.lines() == lines(0, 41)


def test_a_truncated_file_that_has_grown_past_the_old_place_is_noticed(tmp_path: Path) -> None:
    """Its size tells nothing; its beginning does."""
    path = tmp_path / "a"
    path.write_bytes(text(lines(0, 10)))
    sink = MemorySink()
    with running(sink, path=str(path), follow=True):
        wait_until(lambda: len(sink.lines()) == 10)
    path.write_bytes(text(lines(500, 600)))
    with running(sink, path=str(path), follow=True):
        wait_until(lambda: len(sink.lines()) == 110)
        path.write_bytes(text(lines(700, 900)))
        wait_until(lambda: len(sink.lines()) == 310)
    assert sink.lines() == lines(0, 10) + lines(500, 600) + lines(700, 900)


def test_what_cannot_be_recovered_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Truncated without a copy: what came between the last look and the truncation is nowhere."""
    path = tmp_path / "a"
    path.write_bytes(text(lines(0, 10)))
    sink = MemorySink()
    with running(sink, path=str(path), follow=True):
        wait_until(lambda: len(sink.lines()) == 10)
        os.truncate(path, 0)
        append(path, text(lines(20, 22)))
        wait_until(lambda: len(sink.lines()) == 12)
    assert "was truncated or overwritten" in caplog.text
    path.unlink()
    path.write_bytes(text(lines(30, 32)))
    with running(sink, path=str(path), follow=True):
        wait_until(lambda: len(sink.lines()) == 14)
    assert "cannot be recovered" in caplog.text


def test_a_half_line_of_a_file_that_was_rotated_away_is_handed_over(tmp_path: Path) -> None:
    """Its newline will not come any more; the engine judges it."""
    path = tmp_path / "a"
    path.write_bytes(text(lines(0, 2)) + b'{"cut')
    sink = MemorySink()
    with running(sink, path=str(path), follow=True):
        wait_until(lambda: len(sink.lines()) == 2)
        path.rename(tmp_path / "a.1")
        path.write_bytes(text(lines(2, 3)))
        wait_until(lambda: len(sink.lines()) == 4)
    assert sink.lines() == [*lines(0, 2), b'{"cut', *lines(2, 3)]


def test_a_writer_that_still_has_the_old_file_open_is_waited_for(tmp_path: Path) -> None:
    """Until the old file has been quiet for `rotate_wait`."""
    path = tmp_path / "a"
    sink = MemorySink()
    with path.open("ab", buffering=0) as writer, running(sink, path=str(path), follow=True, rotate_wait=0.3):
        writer.write(text(lines(0, 1)))
        wait_until(lambda: len(sink.lines()) == 1)
        path.rename(tmp_path / "a.1")
        path.write_bytes(text(lines(10, 11)))
        for n in range(1, 5):
            writer.write(text(lines(n, n + 1)))
            wait_until(lambda: len(sink.lines()) == n + 1)  # noqa: B023 - called at once
        wait_until(lambda: len(sink.lines()) == 6)
    assert sink.lines() == lines(0, 5) + lines(10, 11)


def test_new_files_of_a_glob_are_read_and_a_vanished_one_is_let_go(tmp_path: Path) -> None:
    """Each file is a partition of its own."""
    sink = MemorySink()
    with running(sink, path=f"{tmp_path}/**/*.ndjson", follow=True) as run:
        for n in range(5):
            folder = tmp_path / f"day-{n}"
            folder.mkdir()
            (folder / "x.ndjson").write_bytes(text(lines(n, n + 1)))
            wait_until(lambda: len(sink.lines()) == n + 1)  # noqa: B023 - called at once
        (tmp_path / "day-0" / "x.ndjson").unlink()
        tail = run.collector._tails[f"{tmp_path}/day-0/x.ndjson"]
        wait_until(lambda: tail.file is None)
    assert len(sink.positions) == 5


def test_start_at_end_skips_what_is_there_and_nothing_that_comes(tmp_path: Path) -> None:
    """Not even when it was stopped before a single line came."""
    path, packed = tmp_path / "a", tmp_path / "b.gz"
    path.write_bytes(text(lines(0, 10)) + b'{"id":')
    packed.write_bytes(gzip.compress(text(lines(0, 10))))
    sink = MemorySink()
    with running(sink, path=f"{tmp_path}/*", follow=True, start_at="end"):
        wait_until(lambda: len(sink.positions) == 2)
    append(path, b" 1}\n" + text(lines(10, 12)))
    (tmp_path / "c").write_bytes(text(lines(20, 22)))
    with running(sink, path=f"{tmp_path}/*", follow=True, start_at="end"):
        wait_until(lambda: len(sink.lines()) == 5)
    assert sorted(sink.lines()) == sorted([b'{"id": 1}', *lines(10, 12), *lines(20, 22)])
    lost = MemorySink()
    with running(lost, path=f"{tmp_path}/*", follow=True, at_end=True):
        wait_until(lambda: len(lost.positions) == 3)
    assert lost.lines() == []


def test_lag_and_stop_hold_while_the_engine_does_not_take_more(tmp_path: Path) -> None:
    """The person on call looks just then."""
    path = tmp_path / "a"
    path.write_bytes(text(lines(0, 100)))
    sink = MemorySink(room=1, automatic=False)
    run = Run(sink, path=str(path), follow=True, chunk=200)
    run.thread.start()
    wait_until(lambda: len(sink.chunks) == 1)
    append(path, b" " * 10_000)
    wait_until(lambda: run.status.lag_bytes.get(str(path), 0) > 10_000)
    sink.crash()
    run.end()
    assert run.error is None


def test_many_files_do_not_use_up_the_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files read to their end are closed, and opened again at their place when they grow."""
    monkeypatch.setattr("evalgauge.collectors.file._OPEN_FILES", 3)
    for n in range(12):
        (tmp_path / f"{n:02}").write_bytes(text(lines(n, n + 1)))
    sink = MemorySink()
    with running(sink, path=f"{tmp_path}/*", follow=True) as run:
        wait_until(lambda: len(sink.lines()) == 12)
        wait_until(lambda: sum(tail.file is not None for tail in run.collector._tails.values()) <= 3)
        for n in range(12):
            append(tmp_path / f"{n:02}", text(lines(100 + n, 101 + n)))
        wait_until(lambda: len(sink.lines()) == 24)
    assert sorted(sink.lines()) == sorted(lines(0, 12) + lines(100, 112))


def test_a_damaged_file_does_not_hold_up_the_followed_ones(tmp_path: Path) -> None:
    """It is named in the note until it is mended or gone."""
    (tmp_path / "bad.gz").write_bytes(gzip.compress(text(lines(0, 100)))[:200] + b"garbage" * 50)
    sink = MemorySink()
    with running(sink, path=f"{tmp_path}/*", follow=True) as run:
        wait_until(lambda: "damaged gzip data" in run.status.note)
        append(tmp_path / "good", text(lines(0, 3)))
        wait_until(lambda: len(sink.lines(str(tmp_path / "good"))) == 3)
        (tmp_path / "bad.gz").unlink()
        wait_until(lambda: run.status.note == "")


def test_a_compressed_file_is_read_when_it_is_complete(tmp_path: Path) -> None:
    """Written piece by piece beside the reader, by another process."""
    packed = gzip.compress(text(lines(0, 2000))) + gzip.compress(text(lines(2000, 2500))[:-1])
    sink = MemorySink()
    with running(sink, path=f"{tmp_path}/a.gz", follow=True):
        for at in range(0, len(packed), 1000):
            append(tmp_path / "a.gz", packed[at : at + 1000])
        wait_until(lambda: len(sink.lines()) == 2500)
    assert sink.lines() == lines(0, 2500)


class BusyWriter(threading.Thread):
    """A logger and its log rotation: writes thousands of lines, in halves, and rotates at random."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        super().__init__()
        self.path, self.chance = path, chance
        self.written, self.rotations = 1, 0
        append(path, text(lines(0, 1)))

    def run(self) -> None:
        """Write on."""
        while self.written < 4000:
            count = self.chance.randint(1, 40)
            data = text(lines(self.written, self.written + count))
            middle = self.chance.randint(0, len(data))
            append(self.path, data[:middle])
            time.sleep(self.chance.random() * 0.002)
            append(self.path, data[middle:])
            self.written += count
            if self.chance.random() < 0.08:
                self.rotate(self.chance.choice(["rename", "gzip", "copytruncate"]))
        append(self.path, text(lines(self.written, self.written + 1)))
        self.written += 1

    def rotate(self, kind: str) -> None:
        """Shift the numbers of earlier rotations, then take the current file away."""
        self.rotations += 1
        rotated = (name.name.split(".") for name in self.path.parent.glob("app.log.*"))
        for parts in sorted(rotated, key=lambda parts: -int(parts[2])):
            shifted = [*parts[:2], str(int(parts[2]) + 1), *parts[3:]]
            self.path.with_name(".".join(parts)).rename(self.path.with_name(".".join(shifted)))
        first = self.path.with_name("app.log.1")
        if kind == "copytruncate":
            shutil.copy(self.path, first)
            os.truncate(self.path, 0)
            return
        self.path.rename(first)
        if kind == "gzip":
            packed = gzip.compress(first.read_bytes())
            append(self.path.with_name("app.log.1.gz"), packed[:200])
            append(self.path.with_name("app.log.1.gz"), packed[200:])
            shutil.copystat(first, self.path.with_name("app.log.1.gz"))
            first.unlink()


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
@pytest.mark.parametrize("seed", range(6))
def test_a_busy_writer_random_rotations_and_crashes_lose_and_repeat_nothing(
    tmp_path: Path, pattern: str, seed: int
) -> None:
    """Killed at random, with uncommitted chunks; what comes in the end is what was written, in order."""
    chance = random.Random(seed)  # noqa: S311 - it breaks files, not codes
    writer = BusyWriter(tmp_path / "app.log", chance)
    sink = MemorySink(automatic=False)
    with running(sink, path=str(tmp_path / pattern), follow=True):
        wait_until(lambda: sink.commit() > 0)
    writer.start()
    crashes = 0
    while writer.is_alive():
        run = Run(sink, path=str(tmp_path / pattern), follow=True, chunk=700)
        run.thread.start()
        for _ in range(chance.randint(1, 6)):
            time.sleep(chance.random() * 0.02)
            sink.commit()
        time.sleep(chance.random() * 0.02)
        sink.crash()
        run.stop.set()
        run.end()
        assert run.error is None
        crashes += 1
    with running(sink, path=str(tmp_path / pattern), follow=True):
        wait_until(lambda: sink.commit() and sink.lines()[-1:] == lines(writer.written - 1, writer.written))
    sink.commit()
    assert crashes > 1
    assert writer.rotations > 1
    assert sink.lines(str(writer.path)) == sink.lines() == lines(0, writer.written)


def test_rotated_names_are_known() -> None:
    """Those of logrotate, newsyslog and Python's handlers."""
    for name in ("app.log.1", "app.log.12.gz", "app.log-20261121", "app.log.2026-11-21_03", "app.1.log", "app.log.gz",
                 "app.log.old", "app-20261121.log.zst"):  # fmt: skip
        assert is_rotation_of(name, "app.log"), name
    for name in ("app.log", "other.log.1", "app.log.tmp", "app.logger", "app-web.log"):
        assert not is_rotation_of(name, "app.log"), name
    assert related("/x/app.log.1", "/x/app.log.2.gz")
    assert not related("/x/a.1.ndjson", "/x/a.2.ndjson")
    assert not related("/x/app.log", "/y/app.log.1")


def test_broken_file_errors_are_for_people() -> None:
    """They end a run with exit code 1 and no traceback."""
    assert issubclass(BrokenFileError, EvalgaugeError)
