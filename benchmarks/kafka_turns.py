"""One turn of a reader: how many events it counts in a second, and in a second of its CPU."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import re
import tempfile
import time
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.kafka_topic import PARTITIONS
from confluent_kafka import Consumer, TopicPartition
from tests.parts.otelcol import Otelcol
from tests.parts.part import free_port, until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

    from benchmarks.kafka_topic import Topic

_PATIENCE = 1800
"""Seconds that a turn may take."""
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Turn:
    """What it took to count all events of a topic."""

    events: int
    seconds: float
    """From the first event to the last; of the Collector from its start."""
    cpu: float
    """CPU seconds, user and system, of all processes that read, their threads and children; starts left out."""


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far, with those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICK


def of_processes(topic: Topic, read: Callable[..., None], arguments: Sequence[Any]) -> Turn:
    """A turn of a reader of `kafka_readers`, in one process for each of `arguments`.

    Raises `AssertionError` where they count more or fewer events than there are, or take too long.
    """
    context = multiprocessing.get_context("spawn")
    readers = []
    try:
        for argument in arguments:
            ours, theirs = context.Pipe()
            process = context.Process(target=read, args=(theirs, argument), daemon=True)
            process.start()
            theirs.close()
            readers.append((process, ours))
        for _, connection in readers:
            _heard(connection)
        pids = [process.pid or 0 for process, _ in readers]
        before = sum(map(cpu_seconds, pids))
        for _, connection in readers:
            connection.send("begin")
        seconds = _watched([connection for _, connection in readers], topic.size)
        cpu = sum(map(cpu_seconds, pids)) - before
        for process, connection in readers:
            connection.send("end")
            process.join(60)
            assert process.exitcode == 0, f"a reader ended with {process.exitcode}"
        return Turn(topic.size, seconds, cpu)
    finally:
        for process, connection in readers:
            process.kill()
            connection.close()


def _watched(connections: list[Connection], count: int) -> float:
    """Wait until all together have counted everything; seconds from the first that one of them had."""
    started: float | None = None
    counted = dict.fromkeys(connections, 0)
    deadline = time.monotonic() + _PATIENCE
    while sum(counted.values()) < count:
        assert time.monotonic() < deadline, f"{sum(counted.values())} of {count} events in {_PATIENCE} s"
        for connection in multiprocessing.connection.wait(connections, timeout=5):
            assert isinstance(connection, multiprocessing.connection.Connection)
            counted[connection] = _heard(connection)
            started = started or time.perf_counter()
    assert sum(counted.values()) == count, f"{sum(counted.values())} events were counted, not {count}"
    assert started is not None
    return time.perf_counter() - started


def _heard(connection: Connection) -> Any:
    try:
        assert connection.poll(_PATIENCE), "a reader says nothing"
        return connection.recv()
    except EOFError:
        raise AssertionError("a reader ended by itself; what it said is above") from None


def of_collector(topic: Topic, *, tuned: bool = False) -> Turn:
    """A turn of an OpenTelemetry Collector. Raises `Missing` where it cannot be had, `AssertionError` as above."""
    group, port = f"bench-{uuid.uuid4().hex[:8]}", free_port()
    with (
        tempfile.TemporaryDirectory() as folder,
        Otelcol(_collector(topic, group, port, tuned=tuned), Path(folder)) as collector,
        contextlib.closing(Consumer({"bootstrap.servers": topic.bootstrap, "group.id": group})) as looking,
    ):
        started, before = time.perf_counter(), cpu_seconds(collector.pid)
        while _held(topic, looking) < topic.size:
            assert time.perf_counter() - started < _PATIENCE, f"{_held(topic, looking)} events were read"
            time.sleep(0.2)
        # What it has read it may still hold in a batch.
        until(lambda: _shown(port) == topic.size, f"a total of {topic.size:,}", 30)
        return Turn(topic.size, time.perf_counter() - started, cpu_seconds(collector.pid) - before)


def held(topic: Topic, group: str) -> int:
    """Events that the committed positions of a group say to have been read."""
    with contextlib.closing(Consumer({"bootstrap.servers": topic.bootstrap, "group.id": group})) as looking:
        return _held(topic, looking)


def _held(topic: Topic, looking: Consumer) -> int:
    partitions = [TopicPartition(topic.name, number) for number in range(PARTITIONS)]
    return sum(max(0, at.offset) for at in looking.committed(partitions, timeout=30))


def _shown(port: int) -> int:
    time.sleep(0.25)  # looking costs the Collector as much as a few thousand events
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return sum(
        int(float(value)) for value in re.findall(r"^bench_judgments_total\{.*\} (\S+)", text, re.MULTILINE)
    )


def _collector(topic: Topic, group: str, port: int, *, tuned: bool) -> dict[str, Any]:
    """The same metrics by the Collector's own means, its processors in the order its documentation gives.

    `tuned`: instead by the cheapest way that was found, which has the labels under the fields' names.
    """
    receiver = {
        "brokers": [topic.bootstrap],
        "group_id": group,
        "initial_offset": "earliest",
        "autocommit": {"interval": "250ms"},
        "logs": {"topics": [topic.name], "encoding": "json"},
    }
    if tuned:
        names = {name: name for name in ("tenant_id", "workflow_id", "method_used", "status")}
        statements = ['set(log.attributes, log.body["data"])']
        # Deltas are made for each batch, so larger ones are cheaper.
        order, batch = ["batch", "transform"], {"send_batch_size": 50_000, "timeout": "1s"}
    else:
        names = {
            "tenant": "tenant_id",
            "workflow": "workflow_id",
            "method": "method_used",
            "status": "status",
        }
        statements = [
            f'set(log.attributes["{name}"], log.body["data"]["{field}"])' for name, field in names.items()
        ]
        order, batch = ["transform", "batch"], {}
    labels = [{"key": name} for name in names]
    tenths = [tenth / 10 for tenth in range(1, 11)]
    bounds = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
    metrics = [
        {"name": "bench_judgments", "attributes": labels, "sum": {"value": "1", "monotonic": True}},
        {
            "name": "bench_duration_seconds",
            "attributes": labels[:3],
            "histogram": {"buckets": bounds, "value": 'log.body["data"]["execution_time_ms"] / 1000.0'},
        },
        {
            "name": "bench_confidence_ratio",
            "attributes": labels[:3],
            "histogram": {"buckets": tenths, "value": 'log.body["data"]["confidence_score"]'},
        },
    ]
    deltas = {
        "receivers": ["signal_to_metrics"],
        "processors": ["deltatocumulative"],
        "exporters": ["prometheus"],
    }
    return {
        "receivers": {"kafka": receiver},
        "processors": {
            "batch": batch,
            "transform": {"log_statements": [{"statements": statements}]},
            "deltatocumulative": {},
        },
        "connectors": {"signal_to_metrics": {"logs": metrics}},
        "exporters": {"prometheus": {"endpoint": f"127.0.0.1:{port}"}},
        "service": {
            "pipelines": {
                "logs": {"receivers": ["kafka"], "processors": order, "exporters": ["signal_to_metrics"]},
                "metrics": deltas,
            }
        },
    }
