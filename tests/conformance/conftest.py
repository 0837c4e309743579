"""The collectors that are held to the suite, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.drivers import DRIVERS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conformance.drivers import Driver


@pytest.fixture(params=DRIVERS, ids=lambda make: make.__name__)
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Driver:
    """A collector's driver with a folder of its own."""
    folder = tmp_path / "source"
    folder.mkdir()
    part = getattr(request.param, "part", None)
    parts = [] if part is None else [request.getfixturevalue(part)]
    made: Driver = request.param(folder, *parts)
    return made
