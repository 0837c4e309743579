"""Bytes of event files: plain, gzip or zstd, from a file that may change under the reader or from a pipe."""

# Works on descriptors; names are text.
# ruff: noqa: PTH122

from __future__ import annotations

import hashlib
import os
import re
import select
import stat
import zlib
from enum import Enum, auto
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from evalgauge.core.errors import ConfigError, EvalgaugeError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

Compression = Literal["auto", "none", "gzip", "zstd"]
Codec = Literal["none", "gzip", "zstd"]

HEAD_BYTES = 1024
"""A file is known again by its first bytes, this many at most: a name changes, an inode is used again."""
_MAGIC: dict[bytes, Codec] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
_SUFFIX: dict[str, Codec] = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_BLOCK = 256 << 10
_PIECE: dict[Codec, int] = {"gzip": 4 << 10, "zstd": 1 << 10}
"""Compressed bytes taken at once: what they can swell to stays within 4 MiB (gzip) and 32 MiB (zstd)."""
_STOP_SECONDS = 0.2


class BrokenFileError(EvalgaugeError):
    """A compressed file is damaged. What came before the damage was handed over; mend or remove the file."""


class Identity(NamedTuple):
    """What the file system calls a file, whatever its name is now."""

    device: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """The identity in a result of `os.stat`."""
        return cls(status.st_dev, status.st_ino)


class Digest(NamedTuple):
    """Some bytes, to be known again: how many, and their BLAKE2b hash."""

    size: int
    hash: str

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """The digest of `data`."""
        return cls(len(data), hashlib.blake2b(data, digest_size=16).hexdigest())


class Mark(NamedTuple):
    """A place in a file: enough to find both again under another name, in a copy, or compressed."""

    identity: Identity
    head: Digest
    """The stream's first bytes: HEAD_BYTES, or all before `offset` where that is less."""
    tail: Digest
    """The stream's last bytes before `offset`."""
    offset: int
    """Bytes of the decompressed stream before the place."""


class Likeness(Enum):
    """What comparing a file with a mark gave."""

    SAME = auto()
    SHORTER = auto()
    """It ends before the mark; what there is does not contradict it."""
    DIFFERENT = auto()


class Raw(Protocol):
    """Bytes as they are stored."""

    at: int
    """Bytes read so far."""

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; none at the end, which may only be the end for now."""

    def ready(self) -> bool:
        """Whether `read` would return without waiting."""


class RawFile:
    """A file read in order by position; tells when it was truncated or overwritten meanwhile."""

    def __init__(self, fd: int, at: int = 0) -> None:
        self.at = at
        self._fd = fd
        self._head = os.pread(fd, min(HEAD_BYTES, at), 0)

    def read(self, size: int) -> bytes:
        """The next bytes, none at the end of the file for now."""
        data = os.pread(self._fd, size, self.at)
        if len(self._head) == self.at < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - self.at]
        self.at += len(data)
        return data

    def ready(self) -> bool:
        """Files never make one wait."""
        return True

    def intact(self) -> bool:
        """False if what was read is no longer the beginning of the file. Ask after reading, then use the data."""
        if os.fstat(self._fd).st_size < self.at:
            return False
        return os.pread(self._fd, len(self._head), 0) == self._head


class RawPipe:
    """A pipe, or standard input. Reading ends early, with `cut_off`, once `stop` is set."""

    def __init__(self, fd: int, stop: threading.Event) -> None:
        self.at = 0
        self.cut_off = False
        self._fd = fd
        self._stop = stop
        self._peeked = b""

    def peek(self, size: int) -> bytes:
        """The next `size` bytes without taking them, fewer only at the end."""
        while len(self._peeked) < size and (data := self._next(size - len(self._peeked))):
            self._peeked += data
        return self._peeked

    def read(self, size: int) -> bytes:
        """What is there, waiting for at least one byte; none at the end or when stopped."""
        data, self._peeked = self._peeked or self._next(size), b""
        self.at += len(data)
        return data

    def ready(self) -> bool:
        """Whether bytes, or the end, are there now."""
        return bool(self._peeked or select.select([self._fd], [], [], 0)[0])

    def _next(self, size: int) -> bytes:
        while not self._stop.is_set():
            if select.select([self._fd], [], [], _STOP_SECONDS / 2)[0]:
                return os.read(self._fd, size)
        self.cut_off = True
        return b""


class Decompressed:
    """The content of gzip members or zstd frames, one after another, in bounded memory."""

    def __init__(self, raw: Raw, codec: Codec, name: str) -> None:
        self._raw = raw
        self._codec: Codec = codec
        self._name = name
        self._new: Callable[[], _Inflater] = _inflater(codec)
        self._inflater: _Inflater | None = None
        self._pending = memoryview(b"")
        self._output = memoryview(b"")
        self._broken: BrokenFileError | None = None

    @property
    def incomplete(self) -> bool:
        """Whether the stored bytes so far end inside a member or frame."""
        return self._inflater is not None

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end for now. Raises BrokenFileError once all before the damage is read."""
        if not self._output:
            self._output = memoryview(self._fill(size))
        data, self._output = self._output[:size], self._output[size:]
        return bytes(data)

    def _fill(self, size: int) -> bytes:
        if self._broken is not None:
            raise self._broken
        parts: list[bytes] = []
        got = 0
        while got < size:
            if not self._pending:
                if got and not self._raw.ready():
                    break
                self._pending = memoryview(self._raw.read(_BLOCK))
                if not self._pending:
                    break
            try:
                part = self._inflate()
            except BrokenFileError as error:
                self._broken = error
                if parts:
                    break
                raise
            parts.append(part)
            got += len(part)
        return b"".join(parts)

    def _inflate(self) -> bytes:
        piece = self._pending[: _PIECE[self._codec]]
        self._pending = self._pending[len(piece) :]
        if self._inflater is None:
            if self._codec == "gzip":  # padding of zeros after a member, as tape and block devices leave it
                piece = piece[len(piece) - len(bytes(piece).lstrip(b"\0")) :]
            if not piece:
                return b""
            self._inflater = self._new()
        try:
            data = self._inflater.decompress(piece)
        except Exception as error:  # zlib.error and zstandard.ZstdError have no common base
            msg = (
                f"{self._name}: damaged {self._codec} data near byte {self._raw.at - len(self._pending)}: {error}."
                " The lines before it were handed over; a few of them may be damaged too."
                f" Mend the file (`{self._codec} -t` checks it) or remove it."
            )
            raise BrokenFileError(msg) from error
        if self._inflater.eof:
            left = self._inflater.unused_data
            self._inflater = None
            if left:
                self._pending = memoryview(left + bytes(self._pending))
        return data


