"""The Prometheus exporter over real sockets: formats, limits, who is let in, and the pages beside `/metrics`."""

from __future__ import annotations

import base64
import gzip
import json
import re
import ssl
import threading
import time
import zlib
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPSConnection
from typing import TYPE_CHECKING, Any, NamedTuple

import bcrypt
import numpy as np
import pytest
import trustme
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from pydantic import ValidationError

from evalgauge.core.errors import ConfigError
from evalgauge.core.export import ExporterContext, InputReport, NotReady, StatusReport
from evalgauge.core.families import Exemplar, Family
from evalgauge.exporters.negotiation import accepts_gzip, negotiate
from evalgauge.exporters.prometheus import PrometheusConfig, PrometheusExporter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Protocol

    from tests.conftest import StartPrometheus

    class Serve(Protocol):
        """What the fixture `serve` gives: call it to start an exporter, which is stopped after the test."""

        def __call__(self, process: Process | None = None, **config: Any) -> PrometheusExporter:
            """Start an exporter on a free port with these keys of its configuration."""


TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROMETHEUS_3_NATIVE = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;"
    "escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
HOSTILE = '<script>alert("1")</script>&\'\u202e'


def families(total: int = 7, rows: int = 1) -> list[Family]:
    """Make one counter and one histogram."""
    series = [(f"t{row}",) for row in range(rows)]
    times = np.full(rows, 1_700_000_000.0)
    buckets = np.full((rows, 3), total)
    runs = Family("runs", "counter", "Runs.", "", ("tenant",), series, np.full(rows, total), times, times)
    wait = Family(
        "wait_seconds",
        "histogram",
        "Wait.",
        "seconds",
        ("tenant",),
        series,
        np.full(rows, 0.5),
        times,
        times,
        bounds=(0.1, 1.0),
        buckets=buckets,
        exemplars={(0, 1): Exemplar("ab" * 16, "cd" * 8, 0.5, 1_700_000_000.25)},
    )
    return [runs, wait]


@dataclass
class Process:
    """What the exporter sees of the rest of the process."""

    families: Sequence[Family] = field(default_factory=families)
    reasons: list[str] = field(default_factory=list)
    report: StatusReport = field(default_factory=lambda: StatusReport("1.2.3", time.time() - 90))
    reload_error: str | None = None
    commits: int = 0
    reloads: int = 0
    scrapes: list[float] = field(default_factory=list)
    may_answer: threading.Event = field(default_factory=threading.Event)
    """Snapshots wait for it; set unless a test clears it."""
    waiting: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released by each snapshot that begins."""

    def __post_init__(self) -> None:
        """Let snapshots through."""
        self.may_answer.set()

    def context(self) -> ExporterContext:
        """Give the exporter's view."""
        return ExporterContext(
            snapshot=self._snapshot,
            request_commit=self._commit,
            readiness=lambda: list(self.reasons),
            status=lambda: self.report,
            reload=self._reload,
            observe_scrape=self.scrapes.append,
        )

    def _snapshot(self) -> Sequence[Family]:
        self.waiting.release()
        self.may_answer.wait(30)
        if self.reasons:
            raise NotReady(self.reasons)
        return self.families

    def _commit(self) -> None:
        self.commits += 1

    def _reload(self) -> str | None:
        self.reloads += 1
        return self.reload_error


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Read the body as JSON."""
        return json.loads(self.body)


def ask(
    exporter: PrometheusExporter,
    path: str = "/metrics",
    method: str = "GET",
    tls: ssl.SSLContext | None = None,
    **headers: str,
) -> Answer:
    """Send one request; a header `Accept_Encoding` is `Accept-Encoding`."""
    connection = (
        HTTPConnection("127.0.0.1", exporter.port, timeout=30)
        if tls is None
        else HTTPSConnection("127.0.0.1", exporter.port, timeout=30, context=tls)
    )
    try:
        connection.request(
            method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start exporters; all are stopped after the test."""
    with ExitStack() as started:

        def start(process: Process | None = None, **config: Any) -> PrometheusExporter:
            settings = PrometheusConfig.model_validate({"listen": "127.0.0.1:0", **config})
            exporter = PrometheusExporter(settings, (process or Process()).context())
            exporter.start()
            started.callback(exporter.stop, 1.0)
            return exporter

        yield start


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (PROMETHEUS_2_42, OPENMETRICS),
        (PROMETHEUS_3, OPENMETRICS),
        (PROMETHEUS_3_NATIVE, OPENMETRICS),
        ("text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1", TEXT),
        ("text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.4", TEXT),
        (
            "application/openmetrics-text;version=0.0.1,text/plain;q=0.5",
            OPENMETRICS.replace("1.0.0", "0.0.1"),
        ),
        ("application/openmetrics-text", OPENMETRICS),
        ('Application/OpenMetrics-Text; Version="1.0.0"', OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", TEXT),
        ("application/openmetrics-text;q=0,*/*", TEXT),
        ("text/plain;q=0,*/*;q=0.1", OPENMETRICS),
        ("application/*", OPENMETRICS),
        ("application/openmetrics-text,text/plain", OPENMETRICS),
        ("text/plain,application/openmetrics-text", TEXT),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT),
        ("*/*", TEXT),
        ("", TEXT),
        ("image/png", TEXT),
        ("application/openmetrics-text;q=nan,text/plain;q=0.1", TEXT),
        (";;,/,q=1", TEXT),
    ],
)
def test_the_format_is_what_the_accept_header_prefers(accept: str, content_type: str) -> None:
    """The greatest q wins; who takes nothing we have gets text 0.0.4, as from other exporters."""
    assert negotiate(accept).content_type == content_type


