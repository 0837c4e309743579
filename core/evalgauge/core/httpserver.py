"""An HTTP server in a thread of its own, which slow clients and broken requests cannot hold up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import threading
from concurrent.futures import Future
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

from aiohttp import web
from pydantic import AfterValidator

from evalgauge.core.connection import (
    LINGER_SECONDS,
    SERVER_NAME,
    Connection,
    ConnectionLimits,
    problem,
    raw_problem,
)
from evalgauge.core.errors import ConfigError
from evalgauge.core.tls import renewed

if TYPE_CHECKING:
    import ssl as ssl_module
    from collections.abc import Awaitable, Callable, Mapping

log = logging.getLogger(__name__)

_MOST_LEAVING = 100
"""Clients at a time that are told there is no room for them; more are cut off without a word."""
_LISTEN = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<host>[^\[\]:\s/]*)):(?P<port>\d{1,5})")


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:9464`, `[::1]:9464`, `name:9464` or `:9464` (host "": all interfaces).

    Port 0 means any free one. Raises ValueError.
    """
    match = _LISTEN.fullmatch(text.strip())
    port = int(match["port"]) if match else -1
    if match is None or not 0 <= port < 1 << 16:
        msg = f"`{text}` is no address to listen on; write it like 127.0.0.1:9464, [::1]:9464 or :9464"
        raise ValueError(msg)
    return match["v6"] or match["host"] or "", port


def _checked(text: str) -> str:
    parse_listen(text)
    return text


Listen = Annotated[str, AfterValidator(_checked)]
"""An address to listen on, as a key of a configuration model."""


class Refused(Exception):  # noqa: N818 - an answer, not a fault of ours
    """Raised in a handler to answer with `response` right away."""

    def __init__(self, response: web.Response) -> None:
        super().__init__(response.status)
        self.response = response


async def read_body(
    request: web.BaseRequest,
    *,
    max_bytes: int,
    timeout: float,  # noqa: ASYNC109 - it grows with what arrives
    min_rate: float,
    received: Callable[[int], None] | None = None,
) -> bytes:
    """Read the request's body as it came, compressed or not.

    The client has `timeout` seconds, and one second more for every `min_rate` bytes that arrived.
    `received` is told of the bytes as they come, and may raise `Refused` itself. Raises `Refused` with
    411 without a length, 413 above `max_bytes`, 408 when it takes longer, 400 when the framing is broken.
    """
    check_length(request, max_bytes)
    content = request.content
    try:
        if content.is_eof():
            body = content.read_nowait()
            if received is not None:
                received(len(body))
        else:
            parts: list[bytes] = []
            size = 0
            start = asyncio.get_running_loop().time()
            while size <= max_bytes:
                async with asyncio.timeout_at(start + timeout + size / min_rate):
                    part = await content.readany()
                if not part:
                    break
                parts.append(part)
                size += len(part)
                if received is not None:
                    received(len(part))
            body = b"".join(parts)
    except TimeoutError as error:
        detail = f"A body has {timeout:g} s, and one more for every {min_rate:g} bytes that arrive."
        answer = problem(HTTPStatus.REQUEST_TIMEOUT, "The body came too slowly", detail)
        answer.force_close()
        raise Refused(answer) from error
    except web.RequestPayloadError as error:
        detail = "Its chunks or its length do not fit what was declared."
        raise Refused(problem(HTTPStatus.BAD_REQUEST, "The body is broken", detail)) from error
    if len(body) > max_bytes:
        raise Refused(_too_large(max_bytes))
    return body


def check_length(request: web.BaseRequest, max_bytes: int) -> None:
    """Judge a body by what its header says. Raises `Refused`: 411 without a length, 413 above `max_bytes`."""
    declared = request.content_length
    if declared is None:
        if "Transfer-Encoding" not in request.headers:
            detail = "Send Content-Length, or the body in chunks."
            raise Refused(problem(HTTPStatus.LENGTH_REQUIRED, "The length is missing", detail))
    elif declared > max_bytes:
        raise Refused(_too_large(max_bytes))


def _too_large(max_bytes: int) -> web.Response:
    detail = f"A body may have {max_bytes} bytes as sent; send fewer events at a time."
    return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large", detail, max_bytes=max_bytes)


