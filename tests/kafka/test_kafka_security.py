"""Encryption and authentication against a real broker that asks for them, by both clients."""

from __future__ import annotations

import base64
import gc
import json
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported untold
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from kafka import KafkaAdminClient

from evalgauge.collectors.kafka import KafkaCollector
from evalgauge.collectors.kafka_config import KafkaConfig
from evalgauge.core.collect import InputContext, InputStatus
from evalgauge.core.errors import ConfigError
from tests.conformance.sink import MemorySink
from tests.group.feed import Producer as Events
from tests.group.feed import chance, make_topic
from tests.group.harness import INPUT, Group, configuration
from tests.parts.kafka import Kafka
from tests.parts.part import until
from tests.running import evalgauge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.group.harness import KafkaClient

USER, PASSWORD = "alice", "a secret; of: Alice's = hers"
TOPIC = "guarded"
LOGIN = "org.apache.kafka.common.security"


def key_of(certificate: trustme.LeafCert) -> str:
    """The private key in the form that Kafka reads."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def chain_of(certificate: trustme.LeafCert) -> str:
    """The certificate and those it rests on."""
    return "".join(one.bytes().decode() for one in certificate.cert_chain_pems)


def token(lifetime: float) -> str:
    """A JWT that nobody signed, which a broker for development takes."""
    claims = {"sub": USER, "iat": time.time() - 1, "exp": time.time() + lifetime}
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
    return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), ""])


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs the broker's and the clients' certificates."""
    return trustme.CA()


