"""What parts share: the cache folder, a free port, a wait with a deadline, a child process with its log."""

from __future__ import annotations

import fcntl
import functools
import http.client
import itertools
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

Answer = TypeVar("Answer")

LOG_TAIL_BYTES = 4000
POLL_SECONDS = 0.02


class Missing(Exception):  # noqa: N818 - reads as what it says: `except Missing`
    """A part cannot be had on this machine; the message says what to install.

    A test that meets it is skipped with that message, or fails if the environment says CI=true.
    """


def cache_folder() -> Path:
    """Where parts are kept between runs: outside the checkout, in EVALGAUGE_PARTS_CACHE if that is set."""
    set_by_user = os.environ.get("EVALGAUGE_PARTS_CACHE")
    folder = Path(set_by_user) if set_by_user else Path.home() / ".cache" / "evalgauge" / "parts"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def installed(name: str, install: Callable[[Path], None]) -> Path:
    """Return the cache folder `name`, filled by `install` the first time and whole or absent ever after.

    `install` gets an empty folder to fill. Processes that want the same part wait for one another.
    """
    final = cache_folder() / name
    if final.is_dir():
        return final
    with _locked(cache_folder() / f"{name}.lock"):
        if not final.is_dir():
            with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=f".{name}-") as scratch:
                filling = Path(scratch) / "filling"
                filling.mkdir()
                install(filling)
                filling.rename(final)
    return final


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(
    command: Sequence[str | Path],
    *,
    missing: str,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command that helps to install a part and return what it printed.

    Raises `Missing` with the sentence `missing` and the end of the output if it fails.
    """
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        printed = done.stdout[-LOG_TAIL_BYTES:]
        raise Missing(f"{missing}\n`{' '.join(map(str, command))}` ended with {done.returncode}:\n{printed}")
    return done.stdout


class Ports:
    """Loopback TCP ports for one process, from a block that no other process on this machine is given.

    A test keeps a port while the server behind it is dead or not yet started: that nobody listens there does not
    make a port free. Blocks lie below the range that outgoing connections use, so none of them takes one either.
    """

    FIRST, LAST, BLOCK = 20_000, 32_000, 1000

    def __init__(self) -> None:
        """Take a block for as long as this process lives. Raises `Missing` if there is none left."""
        folder = cache_folder() / "ports"
        folder.mkdir(exist_ok=True)
        for first in range(self.FIRST, self.LAST, self.BLOCK):
            held = (folder / str(first)).open("w")
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.close()
                continue
            self._held = held
            self._order = itertools.cycle(range(first, first + self.BLOCK))
            return
        raise Missing(
            f"All ports from {self.FIRST} to {self.LAST} are given to other test processes; end some."
        )

    def draw(self) -> int:
        """Return the port that was drawn longest ago and has no listener."""
        for port in itertools.islice(self._order, self.BLOCK):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
        raise Missing("No free port among a thousand on 127.0.0.1; end what listens there.")


_one_at_a_time = threading.Lock()


@functools.cache
def _ports(_process: int) -> Ports:
    """The block of this process; one made by fork has another number, and takes its own."""
    return Ports()


def free_port() -> int:
    """Return a loopback TCP port that nobody listens on and no other process is given."""
    with _one_at_a_time:
        return _ports(os.getpid()).draw()


def until(probe: Callable[[], Answer], what: str, seconds: float = 90) -> Answer:
    """Call `probe` until it returns something true, and return that.

    Raises `AssertionError` after `seconds`, naming `what` was waited for and what the last call gave.
    """
    deadline = time.monotonic() + seconds
    while not (got := probe()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}; the last answer was {got!r}"
        time.sleep(POLL_SECONDS)
    return got


def answers(url: str) -> bool:
    """Whether an HTTP GET is answered with success; for `Server.start` and `until`."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as refusal:
        refusal.close()  # it holds the connection
        return False
    except (OSError, http.client.HTTPException):
        return False


class Server:
    """One child process with a folder of its own, its output going to a log file in there."""

    def __init__(
        self, command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.log_file = folder / f"{Path(command[0]).name}.log"
        self._command = [str(word) for word in command]
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; the server must have been started."""
        assert self._process is not None, f"{self._command[0]} was not started"
        return self._process.pid

    def start(self, ready: Callable[[], bool], seconds: float = 90) -> None:
        """Start the process and wait until `ready` says yes.

        Raises `AssertionError` with the end of the log if the process ends or is not ready in time.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + seconds
        while not ready():
            code = self._process.poll()
            if code is None and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
                continue
            self.stop()
            state = f"was not ready in {seconds:g} s" if code is None else f"ended with exit code {code}"
            raise AssertionError(f"{' '.join(self._command)} {state}; its log ends with:\n{self.tail()}")

    def stop(self, seconds: float = 10) -> None:
        """End the process: SIGTERM, after `seconds` SIGKILL. Does nothing if it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def log(self) -> str:
        """Return all that the process has written so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def tail(self) -> str:
        """Return the end of the log, for a message."""
        return self.log()[-LOG_TAIL_BYTES:]

    def __enter__(self) -> Self:
        """Return itself; who starts it waits for it with `start`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the process."""
        self.stop()
