"""What a workload's events are, what is made of their fields, and how a pack says which of them it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

if TYPE_CHECKING:
    from collections.abc import Mapping

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]
"""Lower-case identifier."""
EventType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$", max_length=200)]
"""Dotted, lower-case, such as `judgment.executed`."""
MetricName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=150)]
LabelName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
RecordName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*(:[a-z0-9_]+)+$", max_length=200)]
AlertName = Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=100)]
Text = Annotated[str, Field(min_length=1)]
Severity = Literal["critical", "high", "warning", "medium", "info"]

DEFAULT_LABEL_LIMIT = 1_000
DEFAULT_METRIC_LIMIT = 10_000
DEFAULT_KEY_LIMIT = 1_000_000
DEFAULT_TTL = 7 * 86_400.0
DEFAULT_PROGRESS_TTL = 90 * 86_400.0
DEFAULT_MILESTONE_KEYS = 100_000
MOST_POINTS = 1_000


class Strict(BaseModel):
    """Every model of a file: unknown keys are errors, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FieldSpec(Strict):
    """One field of an event's `data`."""

    type: Literal["string", "number", "integer", "boolean", "any"] = Field(
        description="JSON type of the value."
    )
    required: bool = Field(
        default=False, description="Absent or null: the event is refused as missing_field."
    )
    enum: list[str] | None = Field(default=None, min_length=1, description="The only strings allowed.")
    max_length: int | None = Field(default=None, ge=1, description="Longest string allowed, in characters.")
    min: float | None = Field(
        default=None, description="Smallest number allowed; below it the event is refused."
    )
    max: float | None = Field(
        default=None, description="Greatest number allowed; above it the event is refused."
    )
    unit: str | None = Field(
        default=None, description="Unit of a number, such as ms; metrics show its base unit."
    )
    payload: bool = Field(default=False, description="Never kept in state, metrics, spans or logs.")
    description: str = Field(default="", description="What the field says, for people.")


class QualityRule(Strict):
    """A rule whose breach makes an event invalid, though it still counts."""

    field: str = Field(description="The field it judges.")
    present: bool = Field(default=False, description="The field must be there.")
    not_empty: bool = Field(
        default=False, description="The field must be there, and not empty text, list or object."
    )
    min: float | None = Field(
        default=None, description="Smallest valid number; an absent field breaks nothing."
    )
    max: float | None = Field(
        default=None, description="Greatest valid number; an absent field breaks nothing."
    )
    description: str = Field(default="", description="What the rule is for, for people.")


class BucketSpec(Strict):
    """Names for the ranges of a number."""

    field: str = Field(description="The number.")
    bounds: list[float] = Field(
        min_length=1, description="Upper bounds, ascending; a number on a bound lies below it."
    )
    names: list[Text] = Field(description="A name for each range: one more than there are bounds.")


class HashSpec(Strict):
    """A number below `into` for each value, always the same one, and as many values for each."""

    field: str = Field(description="Text or number, such as an id.")
    into: int = Field(ge=2, le=1000, description="How many there are: `0` up to one less, as text.")


Operands = Annotated[list[str], Field(min_length=2, max_length=2)]
DERIVATIONS = ("ratio", "difference", "bucket", "hash", "lower", "function")