@pytest.mark.parametrize(
    ("accept_encoding", "wanted"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("identity", False),
        ("", False),
    ],
)
def test_gzip_is_for_those_who_ask(accept_encoding: str, wanted: bool) -> None:
    """`Accept-Encoding` with its weights."""
    assert accepts_gzip(accept_encoding) is wanted


def test_metrics_in_both_formats(serve: Serve) -> None:
    """Both carry the committed values; OpenMetrics also created times, exemplars and its end."""
    exporter = serve()
    text = ask(exporter)
    assert (text.status, text.headers["Content-Type"]) == (200, TEXT)
    assert b'runs_total{tenant="t0"} 7\n' in text.body
    assert text.body == PrometheusExporter.render(families())
    assert text.headers["Vary"] == "Accept, Accept-Encoding"
    openmetrics = ask(exporter, Accept=PROMETHEUS_2_42)
    assert openmetrics.headers["Content-Type"] == OPENMETRICS
    assert openmetrics.body == PrometheusExporter.render(families(), openmetrics=True)
    assert openmetrics.body.endswith(b"# EOF\n")
    assert b"trace_id" in openmetrics.body


def test_created_can_be_turned_off(serve: Serve) -> None:
    """`created: false`."""
    assert b"_created" not in ask(serve(created=False), Accept=PROMETHEUS_2_42).body


def test_zero_first_shows_a_young_series_as_zero(serve: Serve) -> None:
    """The fixture's series are years old, so the time must be longer than that."""
    assert b'runs_total{tenant="t0"} 0\n' in ask(serve(zero_first="2000w")).body
    assert b'runs_total{tenant="t0"} 7\n' in ask(serve(zero_first="1m")).body


@pytest.mark.parametrize("library", ["as installed", "zlib"])
def test_gzip_carries_the_same_bytes(serve: Serve, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """Several blocks go through one stream; what isal does where it is installed, zlib does as well."""
    if library == "zlib":
        monkeypatch.setattr("evalgauge.exporters.prometheus.deflate", zlib)
    process = Process(families(rows=20_000))
    exporter = serve(process)
    packed = ask(exporter, Accept_Encoding="gzip")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) == len(packed.body)
    plain = ask(exporter)
    assert "Content-Encoding" not in plain.headers
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 5


def test_head_says_what_get_would(serve: Serve) -> None:
    """Monitors like HEAD; it has no body."""
    exporter = serve()
    head, get = ask(exporter, method="HEAD"), ask(exporter)
    assert head.body == b""
    assert head.headers["Content-Length"] == get.headers["Content-Length"] == str(len(get.body))


def test_a_scrape_asks_for_a_commit_and_is_timed(serve: Serve) -> None:
    """The hint comes before the snapshot is taken; the time feeds a self-metric."""
    process = Process()
    exporter = serve(process)
    ask(exporter)
    ask(exporter)
    assert process.commits == 2
    assert _soon(lambda: len(process.scrapes) == 2)
    assert all(0 < seconds < 30 for seconds in process.scrapes)


def test_values_change_between_scrapes(serve: Serve) -> None:
    """Labels are kept, numbers are not."""
    process = Process()
    exporter = serve(process)
    assert b'runs_total{tenant="t0"} 7\n' in ask(exporter).body
    process.families = families(8, rows=2)
    body = ask(exporter).body
    assert b'runs_total{tenant="t0"} 8\n' in body
    assert b'wait_seconds_bucket{tenant="t1",le="+Inf"} 24\n' in body


