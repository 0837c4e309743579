"""Totals of replicas that left for good: shown with one more label by whoever reads the first partition, and frozen."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from evalgauge.core.collect import Departed
from evalgauge.core.departed import LABEL
from evalgauge.core.pack.names import RESERVED_LABELS
from evalgauge.exporters import exposition
from evalgauge.exporters.client_bridge import FamilyCollector
from tests.engine_helpers import NOON, event
from tests.test_partitions import Log, Replica

if TYPE_CHECKING:
    from evalgauge.core.table import Page

Counted = dict[tuple[str, frozenset[tuple[str, str]]], float]
FIRST = "t/0"


def opened(who: str, number: int) -> dict[str, object]:
    """An event that a counter, an up/down gauge and a set gauge take notice of."""
    return event(number, "lab.opened", who=who, level=number)


def left(log: Log, name: str) -> Departed:
    """What the log holds of a replica."""
    pages: dict[str, list[Page]] = {}
    for (meaning, _, _), page in log.replicas[name].items():
        pages.setdefault(meaning, []).append(page)
    return Departed({info.meaning: info.metric for info in log.tables[name]}, pages)


def samples(text: bytes, *, openmetrics: bool) -> Counted:
    """Every sample of an exposition; a family or a series that comes twice is an error."""
    families = list((parse_openmetrics if openmetrics else parse_text)(text.decode()))
    assert len({one.name for one in families}) == len(families)
    found = [((s.name, frozenset(s.labels.items())), s.value) for one in families for s in one.samples]
    assert len(dict(found)) == len(found)
    return dict(found)


def scraped(replica: Replica, *, openmetrics: bool = True) -> Counted:
    """What `/metrics` shows."""
    text = exposition.render(replica.engine.families(), openmetrics=openmetrics)
    return samples(text, openmetrics=openmetrics)


def frozen(found: Counted, name: str) -> Counted:
    """What is shown of a replica that left, without the label that says so."""
    return {
        (metric, frozenset(label for label in labels if label[0] != LABEL)): value
        for (metric, labels), value in found.items()
        if (LABEL, name) in labels
    }


@pytest.fixture
def log() -> Log:
    """Two replicas have counted, `gone` and `also`, and left."""
    log = Log()
    for name, partition in (("gone", "t/1"), ("also", "t/2")):
        replica = Replica(log, name)
        replica.adopt(partition)
        replica.feed(partition, *(opened(f"w{number % 2}", number) for number in range(5)))
        replica.feed(
            partition,
            event(100, tenant="t", kind="a", who="w0", took_ms=70, cost=0.1),
            event(101, tenant="t", kind="b", took_ms=2000, cost=0.2),
        )
        replica.engine.commit()
    return log


def keeper(log: Log) -> Replica:
    """A replica that reads the first partition and has counted something itself."""
    replica = Replica(log, "keeper")
    replica.adopt(FIRST)
    replica.feed(FIRST, opened("w0", 7))
    replica.engine.commit()
    return replica


@pytest.mark.parametrize("openmetrics", [True, False])
def test_totals_of_each_are_shown_apart_in_the_same_families(log: Log, *, openmetrics: bool) -> None:
    """Sample by sample what the replica itself showed last, but for births; what is live stays as it was."""
    replica = keeper(log)
    before = scraped(replica, openmetrics=openmetrics)
    replica.engine.show_departed(FIRST, {name: left(log, name) for name in ("gone", "also")})
    found = scraped(replica, openmetrics=openmetrics)
    assert {key: value for key, value in found.items() if LABEL not in dict(key[1])} == before
    for name in ("gone", "also"):
        again = Replica(log, name)
        own = scraped(again, openmetrics=openmetrics)
        expected = {key: value for key, value in own.items() if not key[0].endswith("_created")}
        assert frozen(found, name) == expected
        assert ("lab_open_doors", frozenset({("who", "w0")})) in expected, "up/down sums are among them"
        assert not any(metric.startswith("lab_level") for metric, _ in expected), "what was set moves"


def test_nothing_frozen_looks_as_if_it_began_anew(log: Log) -> None:
    """Without `_created`, or Prometheus would count all of it as an increase; and never as 0 by `zero_first`."""
    replica = keeper(log)
    replica.engine.show_departed(FIRST, {"gone": left(log, "gone")})
    renderer = exposition.Renderer(zero_first=3600)
    text = b"".join(renderer.blocks(replica.engine.families(), openmetrics=True, now=NOON + 1))
    found = frozen(samples(text, openmetrics=True), "gone")
    assert not [metric for metric, _ in found if metric.endswith("_created")]
    assert found["lab_touches_total", frozenset({("who", "w0")})] == 4


def test_it_goes_with_the_partition(log: Log) -> None:
    """Released, it is not shown any more; another partition that goes changes nothing."""
    replica = keeper(log)
    replica.adopt("t/3")
    replica.engine.show_departed(FIRST, {"gone": left(log, "gone")})
    replica.release("t/3")
    assert frozen(scraped(replica), "gone")
    replica.release(FIRST)
    assert not frozen(scraped(replica), "gone")


def test_what_is_shown_is_replaced(log: Log) -> None:
    """More replicas leave, or another partition is the first by now."""
    replica = keeper(log)
    renderer = exposition.Renderer()
    for shown in (["gone"], ["also", "gone"], ["also"], []):
        replica.engine.show_departed(FIRST, {name: left(log, name) for name in shown})
        # The same renderer each time: what it keeps of rows must not outlive them.
        text = b"".join(renderer.blocks(replica.engine.families(), openmetrics=True))
        found = samples(text, openmetrics=True)
        assert {dict(labels)[LABEL] for _, labels in found if LABEL in dict(labels)} == set(shown)
        assert found == scraped(replica)


def test_the_client_bridge_shows_it_too(log: Log) -> None:
    """An app's own registry gives the same samples."""
    replica = keeper(log)
    replica.engine.show_departed(FIRST, {"gone": left(log, "gone")})
    registry = CollectorRegistry()
    registry.register(FamilyCollector(replica.engine.families, created=False))
    found = samples(generate_latest(registry), openmetrics=False)
    assert frozen(found, "gone") == frozen(scraped(replica, openmetrics=False), "gone")


