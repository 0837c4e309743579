"""A running HTTP door, the engine's end of its seam in memory, and clients that behave well or badly."""

from __future__ import annotations

import gzip
import http.client
import json
import queue
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evalgauge.collectors.http import HttpCollector, HttpConfig
from evalgauge.core.collect import Chunk, EventVerdict, InputContext, InputStatus, Verdict
from evalgauge.core.event import Reason
from tests.parts.part import until

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping

DEADLINE = 60.0


def event(id_: str, **attributes: object) -> dict[str, object]:
    """One event as its sender writes it."""
    plain = {
        "specversion": "1.0",
        "id": id_,
        "source": "/test",
        "type": "judgment.executed",
        "data": {"n": 1},
    }
    return plain | attributes


def ndjson(*events: Mapping[str, object]) -> bytes:
    """Events as lines."""
    return b"".join(json.dumps(one).encode() + b"\n" for one in events)


class MemorySink:
    """The engine's end of the seam: judges chunks in a thread of its own and acknowledges them from there."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.commits = threading.Event()
        """Clear it, and nothing is committed until it is set again."""
        self.commits.set()
        self.full = False
        self.failure = ""
        self._seen: set[str] = set()
        self._queue: queue.Queue[Chunk | None] = queue.Queue()
        self._thread = threading.Thread(target=self._commit, daemon=True)
        self._thread.start()

    def put(self, chunk: Chunk) -> None:
        """Take a chunk."""
        self._queue.put(chunk)

    def offer(self, chunk: Chunk) -> bool:
        """Take a chunk unless `full`."""
        if self.full:
            return False
        self.chunks.append(chunk)
        self.put(chunk)
        return True

    def close(self) -> None:
        """End the thread."""
        self.commits.set()
        self._queue.put(None)
        self._thread.join()

    @property
    def bodies(self) -> list[bytes]:
        """The bytes of every chunk taken so far."""
        return [chunk.body for chunk in self.chunks if isinstance(chunk.body, bytes)]

    @property
    def lines(self) -> list[bytes]:
        """Every line of every chunk taken so far."""
        return [line for body in self.bodies for line in body.split(b"\n") if line]

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every event taken so far, decoded."""
        return [json.loads(line) for line in self.lines]

    def _commit(self) -> None:
        while (chunk := self._queue.get()) is not None:
            self.commits.wait()
            assert chunk.acknowledge is not None
            chunk.acknowledge(Verdict(error=self.failure) if self.failure else self._judge(chunk))

    def _judge(self, chunk: Chunk) -> Verdict:
        exceptions = []
        received = 0
        assert isinstance(chunk.body, bytes)
        for number, line in enumerate(chunk.body.split(b"\n")):
            if not line.strip():
                continue
            received += 1
            try:
                one = json.loads(line)
            except ValueError:
                exceptions.append(EventVerdict(number, "rejected", Reason.MALFORMED_JSON, "no JSON"))
                continue
            if not isinstance(one, dict):
                exceptions.append(EventVerdict(number, "rejected", Reason.NOT_AN_OBJECT, "no object"))
            elif chunk.tenant and one.get("tenant", chunk.tenant) != chunk.tenant:
                exceptions.append(EventVerdict(number, "rejected", Reason.FOREIGN_TENANT, "not yours"))
            elif "id" not in one:
                exceptions.append(EventVerdict(number, "rejected", Reason.MISSING_FIELD, "`id` is missing"))
            elif one["id"] in self._seen:
                exceptions.append(EventVerdict(number, "duplicate"))
            else:
                self._seen.add(one["id"])
        rejected = sum(one.status == "rejected" for one in exceptions)
        duplicate = len(exceptions) - rejected
        return Verdict(received, received - rejected - duplicate, duplicate, rejected, tuple(exceptions))


@dataclass
class Answer:
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


@dataclass
class Door:
    """A running `HttpCollector`, and ways to knock."""

    collector: HttpCollector
    sink: MemorySink
    context: InputContext
    thread: threading.Thread
    tls: ssl.SSLContext | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.collector.port

    def connect(self) -> http.client.HTTPConnection:
        """Open a connection."""
        if self.tls is not None:
            return http.client.HTTPSConnection("localhost", self.port, timeout=DEADLINE, context=self.tls)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)

    def post(
        self,
        body: bytes,
        content_type: str | None = "application/x-ndjson",
        *,
        method: str = "POST",
        path: str = "/v1/events",
        **headers: str,
    ) -> Answer:
        """Send one request on a connection of its own; `_` in header names stands for `-`."""
        connection = self.connect()
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if content_type is not None:
                sent["Content-Type"] = content_type
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())  # type: ignore[arg-type]
        finally:
            connection.close()

    @contextmanager
    def raw(self) -> Iterator[socket.socket]:
        """Open a bare socket."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as client:
            yield client

    def stop(self) -> None:
        """Ask for the end; does not wait."""
        self.context.stop.set()


def read_all(client: socket.socket) -> bytes:
    """Read until the other side closes, by FIN or by reset."""
    parts = []
    try:
        while part := client.recv(1 << 16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


@contextmanager
def open_door(
    *, client_tls: ssl.SSLContext | None = None, max_chunk_bytes: int = 4 << 20, **config: object
) -> Iterator[Door]:
    """Run a door on a free port of loopback; `client_tls` is how its client speaks TLS."""
    sink = MemorySink()
    context = InputContext(
        "door", {}, sink, threading.Event(), InputStatus(), max_chunk_bytes=max_chunk_bytes
    )
    collector = HttpCollector(HttpConfig.model_validate({"listen": "127.0.0.1:0"} | config), context)
    failure: list[BaseException] = []

    def run() -> None:
        try:
            collector.run()
        except BaseException as error:
            failure.append(error)
            raise

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: collector.port or failure, "the port")
    try:
        yield Door(collector, sink, context, thread, client_tls)
    finally:
        context.stop.set()
        sink.commits.set()
        thread.join(DEADLINE)
        sink.close()
    assert not thread.is_alive()
    assert not failure


def zipped(*bodies: bytes) -> bytes:
    """Gzip, one member for each body."""
    return b"".join(gzip.compress(body, mtime=0) for body in bodies)