def test_before_state_is_restored_there_are_no_zeros(serve: Serve) -> None:
    """A zero would be taken for a reset: 503 with the reasons, on /metrics and /readyz; alive all the same."""
    process = Process(reasons=["state is being restored", "input `log` waits: on_state_loss is hold"])
    exporter = serve(process)
    for path in ("/metrics", "/readyz"):
        answer = ask(exporter, path)
        assert answer.status == 503
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["reasons"] == process.reasons
        assert answer.headers["Retry-After"] == "1"
    assert ask(exporter, "/healthz").status == 200
    process.reasons.clear()
    assert ask(exporter).status == 200
    ready = ask(exporter, "/readyz")
    assert (ready.status, ready.json()) == (200, {"status": "ready"})


def test_concurrent_scrapes_are_bounded_and_do_not_hold_up_health(serve: Serve) -> None:
    """Beyond `max_concurrent_scrapes` the answer is 503 at once; others are served meanwhile."""
    process = Process()
    exporter = serve(process, max_concurrent_scrapes=2)
    process.may_answer.clear()
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(exporter))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert process.waiting.acquire(timeout=30)
    refused = ask(exporter)
    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    assert "max_concurrent_scrapes" in refused.json()["detail"]
    assert ask(exporter, "/healthz").status == 200
    process.may_answer.set()
    for thread in threads:
        thread.join(30)
    assert [answer.status for answer in answers] == [200, 200]
    assert ask(exporter).status == 200


def test_a_failing_snapshot_is_an_error_and_no_empty_page(serve: Serve) -> None:
    """Prometheus then marks the target down; the next scrape is unharmed."""
    process = Process()
    exporter = serve(process)
    good, process.families = process.families, None  # type: ignore[assignment]
    answer = ask(exporter)
    assert (answer.status, answer.headers["Content-Type"]) == (500, "application/problem+json")
    process.families = good
    assert ask(exporter).status == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/metrics", "GET,HEAD"),
        ("DELETE", "/", "GET,HEAD"),
        ("PUT", "/healthz", "GET,HEAD"),
        ("GET", "/-/reload", "POST"),
    ],
)
def test_other_methods_are_refused(serve: Serve, method: str, path: str, allowed: str) -> None:
    """405 with what is allowed, as a problem document."""
    answer = ask(serve(), path, method)
    assert (answer.status, answer.headers["Allow"]) == (405, allowed)
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_unknown_paths_are_404(serve: Serve) -> None:
    """As a problem document too."""
    answer = ask(serve(), "/metric")
    assert (answer.status, answer.headers["Content-Type"]) == (404, "application/problem+json")


def test_reload_says_whether_it_took_effect(serve: Serve) -> None:
    """500 with the reason if the new configuration is bad."""
    process = Process()
    exporter = serve(process)
    assert ask(exporter, "/-/reload", "POST").status == 200
    process.reload_error = "evalgauge.yaml:3:1: unknown key `inptus`"
    answer = ask(exporter, "/-/reload", "POST")
    assert (answer.status, answer.json()["detail"]) == (500, process.reload_error)
    assert process.reloads == 2


def test_a_page_elsewhere_cannot_make_a_browser_reload(serve: Serve) -> None:
    """On loopback there is no login that would stop it."""
    process = Process()
    exporter = serve(process)
    assert ask(exporter, "/-/reload", "POST", Origin="https://evil.example").status == 403
    assert process.reloads == 0
    own = f"http://127.0.0.1:{exporter.port}"
    assert ask(exporter, "/-/reload", "POST", Origin=own).status == 200


def test_the_status_page_shows_inputs_packs_and_rejects(serve: Serve) -> None:
    """What somebody on call wants to see first."""
    report = StatusReport(
        "1.2.3",
        time.time() - 3700,
        packs=["judgment 1", "ahp 1"],
        inputs=[
            InputReport("log", "file", {"a.ndjson": "byte 4,096"}, {"a.ndjson": 12345}, "b.ndjson is gone")
        ],
        rejects={"missing_field": 3, "malformed_json": 1200, "bad_time": 0},
        last_commit_age=0.25,
        links={"Documentation": "https://example.org/docs"},
    )
    process = Process(report=report, reasons=["input `log` is behind"])
    answer = ask(serve(process), "/")
    page = answer.body.decode()
    for part in (
        "1.2.3",
        "1 h 1 min",
        "judgment 1, ahp 1",
        "a.ndjson",
        "byte 4,096",
        "12,345 bytes",
        "b.ndjson is gone",
        "250 ms ago",
        "input `log` is behind",
        '<a href="https://example.org/docs">Documentation</a>',
        '<a href="metrics">',
    ):
        assert part in page, part
    assert page.index("malformed_json") < page.index("missing_field")
    assert "1,200" in page
    assert "bad_time" not in page
    assert "color-scheme: light dark" in page
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_the_status_page_escapes_whatever_it_shows(serve: Serve) -> None:
    """File names and notes come from outside; a link with a script in it is shown as text."""
    one = InputReport(HOSTILE, HOSTILE, {HOSTILE: HOSTILE}, {HOSTILE: 1}, HOSTILE)
    links = {HOSTILE: "javascript:alert(1)", "x": f"https://example.org/{HOSTILE}", "y": "http://[broken"}
    report = StatusReport(HOSTILE, 0.0, [HOSTILE], [one], {HOSTILE: 1}, None, links)
    page = ask(serve(Process(report=report, reasons=[HOSTILE])), "/").body.decode()
    assert "<script" not in page
    assert 'alert("1")' not in page
    assert 'href="javascript' not in page
    assert 'href="http://[' not in page
    assert page.count("&lt;script&gt;") >= 11


