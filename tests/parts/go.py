"""Go programs, built into the cache: others' from the module proxy, our own from source in the tree."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

from tests.parts.part import Missing, installed, run

if TYPE_CHECKING:
    from pathlib import Path


def build(module: str, version: str, package: str, name: str) -> Path:
    """Return the program of `package` in `module` at `version` (`v1.2.3`); built when first asked for.

    It is built from an empty module of ours: `go install` refuses modules with replace directives.
    Raises `Missing` if there is no Go, or the build fails.
    """
    _need_go(name)

    def install(folder: Path) -> None:
        missing = f"{name} {version} could not be built from the Go module {module}."
        source = folder / "source"
        source.mkdir()
        run(["go", "mod", "init", "evalgauge-part"], missing=missing, cwd=source)
        run(["go", "get", f"{package}@{version}"], missing=missing, cwd=source)
        _compile(package, folder / name, source, missing)
        shutil.rmtree(source)

    return installed(f"{name}-{version}", install) / name


def build_source(source: Path, name: str) -> Path:
    """Return the program whose main package is the folder `source` of our tree, with its go.mod and go.sum.

    Kept by a hash of its files, so a changed program is built again. Raises `Missing` like `build`.
    """
    _need_go(name)
    content = hashlib.sha256()
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        content.update(f"{file.relative_to(source)}\0{file.stat().st_size}\0".encode())
        content.update(file.read_bytes())

    def install(folder: Path) -> None:
        _compile(".", folder / name, source, f"{name} could not be built from {source}.")

    return installed(f"{name}-{content.hexdigest()[:16]}", install) / name


def _need_go(name: str) -> None:
    if shutil.which("go") is None:
        raise Missing(
            f"{name} is built with Go, which is not here: install Go 1.24 or later and put it on PATH."
        )


def _compile(package: str, output: Path, source: Path, missing: str) -> None:
    command = ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", str(output), package]
    run(command, missing=missing, cwd=source, environment={"CGO_ENABLED": "0"})
