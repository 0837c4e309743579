"""The pack of our own metrics is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from evalgauge.core.event import Reason
from evalgauge.core.pack.loader import load_pack
from evalgauge.core.pack.metric_model import GaugeSpec
from evalgauge.core.pack.names import PROCESS

if TYPE_CHECKING:
    from evalgauge.core.pack.model import Pack


@pytest.fixture(scope="module")
def pack() -> Pack:
    """The pack."""
    return load_pack("evalgauge").pack


def test_every_metric_is_reported_by_the_process_itself(pack: Pack) -> None:
    """And none is left over from events."""
    assert pack.events == {}
    assert all(metric.on == [PROCESS] for metric in pack.metrics.values())


def test_the_reasons_are_the_closed_list(pack: Pack) -> None:
    """A reason that the engine gives and the pack does not know would be a label nobody expects."""
    assert pack.metrics["evalgauge_events_rejected"].labels["reason"].enum == [
        reason.value for reason in Reason
    ]


def test_only_the_info_metric_ends_in_info(pack: Pack) -> None:
    """A declared exception to the suffixes that formats reserve."""
    info = {name for name, metric in pack.metrics.items() if isinstance(metric, GaugeSpec) and metric.info}
    assert info == {"evalgauge_build_info"} == {name for name in pack.metrics if name.endswith("_info")}
