"""Fixtures of real servers, and what happens to a test whose part is missing."""

from __future__ import annotations

import os
import uuid
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, NoReturn, Protocol

import hypothesis
import pytest

from tests.parts import kafka as kafka_part
from tests.parts import prometheus as prometheus_part
from tests.parts.part import Missing

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

if os.environ.get("CI") != "true":  # there hypothesis has a profile of its own, which has no deadline either
    hypothesis.settings.register_profile("unhurried", deadline=None)
    hypothesis.settings.load_profile("unhurried")


_TOLD = "told"


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


class Tell(Protocol):
    """What the fixture `tell` gives: call it with what was measured."""

    def __call__(self, text: str) -> None:
        """Have it printed with the test's result."""


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Tell what a test has measured, also from one of several processes that run the tests."""
    return lambda text: record_property(_TOLD, text)


class _Teller:
    """Prints what tests told, in the process that prints their results."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and report.when == "teardown":
            for name, text in report.user_properties:
                if name == _TOLD:
                    reporter.ensure_newline()
                    reporter.write_line(str(text))


def pytest_configure(config: pytest.Config) -> None:
    """Print what tests tell."""
    config.pluginmanager.register(_Teller(config))


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


class MakeTopic(Protocol):
    """What the fixture `make_topic` gives: call it for a new topic on the shared broker."""

    def __call__(self, partitions: int = 1, **config: str) -> str:
        """Create a topic and return its name; in names of `config`, `_` stands for a dot."""


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka_part.Kafka]:
    """Return a broker that all tests of the session share. A test that kills it starts it again, or has its own."""
    with kafka_part.Kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def topic() -> str:
    """Return the name of a topic that nobody has used; the broker creates none by itself."""
    return f"topic-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def make_topic(kafka: kafka_part.Kafka) -> MakeTopic:
    """Create topics on the shared broker."""
    from kafka import KafkaAdminClient  # noqa: PLC0415 - only tests of Kafka pay for its import

    def make(partitions: int = 1, **config: str) -> str:
        name = f"topic-{uuid.uuid4().hex[:12]}"
        settings = {key.replace("_", "."): value for key, value in config.items()}
        with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin:
            wanted = {"num_partitions": partitions, "replication_factor": 1, "configs": settings}
            admin.create_topics({name: wanted}, wait_for_metadata=True)
        return name

    return make
