"""`/metrics` for Prometheus, with health, readiness, status page and reload beside it."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware  # noqa: TC002 - with the handlers they type
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from evalgauge.core.errors import ConfigError
from evalgauge.core.export import ExporterContext, NotReady
from evalgauge.core.units import Duration
from evalgauge.core.web import (
    Listen,
    Server,
    WebConfig,
    basic_auth_middleware,
    load_web_config,
    parse_listen,
    problem,
    require_protection,
    ssl_context,
)
from evalgauge.exporters import exposition, status_page
from evalgauge.exporters.negotiation import Offer, accepts_gzip, negotiate

try:  # three times as fast as zlib at a like size
    from isal import isal_zlib as deflate
except ImportError:
    import zlib as deflate  # type: ignore[no-redef]

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from evalgauge.core.families import Family

log = logging.getLogger(__name__)

_GZIP_LEVEL = 1  # on this text level 6 takes four times as long for 14 % less
_GZIP_WINDOW = 31  # zlib's way to say: 32 KiB, with gzip's header
_OPEN = ("/healthz", "/readyz")  # a kubelet has no credentials


class PrometheusConfig(BaseModel):
    """Where `/metrics` is served, and to whom."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: Listen = Field(
        "127.0.0.1:9464",
        description="Address to serve on. Anything but loopback needs a token, basic auth or TLS.",
    )
    created: bool = Field(
        default=True, description="Expose `_created` of counters and histograms in OpenMetrics."
    )
    zero_first: Duration = Field(
        0.0,
        description="How long a new counter or histogram series is shown as 0, for a Prometheus that does not "
        "ingest created timestamps; somewhat more than its scrape interval.",
    )
    max_concurrent_scrapes: int = Field(
        8, ge=1, description="Scrapes served at once; more are answered with 503."
    )
    token: SecretStr | None = Field(None, description="Bearer token that clients must send.")
    token_file: Path | None = Field(None, description="File that holds the bearer token.")
    web_config: Path | None = Field(
        None, description="Web configuration file of Prometheus' exporter toolkit: TLS, basic auth, headers."
    )

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        if self.token is not None and self.token_file is not None:
            raise ValueError("give one of `token` and `token_file`, not both")
        if self.token is not None and not self.token.get_secret_value():
            raise ValueError("`token` is empty; leave it out to let everybody in")
        return self


