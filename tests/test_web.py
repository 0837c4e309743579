"""The shared HTTP server: where it listens, who gets in, who is cut off, and how it says no."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import logging
import socket
import ssl
import struct
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import bcrypt
import pytest
import trustme
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from pydantic import ValidationError

from evalgauge.core.errors import ConfigError, DocumentError
from evalgauge.core.tls import renewed
from evalgauge.core.web import (
    Server,
    TlsServerConfig,
    WebConfig,
    basic_auth_middleware,
    load_web_config,
    parse_listen,
    problem,
    require_protection,
    ssl_context,
)
from tests.client_http import read_all
from tests.parts.part import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BIG = 8 << 20


@contextmanager
def serving(
    listen: str = "127.0.0.1:0",
    *,
    users: dict[str, str] | None = None,
    gate: threading.Event | None = None,
    **options: object,
) -> Iterator[tuple[int, Server]]:
    """Serve a small application with a slow page (until `gate` opens), a big and a broken one."""
    gate = gate or threading.Event()

    async def page(request: web.Request) -> web.StreamResponse:
        match request.match_info["page"]:
            case "big":
                return web.Response(body=bytes(BIG))
            case "broken":
                raise RuntimeError("a secret detail")
            case "slow":
                while not gate.is_set():  # noqa: ASYNC110 - opened from another thread
                    await asyncio.sleep(0.01)
            case "streamed":
                answer = web.StreamResponse()
                await answer.prepare(request)
                for _ in range(8):
                    await answer.write(bytes(BIG))
                await answer.write_eof()
                return answer
            case "moved":
                raise web.HTTPFound("/elsewhere")
        return web.Response(text="hello")

    middlewares = [basic_auth_middleware(WebConfig(basic_auth_users=users or {}))]
    app = web.Application(middlewares=middlewares)
    app.router.add_get("/{page}", page)
    server = Server(app, listen, **options)  # type: ignore[arg-type]
    port = server.start()
    try:
        yield port, server
    finally:
        gate.set()
        server.stop()


def get(
    port: int,
    path: str = "/hello",
    *,
    host: str = "127.0.0.1",
    method: str = "GET",
    headers: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Make one request on a connection of its own."""
    if tls is None:
        connection = http.client.HTTPConnection(host, port, timeout=60)
    else:
        connection = http.client.HTTPSConnection("localhost", port, timeout=60, context=tls)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


# --- Where it listens ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("[::1]:9464", ("::1", 9464)),
        (":9464", ("", 9464)),
        ("metrics.example.org:0", ("metrics.example.org", 0)),
        (" localhost:80 ", ("localhost", 80)),
    ],
)
def test_an_address_has_a_host_and_a_port(text: str, address: tuple[str, int]) -> None:
    """As other Go and Python servers write it."""
    assert parse_listen(text) == address