@pytest.fixture(scope="module")
def guarded(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker with a listener that wants a name, and one that wants a certificate; a topic of three events."""
    server = authority.issue_cert("127.0.0.1")
    folder = tmp_path_factory.mktemp("guarded")
    keys, trusted = folder / "keys.pem", folder / "trusted.pem"
    keys.write_text(key_of(server) + chain_of(server))
    authority.cert_pem.write_to_path(trusted)
    settings = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keys),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(trusted),
        "listener.name.certs.ssl.client.auth": "required",
        "listener.name.named.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        "listener.name.named.plain.sasl.jaas.config": (
            f'{LOGIN}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        ),
        "listener.name.named.oauthbearer.sasl.jaas.config": (
            f'{LOGIN}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
        ),
        **{
            f"listener.name.named.scram-sha-{bits}.sasl.jaas.config": (
                f"{LOGIN}.scram.ScramLoginModule required;"
            )
            for bits in (256, 512)
        },
    }
    with Kafka(folder, settings, listeners={"NAMED": "SASL_SSL", "CERTS": "SSL"}) as broker:
        with closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap)) as admin:
            wanted = {"num_partitions": 1, "replication_factor": 1}
            admin.create_topics({TOPIC: wanted}, wait_for_metadata=True)
        users = AdminClient({"bootstrap.servers": broker.bootstrap})
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            info = ScramCredentialInfo(mechanism, 4096)
            change = UserScramCredentialUpsertion(USER, info, PASSWORD.encode())
            users.alter_user_scram_credentials([change])[USER].result()
        producer = Producer(
            {"bootstrap.servers": broker.bootstrap, "enable.idempotence": True, "log_level": 0}
        )
        for n in range(3):
            producer.produce(TOPIC, b"%d" % n)
        assert producer.flush(30) == 0
        del producer, users
        yield broker


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    """The authority's certificate."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(params=["kafka-python", "confluent"])
def client(request: pytest.FixtureRequest) -> str:
    """Each client in turn."""
    return str(request.param)


def collector(address: str, client: str, security: dict[str, Any], **config: Any) -> KafkaCollector:
    """A collector of the topic."""
    settings = {"bootstrap": address, "topics": TOPIC, "client": client, "security": security} | config
    context = InputContext("in", {}, MemorySink(), threading.Event(), InputStatus())
    return KafkaCollector(KafkaConfig.model_validate(settings), context)


def everything(address: str, client: str, security: dict[str, Any]) -> list[bytes]:
    """What it reads to the end."""
    one = collector(address, client, security, until="end")
    one.run()
    sink = one._context.sink
    assert isinstance(sink, MemorySink)
    return sink.lines()


def stopped(one: KafkaCollector, thread: threading.Thread) -> None:
    """Stop it, and clear away the sockets of failed handshakes, which kafka-python leaves to the collector."""
    one._context.stop.set()
    thread.join(20)
    assert not thread.is_alive()
    gc.collect()


left_open = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""For the same sockets."""


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_name_and_a_password_open_the_door(
    mechanism: str, guarded: Kafka, ca_file: Path, client: str, tmp_path: Path
) -> None:
    """The password may stand in a file, whose last newline is none of it."""
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    for secret in ({"password": PASSWORD}, {"password_file": str(file)}):
        sasl = {"mechanism": mechanism, "username": USER} | secret
        security = {"tls": {"ca_file": str(ca_file)}, "sasl": sasl}
        assert everything(guarded.address("NAMED"), client, security) == [b"0", b"1", b"2"]


def test_a_token_opens_the_door(guarded: Kafka, ca_file: Path, client: str, tmp_path: Path) -> None:
    """It stands in a file, because whoever renews it is another process."""
    file = tmp_path / "token"
    file.write_text(token(3600))
    sasl = {"mechanism": "OAUTHBEARER", "token_file": str(file)}
    security = {"tls": {"ca_file": str(ca_file)}, "sasl": sasl}
    assert everything(guarded.address("NAMED"), client, security) == [b"0", b"1", b"2"]


def test_a_certificate_opens_the_door(
    guarded: Kafka, authority: trustme.CA, ca_file: Path, client: str, tmp_path: Path
) -> None:
    """Of an authority that the broker trusts."""
    ours = authority.issue_cert("client@example.org")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_text(chain_of(ours))
    key.write_text(key_of(ours))
    tls = {"ca_file": str(ca_file), "cert_file": str(certificate), "key_file": str(key)}
    assert everything(guarded.address("CERTS"), client, {"tls": tls}) == [b"0", b"1", b"2"]


@left_open
@pytest.mark.parametrize(
    ("listener", "security", "why"),
    [
        (
            "NAMED",
            {"sasl": {"mechanism": "PLAIN", "username": USER, "password": "wrong"}},
            "nvalid username or password",
        ),
        ("CERTS", {}, ""),
    ],
    ids=["wrong password", "no certificate"],
)
def test_without_the_right_word_it_is_not_ready_and_says_why(
    listener: str, security: dict[str, Any], why: str, guarded: Kafka, ca_file: Path, client: str
) -> None:
    """And does not end, since a password may be set anew on the other side."""
    security = {"tls": {"ca_file": str(ca_file)}} | security
    one = collector(guarded.address(listener), client, security)
    thread = threading.Thread(target=one.run)
    thread.start()
    status = one._context.status
    try:
        until(lambda: "no broker has answered yet at" in status.not_ready, "it to say that")
        until(lambda: why in status.not_ready, f"it to say {why}")
    finally:
        stopped(one, thread)


@left_open
def test_a_broker_of_another_authority_is_not_spoken_to(guarded: Kafka, client: str, tmp_path: Path) -> None:
    """Whoever it is, it gets no password."""
    path = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(path)
    sasl = {"mechanism": "PLAIN", "username": USER, "password": PASSWORD}
    one = collector(guarded.address("NAMED"), client, {"tls": {"ca_file": str(path)}, "sasl": sasl})
    thread = threading.Thread(target=one.run)
    thread.start()
    try:
        until(lambda: "certificate" in one._context.status.not_ready, "it to say so")
    finally:
        stopped(one, thread)


@pytest.mark.parametrize(
    "security",
    [
        {"tls": {"ca_file": "/nowhere.pem"}},
        {"sasl": {"mechanism": "PLAIN", "username": "u", "password_file": "/nowhere"}},
        {"sasl": {"mechanism": "OAUTHBEARER", "token_file": "/nowhere"}},
    ],
)
def test_a_file_that_is_not_there_is_an_error_at_the_start(client: str, security: dict[str, Any]) -> None:
    """It names the file."""
    with pytest.raises(ConfigError, match="/nowhere"):
        collector("127.0.0.1:9", client, security)


def test_a_group_counts_behind_a_guarded_door(
    guarded: Kafka, ca_file: Path, client: KafkaClient, topic: str, tmp_path: Path
) -> None:
    """Members, transactions, and all else that is asked of brokers: one is killed, another goes on with its work."""
    rng = chance(f"guarded {client}")
    make_topic(guarded.bootstrap, topic, partitions=4)
    config = configuration(rng, guarded.address("NAMED"), topic, client=client)
    sasl = {"mechanism": "SCRAM-SHA-512", "username": USER, "password": PASSWORD}
    config["inputs"][INPUT]["security"] = {"tls": {"ca_file": str(ca_file)}, "sasl": sasl}
    producer = Events(guarded.bootstrap, topic, f"guarded {client}", 500)
    with Group(guarded.bootstrap, topic, tmp_path, config, replicas=2) as group:
        settled = group.count_through_a_kill(producer, rng)
        group.finish()
    assert settled.wrong == []


def test_a_topic_is_copied_behind_a_guarded_door(
    guarded: Kafka, ca_file: Path, client: KafkaClient, topic: str, tmp_path: Path
) -> None:
    """By the configuration of those who read it."""
    make_topic(guarded.bootstrap, topic, partitions=2)
    sender = Producer({"bootstrap.servers": guarded.bootstrap, "log_level": 0})
    for number in range(20):
        event = {"id": f"e{number}", "source": "/s", "type": "t", "data": {"tenant_id": f"t{number % 3}"}}
        sender.produce(topic, json.dumps(event).encode(), partition=number % 2)
    assert sender.flush(60) == 0
    config = configuration(chance("copied"), guarded.address("NAMED"), topic, client=client)
    sasl = {"mechanism": "SCRAM-SHA-512", "username": USER, "password": PASSWORD}
    config["inputs"][INPUT]["security"] = {"tls": {"ca_file": str(ca_file)}, "sasl": sasl}
    path = tmp_path / "evalgauge.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    words = ("kafka", "repartition", topic, f"{topic}-copy", "--key", "tenant_id")
    done = evalgauge(*words, "--config", path)
    assert done.code == 0, done.err
    assert done.out.splitlines()[1].startswith("20 records copied")
    assert "say with --bootstrap or --config where the brokers are" in evalgauge(*words).err
