"""Configuration of an input of kind `kafka`: which topics, from where, how events are written, who we are."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from evalgauge.collectors.kafka_client import Partition
from evalgauge.collectors.kafka_records import RecordFormat
from evalgauge.core.errors import ConfigError
from evalgauge.core.units import Duration

if TYPE_CHECKING:
    from collections.abc import Mapping

_Address = Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:]+\]|[^\s,:/\[\]]+):\d{1,5}$")]
_TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]


def _one_or_more(value: object) -> object:
    """A list as it is, text as the list of what stands between its commas."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


_Addresses = Annotated[
    list[_Address],
    Field(min_length=1),
    BeforeValidator(
        _one_or_more, json_schema_input_type=str | Annotated[list[_Address], Field(min_length=1)]
    ),
]
_TopicNames = Annotated[
    list[_TopicName],
    Field(min_length=1),
    BeforeValidator(
        _one_or_more, json_schema_input_type=str | Annotated[list[_TopicName], Field(min_length=1)]
    ),
]


def _a_time(value: object) -> object:
    """Numbers would be read as seconds since 1970, which nobody means."""
    if isinstance(value, str | datetime) and not str(value).strip().isdigit():
        return value
    raise ValueError("write a time like 2026-01-31T00:00:00Z, or offsets as topic/number: offset")