class DeriveSpec(Strict):
    """A field that is made of others: exactly one of `DERIVATIONS`. Absent where one that it needs is absent."""

    ratio: Operands | None = Field(
        default=None, description="The first number by the second; absent where that is 0."
    )
    difference: Operands | None = Field(default=None, description="The first number less the second.")
    bucket: BucketSpec | None = Field(default=None, description="Text: the name of the range a number is in.")
    hash: HashSpec | None = Field(default=None, description="Text: one of so many numbers, by a stable hash.")
    lower: str | None = Field(default=None, description="Text: that field in lower case.")
    function: str | None = Field(
        default=None, description="What a Python function makes of `fields`, by its entry point's name."
    )
    fields: list[str] = Field(
        default_factory=list, description="With `function`: what it is given, in order."
    )
    type: Literal["string", "number"] | None = Field(
        default=None, description="With `function`: what it returns."
    )
    enum: list[str] | None = Field(
        default=None, min_length=1, description="With a `function` of text: all that it may return."
    )
    min: float | None = Field(
        default=None, description="With a `function` of numbers: the smallest it may return."
    )
    max: float | None = Field(
        default=None, description="With a `function` of numbers: the greatest it may return."
    )
    unit: str | None = Field(
        default=None, description="Unit of a number; a ratio's is `1`, a difference's that of its fields."
    )
    description: str = Field(default="", description="What the field says, for people.")

    @property
    def kind(self) -> str:
        """Which of `DERIVATIONS` it is; empty where it is not exactly one."""
        given = [key for key in DERIVATIONS if getattr(self, key) is not None]
        return given[0] if len(given) == 1 else ""

    @property
    def operands(self) -> list[str]:
        """The fields that it is made of."""
        if self.bucket is not None or self.hash is not None:
            return [one.field for one in (self.bucket, self.hash) if one is not None]
        if self.lower is not None:
            return [self.lower]
        return self.ratio or self.difference or self.fields

    @property
    def is_number(self) -> bool:
        """True where its values are numbers, else they are texts."""
        return self.ratio is not None or self.difference is not None or self.type == "number"

    def as_field(self, known: Mapping[str, FieldSpec]) -> FieldSpec:
        """What is known of its values, from what is `known` of those that it is made of."""
        made_of = [known.get(name) for name in self.operands]
        specs = [spec for spec in made_of if spec is not None]
        if self.is_number:
            unit, least = self.unit, self.min
            if self.ratio is not None:
                unit = unit or "1"
                least = (
                    0.0
                    if all(spec is not None and spec.min is not None and spec.min >= 0 for spec in made_of)
                    else None
                )
            elif self.difference is not None:
                unit = next((one.unit for one in specs if one.unit is not None), unit)
            return FieldSpec(type="number", unit=unit, min=least, max=self.max)
        texts = self.enum
        if self.bucket is not None:
            texts = self.bucket.names or None
        elif self.hash is not None:
            texts = [str(number) for number in range(self.hash.into)]
        elif self.lower is not None and specs and specs[0].enum is not None:
            texts = list(dict.fromkeys(text.lower() for text in specs[0].enum))
        # A function may return None of anything.
        always = self.function is None and bool(specs) and specs == made_of
        return FieldSpec(type="string", required=always and all(spec.required for spec in specs), enum=texts)


class EventSpec(Strict):
    """One event type: its fields, and the rules of its quality."""

    description: Text = Field(description="What it means that this event was sent.")
    fields: dict[Name, FieldSpec] = Field(min_length=1, description="Fields of the event's `data`, by name.")
    derive: dict[Name, DeriveSpec] = Field(
        default_factory=dict, description="Fields made of others, by name; each of what stands before it."
    )
    quality: dict[Name, QualityRule] = Field(
        default_factory=dict,
        description="Rules whose breach makes an event invalid, by the name shown as label.",
    )
    tenant: str | None = Field(
        default=None, description="The field that names the tenant an event belongs to."
    )
    internal: bool = Field(
        default=False,
        description="Metrics with `emit` make it for others; from outside it is refused as unknown_type.",
    )

    @property
    def columns(self) -> dict[str, FieldSpec]:
        """The fields of the event's `data`, and after them those that are derived."""
        if not self.derive:
            return self.fields
        known = dict(self.fields)
        for name, one in self.derive.items():
            known[name] = one.as_field(known)
        return known