def test_what_no_pack_declares_now_is_left_out_and_said_once(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """The metric has another meaning by now, or none."""
    replica = keeper(log)
    gone = left(log, "gone")
    meaning = next(key for key, metric in gone.metrics.items() if metric == "lab_touches")
    pages = {f"old-{key}" if key == meaning else key: held for key, held in gone.pages.items()}
    changed = Departed({**gone.metrics, f"old-{meaning}": "lab_touches"}, pages)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            replica.engine.show_departed(FIRST, {"gone": changed})
    told = [one.getMessage() for one in caplog.records]
    assert len(told) == 1
    assert "metric lab_touches of gone" in told[0]
    names = {metric for metric, _ in frozen(scraped(replica), "gone")}
    assert "lab_touches_total" not in names
    assert "lab_runs_total" in names


def test_what_cannot_be_read_back_is_left_out_and_said(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    """A fault in what somebody counted long ago ends no process that is alive."""
    replica = keeper(log)
    gone = left(log, "gone")
    meaning = next(key for key, metric in gone.metrics.items() if metric == "lab_runs")
    pages = {**gone.pages, meaning: [page._replace(data=page.data[:-1]) for page in gone.pages[meaning]]}
    replica.engine.show_departed(FIRST, {"gone": Departed(gone.metrics, pages)})
    assert "state of metric lab_runs of gone, which has left the group, cannot be read back" in caplog.text
    names = {metric for metric, _ in frozen(scraped(replica), "gone")}
    assert "lab_runs_total" not in names
    assert "lab_touches_total" in names


def test_no_pack_can_use_the_label() -> None:
    """Else two labels of one series would have the same name."""
    assert LABEL in RESERVED_LABELS