@pytest.mark.parametrize(
    "text", ["9464", "127.0.0.1", "::1:9464", "[::1]", "host:65536", "host:-1", "http://a:1", "a b:1", ""]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """The message shows how to write it."""
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:9464"):
        parse_listen(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_protection(host: str) -> None:
    """Only this machine can connect."""
    require_protection(host, protected=False, what="/metrics")


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.0.2.1", "fe80::1%eth0", "example.org"])  # noqa: S104
def test_other_addresses_need_protection(host: str) -> None:
    """A name may be any address."""
    require_protection(host, protected=True, what="/metrics")
    with pytest.raises(ConfigError, match=r"/metrics would listen on .* Configure a token"):
        require_protection(host, protected=False, what="/metrics")


def test_all_interfaces_means_both_protocols() -> None:
    """`:0` is reached by IPv4 and, where the machine has it, by IPv6."""
    with serving(":0") as (port, _server):
        assert get(port)[0] == 200
        if socket.has_dualstack_ipv6():
            assert get(port, host="::1")[0] == 200


def test_a_name_is_listened_on_at_each_of_its_addresses() -> None:
    """One port for all."""
    with serving("localhost:0") as (port, _server):
        assert get(port, host="localhost")[0] == 200


def test_an_address_in_use_is_told() -> None:
    """Before anything is served."""
    with (
        serving() as (port, _server),
        pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port}"),
    ):
        Server(web.Application(), f"127.0.0.1:{port}").start()


# --- How it says no --------------------------------------------------------------------------------------


def test_a_problem_document_says_what_how_and_more() -> None:
    """RFC 9457, with members of its own."""
    response = problem(429, "Slow down", "Come back.", headers={"Retry-After": "3"}, limit=5)
    assert (response.status, response.content_type) == (429, "application/problem+json")
    assert response.headers["Retry-After"] == "3"
    assert isinstance(response.body, bytes)
    assert json.loads(response.body) == {
        "title": "Slow down",
        "status": 429,
        "detail": "Come back.",
        "limit": 5,
    }


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/a/b", 404), ("POST", "/hello", 405), ("GET", "/broken", 500)]
)
def test_every_error_is_a_problem_document(method: str, path: str, status: int) -> None:
    """Those of the router, and those nobody expected; what went wrong inside is for the log alone."""
    with serving() as (port, _server):
        got, headers, body = get(port, path, method=method)
    assert (got, headers["Content-Type"], json.loads(body)["status"]) == (
        status,
        "application/problem+json",
        status,
    )
    assert b"secret" not in body
    assert headers["Server"] == "evalgauge"


def test_a_redirect_stays_a_redirect() -> None:
    """Not every exception of aiohttp is an error."""
    with serving() as (port, _server):
        status, headers, _body = get(port, "/moved")
    assert (status, headers["Location"]) == (302, "/elsewhere")


def test_configured_headers_are_on_every_answer() -> None:
    """Errors included."""
    with serving(headers={"X-Frame-Options": "deny"}) as (port, _server):
        assert [get(port, path)[1]["X-Frame-Options"] for path in ("/hello", "/a/b", "/broken")] == [
            "deny"
        ] * 3


# --- Who is cut off --------------------------------------------------------------------------------------


def test_a_client_that_does_not_take_its_answer_is_cut_off() -> None:
    """It would keep the whole answer in memory."""
    with serving(write_timeout=0.5, header_timeout=1.0) as (port, server), socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        client.connect(("127.0.0.1", port))
        client.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: server.connections, "the connection")
        until(lambda: not server.connections, "its end")
        assert len(read_all(client)) < BIG


def test_a_client_that_hangs_up_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """A scraper that has waited long enough does that, and a traceback each time would hide what matters."""
    with serving() as (port, server):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(b"GET /streamed HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(1000)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        until(lambda: not server.connections, "its end")
        assert get(port)[0] == 200
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_a_client_that_takes_its_answer_slowly_may() -> None:
    """What counts is that it takes something."""
    with serving(write_timeout=0.5, header_timeout=1.0) as (port, _server), socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.settimeout(60)
        client.connect(("127.0.0.1", port))
        client.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        start = time.monotonic()
        got = 0
        while part := client.recv(1 << 17):
            got += len(part)
            if time.monotonic() - start < 1.5:
                time.sleep(0.05)
        assert got > BIG
        assert time.monotonic() - start > 1.5


def test_answers_nobody_takes_do_not_pile_up() -> None:
    """A client that asks again and again without reading gets one answer made, not thirty."""
    with serving(write_timeout=30.0) as (port, server), socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        client.connect(("127.0.0.1", port))
        client.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n" * 30)
        until(lambda: any(connection.writing_paused for connection in server.connections), "the full pipe")
        assert get(port)[0] == 200
        waiting = [
            connection.transport.get_write_buffer_size()
            for connection in server.connections
            if connection.transport
        ]
        assert BIG // 2 < max(waiting) < 2 * BIG


def test_stopping_waits_for_what_is_in_flight() -> None:
    """And not for connections that only wait."""
    answers: list[int] = []
    gate = threading.Event()
    with serving(gate=gate) as (port, server):
        idle = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        idle.request("GET", "/hello")
        idle.getresponse().read()
        client = threading.Thread(target=lambda: answers.append(get(port, "/slow")[0]))
        client.start()
        until(lambda: any(connection.busy for connection in server.connections), "the request")
        stopper = threading.Thread(target=server.stop, args=(10.0,))
        stopper.start()
        stopper.join(0.2)
        assert stopper.is_alive()
        with pytest.raises(ConnectionRefusedError):
            get(port)
        gate.set()
        stopper.join(5)
        client.join(5)
        assert not stopper.is_alive()
        assert answers == [200]
        idle.close()


def test_stopping_does_not_wait_longer_than_its_grace() -> None:
    """A request that never ends is cut off."""
    with serving() as (port, server), socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: any(connection.busy for connection in server.connections), "the request")
        start = time.monotonic()
        server.stop(grace=0.2)
        assert time.monotonic() - start < 10
        assert read_all(client) == b""
        server.stop()


