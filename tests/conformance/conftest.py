"""The collectors that are held to the suite, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.drivers import DRIVERS
from tests.parts import kafka as kafka_part

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conformance.drivers import Driver


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka_part.Kafka]:
    """Return a broker that all tests of this folder share; each driver has a topic of its own."""
    with kafka_part.Kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(params=DRIVERS, ids=lambda make: make.__name__)
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Driver:
    """A collector's driver with a folder of its own."""
    folder = tmp_path / "source"
    folder.mkdir()
    part = getattr(request.param, "part", None)
    parts = [] if part is None else [request.getfixturevalue(part)]
    made: Driver = request.param(folder, *parts)
    return made
