"""Prometheus and promtool: from PATH, else out of Debian's package, 2.42 or later; and Prometheus 3, by Go."""

from __future__ import annotations

import functools
import json
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import yaml

from tests.parts import debian, go
from tests.parts.part import Missing, Server, answers, free_port, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

OLDEST = (2, 42)  # the first with `keep_firing_for`


class Sample(NamedTuple):
    """One series of an instant vector."""

    labels: dict[str, str]
    value: float


class Series(NamedTuple):
    """One series of a range vector: (unix seconds, value) by time."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


def promtool() -> Path:
    """Return the path of promtool. Raises `Missing` if it cannot be had."""
    return _folder() / "promtool"


def binary() -> Path:
    """Return the path of prometheus itself. Raises `Missing` if it cannot be had."""
    return _folder() / "prometheus"


def binary_3() -> Path:
    """Return the path of Prometheus 3, which ingests created timestamps; built once, in about five minutes."""
    module = "github.com/prometheus/prometheus"
    return go.build(module, "v0.315.0", f"{module}/cmd/prometheus", "prometheus")


@functools.cache
def _folder() -> Path:
    """Return the folder that has both programs, new enough and able to run."""
    on_path = shutil.which("prometheus")
    if on_path and (Path(on_path).parent / "promtool").exists():
        folder = Path(on_path).parent
    else:
        folder = debian.unpacked("prometheus") / "usr" / "bin"
    oldest = ".".join(map(str, OLDEST))
    advice = (
        f"Put prometheus and promtool {oldest} or later on PATH (Debian 12 or later: package prometheus)."
    )
    printed = run([folder / "promtool", "--version"], missing=advice)
    version = re.search(r"version (\d+)\.(\d+)", printed)
    if version is None or (int(version[1]), int(version[2])) < OLDEST:
        raise Missing(f"{advice} {folder} has: {printed.splitlines()[0]}")
    return folder


class Prometheus:
    """A Prometheus server on a free loopback port, with a data folder of its own.

    `config_yaml` is a whole prometheus.yml; `rules` are added to its `rule_files`. Blocks that promtool
    wrote into `storage` before the start are served; retention is ten years. `program` is `binary()` unless
    another is given. Use it with `with`.
    """

    def __init__(
        self,
        config_yaml: str,
        data_dir: Path,
        rules: Sequence[Path] = (),
        flags: Sequence[str] = (),
        program: Path | None = None,
    ) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.storage = data_dir / "tsdb"
        self._config = data_dir / "prometheus.yml"
        self._rules = [str(rule.resolve()) for rule in rules]
        self._first_config = config_yaml
        self._server = Server(
            [
                program or binary(),
                f"--config.file={self._config}",
                f"--storage.tsdb.path={self.storage}",
                "--storage.tsdb.retention.time=10y",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                "--web.enable-lifecycle",
                *flags,
            ],
            data_dir,
        )

    def __enter__(self) -> Self:
        """Start the server; it is ready when this returns."""
        self.storage.mkdir(parents=True, exist_ok=True)
        self._write(self._first_config)
        self._server.start(lambda: answers(f"{self.url}/-/ready"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server; the data folder stays."""
        self._server.stop()

    def query(self, promql: str, time: float | None = None) -> list[Sample]:
        """Evaluate an expression at `time` (unix seconds; now if None); a scalar gives one unlabelled sample."""
        at = {} if time is None else {"time": repr(time)}
        data = self._get("query", query=promql, **at)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(one["metric"], float(one["value"][1])) for one in data["result"]]

    def query_range(self, promql: str, start: float, end: float, step: float) -> list[Series]:
        """Evaluate an expression each `step` seconds from `start` to `end` (unix seconds, both included)."""
        return _matrix(
            self._get("query_range", query=promql, start=repr(start), end=repr(end), step=repr(step))
        )

    def query_raw(self, selector: str) -> list[Series]:
        """Return the samples as they are stored, of a selector with a range: `up[5m]`."""
        return _matrix(self._get("query", query=selector))

    def alerts(self) -> list[dict[str, Any]]:
        """Return the active alerts as the API gives them: labels, annotations, state, activeAt, value."""
        return list(self._get("alerts")["alerts"])

    def rules(self) -> list[dict[str, Any]]:
        """Return the rule groups as the API gives them: name, rules with health, lastError and more."""
        return list(self._get("rules")["groups"])

    def targets(self) -> list[dict[str, Any]]:
        """Return the active targets as the API gives them: labels, scrapeUrl, health, lastError and more."""
        return list(self._get("targets", state="active")["activeTargets"])

    def metadata(self) -> dict[str, Any]:
        """Return type, help and unit of each metric that was scraped."""
        return dict(self._get("metadata"))

    def log(self) -> str:
        """Return all that the server has logged so far."""
        return self._server.log()

    def reload(self, config_yaml: str | None = None) -> None:
        """Read the configuration and rule files again, another configuration if one is given.

        Raises `AssertionError` with the server's answer if it refuses them.
        """
        if config_yaml is not None:
            self._write(config_yaml)
        self._open(urllib.request.Request(f"{self.url}/-/reload", method="POST"))

    def _write(self, config_yaml: str) -> None:
        config = yaml.safe_load(config_yaml) or {}
        config["rule_files"] = [*config.get("rule_files", []), *self._rules]
        self._config.write_text(yaml.safe_dump(config, sort_keys=False))

    def _get(self, call: str, **parameters: str) -> dict[str, Any]:
        query = urllib.parse.urlencode(parameters)
        answer = json.loads(self._open(urllib.request.Request(f"{self.url}/api/v1/{call}?{query}")))
        return dict(answer["data"])

    def _open(self, request: urllib.request.Request) -> bytes:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode(errors="replace")
            raise AssertionError(f"{request.full_url}: {error.code} {said}\n{self._server.tail()}") from None


def _matrix(data: dict[str, Any]) -> list[Series]:
    assert data["resultType"] == "matrix", f"not a range of samples but a {data['resultType']}"
    return [
        Series(one["metric"], [(float(at), float(value)) for at, value in one["values"]])
        for one in data["result"]
    ]
