"""The permissions that the documentation lists are enough, before a broker that grants nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported untold
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from tests.group.feed import Producer as Events
from tests.group.feed import chance, make_topic
from tests.group.harness import INPUT, Group, configuration
from tests.parts.kafka import Kafka

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.group.harness import KafkaClient

USER, PASSWORD = "counter", "secret"
DOCS = Path(__file__).parents[2] / "docs" / "kafka-groups.md"
TOPIC, GROUP, ID = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID
EXACT, PREFIX = ResourcePatternType.LITERAL, ResourcePatternType.PREFIXED
ROWS: dict[str, tuple[ResourceType, ResourcePatternType, list[str]]] = {
    "topics that are read": (TOPIC, EXACT, ["{topic}"]),
    "topics `evalgauge-changelog`, `evalgauge-changelog-ids`": (
        TOPIC,
        EXACT,
        ["{group}-changelog", "{group}-changelog-ids"],
    ),
    "topic `evalgauge-dead-letters`": (TOPIC, EXACT, ["{group}-dead-letters"]),
    "group `evalgauge`": (GROUP, EXACT, ["{group}"]),
    "transactional ids with the prefix `evalgauge/`": (ID, PREFIX, ["{group}/"]),
    "group `evalgauge-<input>`": (GROUP, EXACT, [f"evalgauge-{INPUT}"]),
}
"""First column of the documented table → what that is for a group and its topic."""


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker where everybody with a name needs leave, and whoever has none may do anything."""
    login = "org.apache.kafka.common.security.plain.PlainLoginModule"
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "listener.name.named.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.named.plain.sasl.jaas.config": f'{login} required user_{USER}="{PASSWORD}";',
    }
    folder = tmp_path_factory.mktemp("strict")
    with Kafka(folder, settings, listeners={"NAMED": "SASL_PLAINTEXT"}) as broker:
        yield broker


def documented(topic: str, group: str) -> Iterator[AclBinding]:
    """The rows of the table as a broker takes them."""
    text = DOCS.read_text(encoding="utf-8")
    table = text[text.index("### Permissions") :]
    found = re.findall(r"^\| (\S[^|]*) \| ([A-Z][A-Za-z, ]*) \|", table[: table.index("\n- ")], re.MULTILINE)
    assert [resource for resource, _ in found] == list(ROWS)
    for resource, operations in found:
        kind, pattern, names = ROWS[resource]
        for name in names:
            for operation in operations.split(", "):
                upper = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).upper()
                yield AclBinding(
                    kind,
                    name.format(topic=topic, group=group),
                    pattern,
                    f"User:{USER}",
                    "*",
                    AclOperation[upper],
                    AclPermissionType.ALLOW,
                )


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_the_documented_permissions_are_enough_for_a_group(
    strict: Kafka, client: KafkaClient, topic: str, tmp_path: Path
) -> None:
    """Two members count, one is killed in the middle of its work, and the other goes on with it."""
    rng = chance(f"permissions {client}")
    make_topic(strict.bootstrap, topic, partitions=4)
    config = configuration(rng, strict.address("NAMED"), topic, client=client)
    sasl = {"mechanism": "PLAIN", "username": USER, "password": PASSWORD}
    config["inputs"][INPUT]["security"] = {"sasl": sasl}
    producer = Events(strict.bootstrap, topic, f"permissions {client}", 500)
    group_id = config["inputs"][INPUT]["group"]["id"]
    admin = AdminClient({"bootstrap.servers": strict.bootstrap})
    for done in admin.create_acls(list(documented(topic, group_id))).values():
        done.result()
    with Group(strict.bootstrap, topic, tmp_path, config, replicas=2) as group:
        settled = group.count_through_a_kill(producer, rng)
        group.finish()
    assert settled.wrong == []
