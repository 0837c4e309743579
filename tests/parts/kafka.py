"""Apache Kafka 4 in KRaft mode, from a Maven repository: one broker, or a cluster of three."""

from __future__ import annotations

import base64
import functools
import os
import signal
import socket
import struct
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from tests.parts import maven
from tests.parts.part import Server, free_port, until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

VERSION = "4.3.1"
START_SECONDS = 60
_API_VERSIONS, _METADATA = (18, 0), (3, 1)
"""Requests: number and version."""
_NO_TOPICS = struct.pack(">i", 0)
_SETTINGS = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    # A name that nobody created is a fault of the test, not a topic.
    "auto.create.topics.enable": "false",
    # So that a broker killed with SIGKILL is taken back soon.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    # Few and small: each partition of these is opened at the start.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "log.cleaner.dedupe.buffer.size": "16777216",
}
_QUICK = {
    "group.initial.rebalance.delay.ms": "0",
    # Members may say that they want to be missed soon.
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.min.session.timeout.ms": "2000",
    "group.consumer.session.timeout.ms": "6000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    "num.network.threads": "2",
    "num.io.threads": "4",
}
_QUICK_JVM = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
"""They halve the start, and cost a third of the throughput."""


@functools.cache
def classpath() -> str:
    """Return the classpath of the broker and its tools. Raises `Missing` if it cannot be had."""
    folder = maven.jars(
        f"kafka-{VERSION}",
        f"org.apache.kafka:kafka_2.13:{VERSION}",
        "org.slf4j:slf4j-simple:1.7.36",  # without a logger, a start that fails says nothing
    )
    return f"{folder}/*"


