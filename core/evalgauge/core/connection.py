"""One client's HTTP connection: who is slow or stalled is cut off, and every error is a problem document."""

from __future__ import annotations

import fcntl
import json
import termios
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from sys import byteorder
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from evalgauge.core.tls import client_allowed

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Mapping

    from aiohttp import StreamReader

PROBLEM_TYPE = "application/problem+json"
HEADER_LINE_BYTES = 8190
SERVER_NAME = "evalgauge"
"""The `Server` header: no versions, which only help whoever looks for a known hole."""
LINGER_SECONDS = 5.0
"""How long the rest of a refused body is read and dropped, so that the client sees an answer and no reset."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a client may take, in seconds."""

    header_timeout: float
    """From the connection, or the first byte of a later request, to the end of the request's header."""
    idle_timeout: float
    """Between an answer and the next request."""
    write_timeout: float
    """Without taking a byte of an answer that waits."""


class _Phase(Enum):
    IDLE = auto()
    HEADER = auto()
    HANDLING = auto()
    LINGERING = auto()
    CLOSING = auto()


def problem(
    status: int, title: str, detail: str = "", *, headers: Mapping[str, str] | None = None, **members: object
) -> web.Response:
    """A problem document (RFC 9457): what went wrong, and in `detail` what the caller can do about it."""
    body = _document(status, title, detail, members)
    return web.Response(status=status, body=body, headers=headers, content_type=PROBLEM_TYPE)


def raw_problem(status: int, title: str, detail: str) -> bytes:
    """Give a whole HTTP answer with a problem document, for where there is no request to answer."""
    body = _document(status, title, detail, {})
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {PROBLEM_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n"
    )
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        head += "Retry-After: 1\r\n"
    return f"{head}\r\n".encode("ascii") + body


def _document(status: int, title: str, detail: str, members: Mapping[str, object]) -> bytes:
    document = {"title": title, "status": status, **({"detail": detail} if detail else {}), **members}
    return json.dumps(document, ensure_ascii=False).encode()


class Connection(web.RequestHandler):
    """aiohttp's connection with a deadline; `check` is called now and then by the server that owns it."""

    __slots__ = (
        "_body",
        "_buffered",
        "_deadline",
        "_limits",
        "_open",
        "_phase",
        "_stalled",
        "_tls",
        "_wire",
        "_writable",
    )

    def __init__(
        self,
        manager: web.Server,
        *,
        loop: asyncio.AbstractEventLoop,
        limits: ConnectionLimits,
        open_: set[Connection],
        tls: ssl.SSLContext | None,
    ) -> None:
        super().__init__(
            manager,
            loop=loop,
            access_log=cast("Any", None),
            # Our own deadlines come first; this one is only the net below them.
            keepalive_timeout=limits.idle_timeout + limits.header_timeout + 60,
            lingering_time=LINGER_SECONDS,
            max_line_size=HEADER_LINE_BYTES,
            max_field_size=HEADER_LINE_BYTES,
            auto_decompress=False,
        )
        self._limits = limits
        self._open = open_
        self._tls = tls
        self._wire: asyncio.Transport | None = None
        self._body: StreamReader | None = None
        self._writable: asyncio.Future[None] | None = None
        self._stalled = 0.0
        self._buffered = 0
        self._phase = _Phase.HEADER
        self._deadline = loop.time() + limits.header_timeout

    @property
    def busy(self) -> bool:
        """Whether a request is being handled, or its answer still waits to be taken."""
        return self._phase is _Phase.HANDLING or self.writing_paused

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the header's deadline; refuse a client whose certificate does not name an allowed one."""
        self._wire = cast("asyncio.Transport", transport)
        if self._tls is not None and not client_allowed(self._tls, transport.get_extra_info("peercert")):
            self._wire.abort()
            return
        self._open.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection, and let nobody wait for it."""
        self._open.discard(self)
        self._release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes after an answer begin the next request's header."""
        if self._phase is _Phase.IDLE and data:
            self._phase = _Phase.HEADER
            self._deadline = self._loop.time() + self._limits.header_timeout
        super().data_received(data)
        if self._body is not None and self._messages and not hasattr(self._messages[-1][0], "headers"):
            # An error stands behind the request whose framing it is about, and that would wait for its body.
            self._body.set_exception(web.RequestPayloadError("the framing is broken"))
            self._body = None

    def pause_writing(self) -> None:
        """Note since when the client takes nothing."""
        super().pause_writing()
        self._stalled = self._loop.time()
        self._buffered = _untaken(self._wire) if self._wire else 0
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let the next request of this connection go on."""
        super().resume_writing()
        self._release()

    def _release(self) -> None:
        self._stalled = 0.0
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    async def began(self, body: StreamReader) -> None:
        """Begin a request whose header is complete, once earlier answers are taken: they must not pile up."""
        self._phase = _Phase.HANDLING
        self._body = None if body.is_eof() else body
        if self._writable is not None:
            await self._writable

    def ended(self, *, body_read: bool) -> None:
        """End a request whose answer is known; the rest of a body that nobody wants is thrown away."""
        self._body = None
        self._phase = _Phase.IDLE if body_read else _Phase.LINGERING
        left = self._limits.idle_timeout if body_read else LINGER_SECONDS + 1
        self._deadline = self._loop.time() + left

    def check(self, now: float) -> None:
        """Cut the client off if it is past its time; `now` is the event loop's clock."""
        wire = self._wire
        if wire is None:
            return
        if self._stalled:
            waiting = _untaken(wire)
            if waiting < self._buffered:
                self._stalled, self._buffered = now, waiting
            elif now - self._stalled > self._limits.write_timeout:
                wire.abort()
            return
        if self._phase is _Phase.HANDLING or now < self._deadline:
            return
        if self._phase is _Phase.CLOSING:
            wire.abort()
            return
        if self._phase is _Phase.HEADER:
            detail = f"The request's header was not complete after {self._limits.header_timeout:g} s."
            wire.write(raw_problem(HTTPStatus.REQUEST_TIMEOUT, "The header came too slowly", detail))
        self._phase = _Phase.CLOSING
        self._deadline = now + self._limits.write_timeout
        wire.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never became a request. Not logged: whoever can connect could fill the log."""
        if isinstance(exc, LineTooLong):
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            message = f"No line of a request's header may be longer than {HEADER_LINE_BYTES} bytes."
        elif isinstance(exc, ConnectionError) and (self.transport is None or self.transport.is_closing()):
            self.logger.debug("a client hung up before it had the answer to %s", request.rel_url.path)
        elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.logger.error("the answer to %s failed", request.rel_url.path, exc_info=exc)
            message = None
        headers = {"Server": SERVER_NAME}
        response = problem(status, HTTPStatus(status).phrase, _printable(message or ""), headers=headers)
        response.force_close()
        return response


def _untaken(wire: asyncio.Transport) -> int:
    """Bytes the client has yet to take, those in the kernel's buffer included: it may hold megabytes."""
    buffered = wire.get_write_buffer_size()
    try:
        queued = fcntl.ioctl(wire.get_extra_info("socket"), termios.TIOCOUTQ, bytes(4))
        return buffered + int.from_bytes(queued, byteorder)
    except OSError:
        return buffered


def _printable(text: str) -> str:
    """Put a parser's message on one line; it quotes what the client sent."""
    line = " ".join(text.split())
    return "".join(character if character.isprintable() else "?" for character in line)[:300]
