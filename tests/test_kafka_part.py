"""The Kafka part itself: a broker and a cluster that start, answer, keep data through SIGKILL, and stop."""

from __future__ import annotations

import base64
import json
import os
import ssl
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import UserScramCredentialUpsertion
from kafka.errors import KafkaError
from kafka.net.sasl.oauth import AbstractTokenProvider

from tests.parts import kafka_security, maven
from tests.parts.kafka import Kafka, KafkaCluster
from tests.parts.part import Missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOPIC = "lines"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Return a broker with a topic."""
    with Kafka(tmp_path_factory.mktemp("kafka"), listeners={"SECOND": "PLAINTEXT"}) as started:
        create(started)
        yield started


def create(broker: Kafka | KafkaCluster) -> None:
    """Create the topic, with as many copies as the broker says."""
    with closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap)) as admin:
        admin.create_topics({TOPIC: {"num_partitions": 1}}, wait_for_metadata=True)


def write(bootstrap: str, *lines: bytes) -> None:
    """Write lines; each is acknowledged by all copies in sync when this returns."""
    with closing(
        KafkaProducer(bootstrap_servers=bootstrap, acks="all", reconnect_backoff_max_ms=500)
    ) as producer:
        for sent in [producer.send(TOPIC, line) for line in lines]:
            sent.get(timeout=30)


def read(bootstrap: str) -> list[bytes]:
    """Read the topic from its beginning to where it ends now."""
    partition = TopicPartition(TOPIC, 0)
    with closing(
        KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", reconnect_backoff_max_ms=500)
    ) as consumer:
        consumer.assign([partition])
        end = consumer.end_offsets([partition])[partition]
        lines: list[bytes] = []
        while consumer.position(partition) < end:
            lines += [record.value for records in consumer.poll(1000).values() for record in records]
    return lines


def test_a_broker_keeps_what_it_acknowledged_through_sigkill(broker: Kafka) -> None:
    """A killed broker comes back at the same address, with the same data."""
    before = read(broker.bootstrap)
    write(broker.bootstrap, b"one", b"two")
    address, pid = broker.bootstrap, broker.pid
    broker.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not broker.answers()
    broker.restart()
    assert broker.answers()
    assert broker.bootstrap == address
    assert read(address) == [*before, b"one", b"two"]


def test_a_broker_that_was_stopped_comes_back_with_its_data(broker: Kafka) -> None:
    """In order this time."""
    before = read(broker.bootstrap)
    write(broker.bootstrap, b"three")
    broker.stop()
    assert not broker.answers()
    broker.stop()  # does nothing
    broker.start()
    assert read(broker.bootstrap) == [*before, b"three"]


def test_a_broker_has_more_ways_in_where_they_are_asked_for(broker: Kafka) -> None:
    """Each has an address of its own, and leads to the same data."""
    assert broker.address("SECOND") != broker.bootstrap
    write(broker.address("SECOND"), b"second")
    assert read(broker.bootstrap)[-1:] == [b"second"]


def test_settings_that_the_broker_refuses_are_shown(tmp_path: Path) -> None:
    """In its own words, and at once."""
    broker = Kafka(tmp_path, {"num.io.threads": "none"})
    with pytest.raises(AssertionError, match=r"(?s)num\.io\.threads"):
        broker.start()


def test_a_broker_has_listeners_with_certificates_passwords_and_tokens(tmp_path: Path) -> None:
    """Each lets in who has what it asks for, and nobody else."""
    authority = trustme.CA()
    certificate, ours = authority.issue_cert("127.0.0.1"), authority.issue_cert("client@example.org")
    trusting = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    known = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    ours.configure_cert(known)
    alice = {"sasl_plain_username": "alice", "sasl_plain_password": "secret"}
    encrypted = {"ssl_context": trusting}
    protocols = {"MUTUAL": "SSL", "SECURE": "SASL_SSL", "TOKEN": "SASL_PLAINTEXT"}
    settings = {
        **kafka_security.tls("MUTUAL", certificate, clients=authority),
        **kafka_security.tls("SECURE", certificate),
        **kafka_security.passwords("SECURE", {"alice": "secret"}),
        **kafka_security.tokens("TOKEN"),
    }
    with Kafka(tmp_path, settings, listeners=protocols) as broker:
        create(broker)
        with closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap)) as admin:
            scram = UserScramCredentialUpsertion("alice", "SCRAM-SHA-512", "secret", iterations=4096)
            admin.alter_user_scram_credentials([scram])

        def topics(listener: str, **config: Any) -> list[str]:
            with closing(
                KafkaAdminClient(
                    bootstrap_servers=broker.address(listener),
                    security_protocol=protocols[listener],
                    bootstrap_timeout_ms=2000,
                    **config,
                )
            ) as admin:
                return list(admin.list_topics())

        assert topics("MUTUAL", ssl_context=known) == [TOPIC]
        assert topics("SECURE", sasl_mechanism="PLAIN", **encrypted, **alice) == [TOPIC]
        assert topics("SECURE", sasl_mechanism="SCRAM-SHA-512", **encrypted, **alice) == [TOPIC]
        token = {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": Token()}
        assert topics("TOKEN", **token) == [TOPIC]
        for listener, wrong in (
            ("MUTUAL", {"ssl_context": trusting}),
            ("SECURE", {"sasl_mechanism": "PLAIN", **encrypted, **alice, "sasl_plain_password": "guessed"}),
        ):
            with pytest.raises(KafkaError):
                topics(listener, **wrong)


class Token(AbstractTokenProvider):  # type: ignore[misc]  # the library has no types
    """Gives a token that nobody has signed."""

    def token(self) -> str:
        """Return one that is good for an hour."""
        now = int(time.time())
        parts = [{"alg": "none"}, {"sub": "alice", "iat": now, "exp": now + 3600}]
        plain = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
        return f"{'.'.join(plain)}."


@pytest.mark.timeout(600)
def test_a_cluster_goes_on_without_one_of_its_nodes(tmp_path: Path) -> None:
    """Whichever is lost, what was acknowledged is there, and more can be written; then it is three again."""
    with KafkaCluster(tmp_path) as cluster:
        create(cluster)
        write(cluster.bootstrap, b"with three")
        cluster.kill(1)
        write(cluster.bootstrap, b"with two")
        assert read(cluster.bootstrap) == [b"with three", b"with two"]
        cluster.restart(1)
        assert [node.known_brokers() for node in cluster.nodes.values()] == [3, 3, 3]
        assert read(cluster.nodes[1].bootstrap) == [b"with three", b"with two"]
    assert not any(node.answers() for node in cluster.nodes.values())


def test_without_java_or_maven_the_part_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an old Java is as good as none."""
    monkeypatch.setenv("EVALGAUGE_PARTS_CACHE", str(tmp_path / "cache"))
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(Missing, match="apt-get install openjdk-17"):
        maven.jars("thing", "org.example:thing:1")
    java = programs / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15'\n")
    java.chmod(0o755)
    with pytest.raises(Missing, match=r"java is: openjdk version .11"):
        maven.jars("thing", "org.example:thing:1")
    java.write_text("#!/bin/sh\necho 'openjdk version \"21.0.2\" 2024-01-16'\n")
    with pytest.raises(Missing, match="apt-get install maven"):
        maven.jars("thing", "org.example:thing:1")