class Kafka:
    """One Kafka node, broker and controller, on free loopback ports and with a data folder of its own.

    `settings` are added to server.properties. `quick` is for tests: quick to start, to rebalance and to give up
    a transaction; False leaves these as a production broker has them, for benchmarks. `listeners` are more ways
    in, name → security protocol (`{"SECURE": "SASL_SSL"}`), whose addresses `address(name)` gives; their keys and
    passwords are `settings`, which `tests.parts.kafka_security` makes. Use it with `with`, or `start` and `stop`
    it. The rest is for `KafkaCluster`: `voters` is node id → controller port of each node, `cluster_id` what they
    were formatted with.
    """

    def __init__(
        self,
        data_dir: Path,
        settings: Mapping[str, str] | None = None,
        *,
        quick: bool = True,
        listeners: Mapping[str, str] | None = None,
        heap: str = "512m",
        node: int = 1,
        voters: Mapping[int, int] | None = None,
        cluster_id: str | None = None,
    ) -> None:
        self.node = node
        self.data = data_dir / "data"
        self.running = False
        self._voters = voters or {node: free_port()}
        self._protocols = {"PLAINTEXT": "PLAINTEXT", **(listeners or {})}
        self._ports = {name: free_port() for name in self._protocols}
        self._properties = data_dir / "server.properties"
        self._cluster_id = cluster_id or new_cluster_id()
        self._settings = {**self._own_settings(), **(_QUICK if quick else {}), **(settings or {})}
        self._java = [
            maven.java(),
            f"-Xmx{heap}",
            *(_QUICK_JVM if quick else []),
            "-XX:-UsePerfData",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSX",
            *("-cp", classpath()),
        ]
        self._server = Server([*self._java, "kafka.Kafka", self._properties], data_dir)

    def _own_settings(self) -> dict[str, str]:
        everything = {**self._ports, "CONTROLLER": self._voters[self.node]}
        protocols = {**self._protocols, "CONTROLLER": "PLAINTEXT"}
        copies = len(self._voters)
        majority = str(copies // 2 + 1)
        return {
            **_SETTINGS,
            "node.id": str(self.node),
            "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{port}" for n, port in self._voters.items()),
            "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in everything.items()),
            "listener.security.protocol.map": ",".join(map(":".join, protocols.items())),
            "log.dirs": str(self.data),
            "default.replication.factor": str(copies),
            "min.insync.replicas": majority,
            "offsets.topic.replication.factor": str(copies),
            "transaction.state.log.replication.factor": str(copies),
            "transaction.state.log.min.isr": majority,
        }

    def __enter__(self) -> Self:
        """Start the broker; it is ready when this returns."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the broker; the data folder stays."""
        self.stop()

    @property
    def bootstrap(self) -> str:
        """Where clients connect, `127.0.0.1:port`: the same before and after a restart."""
        return self.address("PLAINTEXT")

    @property
    def pid(self) -> int:
        """The process id; the broker must run."""
        return self._server.pid

    def address(self, listener: str) -> str:
        """Return where clients connect to one of `listeners`."""
        return f"127.0.0.1:{self._ports[listener]}"

    def start(self) -> None:
        """Start with the data that are there, and wait until it answers as a broker of the cluster.

        Raises `AssertionError` with what it logged if it ends or does not answer in time.
        """
        if not (self.data / "meta.properties").exists():
            self._format()
        self._server.start(self.answers, START_SECONDS)
        self.running = True

    restart = start
    """What a test calls after `kill` or `stop`: the same folder, the same port."""

    def stop(self, seconds: float = 20) -> None:
        """End it in order: SIGTERM, after `seconds` SIGKILL. Does nothing if it is not running."""
        self.running = False
        self._server.stop(seconds)

    def kill(self) -> None:
        """End it with SIGKILL, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def answers(self) -> bool:
        """Whether it answers, and knows of a broker that clients may use."""
        return self.known_brokers() > 0

    def known_brokers(self) -> int:
        """Return of how many live brokers it tells clients; 0 where it does not answer."""
        try:
            with socket.create_connection(("127.0.0.1", self._ports["PLAINTEXT"]), timeout=5) as connection:
                [error] = struct.unpack_from(">h", _asked(connection, _API_VERSIONS))
                if error:
                    return 0
                [brokers] = struct.unpack_from(">i", _asked(connection, _METADATA, _NO_TOPICS))
                return int(brokers)
        except OSError:
            return 0

    def log(self) -> str:
        """Return all that the broker has logged so far: warnings and errors."""
        return self._server.log()

    def _format(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        self._properties.write_text(
            "".join(f"{key}={_escaped(value)}\n" for key, value in self._settings.items())
        )
        command = ["format", "-t", self._cluster_id, "-c", str(self._properties)]
        done = subprocess.run(
            [*self._java, "kafka.tools.StorageTool", *command],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"Kafka refuses its storage or settings:\n{done.stdout}"


class KafkaCluster:
    """Three nodes on one machine, each broker and controller; every topic has three copies, two of them in sync.

    Internal topics too, so it goes on without any one of them.
    """

    def __init__(
        self, data_dir: Path, settings: Mapping[str, str] | None = None, *, quick: bool = True
    ) -> None:
        voters = {node: free_port() for node in (1, 2, 3)}
        cluster_id = new_cluster_id()
        self.nodes = {
            node: Kafka(
                data_dir / f"node-{node}",
                settings,
                quick=quick,
                heap="384m",
                node=node,
                voters=voters,
                cluster_id=cluster_id,
            )
            for node in voters
        }
        """Node id (1, 2, 3) → node."""

    def __enter__(self) -> Self:
        """Start all nodes; each knows the others when this returns."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all nodes; their folders stay."""
        self.stop()

    @property
    def bootstrap(self) -> str:
        """Where clients connect: all three, with commas."""
        return ",".join(node.bootstrap for node in self.nodes.values())

    def start(self) -> None:
        """Start all nodes at once, since none is ready before two are there; wait until each knows all three.

        Raises `AssertionError` with the log of a node that does not come up.
        """
        try:
            with ThreadPoolExecutor(len(self.nodes)) as threads:
                list(threads.map(Kafka.start, self.nodes.values()))
            self.wait()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all nodes in order."""
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(Kafka.stop, self.nodes.values()))

    def kill(self, node: int) -> None:
        """End one with SIGKILL, and wait until the others have noticed."""
        self.nodes[node].kill()
        self.wait()

    def restart(self, node: int) -> None:
        """Start one again, and wait until the others have noticed."""
        self.nodes[node].restart()
        self.wait()

    def wait(self, seconds: float = 30) -> None:
        """Wait until each running node tells clients of all running ones, and of no other."""
        running = [one for one in self.nodes.values() if one.running]
        until(
            lambda: all(one.known_brokers() == len(running) for one in running),
            f"{len(running)} brokers to know one another",
            seconds,
        )


def new_cluster_id() -> str:
    """Return a random cluster id, as the storage tool wants it."""
    text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # The tool would take one that begins with a hyphen for an option.
    return text.replace("-", "e", 1) if text.startswith("-") else text


def _escaped(value: str) -> str:
    """A value as Java's properties files want it; a certificate has many lines."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def _asked(connection: socket.socket, request: tuple[int, int], body: bytes = b"") -> bytes:
    """Send one request without a client library, and return the body of the answer.

    Raises `OSError` if the connection ends first.
    """
    head = struct.pack(">hhih", *request, 0, -1)  # number, version, correlation, no client id
    connection.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
    [size] = struct.unpack(">i", _read(connection, 4))
    return _read(connection, size)[4:]


def _read(connection: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        more = connection.recv(size - len(got))
        if not more:
            raise ConnectionResetError("the broker ended the connection")
        got += more
    return bytes(got)