def test_a_listener_for_other_machines_needs_protection(tmp_path: Path) -> None:
    """Without a token, a login or TLS it is refused before anything is opened."""
    context = Process().context()
    for listen in (":9464", "0.0.0.0:9464", "[::]:9464", "192.0.2.1:9464"):
        with pytest.raises(ConfigError, match="let everybody in"):
            PrometheusExporter(PrometheusConfig(listen=listen), context)
    for listen in ("127.0.0.1:0", "[::1]:0", "localhost:0"):
        PrometheusExporter(PrometheusConfig(listen=listen), context)
    PrometheusExporter(PrometheusConfig.model_validate({"listen": ":0", "token": "s3cret"}), context)
    (tmp_path / "web.yml").write_text(_users(maria="right"))
    PrometheusExporter(PrometheusConfig(listen=":0", web_config=tmp_path / "web.yml"), context)


def test_an_address_in_use_is_said_plainly(serve: Serve) -> None:
    """With the address, so that the one in the way can be found."""
    port = serve().port
    with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
        serve(listen=f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    "config",
    [
        {"listen": "9464"},
        {"token": ""},
        {"token": "a", "token_file": "b"},
        {"max_concurrent_scrapes": 0},
        {"zero_first": "soon"},
        {"lisen": ":0"},
    ],
)
def test_bad_configuration_is_refused(config: dict[str, Any]) -> None:
    """Unknown keys included."""
    with pytest.raises(ValidationError):
        PrometheusConfig.model_validate(config)


def test_a_token_opens_everything_but_health_is_open(serve: Serve, tmp_path: Path) -> None:
    """A kubelet has no credentials: it learns the state, but not the reasons."""
    (tmp_path / "token").write_text("s3cret\n")
    process = Process(reasons=["input `payroll` waits"])
    exporter = serve(process, token_file=str(tmp_path / "token"))
    for path in ("/metrics", "/"):
        answer = ask(exporter, path)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert ask(exporter, path, Authorization="Bearer s3cre").status == 401
    assert ask(exporter, "/-/reload", "POST").status == 401
    assert process.reloads == 0
    assert ask(exporter, "/", Authorization="bearer s3cret").status == 200
    assert ask(exporter, "/healthz").status == 200
    anonymous = ask(exporter, "/readyz")
    assert anonymous.status == 503
    assert b"payroll" not in anonymous.body
    assert b"payroll" in ask(exporter, "/readyz", Authorization="Bearer s3cret").body
    process.reasons.clear()
    assert ask(exporter, Authorization="Bearer s3cret").status == 200
    assert ask(exporter, "/readyz").status == 200


def test_an_empty_or_missing_token_file_is_an_error(tmp_path: Path) -> None:
    """An empty token would let everybody in who sends none."""
    (tmp_path / "empty").write_text("\n")
    for name in ("empty", "missing"):
        with pytest.raises(ConfigError, match=name):
            PrometheusExporter(PrometheusConfig(token_file=tmp_path / name), Process().context())


def test_basic_auth_of_a_web_configuration(serve: Serve, tmp_path: Path) -> None:
    """Users and bcrypt hashes as in every Prometheus exporter; a token beside them works as well."""
    (tmp_path / "web.yml").write_text(_users(maria="right"))
    (tmp_path / "token").write_text("s3cret")
    exporter = serve(web_config=str(tmp_path / "web.yml"), token_file=str(tmp_path / "token"))
    assert ask(exporter).status == 401
    assert ask(exporter).headers["WWW-Authenticate"].startswith("Basic")
    assert ask(exporter, Authorization=_basic("maria", "right")).status == 200
    assert ask(exporter, Authorization=_basic("maria", "wrong")).status == 401
    assert ask(exporter, Authorization=_basic("nobody", "right")).status == 401
    assert ask(exporter, Authorization="Bearer s3cret").status == 200
    assert ask(exporter, Authorization="Bearer wrong").status == 401
    assert ask(exporter, "/healthz").status == 200


