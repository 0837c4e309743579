"""One small driver for each collector: how the suite brings events to it."""

from __future__ import annotations

import gzip
import http.client
import os
import shutil
import socket
from typing import TYPE_CHECKING, Any, Protocol

from evalgauge.collectors.file import FileCollector
from evalgauge.collectors.http import HttpCollector

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from evalgauge.core.collect import Collector


class Driver(Protocol):
    """What a collector must provide to be held to the suite."""

    kind: str
    """The name of its entry point."""
    collector: type[Collector]
    pushes: bool

    def config(self) -> dict[str, Any]:
        """The input's configuration, without `type`; the same before and after a restart."""

    def deliver(self, body: bytes) -> bool:
        """Bring these bytes, one event a line, while the collector runs.

        True once they are safe: written to the log, or acknowledged by the collector. False if it said no, or
        said nothing because it died; they may be delivered again then.
        """


class GrowingFile:
    """A file that is written on."""

    kind = "file"
    collector: type[Collector] = FileCollector
    pushes = False

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.ndjson"
        self.path.touch()

    def config(self) -> dict[str, Any]:
        """Follow it."""
        return {"path": str(self.path), "follow": True, "poll_interval": 0.01, "rotate_wait": 0}

    def deliver(self, body: bytes) -> bool:
        """Append."""
        with self.path.open("ab") as file:
            file.write(body)
        return True


class RotatedFile(GrowingFile):
    """A log that is rotated before each delivery, by renaming, with compression or by copying, in turn."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._turn = 0

    def config(self) -> dict[str, Any]:
        """Follow it by a glob that matches the rotated names too."""
        return super().config() | {"path": f"{self.path}*"}

    def deliver(self, body: bytes) -> bool:
        """Rotate, then append."""
        if self.path.stat().st_size:
            self._rotate()
        return super().deliver(body)

    def _rotate(self) -> None:
        self._turn += 1
        rotated = self.path.with_name(f"{self.path.name}.{self._turn:04}")
        if self._turn % 3 == 0:
            shutil.copy(self.path, rotated)
            os.truncate(self.path, 0)
            return
        self.path.rename(rotated)
        if self._turn % 3 == 1:
            packed = rotated.with_name(f"{rotated.name}.gz")
            packed.write_bytes(gzip.compress(rotated.read_bytes()))
            shutil.copystat(rotated, packed)
            rotated.unlink()
        self.path.touch()


class PackedFile(GrowingFile):
    """A compressed file to which each delivery adds a gzip member."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.ndjson.gz"
        self.path.touch()

    def deliver(self, body: bytes) -> bool:
        """Append a member."""
        return super().deliver(gzip.compress(body))


class HttpDoor:
    """Requests with NDJSON bodies."""

    kind = "http"
    collector: type[Collector] = HttpCollector
    pushes = True

    def __init__(self, folder: Path) -> None:
        del folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])

    def config(self) -> dict[str, Any]:
        """Listen on a port that stays."""
        return {"listen": f"127.0.0.1:{self._port}", "drain_timeout": 1.0, "commit_timeout": 5.0}

    def deliver(self, body: bytes) -> bool:
        """POST."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("POST", "/v1/events", body, {"Content-Type": "application/x-ndjson"})
            return connection.getresponse().status == http.HTTPStatus.ACCEPTED
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


DRIVERS: Sequence[Callable[[Path], Driver]] = (GrowingFile, RotatedFile, PackedFile, HttpDoor)
"""Add a collector's driver here, and it is held to everything below this folder."""
