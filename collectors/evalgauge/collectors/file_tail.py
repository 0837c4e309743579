"""One path, read through its rotations and truncations as one ordered partition."""

# Names are text, matched by patterns.
# ruff: noqa: PTH119

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from evalgauge.collectors.file_bytes import (
    HEAD_BYTES,
    BrokenFileError,
    Digest,
    FileStream,
    Identity,
    Likeness,
    Mark,
    RawFile,
    SourceFile,
)
from evalgauge.collectors.file_lines import (
    BOM,
    TAIL_BYTES,
    Cut,
    LineCutter,
    LineLocator,
    after_last_newline,
    cut_file,
    without_bom,
)
from evalgauge.collectors.file_rotation import (
    Readers,
    find,
    is_rotation_of,
    relatives,
    status_of,
    unread_rotations,
)
from evalgauge.core.collect import Chunk, Position
from evalgauge.core.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evalgauge.collectors.file import FileConfig
    from evalgauge.core.collect import InputContext

_log = logging.getLogger(__name__)
_BLOCK = 256 << 10
_KEEP_FINISHED = 8
_NOWHERE = Identity(0, 0)
_NOTHING = Digest.of(b"")


class FileTail:
    """Reads what is at `path`, and hands it over in order.

    When another file takes the path (rename, delete and create, a symlink switched), the old one is read to
    its end first. When the file was truncated, what a copy of it (`copytruncate`) still holds is read first.
    Files that came and went unseen in between are read from the names they were rotated to.
    """

    def __init__(self, path: str, settings: FileConfig, context: InputContext, readers: Readers) -> None:
        self.path = path
        self.finished: list[Mark] = []
        self.done = False
        """True once everything of a path that is not followed was handed over."""
        self.file: SourceFile | None = None
        self._settings = settings
        self._context = context
        self._readers = readers
        self._queue: list[SourceFile] = []
        self._stream: RawFile | FileStream | None = None
        self._cutter = self._new_cutter(0)
        self._generation = -1
        self._base = 0
        self._identity = _NOWHERE
        self._head = b""
        self._tail = _NOTHING
        self._line: int | None = 0
        self._real = path
        self._modified = 0
        self._since = 0
        self._unsure = False
        self._quiet_since = time.monotonic()
        self._rotated_since: float | None = None
        self._offset = 0
        self._resume: Mark | None = None
        self._parked: os.stat_result | None = None

    # -- what others may ask ------------------------------------------------------------------------------

    @property
    def mark(self) -> Mark:
        """The place after the last byte handed over."""
        if self._resume is not None:
            return self._resume
        return Mark(self._identity, Digest.of(self._head), self._tail, self._offset)

    def holds(self, identity: Identity) -> bool:
        """Whether it reads this file, or will read it next."""
        return identity in {self._identity, *(file.identity for file in self._queue)}

    def expects(self, file: SourceFile) -> bool:
        """Whether `file` was at this path and rotated away unseen: this partition reads it when it gets there."""
        at_path = status_of(self.path)
        return (
            at_path is not None
            and (Identity.of(at_path) != self._identity or at_path.st_size < self._offset)
            and Identity.of(at_path) != file.identity
            and file.modified >= self._modified
            and is_rotation_of(os.path.basename(file.path), os.path.basename(self.path))
        )

    def lag(self) -> int:
        """Stored bytes that are there and not read yet, of the file being read and of its successors."""
        try:
            waiting = sum(os.fstat(file.fd).st_size for file in self._queue)
            file = self.file
            if file is not None:
                stream = self._stream
                at = stream.at if isinstance(stream, FileStream) else self._offset
                waiting += max(0, os.fstat(file.fd).st_size - at)
            now = status_of(self.path)
            if now is not None and Identity.of(now) != self._identity:
                waiting += now.st_size if self._owner(now) in {None, self} else 0
            elif now is not None and file is None:
                waiting += max(0, now.st_size - self._offset)
        except OSError:  # closed by the reading thread just now
            return 0
        return waiting

    # -- where to begin -----------------------------------------------------------------------------------

    def begin(self, file: SourceFile, older: Sequence[SourceFile] = (), *, at_end: bool = False) -> None:
        """Read `older` and then `file`, which nobody has read; or of `file` what comes from now on."""
        self._since = file.modified
        first, *self._queue = *older, file
        self._use(first, 0)
        if at_end:
            self._skip_to_end(file)

    def restore(self, position: Position) -> None:
        """Go on at a committed position, with the first `step`. Raises StateError if it is not one of a file."""
        try:
            self._load(position)
        except (KeyError, TypeError, ValueError) as error:
            msg = (
                f"input `{self._context.name}`: the committed position of {self.path} is not one of a file ({error!r})."
                " Was another kind of input configured under this name? Give this one a new name."
            )
            raise StateError(msg) from error

    def _load(self, position: dict[str, Any]) -> None:
        head, tail = position["fingerprint"], position["tail"]
        self._identity = Identity(int(position["device"]), int(position["inode"]))
        self._real = str(position["path"])
        self._line = position["line"]
        self._generation, self._base = int(position["generation"]), int(position["base"])
        self._modified, self._since = int(position["modified"]), int(position["since"])
        self._offset = int(position["offset"])
        self.finished = [
            Mark(Identity(device, inode), Digest(head_size, head_hash), Digest(tail_size, tail_hash), offset)
            for device, inode, head_size, head_hash, tail_size, tail_hash, offset in position["finished"]
        ]
        self._tail = Digest(int(tail["bytes"]), str(tail["hash"]))
        known = Digest(int(head["bytes"]), str(head["hash"]))
        self._resume = Mark(self._identity, known, self._tail, self._offset)

    def _find_again(self, mark: Mark) -> None:
        """Open the file of `mark`, where it is now, at its place; else go on with what came after it."""
        self._resume = self._parked = None
        file = self._find(mark)
        if file is not None:
            if file.path not in {self.path, self._real}:
                _log.info(
                    "%s was rotated to %s; reading on there at byte %d", self.path, file.path, mark.offset
                )
            self._head = file.read_at(0, mark.head.size)
            self._open(file, mark.offset)
            return
        now = status_of(self.path)
        what = "was truncated or overwritten" if now and Identity.of(now) == mark.identity else "is gone"
        _log.warning(
            "%s: the file read up to byte %d %s, and no rotated copy of it is beside it; whatever it held after that"
            " byte cannot be recovered",
            self.path, mark.offset, what,
        )  # fmt: skip
        self._leave(mark._replace(identity=_NOWHERE))

    def _find(self, mark: Mark) -> SourceFile | None:
        paths = dict.fromkeys((self.path, self._real))
        return find(mark, paths, lambda name: not self._read_by_another(name), self._settings.compression)

    def park(self) -> None:
        """Close a file that is read to its end, or damaged; it is opened again at its place when it changes."""
        if self.file is not None and not self._queue and self._rotated_since is None:
            self._resume, self._parked = self.mark, self.file.status()
            self._close()

    def give_up(self) -> None:
        """The file cannot be read on: wait until it changes, or leave it if it was rotated away."""
        at_path = status_of(self.path)
        if self.file is None:
            return
        if at_path is not None and Identity.of(at_path) == self.file.identity:
            self.park()
        elif at_path is not None:
            self._leave(self.mark)

    # -- reading ------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Hand over about one chunk, or move on to the next file. False if there is nothing to do now.

        Raises BrokenFileError, ConfigError or OSError for this file, Stopped when the engine ends.
        """
        # The path is looked at before reading: what a writer put into the old file before it opened the new
        # one is then seen by this reading.
        at_path = status_of(self.path)
        if self._resume is not None:
            if self._settings.follow and at_path is not None and _unchanged(at_path, self._parked):
                return False
            self._find_again(self._resume)
            return True
        if self.file is None:
            return self._open_path(at_path)
        fed = self._cutter.fed
        if self._read(self.file) or self._cutter.fed != fed:
            self._quiet_since = time.monotonic()
            return True
        return self._end_of_file(self.file, at_path)

    def close(self) -> None:
        """Let go of every file."""
        self._close()
        for file in self._queue:
            file.close()
        self._queue = []

    def _read(self, file: SourceFile) -> bool:
        if not self._settings.follow:
            file.settle()
            if file.codec() == "none":
                return self._read_range(file)
        if self._stream is None:
            self._stream = file.stream(self._cutter.fed)
            if self._stream is None:
                return False
        return self._read_stream(file, self._stream)

    def _read_range(self, file: SourceFile) -> bool:
        chunk_bytes, event_bytes = self._context.max_chunk_bytes, self._context.max_event_bytes
        cut = cut_file(file.path, file.fd, self._offset, chunk_bytes, event_bytes, self._context.stop)
        if cut is None:
            return False
        if not self._older_first(file):
            self._hand_over(cut)
        return True

    def _read_stream(self, file: SourceFile, stream: RawFile | FileStream) -> bool:
        stop = self._context.stop
        cuts: list[Cut] = []
        broken: BrokenFileError | None = None
        try:
            while not cuts and not stop.is_set() and (block := stream.read(self._block_size())):
                cuts = self._cutter.feed(block)
        except BrokenFileError as error:
            broken = error
        if self._settings.follow and not stream.intact():
            self._truncated(file)
            return True
        if not cuts or broken is not None or stop.is_set():
            cuts += self._cutter.take()
        if cuts and self._older_first(file):
            return True
        for cut in cuts:
            self._hand_over(cut)
        if broken is not None:
            raise broken
        return bool(cuts)

    def _end_of_file(self, file: SourceFile, at_path: os.stat_result | None) -> bool:
        """Everything that is there was handed over: wait, or end this file and go on to the next."""
        now = time.monotonic()
        replaced = at_path is None or Identity.of(at_path) != file.identity
        if not self._settings.follow:
            if isinstance(self._stream, FileStream) and self._stream.incomplete:
                msg = (
                    f"{file.path} ends in the middle of its {file.codec()} data: was it copied in part? The"
                    " lines before that were handed over; bring the whole file and run again."
                )
                raise BrokenFileError(msg)
            self._hand_over_rest()
            if replaced:
                self._leave(self.mark)
            else:
                self.done = True
            return not self.done
        if not replaced:
            self._rotated_since = None
            whole = isinstance(self._stream, FileStream) and not self._stream.incomplete
            if whole and self._cutter.incomplete and now - self._quiet_since >= self._settings.rotate_wait:
                self._hand_over_rest()
            return False
        if self._rotated_since is None:
            self._rotated_since = now
        successor = at_path is not None and at_path.st_size > 0 and self._owner(at_path) in {None, self}
        deleted = file.status().st_nlink == 0
        quiet = now - max(self._quiet_since, self._rotated_since) >= self._settings.rotate_wait
        if self._queue:  # rotated long ago: nobody need be waited for
            quiet |= time.time() - file.modified / 1e9 >= self._settings.rotate_wait
        if not (quiet and (successor or deleted or self._queue)):
            return False
        self._hand_over_rest()
        self._leave(self.mark._replace(identity=_NOWHERE) if deleted else self.mark)
        return True

    def _truncated(self, file: SourceFile) -> None:
        mark = self.mark
        copy = self._find(mark) if mark.head.size else None
        if copy is not None:
            _log.info("%s was truncated; reading the rest of its copy %s", self.path, copy.path)
            self._close()
            self._open(copy, mark.offset)
            return
        if mark.offset:
            _log.warning(
                "%s was truncated or overwritten; read on from its beginning. What was written to it after byte %d"
                " and before that is lost, as there is no copy of it beside it", file.path, mark.offset,
            )  # fmt: skip
            self.finished.append(mark._replace(identity=_NOWHERE))
        self._use(file, 0)

    def _leave(self, mark: Mark) -> None:
        """End the current file at `mark`, and open what came after it, if that is there."""
        if mark.head.size:
            self.finished.append(mark)
        self._forget_vanished()
        self._close()
        self._identity, self._since = _NOWHERE, self._modified
        if self._queue:
            self._use(self._queue.pop(0), 0)
        else:
            self._open_path(status_of(self.path))

    def _older_first(self, file: SourceFile) -> bool:
        """Before the first bytes of a new file: if others came and went unread before it, turn to those.

        Asked after reading: whatever was at the path before these bytes has its rotated name by now.
        """
        if not self._unsure:
            return False
        self._unsure = False
        file.status()
        older = unread_rotations(file, self.path, self._since, self._readers)
        for one in older:
            _log.info("%s: reading %s, which was rotated before it was read", self.path, one.path)
        if older:
            self.file = None
            self._queue = [*older, file, *self._queue]
            self._use(self._queue.pop(0), 0)
        return bool(older)

    def _open_path(self, at_path: os.stat_result | None) -> bool:
        if at_path is None or self._owner(at_path) not in {None, self}:
            self.done = not self._settings.follow
            return False
        file = SourceFile(self.path, self._settings.compression)
        known = [mark for mark in self.finished if mark.identity == file.identity]
        offset = next((mark.offset for mark in known if file.compare(mark) is Likeness.SAME), 0)
        self._use(file, offset)  # beyond 0: a file that was rotated away and renamed back
        return True

    def _use(self, file: SourceFile, offset: int) -> None:
        """Read a file that this partition has not stood in before."""
        self._unsure = self._generation >= 0 and not offset and not self._queue
        if self._offset or self._generation < 0:
            self._generation += 1
            self._base += self._offset
        self._head = file.read_at(0, min(HEAD_BYTES, offset))
        self._line = None if offset else 0
        self._tail = _NOTHING
        self._open(file, offset)

    def _open(self, file: SourceFile, offset: int) -> None:
        if self.file is not None and self.file is not file:
            self._close()
        self.file, self._stream = file, None
        self._identity, self._real, self._modified = file.identity, file.real, file.modified
        self._offset = offset
        self._cutter = self._new_cutter(offset)
        self._rotated_since = None
        self._quiet_since = time.monotonic()
        self._tell(file)

    def _skip_to_end(self, file: SourceFile) -> None:
        """Stand after the last whole line there is, and have that committed: a restart must not skip more."""
        if file.codec() == "none":
            offset = after_last_newline(file.fd, 0, file.status().st_size)
            self._line = None if offset else 0
        else:
            cutter, stream = self._new_cutter(0), file.stream(0)
            while stream is not None and not self._context.stop.is_set() and (block := stream.read(_BLOCK)):
                self._line = (self._line or 0) + sum(cut.lines or 0 for cut in cutter.feed(block))
            self._line = (self._line or 0) + sum(cut.lines or 0 for cut in cutter.take())
            offset = cutter.start
        self._head = file.read_at(0, min(HEAD_BYTES, offset))
        size = min(offset, TAIL_BYTES)
        tail = file.read_at(offset - size, size)
        self._open(file, offset)
        self._hand_over(Cut(b"", offset, offset, 0, tail))

    # -- handing over -------------------------------------------------------------------------------------

    def _hand_over_rest(self) -> None:
        for cut in self._cutter.finish():
            self._hand_over(cut)

    def _hand_over(self, cut: Cut) -> None:
        if self.file is None:
            return
        if cut.start == len(self._head) < HEAD_BYTES:
            if isinstance(cut.body, bytes) and cut.whole:
                self._head += cut.body[: HEAD_BYTES - cut.start]
            else:
                self._head = self.file.read_at(0, min(HEAD_BYTES, cut.end))
        self._tail = Digest.of(cut.tail)
        self._line = None if self._line is None or cut.lines is None else self._line + cut.lines
        self._modified = self.file.status().st_mtime_ns
        self._offset = cut.end
        body, start = cut.body, cut.start
        if start == 0 and self._head.startswith(BOM):
            body, start = without_bom(body), len(BOM)
        turn = f"#{self._generation}" if self._generation else ""
        self._context.sink.put(
            Chunk(
                partition=self.path,
                body=body,
                locate=LineLocator(f"{self.path}{turn}@", start, body),
                commit=self._position(),
                base=self._base + start,
                arrival=time.time(),
            )
        )
        self._tell(self.file)

    def _tell(self, file: SourceFile) -> None:
        line = "" if self._line is None else f", line {self._line}"
        self._context.status.positions[self.path] = f"{file.path} byte {self._offset}{line}"
        self._context.status.lag_bytes[self.path] = self.lag()

    def _position(self) -> dict[str, Any]:
        head = Digest.of(self._head)
        return {
            "path": self._real,
            "device": self._identity.device,
            "inode": self._identity.inode,
            "fingerprint": {"bytes": head.size, "hash": head.hash},
            "tail": {"bytes": self._tail.size, "hash": self._tail.hash},
            "offset": self._offset,
            "line": self._line,
            "generation": self._generation,
            "base": self._base,
            "modified": self._modified,
            "since": self._since,
            "finished": [[*mark.identity, *mark.head, *mark.tail, mark.offset] for mark in self.finished],
        }

    # -- small things -------------------------------------------------------------------------------------

    def _new_cutter(self, offset: int) -> LineCutter:
        return LineCutter(offset, self._context.max_chunk_bytes, self._context.max_event_bytes)

    def _block_size(self) -> int:
        return max(1, min(_BLOCK, self._context.max_chunk_bytes))

    def _owner(self, status: os.stat_result) -> object:
        return self._readers.owner(Identity.of(status))

    def _read_by_another(self, path: str) -> bool:
        status = status_of(path)
        return status is not None and self._owner(status) not in {None, self}

    def _forget_vanished(self) -> None:
        """Drop finished files that are no longer there under any name a rotation gives."""
        there = {Identity.of(status) for status in map(status_of, self._names()) if status is not None}
        old, recent = self.finished[:-_KEEP_FINISHED], self.finished[-_KEEP_FINISHED:]
        self.finished = [*(mark for mark in old if mark.identity in there), *recent]

    def _names(self) -> Iterator[str]:
        yield self.path
        yield from relatives(self.path)

    def _close(self) -> None:
        if self.file is not None:
            self.file.close()
        self.file, self._stream = None, None


def _unchanged(now: os.stat_result, then: os.stat_result | None) -> bool:
    if then is None:
        return False
    return (Identity.of(now), now.st_size, now.st_mtime_ns) == (
        Identity.of(then),
        then.st_size,
        then.st_mtime_ns,
    )
