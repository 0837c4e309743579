"""Replicas of a group are restarted one after the other under load: quickly, exactly, and without an alert."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.group.feed import Producer, chance, make_topic
from tests.group.harness import SOAK, Group, configuration
from tests.parts.part import until
from tests.test_prometheus_live import generated_rules, warnings_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartPrometheus, Tell
    from tests.parts.kafka import Kafka

RATE, BEFORE, AHEAD = (20_000, 160_000, 1_600_000) if SOAK else (2_000, 4_000, 0)
"""Events a second; events before the first restart and after each; records that are made before any is sent.

A restart takes some eight seconds, in which events come too: what is made ahead must last.
"""
BIRTHS = RATE
"""Events after which there is a new tenant: one a second, or scraping so many series would take most of the machine."""
TO_EXIT = 10.0 if SOAK else 30.0
"""Seconds from SIGTERM to the end; ten are promised, on a machine that is not busy with other tests."""


def _scraped(group: Group) -> str:
    """A Prometheus configuration that scrapes each replica, its name as instance."""
    targets = [{"targets": [one.target], "labels": {"instance": one.name}} for one in group.replicas.values()]
    return yaml.safe_dump(
        {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "scrape_configs": [{"job_name": "evalgauge", "static_configs": targets}],
        }
    )


@pytest.mark.soak
@pytest.mark.timeout(0 if SOAK else 600)
def test_a_rolling_restart_loses_nothing_and_raises_no_alert(
    kafka: Kafka,
    topic: str,
    tmp_path: Path,
    prometheus: StartPrometheus,
    tell: Tell,
) -> None:
    """Each of three ends within its time and comes back; no alert of pack `evalgauge` fires."""
    began = time.monotonic()
    make_topic(kafka.bootstrap, topic, partitions=12)
    config = configuration(chance("rolling"), kafka.bootstrap, topic, timeout="10s")
    producer = Producer(kafka.bootstrap, topic, "rolling", RATE, ahead=AHEAD, births=BIRTHS)
    exits = []
    with Group(kafka.bootstrap, topic, tmp_path / "group", config, replicas=3) as group:
        rules = generated_rules("evalgauge", tmp_path / "rules")
        server = prometheus(_scraped(group), rules=[rules])
        until(lambda: len(server.query("up == 1")) == len(group.replicas), "the first scrapes", 60)
        started = time.monotonic()
        producer.start()
        producer.reach(BEFORE)
        for one in group.replicas.values():
            exits.append(one.end())
            one.start()
            group.wait_ready()
            producer.reach(producer.sent + BEFORE)
            group.check()
        rate = producer.sent / (time.monotonic() - started)
        producer.finish()
        settled = group.settle(producer)
        until(lambda: len(server.query("up == 1")) == len(group.replicas), "the last scrapes", 60)
        alerts = server.query("count by (alertname, instance) (count_over_time(ALERTS[1h]))")
        fired = server.query('count_over_time(ALERTS{alertstate="firing"}[1h])')
        known = [rule for groups in server.rules() for rule in groups["rules"] if rule["type"] == "alerting"]
        assert warnings_of(server) == []
        scrapes = group.finish()
    pending = ", ".join(sorted({one.labels["alertname"] for one in alerts})) or "none"
    tell(
        f"group, rolling restart: {settled.events:,} events, {rate:,.0f} a second; SIGTERM to exit "
        f"{', '.join(f'{one:.1f}' for one in exits)} s; {len(fired)} of {len(known)} alerts fired, pending for a "
        f"while: {pending}; {scrapes:,} scrapes without a decrease; {len(settled.wrong)} differences in "
        f"{settled.samples:,} samples; {time.monotonic() - began:.0f} s"
    )
    assert settled.wrong == []
    assert [one.labels for one in fired] == []
    assert known
    assert max(exits) <= TO_EXIT
    assert all(one.starts == 2 for one in group.replicas.values())
    if SOAK:
        assert rate >= 0.9 * RATE, "the machine is too slow for this pace"