# --- Who gets in -----------------------------------------------------------------------------------------


def login(user: str, password: str) -> dict[str, str]:
    """The header of a login."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_basic_auth_lets_in_users_with_their_password() -> None:
    """Hashes as htpasswd makes them ($2y$); a password may be longer than bcrypt reads."""
    long = "x" * 100
    users = {
        "ann": bcrypt.hashpw("pä:ss".encode(), bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$"),
        "bob": bcrypt.hashpw(long[:72].encode(), bcrypt.gensalt(4)).decode(),
    }
    with serving(users=users) as (port, _server):
        for _ in range(2):
            assert get(port, headers=login("ann", "pä:ss"))[0] == 200
            assert get(port, headers=login("bob", long))[0] == 200
        wrong = [
            login("ann", long),
            login("eve", "pä:ss"),
            login("ann", ""),
            {"Authorization": "Basic !"},
            {"Authorization": "Bearer x"},
            {"Authorization": "Basic " + base64.b64encode(b"ann").decode()},
            {},
        ]
        for headers in wrong:
            status, got, body = get(port, headers=headers)
            assert (status, got["WWW-Authenticate"]) == (401, 'Basic realm="evalgauge"')
            assert json.loads(body)["status"] == 401


def test_a_login_that_was_right_is_known_from_then_on() -> None:
    """Each scrape would take the time of a hash otherwise."""
    with serving(users={"ann": bcrypt.hashpw(b"secret", bcrypt.gensalt(11)).decode()}) as (port, _server):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            assert get(port, headers=login("ann", "secret"))[0] == 200
            times.append(time.perf_counter() - start)
        assert min(times[1:]) < times[0] / 3


def test_basic_auth_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """At start, not at the first request."""
    monkeypatch.setitem(sys.modules, "bcrypt", None)
    with pytest.raises(ConfigError, match=r"evalgauge\[auth\]"):
        basic_auth_middleware(WebConfig(basic_auth_users={"ann": "$2y$"}))
    basic_auth_middleware(WebConfig())


def test_a_web_configuration_is_read_as_exporters_read_it(tmp_path: Path) -> None:
    """File names are relative to the file."""
    file = tmp_path / "web.yml"
    file.write_text(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: /etc/server.key\n"
        "http_server_config:\n  http2: false\n  headers: {X-Frame-Options: deny}\n"
        f"basic_auth_users:\n  ann: {'$2y$10$' + 'x' * 53}\n"
    )
    config = load_web_config(file)
    assert config.tls_server_config is not None
    assert config.tls_server_config.cert_file == tmp_path / "server.crt"
    assert str(config.tls_server_config.key_file) == "/etc/server.key"
    assert config.http_server_config.headers == {"X-Frame-Options": "deny"}
    assert list(config.basic_auth_users) == ["ann"]
    file.write_text("")
    assert load_web_config(file) == WebConfig()


def test_every_fault_of_a_web_configuration_is_told_with_its_place(tmp_path: Path) -> None:
    """Not the first alone."""
    file = tmp_path / "web.yml"
    file.write_text(
        "basic_auth_users:\n  ann: secret\nhttp_server_config:\n  headers:\n    X-Frame-Option: deny\n"
    )
    with pytest.raises(DocumentError) as error:
        load_web_config(file)
    assert [(one.line, one.hint) for one in error.value.problems] == [
        (2, "Make one with `htpasswd -nBC 10 \"\" | tr -d ':\\n'`."),
        (5, "Did you mean `X-Frame-Options`?"),
    ]
    assert "secret" not in str(error.value)
    file.write_text("basic_auth_user: {}\n")
    with pytest.raises(DocumentError, match="Did you mean `basic_auth_users`"):
        load_web_config(file)


# --- TLS -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Give a certificate authority."""
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    """Give a server's certificate and key, as configuration."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "server.crt")
    issued.private_key_pem.write_to_path(tmp_path / "server.key")
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    return {"cert_file": str(tmp_path / "server.crt"), "key_file": str(tmp_path / "server.key")}


def client_of(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """Make a client that trusts the authority, with a certificate for `names` if any."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if names:
        authority.issue_cert(*names).configure_cert(context)
    return context


