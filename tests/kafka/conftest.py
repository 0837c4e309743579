"""What tests of Kafka have in common: kafka-python is cleared up after."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
LEFT_OPEN = "ignore:unclosed <(socket.s|ssl.SSLS)ocket.* raddr=:ResourceWarning"
"""Closed while it still connects, a client of kafka-python leaves its socket to the garbage collector."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Such a socket is no failure of the test in which it is collected."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.filterwarnings(LEFT_OPEN))


@pytest.fixture(autouse=True)
def swept() -> Iterator[None]:
    """Collected before a test of something else runs, for which it would be one."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