class PrometheusExporter:
    """Serves the last committed state over HTTP; see `PrometheusConfig`."""

    Config: ClassVar[type[BaseModel]] = PrometheusConfig

    def __init__(self, config: PrometheusConfig, context: ExporterContext) -> None:
        self._context = context
        self._renderer = exposition.Renderer(created=config.created, zero_first=config.zero_first)
        self._room = config.max_concurrent_scrapes
        # Rendering holds the interpreter lock, so more threads than these only take turns.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="prometheus-render")
        self._reloading = asyncio.Lock()

        access = load_web_config(config.web_config) if config.web_config else WebConfig()
        tls = ssl_context(access.tls_server_config) if access.tls_server_config else None
        token = _token(config)
        protected = token is not None or tls is not None or bool(access.basic_auth_users)
        require_protection(parse_listen(config.listen)[0], protected, "the prometheus exporter (`listen`)")
        self._headers = access.http_server_config.headers
        self._server = Server(
            self._app(token, access), config.listen, ssl=tls, headers=self._headers, name="prometheus"
        )
        self._scheme = "http" if tls is None else "https"
        self.port = 0
        """The bound port, once started."""

    def start(self) -> None:
        """Listen and serve. Raises `ConfigError` when the address cannot be had."""
        self.port = self._server.start()
        log.info("metrics are served at %s, port %d, path /metrics", self._scheme, self.port)

    def stop(self, grace: float) -> None:
        """Listen no more, and give scrapes under way `grace` seconds to end."""
        self._server.stop(grace)
        self._threads.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def render(families: Iterable[Family], openmetrics: bool = False) -> bytes:  # noqa: FBT001, FBT002 - the format
        """Give one exposition: text 0.0.4, or OpenMetrics 1.0. Equal families give equal bytes."""
        return exposition.render(families, openmetrics=openmetrics)

    def _app(self, token: str | None, access: WebConfig) -> web.Application:
        app = web.Application(middlewares=[_guard(token, access)])
        app.router.add_get("/", self._status)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_post("/-/reload", self._reload)
        return app

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        start = time.perf_counter()
        if self._room == 0:
            return problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "Too many scrapes at once",
                "Scrape less often or from fewer places, or raise `max_concurrent_scrapes`.",
                headers={"Retry-After": "1"},
            )
        # Held until the last byte is on its way: slow readers must not pile up expositions.
        self._room -= 1
        try:
            return await self._scrape(request)
        finally:
            self._room += 1
            self._context.observe_scrape(time.perf_counter() - start)

    async def _scrape(self, request: web.Request) -> web.StreamResponse:
        self._context.request_commit()
        offer = negotiate(",".join(request.headers.getall("Accept", ())))
        gzip = accepts_gzip(",".join(request.headers.getall("Accept-Encoding", ())))
        loop = asyncio.get_running_loop()
        try:
            blocks = await loop.run_in_executor(self._threads, self._exposition, offer, gzip)
        except NotReady as error:
            return _not_ready(error.reasons)
        headers = {
            **self._headers,
            "Content-Type": offer.content_type,
            "Content-Length": str(sum(map(len, blocks))),
            "Cache-Control": "no-store",
            "Vary": "Accept, Accept-Encoding",
            **({"Content-Encoding": "gzip"} if gzip else {}),
        }
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for block in blocks if request.method != "HEAD" else ():
            await response.write(block)
        await response.write_eof()
        return response

    def _exposition(self, offer: Offer, gzip: bool) -> list[bytes]:  # noqa: FBT001 - private
        """One exposition in pieces; runs in a thread, so that other requests are answered meanwhile."""
        blocks = self._renderer.blocks(self._context.snapshot(), openmetrics=offer.openmetrics)
        if not gzip:
            return list(blocks)
        stream = deflate.compressobj(_GZIP_LEVEL, deflate.DEFLATED, _GZIP_WINDOW)
        return [*map(stream.compress, blocks), stream.flush()]

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        reasons = self._context.readiness()
        return _not_ready(reasons) if reasons else web.json_response({"status": "ready"})

    async def _status(self, _request: web.Request) -> web.Response:
        page = status_page.render(self._context.status(), self._context.readiness())
        headers = {
            "Content-Security-Policy": status_page.CONTENT_SECURITY_POLICY,
            "Cache-Control": "no-store",
        }
        return web.Response(text=page, content_type="text/html", headers=headers)

    async def _reload(self, request: web.Request) -> web.Response:
        if not _same_site(request):
            return problem(
                HTTPStatus.FORBIDDEN, "Not from another site's page", "Send this POST without a browser."
            )
        async with self._reloading:
            error = await asyncio.to_thread(self._context.reload)
        if error is None:
            return web.json_response({"status": "reloaded"})
        return problem(
            HTTPStatus.INTERNAL_SERVER_ERROR, "The new configuration is bad; the old one stays", error
        )


def _not_ready(reasons: Sequence[str]) -> web.Response:
    return problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Not ready",
        "; ".join(reasons),
        headers={"Retry-After": "1"},
        reasons=list(reasons),
    )


def _token(config: PrometheusConfig) -> str | None:
    """The bearer token. Raises `ConfigError` when its file cannot be read or holds none."""
    if config.token is not None:
        return config.token.get_secret_value()
    if config.token_file is None:
        return None
    try:
        token = config.token_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"token_file {config.token_file} cannot be read: {error}") from error
    if not token:
        raise ConfigError(f"token_file {config.token_file} is empty; put the token in it")
    return token


def _guard(token: str | None, access: WebConfig) -> Middleware:
    """Let in who has the token or a login, where either is configured; both, where both are."""
    log_in = basic_auth_middleware(access) if access.basic_auth_users else None

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        if token is None and log_in is None:
            return await handler(request)
        if token is not None and scheme.lower() == "bearer":
            sent = credentials.strip().encode("utf-8", "surrogateescape")
            if hmac.compare_digest(sent, token.encode()):
                return await handler(request)
        elif log_in is not None and (scheme or request.path not in _OPEN):
            return await log_in(request, handler)
        if request.path in _OPEN:
            answer = await handler(request)
            # Reasons name files and inputs, which are nobody's business who has no credentials.
            return answer if answer.status == HTTPStatus.OK else _not_ready(())
        return problem(
            HTTPStatus.UNAUTHORIZED,
            "Who are you?",
            "Send the token of the configuration: `Authorization: Bearer …`.",
            headers={"WWW-Authenticate": 'Bearer realm="evalgauge"'},
        )

    return guard


def _same_site(request: web.Request) -> bool:
    """Whether a POST comes from no web page, or from one of this server: a page elsewhere can send one too."""
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host
