"""The Collector part itself: it is built, reads from Kafka, shows cumulative metrics, and explains its refusals."""

from __future__ import annotations

import re
import urllib.request
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from tests.parts.kafka import Kafka
from tests.parts.otelcol import Otelcol
from tests.parts.part import free_port, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.peer, pytest.mark.timeout(1800)]
"""Building it takes minutes on a machine that has not done so before."""


def pipeline(bootstrap: str, port: int) -> dict[str, Any]:
    """Return a configuration that counts the events of topic `answers` by their label and shows them at `port`."""
    return {
        "receivers": {
            "kafka": {
                "brokers": [bootstrap],
                "initial_offset": "earliest",
                "logs": {"topics": ["answers"], "encoding": "json"},
            }
        },
        "processors": {
            "transform": {
                "log_statements": [{"statements": ['set(log.attributes["label"], log.body["label"])']}]
            },
            "batch": {"timeout": "10ms"},
            "deltatocumulative": {},
        },
        "connectors": {
            "signal_to_metrics": {
                "logs": [
                    {
                        "name": "answers",
                        "attributes": [{"key": "label"}],
                        "sum": {"value": "1", "monotonic": True},
                    }
                ]
            }
        },
        "exporters": {"prometheus": {"endpoint": f"127.0.0.1:{port}"}},
        "service": {
            "pipelines": {
                "logs": {
                    "receivers": ["kafka"],
                    "processors": ["batch", "transform"],
                    "exporters": ["signal_to_metrics"],
                },
                "metrics": {
                    "receivers": ["signal_to_metrics"],
                    "processors": ["deltatocumulative"],
                    "exporters": ["prometheus"],
                },
            }
        },
    }


def test_a_collector_counts_what_a_topic_holds_and_goes_on_counting(tmp_path: Path) -> None:
    """Totals over several batches, which is what deltas alone would not show."""
    port = free_port()

    def total(label: str) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return sum(int(value) for value in re.findall(rf'answers_total{{.*label="{label}".*}} (\d+)', text))

    def shown(label: str, wanted: int) -> None:
        until(lambda: total(label) == wanted, f"{wanted} of `{label}`", seconds=60)

    with Kafka(tmp_path / "kafka") as broker:
        with closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap)) as admin:
            admin.create_topics({"answers": {"num_partitions": 2}}, wait_for_metadata=True)
        with (
            Otelcol(pipeline(broker.bootstrap, port), tmp_path / "otelcol") as collector,
            closing(KafkaProducer(bootstrap_servers=broker.bootstrap)) as producer,
        ):
            for number in range(1, 4):
                for label in (b"yes", b"yes", b"no"):
                    producer.send("answers", b'{"label":"%s"}' % label).get(timeout=60)
                shown("yes", 2 * number)
            shown("no", 3)
            assert "error" not in collector.log()


def test_a_configuration_that_the_collector_refuses_is_shown_with_its_own_words(tmp_path: Path) -> None:
    """And at once, not after a wait."""
    config = pipeline("127.0.0.1:1", free_port())
    config["processors"]["transform"]["log_statements"] = [{"statements": ["no such thing"]}]
    with pytest.raises(AssertionError, match="no such thing"), Otelcol(config, tmp_path):
        pass
