"""The wheel: it holds every role, the packs and the licence, and works where nothing of the checkout is."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.test_imports import ROLES, ROOT

if TYPE_CHECKING:
    from pathlib import Path

LOADS = """
import importlib.metadata, importlib.resources, sys
for role in sys.argv[1:]:
    assert importlib.resources.files(f"evalgauge.{role}").joinpath("py.typed").is_file(), role
distribution = importlib.metadata.distribution("evalgauge")
for point in distribution.entry_points:
    print(point.group, point.name, point.load())
    origin = getattr(sys.modules[point.module], "__file__", None) or str(list(sys.modules[point.module].__path__))
    assert "site-packages" in origin, origin
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    ended = subprocess.run(build, check=False, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    [built] = folder.glob("*.whl")
    return built


def test_the_wheel_holds_what_the_checkout_holds(wheel: Path) -> None:
    """Every file below the roots is in it, data files too, and nothing else but its metadata."""
    expected = {
        str(file.relative_to(ROOT / role))
        for role in ROLES
        for file in (ROOT / role).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert "evalgauge/__init__.py" not in names
    assert {name for name in names if name.endswith("/licenses/LICENSE")}
    packs = ("ahp", "judgment", "qna", "server", "stream", "evalgauge")
    assert {f"evalgauge/packs/{pack}.yaml" for pack in packs} <= names


def test_the_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Installed into an empty folder, every entry point loads from there."""
    site = tmp_path / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--target", str(site), str(wheel)], check=True, cwd=tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", LOADS, *ROLES],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert ended.returncode == 0, ended.stderr
