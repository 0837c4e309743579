"""HTTP: a door for events, which answers 202 once they are durable.

`POST /v1/events` takes CloudEvents (structured, batch, binary), NDJSON, and JSON objects and arrays.
Every other answer is a problem document (RFC 9457); what may be sent again says so with `Retry-After`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from evalgauge.collectors import http_answer as answers
from evalgauge.collectors.cloudevents_http import Form, Lines, binary_event, form_of, lines_of
from evalgauge.collectors.http_encoding import decoder_of, inflated_too_large
from evalgauge.collectors.http_flow import Acknowledgements, Room, chunks_of, give_up, locator
from evalgauge.collectors.http_tokens import Sender, Token, Tokens, too_fast
from evalgauge.core.collect import Chunk, InputContext, Stopped, Verdict
from evalgauge.core.units import Duration, Size
from evalgauge.core.web import (
    Listen,
    Refused,
    Server,
    TlsServerConfig,
    check_length,
    parse_listen,
    read_body,
    require_protection,
    ssl_context,
)

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

PARTITION = "push"
"""The one partition of a push door; it has no position."""

_SMALL_BODY = 16 << 10
_SMALL_INFLATED = 256 << 10
"""Bytes up to which a body is worked on in the event loop; what is larger must not hold up the others."""

_ROOM_POLL = 0.02
"""Seconds between two tries to hand over the rest of a request whose first chunk is with the engine already."""


class HttpConfig(BaseModel):
    """An HTTP door for events."""

    model_config = ConfigDict(extra="forbid")

    listen: Listen = Field(
        "127.0.0.1:8080", description="Address. Beyond loopback, tokens or client certificates."
    )
    path: str = Field(
        "/v1/events", pattern=r"^/[A-Za-z0-9._~/-]*$", description="Where events are posted to."
    )
    tls: TlsServerConfig | None = Field(None, description="Serve HTTPS.")
    tokens: list[Token] = Field(
        default_factory=list, description="Who may send; empty: everybody who can connect."
    )
    max_body: Size = Field(16 << 20, gt=0, description="Largest body as sent, compressed or not.")
    max_inflated: Size = Field(64 << 20, gt=0, description="Largest body once inflated.")
    max_events: PositiveInt = Field(50_000, description="Most events in one request.")
    max_pending: Size = Field(
        256 << 20,
        gt=0,
        description="Bytes of all requests that are read or wait for their commit; above it, 503.",
    )
    max_connections: PositiveInt = Field(1000, description="Most connections at a time.")
    header_timeout: Duration = Field(10.0, gt=0, description="Time for a request's header.")
    body_timeout: Duration = Field(
        10.0, gt=0, description="Time for a request's body, besides what `min_rate` adds."
    )
    min_rate: Size = Field(
        16 << 10, gt=0, description="Bytes a second; each so many that arrive add a second."
    )
    idle_timeout: Duration = Field(75.0, gt=0, description="Time a connection may wait for its next request.")
    write_timeout: Duration = Field(30.0, gt=0, description="Time a client may leave an answer untaken.")
    commit_timeout: Duration = Field(30.0, gt=0, description="Time an answer waits for its commit; then 503.")
    drain_timeout: Duration = Field(
        10.0, description="Time that requests in flight get when the process ends."
    )
    retry_after: Duration = Field(1.0, description="When to send again what was turned away (503).")


class HttpCollector:
    """One HTTP door. Its server has a thread and event loop of its own; `run` waits for the end."""

    Config: ClassVar[type[BaseModel]] = HttpConfig
    pushes: ClassVar[bool] = True

    def __init__(self, config: HttpConfig, context: InputContext) -> None:
        """Check what can be checked without listening. Raises `ConfigError`."""
        self._config = config
        self._context = context
        host, _port = parse_listen(config.listen)
        certificates = config.tls is not None and config.tls.client_auth_type == "RequireAndVerifyClientCert"
        require_protection(host, bool(config.tokens) or certificates, f"input `{context.name}`")
        self._tokens = Tokens(config.tokens) if config.tokens else None
        self._ssl = ssl_context(config.tls) if config.tls else None
        self._pool = ThreadPoolExecutor(2, thread_name_prefix=f"{context.name}-inflate")
        self._acknowledged = Acknowledgements()
        self._id_prefix = secrets.token_hex(4)
        self._requests = 0
        self._events = 0
        self._in_flight = 0
        self._room = Room(config.max_pending, config.retry_after)
        self._draining = False
        context.status.not_ready = "it does not listen yet"
        self.port = 0
        """The bound port, once `run` listens."""

    def run(self) -> None:
        """Serve until `context.stop` is set; then answer what is in flight, and turn away what is new."""
        config = self._config
        app = web.Application()
        app.router.add_post(config.path, self._post, expect_handler=self._expect)
        server = Server(
            app,
            config.listen,
            ssl=self._ssl,
            header_timeout=config.header_timeout,
            idle_timeout=config.idle_timeout,
            write_timeout=config.write_timeout,
            max_connections=config.max_connections,
            name=self._context.name,
        )
        self.port = server.start()
        self._context.status.not_ready = ""
        host = parse_listen(config.listen)[0] or "0.0.0.0"  # noqa: S104 - told, not bound
        shown = f"[{host}]" if ":" in host else host
        self._context.status.note = f"http{'s' if self._ssl else ''}://{shown}:{self.port}{config.path}"
        log.info("input %s listens on %s", self._context.name, self._context.status.note)
        try:
            while not self._context.stop.wait(0.5):
                self._tell()
            self._draining = True
            end = time.monotonic() + config.drain_timeout
            while self._in_flight and time.monotonic() < end:
                time.sleep(0.01)
        finally:
            server.stop(grace=1.0)
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._tell()

    def _tell(self) -> None:
        flying = f", {self._in_flight} in flight" if self._in_flight else ""
        self._context.status.positions[PARTITION] = (
            f"{self._requests} requests, {self._events} events{flying}"
        )

    async def _expect(self, request: web.Request) -> web.StreamResponse | None:
        """Answer `Expect: 100-continue`: a request that is turned away need not send its body."""
        try:
            self._admitted(request)
        except Refused as refused:
            refused.response.force_close()
            raise
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # the answer proper has not begun
        return None

    def _admitted(self, request: web.Request) -> Sender | None:
        """Judge a request by its header alone. Raises `Refused`."""
        if self._draining:
            refused = answers.unavailable(
                "The server is ending", "Send the events again.", self._config.retry_after
            )
            refused.response.force_close()
            raise refused
        sender = self._tokens.sender(request.headers.get("Authorization", "")) if self._tokens else None
        if sender is not None and sender.bucket is not None:
            wait = sender.bucket.wait(0)
            if wait:
                raise too_fast(wait)
        check_length(request, self._config.max_body)
        return sender

    async def _post(self, request: web.Request) -> web.Response:
        self._in_flight += 1
        lease = self._room.lease()
        try:
            sender = self._admitted(request)
            form = form_of(request.headers)
            inflate = decoder_of(request.headers.get("Content-Encoding", ""))
            config = self._config
            body = await read_body(
                request,
                max_bytes=config.max_body,
                timeout=config.body_timeout,
                min_rate=config.min_rate,
                received=lease.take,
            )
            lines = await self._lines(request, body, form, inflate)
            lease.become(len(lines.body))
            verdict = await self._committed(lines, sender)
            return await self._answer(request, lines, verdict)
        finally:
            lease.become(0)
            self._in_flight -= 1

    async def _lines(
        self, request: web.Request, body: bytes, form: Form, inflate: Callable[[bytes, int], bytes] | None
    ) -> Lines:
        """Inflate and cut; in another thread where that takes long."""
        limit, max_events = self._config.max_inflated, self._config.max_events

        def work(limit: int = limit) -> Lines:
            plain = body if inflate is None else inflate(body, limit)
            if form is Form.BINARY:
                return binary_event(plain, request.headers.items())
            return lines_of(plain, form, max_events)

        loop = asyncio.get_running_loop()
        if inflate is None:
            if len(body) > limit:
                raise inflated_too_large(limit)
            return work() if len(body) <= _SMALL_INFLATED else await loop.run_in_executor(self._pool, work)
        if len(body) <= _SMALL_BODY:
            try:
                return work(min(limit, _SMALL_INFLATED))
            except Refused as refused:
                if refused.response.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                    raise
        return await loop.run_in_executor(self._pool, work)

    async def _committed(self, lines: Lines, sender: Sender | None) -> Verdict:
        """Hand the lines to the engine and wait until they are durable."""
        if not lines.body:
            return Verdict()
        bucket = sender.bucket if sender is not None else None
        if bucket is not None and (wait := bucket.wait(lines.lines)):
            raise too_fast(wait)
        self._requests += 1
        request_id = f"{self._id_prefix}-{self._requests:x}"
        loop = asyncio.get_running_loop()
        end = loop.time() + self._config.commit_timeout
        arrival = time.time()
        tenant = sender.token.tenant if sender is not None else None
        waiters: list[tuple[int, asyncio.Future[Verdict]]] = []
        for first, part in chunks_of(lines.body, self._context.max_chunk_bytes):
            waiter: asyncio.Future[Verdict] = loop.create_future()
            chunk = Chunk(
                PARTITION,
                part,
                locate=locator(request_id, first),
                tenant=tenant,
                arrival=arrival,
                acknowledge=self._acknowledged.bridge(loop, waiter),
            )
            while not self._offered(chunk):
                # The first chunk is turned away at once. Behind it the others wait: it may be durable already.
                if not waiters or loop.time() >= end:
                    if bucket is not None and not waiters:
                        bucket.give_back(lines.lines)
                    detail = "More events arrive than can be made durable. Send them again."
                    raise answers.unavailable("The server is behind", detail, self._config.retry_after)
                await asyncio.sleep(_ROOM_POLL)
            waiters.append((first, waiter))
        timer = loop.call_at(end, give_up, [waiter for _, waiter in waiters])
        try:
            verdicts = [(first, await waiter) for first, waiter in waiters]
        finally:
            timer.cancel()
        verdict = verdicts[0][1] if len(verdicts) == 1 else answers.merged(verdicts)
        if verdict.error:
            detail = f"{verdict.error.rstrip('.')}. Send the events again; their ids make that harmless."
            raise answers.unavailable("Not known to be durable", detail, self._config.retry_after)
        self._events += verdict.received
        return verdict

    def _offered(self, chunk: Chunk) -> bool:
        try:
            return self._context.sink.offer(chunk)
        except Stopped:
            detail = "The server is ending. Send the events again."
            raise answers.unavailable("The server is ending", detail, self._config.retry_after) from None

    async def _answer(self, request: web.Request, lines: Lines, verdict: Verdict) -> web.Response:
        prefer = request.headers.get("Prefer")
        if prefer is None or verdict.received <= answers.SMALL:
            return answers.answer(lines, verdict, prefer)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, answers.answer, lines, verdict, prefer)