class _Inflater(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: memoryview, /) -> bytes: ...


def _inflater(codec: Codec) -> Callable[[], _Inflater]:
    if codec == "gzip":
        return lambda: zlib.decompressobj(wbits=31)
    try:
        import zstandard  # noqa: PLC0415 - an extra
    except ImportError as error:
        msg = "reading zstd needs the package zstandard: pip install 'evalgauge[zstd]'"
        raise ConfigError(msg) from error
    decompressor = zstandard.ZstdDecompressor(max_window_size=128 << 20)
    return decompressor.decompressobj


def detect(head: bytes, name: str, compression: Compression) -> Codec | None:
    """How a file is stored, by its first bytes and name; None while there are too few bytes to tell.

    Raises ConfigError if name or configuration promise what the bytes are not.
    """
    if compression == "none":
        return "none"
    named = _SUFFIX.get(os.path.splitext(name)[1].lower()) if compression == "auto" else compression
    for magic, codec in _MAGIC.items():
        if head.startswith(magic):
            found: Codec | None = codec
            break
        if head == magic[: len(head)]:
            found = None
            break
    else:
        found = "zstd" if _ZSTD_SKIPPABLE.match(head) else "none"
    if named is not None and found not in {named, None}:
        why = (
            f"is named {os.path.splitext(name)[1]}"
            if compression == "auto"
            else f"has `compression: {compression}`"
        )
        msg = f"{name} {why}, but does not begin like {named}; set `compression: {found}` or mend the file"
        raise ConfigError(msg)
    return found


class SourceFile:
    """One open regular file. It stays readable when it is renamed or deleted."""

    def __init__(self, path: str, compression: Compression) -> None:
        self.path = path
        self.real = os.path.realpath(path)
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(self.fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(self.fd)
            msg = f"{path} is not a regular file, so it cannot be followed; pipe it to the input `path: '-'`"
            raise ConfigError(msg)
        self.identity = Identity.of(status)
        self.modified = status.st_mtime_ns
        self.compression = compression
        self._codec: Codec | None = None

    def status(self) -> os.stat_result:
        """Size, times and links now."""
        status = os.fstat(self.fd)
        self.modified = status.st_mtime_ns
        return status

    def codec(self) -> Codec | None:
        """How it is stored; None while too little of it is there. Raises ConfigError."""
        if self._codec is None:
            self._codec = detect(os.pread(self.fd, 4, 0), self.path, self.compression)
        return self._codec

    def settle(self) -> None:
        """Nothing more will come: what is too short to be compressed is plain."""
        if self.codec() is None:
            self._codec = "none"

    def stream(self, offset: int) -> RawFile | FileStream | None:
        """Its content from `offset` on; None while it is too short to tell how it is stored, or ends before."""
        codec = self.codec()
        if codec is None:
            return None
        if codec == "none":
            return RawFile(self.fd, offset)
        stream = FileStream(RawFile(self.fd), codec, self.path)
        while offset:
            data = stream.read(min(offset, _BLOCK))
            if not data:
                return None
            offset -= len(data)
        return stream

    def read_at(self, offset: int, size: int) -> bytes:
        """Content from `offset` on, fewer than `size` bytes only at the end. Raises BrokenFileError."""
        stream = self.stream(offset)
        data = b""
        while stream is not None and len(data) < size and (more := stream.read(size - len(data))):
            data += more
        return data[:size]

    def compare(self, mark: Mark) -> Likeness:
        """Whether this file holds the place that `mark` names. Reads a compressed file up to there."""
        try:
            head = self.read_at(0, mark.head.size)  # copies are written in larger pieces than a head
            if Digest.of(head) != mark.head:
                return Likeness.DIFFERENT
            tail = self.read_at(mark.offset - mark.tail.size, mark.tail.size)
        except (BrokenFileError, ConfigError):
            return Likeness.DIFFERENT
        if len(tail) < mark.tail.size or (self.codec() == "none" and self.status().st_size < mark.offset):
            return Likeness.SHORTER
        return Likeness.SAME if Digest.of(tail) == mark.tail else Likeness.DIFFERENT

    def close(self) -> None:
        """Let it go."""
        os.close(self.fd)


class FileStream(Decompressed):
    """The content of a compressed file."""

    def __init__(self, raw: RawFile, codec: Codec, name: str) -> None:
        super().__init__(raw, codec, name)
        self._file = raw

    @property
    def at(self) -> int:
        """Stored bytes read so far."""
        return self._file.at

    def intact(self) -> bool:
        """False if what was read is no longer the beginning of the file."""
        return self._file.intact()
