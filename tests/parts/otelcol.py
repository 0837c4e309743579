"""OpenTelemetry Collector: a distribution of our own, by the Collector's builder and Go, with what we compare with."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING, Any, Self

import yaml

from tests.parts import go
from tests.parts.part import Server, answers, free_port, installed, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

VERSION = "0.155.0"
STABLE_VERSION = "1.61.0"
"""Of the modules of the same release that count from 1."""
START_SECONDS = 60
_CORE = "go.opentelemetry.io/collector"
_CONTRIB = "github.com/open-telemetry/opentelemetry-collector-contrib"
_MODULES = {
    "receivers": [f"{_CONTRIB}/receiver/kafkareceiver v{VERSION}"],
    "processors": [
        f"{_CORE}/processor/batchprocessor v{VERSION}",
        f"{_CONTRIB}/processor/transformprocessor v{VERSION}",
        f"{_CONTRIB}/processor/deltatocumulativeprocessor v{VERSION}",
    ],
    "connectors": [f"{_CONTRIB}/connector/signaltometricsconnector v{VERSION}"],
    "exporters": [
        f"{_CORE}/exporter/debugexporter v{VERSION}",
        f"{_CONTRIB}/exporter/prometheusexporter v{VERSION}",
    ],
    "extensions": [f"{_CONTRIB}/extension/healthcheckextension v{VERSION}"],
    "providers": [
        f"{_CORE}/confmap/provider/{name}provider v{STABLE_VERSION}" for name in ("env", "file", "yaml")
    ],
}
"""By the builder's sections: what can stand in a configuration."""


def binary() -> Path:
    """Return the path of the Collector; built once, in about six minutes. Raises `Missing` if it cannot be had."""
    builder = go.build(f"{_CORE}/cmd/builder", f"v{VERSION}", f"{_CORE}/cmd/builder", "otelcol-builder")
    manifest = yaml.safe_dump(
        {
            "dist": {
                "name": "otelcol",
                "module": "evalgauge-part/otelcol",
                "version": VERSION,
                "output_path": "source",
            },
            **{section: [{"gomod": module} for module in modules] for section, modules in _MODULES.items()},
        }
    )
    content = hashlib.sha256(manifest.encode()).hexdigest()[:12]
    return (
        installed(f"otelcol-{VERSION}-{content}", lambda folder: _build(builder, manifest, folder))
        / "otelcol"
    )


def _build(builder: Path, manifest: str, folder: Path) -> None:
    missing = f"otelcol {VERSION} could not be built from its Go modules."
    source = folder / "source"
    (folder / "manifest.yaml").write_text(manifest)
    # It writes the program only. By itself it would go on with `go mod tidy`, which wants the modules of all tests
    # of all modules, and some of those are not to be had.
    sources_only = ["--skip-compilation", "--skip-get-modules"]
    run([builder, "--config", "manifest.yaml", *sources_only], missing=missing, cwd=folder)
    # `otelcol` is what the program itself imports; left to itself Go would take the newest, which fits no other.
    modules = [*(module for some in _MODULES.values() for module in some), f"{_CORE}/otelcol v{VERSION}"]
    required = [f"-require={module.replace(' ', '@')}" for module in modules]
    steps: list[list[str | Path]] = [
        ["go", "mod", "init", "evalgauge-part/otelcol"],
        ["go", "mod", "edit", *required],
        ["go", "get", "./..."],
        ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", folder / "otelcol", "."],
    ]
    for command in steps:
        run(command, missing=missing, cwd=source, environment={"CGO_ENABLED": "0"})
    shutil.rmtree(source)


class Otelcol:
    """A Collector with a configuration of its own, in a folder of its own.

    `config` is what its file holds: receivers, processors, connectors, exporters, service. The part adds a health
    check on a free port, by which it knows that the Collector is there, and turns the Collector's own metrics off,
    whose port is the same for all. Use it with `with`.
    """

    def __init__(self, config: Mapping[str, Any], data_dir: Path) -> None:
        self._health = f"127.0.0.1:{free_port()}"
        self._file = data_dir / "otelcol.yaml"
        self._config = {
            **config,
            "extensions": {**config.get("extensions", {}), "health_check": {"endpoint": self._health}},
            "service": {
                "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
                **config["service"],
                "extensions": [*config["service"].get("extensions", []), "health_check"],
            },
        }
        self._server = Server([binary(), f"--config=file:{self._file}"], data_dir)

    def __enter__(self) -> Self:
        """Start the Collector; all of its pipelines run when this returns.

        Raises `AssertionError` with what it logged if it refuses its configuration.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(yaml.safe_dump(self._config, sort_keys=False))
        self._server.start(lambda: answers(f"http://{self._health}/"), START_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the Collector; its folder stays."""
        self._server.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._server.pid

    def log(self) -> str:
        """Return what the Collector has logged so far: warnings and errors."""
        return self._server.log()