def test_tls_with_headers_of_a_web_configuration(serve: Serve, tmp_path: Path) -> None:
    """Plain HTTP gets no answer there; the configured headers are on every answer, scrapes included."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    (tmp_path / "web.yml").write_text(
        "tls_server_config: {cert_file: server.pem, key_file: server.pem}\n"
        "http_server_config:\n  headers: {X-Frame-Options: deny}\n"
    )
    process = Process(families(rows=5000))
    exporter = serve(process, listen=":0", web_config=str(tmp_path / "web.yml"))
    client = ssl.create_default_context()
    authority.configure_trust(client)
    answer = ask(exporter, tls=client, Accept_Encoding="gzip")
    assert gzip.decompress(answer.body) == PrometheusExporter.render(process.families)
    for path in ("/metrics", "/healthz", "/nowhere"):
        assert ask(exporter, path, tls=client).headers["X-Frame-Options"] == "deny"
    with pytest.raises(OSError):  # noqa: PT011 - reset or closed, as the moment has it
        ask(exporter)
    with pytest.raises(ssl.SSLError):
        ask(exporter, tls=ssl.create_default_context())


def test_stopping_lets_a_scrape_end_and_frees_the_port(serve: Serve) -> None:
    """What was under way is answered; afterwards nobody listens, and stopping again is harmless."""
    process = Process()
    exporter = serve(process)
    process.may_answer.clear()
    answers: list[Answer] = []
    scrape = threading.Thread(target=lambda: answers.append(ask(exporter)))
    scrape.start()
    assert process.waiting.acquire(timeout=30)
    stop = threading.Thread(target=exporter.stop, args=(30.0,))
    stop.start()
    process.may_answer.set()
    scrape.join(30)
    stop.join(30)
    assert [answer.status for answer in answers] == [200]
    with pytest.raises(ConnectionError):
        ask(exporter)
    exporter.stop(0.0)


def test_a_real_prometheus_scrapes_it_without_a_warning(serve: Serve, prometheus: StartPrometheus) -> None:
    """Values, created series and types arrive; hostile label values come through to the byte."""
    hostile = '\\ "é😀"\n{},'
    runs, wait = families(rows=3)
    series = [(hostile,), ("",), ("plain",)]
    exporter = serve(Process([_labelled(runs, series), _labelled(wait, series)]))
    server = prometheus(
        "global: {scrape_interval: 100ms, scrape_timeout: 100ms}\n"
        "scrape_configs:\n"
        f"  - {{job_name: evalgauge, static_configs: [{{targets: ['127.0.0.1:{exporter.port}']}}]}}\n",
        flags=["--enable-feature=exemplar-storage"],
    )
    assert _soon(lambda: len(server.query("runs_total")) == 3)
    found = {sample.labels.get("tenant", ""): sample.value for sample in server.query("runs_total")}
    assert found == {hostile: 7, "": 7, "plain": 7}
    (count,) = server.query('wait_seconds_bucket{tenant="plain",le="+Inf"}')
    assert count.value == 21
    assert len(server.query("runs_created")) == 3
    assert server.metadata()["wait_seconds"][0]["type"] == "histogram"
    assert server.metadata()["wait_seconds"][0]["unit"] == "seconds"
    (target,) = server.targets()
    assert (target["health"], target["lastError"]) == ("up", "")
    assert [line for line in server.log().splitlines() if re.search("level=(warn|error)", line.lower())] == []


def test_openmetrics_of_the_served_page_parses(serve: Serve) -> None:
    """The whole page, through prometheus_client's parser."""
    text = ask(serve(Process(families(rows=100))), Accept=PROMETHEUS_3).body.decode()
    parsed = parse_openmetrics(text)  # type: ignore[no-untyped-call]
    assert [metric.name for metric in parsed] == ["runs", "wait_seconds"]


def _labelled(family: Family, series: Sequence[tuple[str, ...]]) -> Family:
    return replace(family, series=series)


def _users(**passwords: str) -> str:
    hashes = {
        name: bcrypt.hashpw(text.encode(), bcrypt.gensalt(4)).decode() for name, text in passwords.items()
    }
    return json.dumps({"basic_auth_users": hashes})


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _soon(condition: Any) -> bool:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