class Comparison(Strict):
    """Conditions on one field; all of them must hold. A comparison with an absent field is false."""

    eq: str | float | bool | None = Field(default=None, description="Equal to this.")
    in_: list[str | float] | None = Field(
        default=None, alias="in", min_length=1, description="Equal to one of these."
    )
    lt: float | None = Field(default=None, description="Less than.")
    le: float | None = Field(default=None, description="Less than or equal.")
    gt: float | None = Field(default=None, description="Greater than.")
    ge: float | None = Field(default=None, description="Greater than or equal.")
    present: bool | None = Field(
        default=None, description="true: the field is there; false: it is absent or null."
    )

    model_config = ConfigDict(populate_by_name=True)


def _shorthand(value: object) -> object:
    if isinstance(value, list):
        return {"in": value}
    if isinstance(value, str | int | float | bool):
        return {"eq": value}
    return value


Condition = Annotated[
    Comparison,
    BeforeValidator(_shorthand, json_schema_input_type=str | float | bool | list[str | float] | Comparison),
]
"""A `Comparison`, or a plain value for equality, or a list for membership."""


def _filter_kind(value: Any) -> str:
    if isinstance(value, AllOf | AnyOf | Not):
        return {AllOf: "all", AnyOf: "any", Not: "not"}[type(value)]
    if isinstance(value, dict) and len(value) == 1:
        key = next(iter(value))
        if key in ("all", "any", "not"):
            return str(key)
    return "fields"


class AllOf(Strict):
    """Every filter of the list holds."""

    all: list[Filter] = Field(min_length=1, description="Filters that must all hold.")


class AnyOf(Strict):
    """At least one filter of the list holds."""

    any: list[Filter] = Field(min_length=1, description="Filters of which one must hold.")


class Not(Strict):
    """The filter does not hold."""

    not_: Filter = Field(alias="not", description="The filter that must not hold.")

    model_config = ConfigDict(populate_by_name=True)


Filter = Annotated[
    Annotated[AllOf, Tag("all")]
    | Annotated[AnyOf, Tag("any")]
    | Annotated[Not, Tag("not")]
    | Annotated[
        dict[str, Condition],
        Field(json_schema_extra={"propertyNames": {"not": {"enum": ["all", "any", "not"]}}}),
        Tag("fields"),
    ],
    Discriminator(_filter_kind),
]
"""Which events a metric sees: field → condition (all must hold), or one of `all`, `any`, `not`."""


class LabelSpec(Strict):
    """Where the value of one label comes from: exactly one of `field`, `constant`, `quality`, `calendar`."""

    field: str | None = Field(default=None, description="The field of the event that holds the value.")
    constant: str | None = Field(default=None, description="The same value for every event.")
    quality: Literal["validity", "rule"] | None = Field(
        default=None,
        description="`validity`: valid or invalid. `rule`: the broken quality rule; an event counts once for each.",
    )
    calendar: Literal["weekday", "hour"] | None = Field(
        default=None, description="Of the event's time: `weekday` is mon to sun, `hour` is 00 to 23."
    )
    zone: str = Field(default="UTC", description="Time zone of `calendar`, such as Europe/Berlin.")
    default: str = Field(default="", description="Value where the field is absent; empty means no label.")
    table: dict[str, str] | None = Field(default=None, min_length=1, description="Field value → label value.")
    table_default: str | None = Field(
        default=None,
        description="Label value for field values not in the table; without it they stay as they are.",
    )
    enum: list[str] | None = Field(
        default=None, min_length=1, description="For `on: process` only: the values the process can report."
    )
    limit: int = Field(
        default=DEFAULT_LABEL_LIMIT, ge=1, description="Distinct values; the rest become `_other`."
    )


def _label_shorthand(value: object) -> object:
    return {"field": value} if isinstance(value, str) else value


Label = Annotated[LabelSpec, BeforeValidator(_label_shorthand, json_schema_input_type=str | LabelSpec)]
"""A `LabelSpec`, or the plain name of a field."""


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


OneOrMany = Annotated[list[str], BeforeValidator(_one_or_many, json_schema_input_type=str | list[str])]
"""A list, or its only member."""
