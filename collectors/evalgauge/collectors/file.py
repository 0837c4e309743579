"""Collector `file`: events from newline-delimited JSON files, plain or compressed, whole or as they grow."""

# Patterns and paths are text here: globbed, compared with positions, given to os.open.
# ruff: noqa: PTH100, PTH110, PTH111, PTH112, PTH113, PTH207

from __future__ import annotations

import contextlib
import fnmatch
import glob
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evalgauge.collectors.file_bytes import (
    Compression,
    Decompressed,
    Identity,
    RawPipe,
    SourceFile,
    detect,
)
from evalgauge.collectors.file_lines import Cut, LineCutter, LineLocator
from evalgauge.collectors.file_rotation import READ_ERRORS, Novelty, Readers, age, base_of, status_of
from evalgauge.collectors.file_tail import FileTail
from evalgauge.core.collect import Chunk, InputContext, Stopped
from evalgauge.core.errors import ConfigError, EvalgaugeError
from evalgauge.core.units import Duration

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = logging.getLogger(__name__)
_STDIN = "-"
_OPEN_FILES = 256
_LAG_SECONDS = 1.0
_Path = Annotated[str, Field(min_length=1)]


class FileConfig(BaseModel):
    """Configuration of an input of kind `file`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: _Path | Annotated[list[_Path], Field(min_length=1)] = Field(
        description="A path, a glob (`**` crosses folders), a list of those, or `-` for standard input."
    )
    compression: Compression = Field(
        "auto",
        description="`auto` goes by the first bytes; a file whose name promises something else is refused.",
    )
    follow: bool = Field(
        default=False,
        description="Keep reading as files grow, are rotated, and appear; otherwise read to the end once.",
    )
    poll_interval: Duration = Field(
        0.25, ge=0.01, description="How often followed files and globs are looked at."
    )
    rotate_wait: Duration = Field(
        2.0, description="How long a renamed or deleted file must be quiet before its successor is read."
    )
    start_at: Literal["beginning", "end"] = Field(
        "beginning",
        description="Where a first start begins in files that are there; later ones are read from their beginning.",
    )

    @property
    def paths(self) -> list[str]:
        """The patterns as absolute paths; `-` stays."""
        given = [self.path] if isinstance(self.path, str) else self.path
        return [path if path == _STDIN else os.path.abspath(os.path.expanduser(path)) for path in given]

    @model_validator(mode="after")
    def _standard_input_alone(self) -> FileConfig:
        if self.follow and _STDIN in self.paths and len(self.paths) > 1:
            msg = "standard input `-` ends only when its writer does; give it an input of its own beside followed files"
            raise ValueError(msg)
        return self


class FileCollector:
    """Reads files, each path as one partition, and resumes at the exact byte.

    A chunk holds whole lines. The last line of a file that is not followed may lack its newline. In a followed
    file a line is handed over when its newline has come, or as it is once the file was rotated away or
    deleted. When the input is stopped, an unfinished line stays uncommitted and is read again after the start.

    Plain files that are not followed go out as ranges which workers read; what is followed goes out as bytes,
    because the file may be renamed or truncated before a worker gets to it.
    """

    Config: ClassVar[type[BaseModel]] = FileConfig
    pushes: ClassVar[bool] = False

    def __init__(self, config: FileConfig, context: InputContext) -> None:
        self._config = config
        self._context = context
        self._readers = Readers()
        self._tails: dict[str, FileTail] = {}
        self._passed: dict[Identity, int] = {}
        self._complaints: dict[str, str] = {}
        self._busy = False
        # Where only what comes from now on is wanted, "now" is when we first look.
        context.status.holds_time = not config.follow
        context.status.not_ready = "it has not looked at its files yet"

    def run(self) -> None:
        """Read until the end, or, following, until stopped.

        Raises ConfigError for a path that is not there (unless it is followed) or is no file, and
        EvalgaugeError after everything else was read if some file could not be.
        """
        try:
            with self._lag_watched():
                if self._config.follow and _STDIN not in self._config.paths:
                    self._follow()
                else:
                    self._read_once()
        except Stopped:
            _log.debug("input `%s`: the engine takes no more", self._context.name)
        finally:
            for tail in self._tails.values():
                tail.close()

    # -- whole files --------------------------------------------------------------------------------------

    def _read_once(self) -> None:
        paths = self._expand(must_exist=True)
        at_end = self._at_end()
        pipes = [path for path in paths if path == _STDIN or not os.path.isfile(path)]
        for path in self._restored(paths):
            self._restore(path)
        for path, older in self._families([path for path in paths if path not in pipes]).items():
            with self._complaining(path):
                self._begin(path, older, at_end=at_end)
            if path in self._tails:
                self._context.status.lag_bytes[path] = self._tails[path].lag()
                self._tails[path].park()
        self._context.status.not_ready = ""
        for path, tail in self._tails.items():
            with self._complaining(path):
                while not self._context.stop.is_set() and not tail.done and tail.step():
                    pass
            tail.close()
            if self._context.stop.is_set():
                return
        for path in pipes:
            with self._complaining(path):
                self._read_pipe(path)
        if self._complaints:
            raise EvalgaugeError("\n".join(self._complaints.values()))

    def _read_pipe(self, path: str) -> None:
        """Standard input, a named pipe or `<(…)`: read once, in order; a restart cannot go back.

        Offsets count on from those of the run before, so that no two lines share a position.
        """
        fd = 0 if path == _STDIN else os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            raw = RawPipe(fd, self._context.stop)
            codec = detect(raw.peek(4), path, self._config.compression) or "none"
            source = raw if codec == "none" else Decompressed(raw, codec, path)
            before = self._context.positions.get(path)
            start = before["stream"] if isinstance(before, dict) and "stream" in before else 0
            cutter = LineCutter(start, self._context.max_chunk_bytes, self._context.max_event_bytes)
            while data := source.read(min(1 << 20, self._context.max_chunk_bytes)):
                cuts = cutter.feed(data)
                if not raw.ready() or self._context.stop.is_set():
                    cuts += cutter.take()
                self._hand_over(path, cuts)
            self._hand_over(path, cutter.take() if raw.cut_off else cutter.finish())
            if raw.cut_off and cutter.incomplete:
                _log.warning(
                    "%s: stopped inside a line; its first %d bytes are lost", path, cutter.incomplete
                )
            if isinstance(source, Decompressed) and source.incomplete and not raw.cut_off:
                msg = f"{path}: the {codec} data ends in the middle; the lines before that were handed over"
                raise EvalgaugeError(msg)
        finally:
            if path != _STDIN:
                os.close(fd)

    def _hand_over(self, path: str, cuts: list[Cut]) -> None:
        for cut in cuts:
            locate = LineLocator(f"{path}@", cut.start, cut.body)
            commit = {"stream": cut.end}
            self._context.sink.put(Chunk(path, cut.body, locate, commit, base=cut.start, arrival=time.time()))
            self._context.status.positions[path] = f"{path} byte {cut.end}"

    # -- files that grow ----------------------------------------------------------------------------------

    def _follow(self) -> None:
        stop = self._context.stop
        for path in self._restored(self._expand(must_exist=False)):
            self._restore(path)
        self._scan(at_end=self._at_end())
        self._context.status.not_ready = ""
        while not stop.is_set():
            scanned = time.monotonic()
            while self._step_all() and time.monotonic() - scanned < self._config.poll_interval:
                pass
            self._spare_descriptors()
            self._tell()
            if not self._busy:
                stop.wait(self._config.poll_interval)
            if not stop.is_set():
                self._scan(at_end=False)

    def _step_all(self) -> bool:
        self._busy = False
        for path, tail in self._tails.items():
            if self._context.stop.is_set():
                return False
            with self._complaining(path):
                self._busy |= tail.step()
        return self._busy

    def _scan(self, *, at_end: bool) -> None:
        """Begin with files that nobody has read: not those that were rotated to a name the glob matches."""
        for path, older in self._families(self._expand(must_exist=False)).items():
            status = status_of(path)
            if status is None or not (status.st_size or older or at_end):
                continue
            identity = Identity.of(status)
            if self._passed.get(identity) == status.st_mtime_ns or self._readers.owner(identity) is not None:
                continue
            with self._complaining(path):
                self._begin(path, older, at_end=at_end)

    def _spare_descriptors(self) -> None:
        opened = [tail for tail in self._tails.values() if tail.file is not None]
        for tail in opened[: max(0, len(opened) - _OPEN_FILES)]:
            tail.park()

    # -- both ---------------------------------------------------------------------------------------------

    def _families(self, paths: list[str]) -> dict[str, list[str]]:
        """Paths that no partition reads, each with its rotated files among `paths`.

        The rotated files of a path are read before it, in its partition: one stream, whatever its files are
        called. Those of a path that is read already are left to its partition, which knows what it has read.
        """
        found: dict[str, list[str]] = {path: [] for path in paths}
        for path in paths:
            base = base_of(path)
            if base != path and (base in found or base in self._readers):
                del found[path]
                if base in found:
                    found[base].append(path)
        return {path: older for path, older in found.items() if path not in self._readers}

    def _begin(self, path: str, older: list[str], *, at_end: bool) -> None:
        file = SourceFile(path, self._config.compression)
        owner = self._readers.owner(file.identity)
        novelty = Novelty.KNOWN if owner is not None else self._readers.judge(file)
        if novelty is Novelty.KNOWN or (novelty is Novelty.UNDECIDED and self._config.follow):
            if novelty is Novelty.KNOWN:
                self._passed[file.identity] = file.modified
                what = f"read as {owner.path}" if owner else "a file read before"
                _log.info("%s is %s; not read again", path, what)
            file.close()
            return
        if any(tail.expects(file) for tail in self._tails.values()):
            file.close()
            return
        before = [] if at_end else [SourceFile(name, self._config.compression) for name in older]
        tail = self._new_tail(path)
        tail.begin(file, sorted(before, key=age), at_end=at_end)

    def _restored(self, paths: list[str]) -> list[str]:
        """Partitions with a position that the configuration still names; some may have no file now."""
        patterns = [pattern.replace("**/", "*") for pattern in self._config.paths]
        return [
            path
            for path in self._context.positions
            if path != _STDIN
            and (path in paths or any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns))
        ]

    def _restore(self, path: str) -> None:
        self._new_tail(path).restore(self._context.positions[path])

    def _new_tail(self, path: str) -> FileTail:
        tail = FileTail(path, self._config, self._context, self._readers)
        self._tails[path] = tail
        self._readers.add(tail)
        return tail

    def _at_end(self) -> bool:
        return self._context.start_at_end or (self._config.start_at == "end" and not self._context.positions)

    def _expand(self, *, must_exist: bool) -> list[str]:
        found: dict[str, None] = {}
        for pattern in self._config.paths:
            if pattern == _STDIN:
                found[pattern] = None
                continue
            if os.path.lexists(pattern) or not glob.has_magic(pattern):
                matches = [pattern]
                self._check_literal(pattern, must_exist=must_exist)
            else:
                matches = [
                    path for path in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(path)
                ]
                if must_exist and not matches:
                    raise ConfigError(f"input `{self._context.name}`: no file matches {pattern}")
            found.update(dict.fromkeys(matches))
        return list(found)

    def _check_literal(self, path: str, *, must_exist: bool) -> None:
        if os.path.isdir(path):
            raise ConfigError(
                f"input `{self._context.name}`: {path} is a folder; name its files: {path}/*.ndjson"
            )
        if must_exist and not os.path.exists(path) and path not in self._context.positions:
            raise ConfigError(
                f"input `{self._context.name}`: {path} does not exist; with `follow: true` it would be waited for"
            )

    # -- what it says of itself ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def _complaining(self, path: str) -> Iterator[None]:
        """One unreadable file does not keep the others from being read; it is named until it can be read."""
        try:
            yield
        except READ_ERRORS as error:
            text = (
                str(error)
                if isinstance(error, EvalgaugeError)
                else f"{path} cannot be read: {error.strerror}"
            )
            if self._complaints.get(path) != text:
                _log.error(text)
            self._complaints[path] = text
            if self._config.follow and path in self._tails:
                self._tails[path].give_up()
        else:
            tail = self._tails.get(path)
            if self._config.follow and tail is not None and tail.file is not None:
                self._complaints.pop(path, None)

    def _tell(self) -> None:
        self._complaints = {path: text for path, text in self._complaints.items() if os.path.exists(path)}
        waiting = [
            path
            for path in self._config.paths
            if path not in self._tails and not glob.glob(path, recursive=True)
        ]
        notes = [f"waiting for {path}, which does not exist yet" for path in waiting]
        notes += self._complaints.values()
        if (note := "; ".join(notes)) != self._context.status.note:
            self._context.status.note = note

    @contextlib.contextmanager
    def _lag_watched(self) -> Iterator[None]:
        """Keep the lag up to date from a thread of its own, because handing over may block for long."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_LAG_SECONDS):
                for path, tail in list(self._tails.items()):
                    if not tail.done:
                        self._context.status.lag_bytes[path] = tail.lag()

        thread = threading.Thread(target=watch, name=f"lag of {self._context.name}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