def context_of(config: Mapping[str, object]) -> ssl.SSLContext:
    """Make a server's context from configuration."""
    return ssl_context(TlsServerConfig.model_validate(config))


TURNED_AWAY = (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)


def test_tls_is_served_from_files_or_from_text(authority: trustme.CA, certificate: dict[str, str]) -> None:
    """The key and the certificate may stand in the configuration itself."""
    text = {name.removesuffix("_file"): Path(path).read_text() for name, path in certificate.items()}
    for config in (certificate, text):
        with serving(ssl=context_of(config)) as (port, _server):
            assert get(port, tls=client_of(authority))[0] == 200


def test_an_old_tls_version_is_refused(authority: trustme.CA, certificate: dict[str, str]) -> None:
    """`min_version` is kept."""
    client = client_of(authority)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    server = context_of({**certificate, "min_version": "TLS13"})
    with serving(ssl=server) as (port, _server), pytest.raises(TURNED_AWAY):
        get(port, tls=client)


def test_ciphers_have_their_go_names(authority: trustme.CA, certificate: dict[str, str]) -> None:
    """As in every exporter's file."""
    suites = [f"TLS_ECDHE_{key}_WITH_AES_256_GCM_SHA384" for key in ("RSA", "ECDSA")]
    suites.append("TLS_AES_128_GCM_SHA256")
    config = {
        **certificate,
        "max_version": "TLS12",
        "cipher_suites": suites,
        "curve_preferences": ["CurveP256"],
    }
    with (
        serving(ssl=context_of(config)) as (port, _server),
        client_of(authority).wrap_socket(
            socket.create_connection(("127.0.0.1", port), timeout=60), server_hostname="localhost"
        ) as client,
    ):
        cipher = client.cipher()
        assert cipher is not None
        assert cipher[0].endswith("AES256-GCM-SHA384")
        assert client.version() == "TLSv1.2"


@pytest.mark.parametrize(
    ("policy", "without"), [("RequireAndVerifyClientCert", False), ("VerifyClientCertIfGiven", True)]
)
def test_clients_show_a_certificate(
    authority: trustme.CA, certificate: dict[str, str], tmp_path: Path, policy: str, *, without: bool
) -> None:
    """One of our authority; required, or verified where it is given."""
    config = {**certificate, "client_auth_type": policy, "client_ca_file": str(tmp_path / "ca.crt")}
    foreign = client_of(authority)
    trustme.CA().issue_cert("app").configure_cert(foreign)
    with serving(ssl=context_of(config)) as (port, _server):
        assert get(port, tls=client_of(authority, "app"))[0] == 200
        with pytest.raises(TURNED_AWAY):
            get(port, tls=foreign)
        if without:
            assert get(port, tls=client_of(authority))[0] == 200
        else:
            with pytest.raises(TURNED_AWAY):
                get(port, tls=client_of(authority))


