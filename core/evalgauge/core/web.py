"""Who may speak to an HTTP server of this process: a Prometheus web configuration, TLS, logins, loopback."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ipaddress
import re
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware  # noqa: TC002
from pydantic import BaseModel, ConfigDict, Field

from evalgauge.core.connection import problem
from evalgauge.core.document import read_document, suggest, validate
from evalgauge.core.errors import ConfigError, DocumentError
from evalgauge.core.httpserver import Listen, Refused, Server, check_length, parse_listen, read_body
from evalgauge.core.tls import TlsServerConfig, ssl_context

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "HttpServerConfig",
    "Listen",
    "Refused",
    "Server",
    "TlsServerConfig",
    "WebConfig",
    "basic_auth_middleware",
    "check_length",
    "load_web_config",
    "parse_listen",
    "problem",
    "read_body",
    "require_protection",
    "ssl_context",
]

_HEADERS = (
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
)
_BCRYPT = re.compile(r"\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}")
_BCRYPT_BYTES = 72
_KNOWN_LOGINS = 100


class HttpServerConfig(BaseModel):
    """`http_server_config` of a web configuration file."""

    model_config = ConfigDict(extra="forbid")

    http2: bool = Field(default=True, description="Taken, so that one file serves all; HTTP/1.1 is spoken.")
    headers: dict[str, str] = Field(default_factory=dict, description="Headers added to every answer.")


class WebConfig(BaseModel):
    """A Prometheus web configuration file (`--web.config.file` of exporters): TLS, users, headers."""

    model_config = ConfigDict(extra="forbid")

    tls_server_config: TlsServerConfig | None = None
    http_server_config: HttpServerConfig = Field(default_factory=HttpServerConfig)
    basic_auth_users: dict[str, str] = Field(
        default_factory=dict, description="User name → bcrypt hash of the password."
    )


def load_web_config(path: str | Path) -> WebConfig:
    """Read a web configuration file; file names in it are relative to it. Raises `DocumentError`."""
    document = read_document(path)
    if document.value is None:  # the toolkit takes an empty file for: nothing configured
        return WebConfig()
    config = validate(document, WebConfig)
    problems = []
    for user, hashed in config.basic_auth_users.items():
        if not _BCRYPT.fullmatch(hashed):
            message = f"the password of `{user}` is no bcrypt hash"
            hint = "Make one with `htpasswd -nBC 10 \"\" | tr -d ':\\n'`."
            problems.append(document.problem(("basic_auth_users", user), message, hint))
    for name in config.http_server_config.headers:
        if name not in _HEADERS:
            message, hint = f"header `{name}` cannot be set", suggest(name, _HEADERS)
            where = ("http_server_config", "headers", name)
            problems.append(document.problem(where, message, hint, at_key=True))
    if problems:
        raise DocumentError(problems)
    if config.tls_server_config is not None:
        config.tls_server_config = config.tls_server_config.below(Path(path).parent)
    return config


def require_protection(host: str, protected: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Refuse to open `what` to other machines without a token, a login or TLS client certificates.

    `host` is that of `parse_listen`. Raises `ConfigError`.
    """
    if protected or host == "localhost":
        return
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            return
    msg = (
        f"{what} would listen on {host or 'all interfaces'} and let everybody in. "
        "Configure a token, basic auth or TLS, or listen on 127.0.0.1 only."
    )
    raise ConfigError(msg)


class _Logins:
    """Who may log in. A login that was right once is known by its hash, since bcrypt takes some 70 ms."""

    def __init__(self, users: Mapping[str, str]) -> None:
        try:
            import bcrypt  # noqa: PLC0415 - an optional extra
        except ImportError as error:
            msg = "basic_auth_users need the extra `auth`: pip install 'evalgauge[auth]'"
            raise ConfigError(msg) from error
        self._check = bcrypt.checkpw
        self._users = {name: hashed.encode() for name, hashed in users.items()}
        # An unknown user must cost as much time as a wrong password.
        cost = max(int(hashed[4:6]) for hashed in self._users.values())
        self._nobody = bcrypt.hashpw(b"nobody", bcrypt.gensalt(rounds=cost))
        self._known: set[bytes] = set()
        self._one_at_a_time = asyncio.Lock()

    async def admit(self, authorization: str) -> bool:
        """Whether the `Authorization` header names a user and the right password."""
        login = hashlib.sha256(authorization.encode("utf-8", "surrogateescape")).digest()
        if login in self._known:
            return True
        scheme, _, encoded = authorization.partition(" ")
        try:
            name, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            return False
        if scheme.lower() != "basic" or not colon:
            return False
        hashed = self._users.get(name, self._nobody)
        async with self._one_at_a_time:  # guessing must not take every thread
            right = await asyncio.to_thread(self._check, password.encode()[:_BCRYPT_BYTES], hashed)
        if not right or name not in self._users:
            return False
        if len(self._known) >= _KNOWN_LOGINS:
            self._known.clear()
        self._known.add(login)
        return True


def basic_auth_middleware(web_config: WebConfig) -> Middleware:
    """Make aiohttp middleware that lets in the users of `web_config` only, or everybody if it names none.

    Raises `ConfigError` when there are users and the extra `auth` is not installed.
    """
    logins = _Logins(web_config.basic_auth_users) if web_config.basic_auth_users else None

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if logins is None or await logins.admit(request.headers.get("Authorization", "")):
            return await handler(request)
        return problem(
            HTTPStatus.UNAUTHORIZED,
            "Who are you?",
            "Send the user name and password of the web configuration (basic authentication).",
            headers={"WWW-Authenticate": 'Basic realm="evalgauge"'},
        )

    return authenticate