_Time = Annotated[AwareDatetime, BeforeValidator(_a_time)]
_Offset = Annotated[int, Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaTls(_Section):
    """How brokers are recognised, and how they recognise us. `tls: {}` trusts the system's authorities."""

    ca_file: Path | None = Field(None, description="PEM file of the authorities; by default the system's.")
    cert_file: Path | None = Field(None, description="PEM file with our certificate and its chain.")
    key_file: Path | None = Field(None, description="PEM file with the certificate's private key.")
    key_password: SecretStr | None = Field(None, description="Password of the private key.")
    verify_hostname: bool = Field(
        default=True, description="The broker's certificate must name the host we connect to."
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("`cert_file` and `key_file` need each other")
        if self.key_password is not None and self.key_file is None:
            raise ValueError("`key_password` is of a `key_file`, which is not given")
        return self


class KafkaSasl(_Section):
    """Who we are to the brokers."""

    mechanism: Mechanism = Field(description="As the brokers' listener has it.")
    username: str | None = Field(None, min_length=1, description="For PLAIN and SCRAM.")
    password: SecretStr | None = Field(None, description="For PLAIN and SCRAM.")
    password_file: Path | None = Field(
        None,
        description="File that holds the password; read at each start. A newline at its end is not part of it.",
    )
    token_file: Path | None = Field(
        None, description="OAUTHBEARER: file that holds the token (a JWT); read again whenever one is needed."
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        named = (self.username, self.password, self.password_file)
        if self.mechanism == "OAUTHBEARER":
            if self.token_file is None or any(one is not None for one in named):
                raise ValueError("OAUTHBEARER takes a `token_file`, no user name and no password")
            return self
        if self.token_file is not None:
            raise ValueError(f"`token_file` is for OAUTHBEARER, not for {self.mechanism}")
        if self.username is None or (self.password is None) == (self.password_file is None):
            raise ValueError(f"{self.mechanism} takes a `username`, and `password` or `password_file`")
        return self

    def secret(self) -> str:
        """The password. Raises `ConfigError` where its file cannot be read."""
        if self.password is not None:
            return self.password.get_secret_value()
        assert self.password_file is not None  # noqa: S101 - for the type checker; the model is whole
        return _read(self.password_file)

    def token(self) -> str:
        """The token as it is now. Raises `ConfigError` where its file cannot be read."""
        assert self.token_file is not None  # noqa: S101 - for the type checker; the model is whole
        return _read(self.token_file)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


class KafkaSecurity(_Section):
    """Without it connections are neither encrypted nor authenticated."""

    tls: KafkaTls | None = Field(None, description="Encrypt.")
    sasl: KafkaSasl | None = Field(None, description="Authenticate by name or token.")

    @property
    def protocol(self) -> str:
        """As both clients call it."""
        kind = "SSL" if self.tls is not None else "PLAINTEXT"
        return kind if self.sasl is None else f"SASL_{kind}"


class KafkaGroup(_Section):
    """Read as a member of a consumer group; state is kept in Kafka with the positions, not in the state folder.

    The process is known to the group by its replica id, and is the only one of that name.
    """

    id: str = Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._-]+$", description="Consumer group.")
    assignment: Literal["cooperative", "eager"] = Field(
        "cooperative",
        description="`cooperative` moves only partitions that change hands; `eager` all of them. All members alike.",
    )
    session_timeout: Duration = Field(
        10.0, ge=1, le=1800, description="A member that is not heard of for so long loses its partitions."
    )
    transaction_timeout: Duration = Field(
        10.0,
        ge=1,
        le=900,
        description="The brokers give up a transaction that is open so long: what a killed member leaves behind.",
    )
    drain_timeout: Duration = Field(
        30.0,
        ge=1,
        le=240,
        description="Time to commit what was read of partitions that go to another member; else it reads it again.",
    )
    retire_after: Duration | None = Field(
        None,
        ge=10,
        description="Retire a replica, for good, that is no member and whose last commit is older. By default only "
        "`evalgauge kafka retire` does.",
    )
    changelog: _TopicName | None = Field(
        None, description="Compacted topic that holds the state of all members; by default `<id>-changelog`."
    )
    dead_letters: _TopicName | None = Field(
        None, description="Topic that events go to which were refused; by default `<id>-dead-letters`."
    )
    replication: int | None = Field(
        None,
        ge=1,
        le=9,
        description="Copies of these topics where they are made; by default as the brokers say.",
    )

    @property
    def changelog_topic(self) -> str:
        """The name it has in the cluster."""
        return self.changelog or f"{self.id}-changelog"

    @property
    def ids_topic(self) -> str:
        """The topic of the ids that are remembered where the input de-duplicates."""
        return f"{self.changelog_topic}-ids"

    @property
    def dead_letter_topic(self) -> str:
        """The name it has in the cluster."""
        return self.dead_letters or f"{self.id}-dead-letters"


class KafkaConfig(_Section):
    """Configuration of an input of kind `kafka`."""

    bootstrap: _Addresses = Field(
        description="Brokers to ask first, `host:port`: a list, or text with commas."
    )
    topics: _TopicNames | None = Field(None, description="Topics by name: a list, or text with commas.")
    topic_pattern: str | None = Field(
        None,
        min_length=1,
        description="Topics by regular expression, which must match the whole name; internal topics are left out.",
    )
    client: Literal["kafka-python", "confluent"] = Field(
        "kafka-python",
        description="The client library; `confluent` takes less processor time and is the extra `kafka-fast`.",
    )
    group: KafkaGroup | None = Field(
        None, description="Share the partitions with other processes; without it this one reads all of them."
    )
    start: Literal["earliest", "latest"] | _Time | dict[str, _Offset] = Field(
        "earliest",
        description="Where a first start begins: `earliest`, `latest`, a time (RFC 3339), or offsets by partition, "
        "`topic/number: offset`, the others from their beginning. Partitions that are added later begin at theirs.",
    )
    until: Literal["stopped", "end"] = Field(
        "stopped", description="`end`: read what is there at the start, then end; otherwise go on for ever."
    )
    format: RecordFormat = Field(
        RecordFormat.EVENTS,
        description="What a record holds: `events` (JSON, one or one a line), `cloudevents` (by its headers), or "
        "`debezium`.",
    )
    keyed_by: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="The field of an event's data whose text is the key of its record, or `source` or `subject`. Each "
        "key is then compared with it, and those that differ are counted. Not with a mapping.",
    )
    security: KafkaSecurity = Field(
        default_factory=KafkaSecurity, description="Encryption and authentication."
    )
    refresh: Duration = Field(
        1.0, ge=0.05, le=300, description="How often new topics, new partitions and the lag are looked for."
    )
    client_options: dict[str, Any] = Field(
        default_factory=dict,
        description="Settings of the client library, by its own names, such as fetch sizes.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.topics is None) == (self.topic_pattern is None):
            raise ValueError("give exactly one of `topics` and `topic_pattern`")
        if self.topic_pattern is not None:
            try:
                re.compile(self.topic_pattern)
            except re.error as error:
                raise ValueError(f"`topic_pattern` is no regular expression: {error}") from None
        if isinstance(self.start, dict):
            for name in self.start:
                if self.topics is not None and Partition.named(name).topic not in self.topics:
                    raise ValueError(f"`start` names `{name}`, but `topics` does not")
                Partition.named(name)
        if self.group is not None and self.until == "end":
            raise ValueError("`until: end` is for a single reader: a group has no end of its own")
        if isinstance(self.start, datetime) and self.start > datetime.now(UTC):
            raise ValueError("`start` lies in the future; for what comes from now on write `latest`")
        if self.until == "end" and self.start == "latest":
            raise ValueError("`start: latest` and `until: end` leave nothing to read")
        return self

    @model_validator(mode="after")
    def _keyed(self) -> Self:
        if self.keyed_by is None:
            return self
        if self.format is RecordFormat.DEBEZIUM:
            raise ValueError(
                "`keyed_by` is for `format: events` and `cloudevents`: a change event has its row's key"
            )
        # A mapping stands beside the keys of the collector, in the model that holds both.
        if getattr(self, "mapping", None) is not None:
            raise ValueError("`keyed_by` names a field of an event, and with a `mapping` records hold none")
        return self


def own_options(given: Mapping[str, Any], ours: Mapping[str, str], client: str) -> dict[str, Any]:
    """The options a person gave. Raises `ConfigError` for one that is ours, by name → what decides it instead."""
    for name in given:
        if name in ours:
            raise ConfigError(f"client_options of {client}: `{name}` is not yours to set: {ours[name]}")
    return dict(given)
