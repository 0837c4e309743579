"""Fixtures of real servers, and what happens to a test whose part is missing."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn, Protocol

import pytest

from tests.parts import prometheus as prometheus_part
from tests.parts.part import Missing

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path


def _without_part(missing: Missing) -> NoReturn:
    """Skip with the sentence that says what to install; on CI, where all parts must be, fail with it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true, and a part is missing: {missing}", pytrace=False)
    pytest.skip(str(missing))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """Turn a missing part into a skip or a failure when a fixture met it."""
    try:
        return (yield)
    except Missing as missing:
        _without_part(missing)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Turn a missing part into a skip or a failure when the test itself met it."""
    try:
        return (yield)
    except Missing as missing:
        _without_part(missing)


class StartPrometheus(Protocol):
    """What the fixture `prometheus` gives: call it to start a server, which is stopped after the test."""

    def __call__(
        self,
        config_yaml: str,
        *,
        rules: Sequence[Path] = (),
        flags: Sequence[str] = (),
        program: Path | None = None,
    ) -> prometheus_part.Prometheus:
        """Start a server in a data folder of its own; it is ready when this returns."""


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Return the path of a real promtool."""
    return prometheus_part.promtool()


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[StartPrometheus]:
    """Start real Prometheus servers, each in a folder below `tmp_path`; all are stopped after the test."""
    with ExitStack() as servers:
        started = 0

        def start(
            config_yaml: str,
            *,
            rules: Sequence[Path] = (),
            flags: Sequence[str] = (),
            program: Path | None = None,
        ) -> prometheus_part.Prometheus:
            nonlocal started
            started += 1
            folder = tmp_path / f"prometheus-{started}"
            return servers.enter_context(
                prometheus_part.Prometheus(config_yaml, folder, rules, flags, program)
            )

        yield start
