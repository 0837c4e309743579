"""Mappings: how events of another shape become events of a pack, declared and not programmed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from evalgauge.core.pack.event_model import EventType, Name, Strict


class TypeMapping(Strict):
    """The event type: a constant, or what one or several fields say, looked up in a table."""

    constant: EventType | None = Field(default=None, description="The type of every event.")
    field: str | None = Field(default=None, description="Dotted path of the field that tells the type.")
    fields: list[str] | None = Field(
        default=None,
        min_length=2,
        description="Dotted paths of the fields that tell it together, joined by `separator`.",
    )
    separator: str = Field(default=":", description="What stands between `fields`; one that no value holds.")
    table: dict[str, EventType] | None = Field(
        default=None,
        min_length=1,
        description="Value, or joined values → event type; without it the value is the type.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> TypeMapping:
        if sum(way is not None for way in (self.constant, self.field, self.fields)) != 1:
            msg = "give exactly one of `constant`, `field` and `fields`"
            raise ValueError(msg)
        if self.table is not None and self.constant is not None:
            msg = "`table` goes with `field` or `fields`"
            raise ValueError(msg)
        return self

    @property
    def paths(self) -> list[str]:
        """The fields that tell the type; none where it is constant."""
        return self.fields or ([] if self.field is None else [self.field])


class FirstOf(Strict):
    """A value that stands in one place or another."""

    first: list[str] = Field(
        min_length=2, description="Dotted paths; the first of them that is there and not empty counts."
    )


class IdMapping(Strict):
    """The event id: from a field, from several joined, or from the position in the input."""

    field: str | FirstOf | None = Field(default=None, description="Dotted path of the field that is the id.")
    fields: list[str | FirstOf] | None = Field(
        default=None,
        min_length=2,
        description="Dotted paths of the fields that make it up, joined by `separator`.",
    )
    from_: Literal["position"] | None = Field(
        default=None,
        alias="from",
        description="`position`: the place in the input, where that can be read again.",
    )
    separator: str = Field(default=":", description="What stands between `fields`; one that no value holds.")

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="after")
    def _one_way(self) -> IdMapping:
        if sum(way is not None for way in (self.field, self.fields, self.from_)) != 1:
            msg = "give exactly one of `field`, `fields` and `from: position`"
            raise ValueError(msg)
        return self

    @property
    def parts(self) -> list[list[str]]:
        """What makes it up: of each part the paths that it may stand at, in order; none where it is the position."""
        given = self.fields or ([] if self.field is None else [self.field])
        return [one.first if isinstance(one, FirstOf) else [one] for one in given]


class TimeMapping(Strict):
    """The event time: from a field in a stated format, or the arrival."""

    field: str | None = Field(default=None, description="Dotted path of the field that holds the time.")
    from_: Literal["arrival"] | None = Field(
        default=None, alias="from", description="`arrival`: the time it was received."
    )
    format: str = Field(
        default="rfc3339",
        min_length=1,
        description="rfc3339, unix, unix_ms, unix_us, unix_ns, or a strptime format such as %d/%m/%Y %H:%M.",
    )
    zone: str | None = Field(
        default=None, description="IANA zone of times without an offset; without it they are bad_time."
    )

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="after")
    def _one_way(self) -> TimeMapping:
        if (self.field is None) == (self.from_ is None):
            msg = "give exactly one of `field` and `from: arrival`"
            raise ValueError(msg)
        return self


class SourceMapping(Strict):
    """The CloudEvents source: a constant or a field."""

    constant: str | None = Field(default=None, min_length=1, description="The source of every event.")
    field: str | None = Field(default=None, description="Dotted path of the field that names the source.")

    @model_validator(mode="after")
    def _one_way(self) -> SourceMapping:
        if (self.constant is None) == (self.field is None):
            msg = "give exactly one of `constant` and `field`"
            raise ValueError(msg)
        return self


class ValueMapping(Strict):
    """One field of the event's data."""

    field: str | None = Field(default=None, description="Dotted path in the incoming object.")
    constant: str | float | bool | None = Field(default=None, description="The same value in every event.")
    default: str | float | bool | None = Field(
        default=None, description="Value where the field is absent or null."
    )
    table: dict[str, str] | None = Field(
        default=None, min_length=1, description="Incoming text → value; any other text is mapping_failed."
    )
    table_default: str | None = Field(default=None, description="Value for incoming text not in the table.")
    from_text: bool = Field(
        default=False, description='The number is written as text, such as `"0.93"`, or as a number.'
    )
    scale: float | None = Field(
        default=None, description="Numbers are multiplied by it, before `offset` is added."
    )
    offset: float | None = Field(default=None, description="Added to numbers.")

    @model_validator(mode="after")
    def _one_way(self) -> ValueMapping:
        if (self.constant is None) == (self.field is None):
            msg = "give exactly one of `constant` and `field`"
            raise ValueError(msg)
        return self


def _path_shorthand(value: object) -> object:
    return {"field": value} if isinstance(value, str) else value


Value = Annotated[ValueMapping, BeforeValidator(_path_shorthand, json_schema_input_type=str | ValueMapping)]
"""A `ValueMapping`, or the plain path of the incoming field."""


class Mapping(Strict):
    """One foreign shape of events."""

    mapping: Name = Field(description="Name of the mapping.")
    version: int = Field(ge=1, description="Counts up when its meaning changes.")
    description: str = Field(default="", description="What the incoming shape is, for people.")
    type: TypeMapping = Field(description="Where the event type comes from.")
    id: IdMapping = Field(description="Where the event id comes from.")
    time: TimeMapping = Field(description="Where the event time comes from.")
    source: SourceMapping = Field(description="Where the CloudEvents source comes from.")
    data: dict[EventType, dict[Name, Value]] = Field(
        min_length=1,
        description="Event type → field → where its value comes from, or plainly the dotted path.",
    )
    traceparent: str | None = Field(default=None, description="Dotted path of a W3C traceparent.")