class Server:
    """An aiohttp application on an address of its own, in the event loop of a thread of its own.

    Timeouts are seconds; see `ConnectionLimits`. `ssl` from `ssl_context` is renewed when its files change.
    """

    def __init__(  # noqa: PLR0913 - each has its default
        self,
        app: web.Application,
        listen: str,
        *,
        ssl: ssl_module.SSLContext | None = None,
        header_timeout: float = 10.0,
        idle_timeout: float = 75.0,
        write_timeout: float = 30.0,
        max_connections: int = 1000,
        headers: Mapping[str, str] | None = None,
        name: str = "web",
    ) -> None:
        self._app = app
        self._listen = listen
        self._ssl = ssl
        self._limits = ConnectionLimits(header_timeout, idle_timeout, write_timeout)
        self._max_connections = max_connections
        self._headers = {"Server": SERVER_NAME, **(headers or {})}
        self._name = name
        self.connections: set[Connection] = set()
        """Open connections; the server's thread changes it."""
        self._arriving: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._ready: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Future[float] | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Listen and serve. Returns the bound port; raises `ConfigError` when the address cannot be had."""
        sockets = _bind(self._listen)
        port: int = sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._run, args=(sockets,), name=self._name, daemon=True)
        self._thread.start()
        self._ready.result()
        return port

    def stop(self, grace: float = 5.0) -> None:
        """Listen no more, give requests in flight `grace` seconds, close everything. Harmless twice."""
        thread, self._thread = self._thread, None
        if thread is None or self._loop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._end, grace)
        thread.join()

    def _end(self, grace: float) -> None:
        if self._stopping is not None and not self._stopping.done():
            self._stopping.set_result(grace)

    def _run(self, sockets: list[socket.socket]) -> None:
        try:
            asyncio.run(self._serve(sockets))
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)
        finally:
            for listener in sockets:
                listener.close()

    async def _serve(self, sockets: list[socket.socket]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = self._loop.create_future()
        runner = web.AppRunner(self._app, shutdown_timeout=0.1)
        await runner.setup()
        manager = runner.server
        assert manager is not None  # noqa: S101 - set up in the line above
        inner = manager.request_handler
        manager.request_handler = lambda request: self._handle(inner, request)
        tasks = [asyncio.create_task(self._accept(listener, manager)) for listener in sockets]
        sweep = asyncio.create_task(self._sweep())
        self._ready.set_result(None)
        try:
            grace = await self._stopping
            for task in tasks:
                task.cancel()
            for listener in sockets:
                listener.close()
            end = self._loop.time() + grace
            while self._loop.time() < end and any(connection.busy for connection in self.connections):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        finally:
            await runner.cleanup()
            ending = (*tasks, sweep, *self._arriving, *self._leaving)
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    async def _accept(self, listener: socket.socket, manager: web.Server) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _address = await loop.sock_accept(listener)
            except OSError as error:  # out of file descriptors, or a client that left in between
                log.warning("%s: a connection could not be accepted: %s", self._name, error)
                await asyncio.sleep(0.2)
                continue
            if len(self.connections) + len(self._arriving) >= self._max_connections:
                self._turn_away(client)
                continue
            if self._ssl is not None:
                self._ssl = renewed(self._ssl)
            task = loop.create_task(self._welcome(client, manager))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _welcome(self, client: socket.socket, manager: web.Server) -> None:
        loop = asyncio.get_running_loop()
        tls = self._ssl

        def connection() -> Connection:
            return Connection(manager, loop=loop, limits=self._limits, open_=self.connections, tls=tls)

        try:
            if tls is None:
                await loop.connect_accepted_socket(connection, client)
                return
            await loop.connect_accepted_socket(
                connection,
                client,
                ssl=tls,
                ssl_handshake_timeout=self._limits.header_timeout,
                ssl_shutdown_timeout=min(self._limits.write_timeout, 5.0),
            )
        except OSError as error:  # a failed handshake is the client's affair, and as frequent as it likes
            log.debug("%s: a connection did not come about: %s", self._name, error)

    def _turn_away(self, client: socket.socket) -> None:
        """Say that there are too many connections already, where that can be said and not too many are told it."""
        if self._ssl is not None or len(self._leaving) >= _MOST_LEAVING:
            client.close()
            return
        task = asyncio.get_running_loop().create_task(_say_full(client))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _sweep(self) -> None:
        every = min(1.0, self._limits.header_timeout / 4, self._limits.idle_timeout / 4)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(every)
            now = loop.time()
            for connection in list(self.connections):
                connection.check(now)

    async def _handle(
        self, inner: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], request: web.BaseRequest
    ) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)  # noqa: S101 - `_welcome` makes no other
        await connection.began(request.content)
        try:
            response = await inner(request)
        except Refused as refused:
            response = refused.response
        except web.HTTPException as error:
            response = _as_problem(error)
        except ConnectionError:
            raise
        except Exception:
            log.exception("%s: %s %s failed", self._name, request.method, request.path)
            detail = "The fault is on this side; it is in the log."
            response = problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal error", detail)
        finally:
            connection.ended(body_read=request.content.is_eof())
        if not response.prepared:
            response.headers.update(self._headers)
        return response


def _as_problem(error: web.HTTPException) -> web.StreamResponse:
    """Turn what aiohttp raises by itself (404, 405, 417, …) into a problem document, redirects not."""
    if error.status < HTTPStatus.BAD_REQUEST:
        return web.Response(status=error.status, headers=error.headers)
    headers = {name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers}
    if isinstance(error, web.HTTPMethodNotAllowed):
        detail = f"Allowed here: {headers.get('Allow', 'nothing')}."
        return problem(error.status, error.reason, detail, headers=headers)
    return problem(error.status, error.reason, headers=headers)


async def _say_full(client: socket.socket) -> None:
    """Answer 503, then read until the client has sent all it wants to: a close before that would be a reset."""
    loop = asyncio.get_running_loop()
    detail = "The server has as many connections as it may have; try again soon."
    with contextlib.suppress(OSError), client:  # a time-out is one
        async with asyncio.timeout(LINGER_SECONDS):
            await loop.sock_sendall(
                client, raw_problem(HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections", detail)
            )
            client.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(client, 1 << 16):
                pass


def _bind(listen: str) -> list[socket.socket]:
    """Listening sockets of every address `listen` stands for. Raises `ConfigError`."""
    sockets: list[socket.socket] = []
    try:
        host, port = parse_listen(listen)
        if not host:
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            found: list[tuple[socket.AddressFamily, tuple[Any, ...]]] = [(family, ("", port))]
        else:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            found = list(dict.fromkeys((answer[0], answer[4]) for answer in answers))
        for family, address in found:
            listener = socket.create_server(
                (address[0], port, *address[2:]),
                family=family,
                backlog=1024,
                dualstack_ipv6=not host and family == socket.AF_INET6,
            )
            listener.setblocking(False)  # noqa: FBT003 - the socket's own API
            sockets.append(listener)
            port = listener.getsockname()[1]  # a free port is one port for all addresses of a name
    except (OSError, ValueError) as error:
        for listener in sockets:
            listener.close()
        msg = f"cannot listen on {listen}: {error}"
        raise ConfigError(msg) from error
    return sockets
