"""A real `evalgauge run` as a child process, and commands run to their end."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from unittest import mock

import yaml
from prometheus_client.parser import text_string_to_metric_families

from evalgauge.core import cli
from tests.parts.part import free_port, until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

PROGRAM = Path(sys.executable).with_name("evalgauge")
JUDGMENT = {"tenant_id": "acme", "workflow_id": "w", "method_used": "rule", "status": "success"}


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str


_ALONE = ("replay", "tap", "demo", "run")
"""Commands that change how the process answers signals, and so have one of their own."""


def evalgauge(*words: str | Path, stdin: bytes | None = None, cwd: Path | None = None) -> Done:
    """Run a command to its end: in a process of its own, or here where that makes no difference."""
    arguments = list(map(str, words))
    if stdin is None and arguments[0] not in _ALONE:
        return _here(arguments, cwd or Path.cwd())
    done = subprocess.run(
        [PROGRAM, *arguments],
        input=stdin or b"",
        capture_output=True,
        check=False,
        cwd=cwd,
        env=_without_ours(),
        timeout=120,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def _here(arguments: list[str], cwd: Path) -> Done:
    raw = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(one, "utf-8", write_through=True) for one in raw)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    with (
        contextlib.chdir(cwd),
        mock.patch.dict(os.environ, _without_ours(), clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            code = cli.run(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            root.handlers[:], root.level = before
    return Done(code, raw[0].getvalue().decode(), raw[1].getvalue().decode())


def _without_ours() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("EVALGAUGE_")}


def judgment(number: int, **fields: object) -> bytes:
    """One sound judgment event as a line, without the newline."""
    event = {
        "id": f"j-{number}",
        "source": "/test",
        "type": "judgment.executed",
        "data": {**JUDGMENT, **fields},
    }
    return json.dumps(event).encode()


class Answer(NamedTuple):
    """What a server said."""

    status: int
    text: str

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.text)


class Running:
    """`evalgauge run` with a configuration file of its own. Use it with `with`; it is killed at the end.

    `config` is the configuration without ports: an input of type http and an exporter of type prometheus get
    free ones.
    """

    def __init__(
        self, folder: Path, config: dict[str, Any], *flags: str, env: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.path = folder / "evalgauge.yaml"
        self.metrics_port, self.door_port = free_port(), free_port()
        self._flags, self._env = flags, env or {}
        self.write(config)
        self.process: subprocess.Popen[bytes] | None = None
        self._log = folder / "run.log"

    def write(self, config: dict[str, Any]) -> None:
        """Write the configuration, with the same ports as before."""
        whole: dict[str, Any] = {
            "exporters": {"metrics": {"type": "prometheus"}},
            "state": {"folder": str(self.folder / "state")},
        }
        whole |= json.loads(json.dumps(config))
        for one in whole.get("inputs", {}).values():
            if one.get("type") == "http":
                one.setdefault("listen", f"127.0.0.1:{self.door_port}")
        for one in whole["exporters"].values():
            one.setdefault("listen", f"127.0.0.1:{self.metrics_port}")
        self.path.write_text(yaml.safe_dump(whole))

    def __enter__(self) -> Self:
        """Start, and wait until it answers."""
        self.start()
        until(
            lambda: (self.get("/healthz").status == 200 and self._open()) or self.ended(),
            "the process to answer",
        )
        assert not self.ended(), self.log()
        return self

    def _open(self) -> bool:
        """Whether the door, if there is one, takes connections."""
        if f":{self.door_port}" not in self.path.read_text():
            return True
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.door_port)) == 0

    def start(self) -> None:
        """Start without waiting."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "run", "--config", self.path, *self._flags],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**_without_ours(), **self._env},
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it if it still runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def ended(self) -> bool:
        """Whether it has ended."""
        return self.process is not None and self.process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def end(self, timeout: float = 60) -> int:
        """Send SIGTERM and wait; the exit code."""
        assert self.process is not None
        self.send(signal.SIGTERM)
        return self.process.wait(timeout)

    def log(self) -> str:
        """All that it has logged."""
        return self._log.read_text(errors="replace")

    def get(self, path: str, *, method: str = "GET") -> Answer:
        """Ask the exporter; status 0 while nobody answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.metrics_port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Answer(answer.status, answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read().decode())
        except (OSError, http.client.HTTPException):
            return Answer(0, "")

    def post(self, *lines: bytes) -> Answer:
        """Send events to the door; status 0 where nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.door_port, timeout=30)
        try:
            connection.request(
                "POST", "/v1/events", b"\n".join(lines), {"Content-Type": "application/x-ndjson"}
            )
            response = connection.getresponse()
            return Answer(response.status, response.read().decode())
        except (OSError, http.client.HTTPException):
            return Answer(0, "")
        finally:
            connection.close()

    @property
    def door(self) -> str:
        """The URL of the door."""
        return f"http://127.0.0.1:{self.door_port}/v1/events"

    def sum(self, name: str, **labels: str) -> float:
        """The sum over the series of a name that have these labels, from /metrics; -1 where it is not ready."""
        answer = self.get("/metrics")
        if answer.status != 200:
            return -1
        wanted = labels.items()
        return sum(
            one.value
            for family in text_string_to_metric_families(answer.text)
            for one in family.samples
            if one.name == name and wanted <= one.labels.items()
        )