def test_only_clients_with_an_allowed_name_get_in(
    authority: trustme.CA, certificate: dict[str, str], tmp_path: Path
) -> None:
    """`client_allowed_sans`: DNS names, addresses, e-mail."""
    config = {
        **certificate,
        "client_auth_type": "RequireAndVerifyClientCert",
        "client_ca_file": str(tmp_path / "ca.crt"),
        "client_allowed_sans": ["app.example.org", "::1", "ann@example.org"],
    }
    with serving(ssl=context_of(config)) as (port, _server):
        for name in ("app.example.org", "::1", "ann@example.org"):
            assert get(port, tls=client_of(authority, "other", name))[0] == 200
        with pytest.raises(TURNED_AWAY):
            get(port, tls=client_of(authority, "other.example.org"))


def test_a_renewed_certificate_is_taken_without_a_restart(
    authority: trustme.CA, certificate: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And one that cannot be read is not: the one before stays."""

    def served(port: int) -> int:
        with client_of(authority).wrap_socket(
            socket.create_connection(("127.0.0.1", port), timeout=60), server_hostname="localhost"
        ) as client:
            shown = client.getpeercert()
            assert shown is not None
            return int(str(shown["serialNumber"]), 16)

    with serving(ssl=context_of(certificate)) as (port, _server):
        first = served(port)
        issued = authority.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(tmp_path / "server.crt")
        assert served(port) == first, "certificate and key do not fit yet"
        issued.private_key_pem.write_to_path(tmp_path / "server.key")
        assert served(port) != first
        second = served(port)
        (tmp_path / "server.key").unlink()
        assert served(port) == second
        assert "stays in use" in caplog.text
    plain = ssl.create_default_context()
    assert renewed(plain) is plain


def test_a_client_that_does_not_finish_the_handshake_is_cut_off(certificate: dict[str, str]) -> None:
    """It counts as a connection all the while."""
    with (
        serving(ssl=context_of(certificate), header_timeout=0.4, max_connections=1) as (port, _server),
        socket.create_connection(("127.0.0.1", port), timeout=60) as client,
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as one_too_many:
            assert read_all(one_too_many) == b""
        start = time.monotonic()
        assert read_all(client) == b""
        assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cert_file": "/nowhere/server.crt"}, "/nowhere/server.crt.* cannot be used: No such file"),
        ({"client_ca_file": "/nowhere/ca", "client_auth_type": "RequireAndVerifyClientCert"}, "No such file"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    certificate: dict[str, str], change: dict[str, object], says: str
) -> None:
    """At start."""
    with pytest.raises(ConfigError, match=says):
        context_of({**certificate, **change})


def test_an_encrypted_key_does_not_ask_for_its_passphrase(
    certificate: dict[str, str], tmp_path: Path
) -> None:
    """A service would hang at its start."""
    key = serialization.load_pem_private_key((tmp_path / "server.key").read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    (tmp_path / "server.key").write_bytes(pem)
    with pytest.raises(ConfigError, match="encrypted"):
        context_of(certificate)


@pytest.mark.parametrize(
    "change",
    [
        {"cert": "text"},
        {"key_file": None},
        {"client_ca_file": "ca"},
        {"client_auth_type": "RequireAndVerifyClientCert"},
        {"client_auth_type": "RequireAnyClientCert", "client_ca_file": "ca"},
        {"client_auth_type": "VerifyClientCertIfGiven", "client_ca_file": "ca", "client_allowed_sans": ["a"]},
        {"client_auth_type": "VerifyClientCertIfGiven", "client_ca_file": "ca", "client_ca": "text"},
        {"cipher_suites": ["TLS_RSA_WITH_RC4_128_SHA"]},
        {"min_version": "SSL3"},
        {"certfile": "x"},
    ],
)
def test_a_tls_configuration_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    """A policy that would not protect is an error, and so is a key nobody knows."""
    with pytest.raises(ValidationError):
        TlsServerConfig.model_validate({"cert_file": "a", "key_file": "b", **change})
