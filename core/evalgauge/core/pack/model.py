"""The pack format: what one workload's events are, and what becomes of them.

These models only shape a file. Whatever needs more than one key to judge (a label that is no field, a rule
over a metric that nobody emits) is checked by `evalgauge.core.pack.check`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from evalgauge.core.units import Duration

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


class _Metric(Strict):
    help: Text = Field(description="What it says, in one sentence; shown as HELP.")
    labels: dict[LabelName, Label] = Field(
        default_factory=dict,
        description="Label name → where its value comes from, or plainly the field's name.",
    )
    where: Filter | None = Field(default=None, description="Which events it sees; without it, all of `on`.")
    limit: int = Field(
        default=DEFAULT_METRIC_LIMIT, ge=1, description="Series; new ones beyond become `_other`."
    )

    @property
    def label_specs(self) -> dict[str, LabelSpec]:
        """Every label that some of its families have from events."""
        return self.labels


class _Counting(_Metric):
    on: OneOrMany = Field(
        min_length=1,
        description="Event type or types it counts; `process` for what the running process itself reports.",
    )
    unit: str | None = Field(default=None, description="Unit of the value where its field declares none.")

    @property
    def labelled(self) -> list[str]:
        """The event types that have its labels."""
        return self.on


class CounterSpec(_Counting):
    """Counts events, or sums up a field that is never negative."""

    type: Literal["counter"] = Field(description="Only ever grows; exposed with the suffix `_total`.")
    value: str | None = Field(default=None, description="Field to sum up; without it events are counted.")
    exemplars: bool = Field(default=False, description="Keep the trace of the last event of each series.")


class GaugeSpec(_Counting):
    """A value that goes both ways: set by a field or by when events were, or moved up and down by event types."""

    type: Literal["gauge"] = Field(description="Goes both ways.")
    value: str | None = Field(default=None, description="Field whose newest value (by event time) is shown.")
    time: bool = Field(
        default=False,
        description="Show when the newest event was, in seconds since 1970, in place of a field.",
    )
    ttl: Duration | None = Field(
        default=None,
        description="So long after the event that set it, in event time, a series is shown; without it, for ever.",
    )
    up: OneOrMany = Field(default_factory=list, description="Event types that add one.")
    down: OneOrMany = Field(default_factory=list, description="Event types that take one away.")
    across: Literal["sum", "max", "min", "last"] = Field(description="How replicas' values become one.")
    info: bool = Field(
        default=False,
        description="For `on: process` only: the value is always 1, the labels tell, and the name ends in `_info`.",
    )

    @property
    def is_set(self) -> bool:
        """Whether the newest event sets it, so that it is not moved."""
        return self.time or self.value is not None


class HistogramSpec(_Counting):
    """How the values of a field are distributed."""

    type: Literal["histogram"] = Field(
        description="A distribution, exposed as `_bucket`, `_sum` and `_count`."
    )
    value: str | None = Field(default=None, description="Field to observe.")
    buckets: list[float] = Field(
        min_length=1, description="Upper bounds in the base unit, ascending, without +Inf."
    )
    exemplars: bool = Field(default=True, description="Keep the trace of the last event of each bucket.")


class _Keyed(_Metric):
    key: OneOrMany = Field(
        min_length=1,
        description="Field or fields by which events belong together; never shown. They are text, in every event type.",
    )
    keys: int = Field(
        default=DEFAULT_KEY_LIMIT,
        ge=1,
        description="Keys held of one partition; beyond, the oldest are evicted.",
    )
    ttl: Duration = Field(
        default=DEFAULT_TTL,
        description="How long a key is held, in event time; an event that comes later than that is left out here.",
    )


class EmitSpec(Strict):
    """An internal event for each thing that a metric finds, for other metrics to count."""

    event: EventType = Field(description="Its type, declared as `internal`.")
    set: dict[Name, str] = Field(
        default_factory=dict,
        description="Field → its text. Others are filled by name: fields of the key, labels, what the metric says.",
    )


def _emit_shorthand(value: object) -> object:
    return {"event": value} if isinstance(value, str) else value


Emit = Annotated[EmitSpec, BeforeValidator(_emit_shorthand, json_schema_input_type=str | EmitSpec)]
"""An `EmitSpec`, or plainly its event type."""


class ElapsedSpec(_Keyed):
    """The time between two events of one key, what is still open, and how many met a limit."""

    type: Literal["elapsed"] = Field(
        description="A distribution of seconds, with what is open now and how many met each limit."
    )
    begin: str = Field(description="Event type that begins; its fields give the labels.")
    end: OneOrMany = Field(
        min_length=1, description="Event type or types that end; the first in the stream counts."
    )
    buckets: list[float] = Field(
        min_length=1, description="Upper bounds in seconds, ascending, without +Inf."
    )
    within: list[Duration] = Field(
        default_factory=list,
        max_length=16,
        description="Limits: what ends within one has met it, what has not when it has passed has missed it.",
    )
    lateness: Duration = Field(
        default=0.0,
        description="How much longer than a limit is waited, in event time, for an end that comes out of order.",
    )

    @property
    def on(self) -> list[str]:
        """The event types it sees; the first begins."""
        return [self.begin, *self.end]

    @property
    def labelled(self) -> list[str]:
        """The event types that have its labels."""
        return [self.begin]

    @property
    def unit(self) -> str:
        """Of what it observes."""
        return "s"


class ActiveSpec(_Keyed):
    """How many keys were seen within a time, or were opened and not closed since."""

    type: Literal["active"] = Field(description="Keys that are active now.")
    on: OneOrMany = Field(
        min_length=1, description="Event types that show a key to be active, and those of `closed`."
    )
    ttl: Duration = Field(
        description="So long after it was seen last, in event time, a key counts as active; then it is forgotten."
    )
    closed: OneOrMany = Field(
        default_factory=list,
        description="Those of `on` that end it: what is opened later, by event time, is open again.",
    )

    @property
    def labelled(self) -> list[str]:
        """The event types that have its labels."""
        return self.on

    @property
    def unit(self) -> str:
        """It counts keys."""
        return "1"


class DeviationSpec(_Keyed):
    """How many values lie far from what their key has shown before."""

    type: Literal["deviation"] = Field(
        description="Values that lie beyond; exposed with the suffix `_total`."
    )
    on: OneOrMany = Field(min_length=1, description="Event type or types whose values it judges.")
    value: str = Field(description="Field to judge.")
    sigma: float = Field(
        gt=0, description="Standard deviations of the key's history, on either side of its mean."
    )
    samples: int = Field(
        default=30, ge=2, description="Values that a history needs before one is judged by it."
    )
    emit: Emit | None = Field(default=None, description="An internal event for each value beyond.")

    @property
    def labelled(self) -> list[str]:
        """The event types that have its labels."""
        return self.on

    @property
    def unit(self) -> str:
        """It counts values."""
        return "1"


class PatternSpec(_Keyed):
    """How often the events of a key came in a certain way, and when they last did."""

    type: Literal["pattern"] = Field(description="Matches; exposed with the suffix `_total`.")
    on: OneOrMany = Field(min_length=1, description="Event types it looks at.")
    sequence: list[str] = Field(
        default_factory=list,
        description="Types of `on` that must come one after the other; others may be in between.",
    )
    count: int = Field(default=1, ge=1, le=1000, description="Without `sequence`: so many events.")
    counted: OneOrMany = Field(
        default_factory=list,
        description="With `among`: those of `on` of which there must be `count`; else all.",
    )
    within: Duration | None = Field(default=None, description="In so long a time, by the events' own.")
    among: int | None = Field(
        default=None, ge=1, description="Among so many events of the key, one after the other."
    )
    severity: Severity = Field(default="info", description="Label `severity` of its series.")
    emit: Emit | None = Field(default=None, description="An internal event for each match.")

    @property
    def labelled(self) -> list[str]:
        """The event types that have its labels."""
        return self.on

    @property
    def unit(self) -> str:
        """It counts matches."""
        return "1"


class ConsistencySpec(_Keyed):
    """How consistent the pairwise comparisons of a node are when it is completed: Saaty's consistency ratio."""

    type: Literal["consistency"] = Field(description="A distribution of consistency ratios.")
    comparison: str = Field(description="Event type that compares two elements of a node.")
    left: str = Field(description="Its field that names the one element; text.")
    right: str = Field(description="Its field that names the other.")
    value: str = Field(description="Its field that says how much more `left` is than `right`: above zero.")
    complete: str = Field(description="Event type that completes a node; its fields give the labels.")
    given: str | None = Field(
        default=None, description="Field of `complete` that may hold the ratio; else it is computed."
    )
    buckets: list[float] = Field(min_length=1, description="Upper bounds, ascending, without +Inf.")

    @property
    def on(self) -> list[str]:
        """The event types it sees; the first compares."""
        return [self.comparison, self.complete]

    @property
    def labelled(self) -> list[str]:
        """The event types that have its labels."""
        return [self.complete]

    @property
    def unit(self) -> str:
        """Of what it observes."""
        return "ratio"


class ProgressSpec(_Keyed):
    """How far the pairs of a key have come, when they will be done, and when milestones were reached."""

    type: Literal["progress"] = Field(description="A ratio from 0 to 1, with what is estimated from it.")
    on_: OneOrMany = Field(
        alias="on", min_length=1, description="Event type or types that say how far a pair is."
    )
    value: str = Field(description="Field that says it, in `percent` or `ratio`.")
    key: OneOrMany = Field(
        min_length=1,
        description="Field or fields that say whose progress it is; they are text, in every event type.",
    )
    pairs: OneOrMany = Field(
        min_length=1,
        description="Fields of text: each distinct combination within a key is one pair, whatever their number.",
    )
    keys: int = Field(
        default=DEFAULT_KEY_LIMIT,
        ge=1,
        description="Pairs held of one partition, and likewise keys; beyond, the oldest are evicted.",
    )
    ttl: Duration = Field(
        default=DEFAULT_PROGRESS_TTL,
        description="How long a pair, and a key, is held after its newest event, in event time.",
    )
    by: dict[LabelName, Label] = Field(
        default_factory=dict,
        description="Further families, one for each further label: its name → where its value comes from.",
    )
    expected: dict[str, str] = Field(
        default_factory=dict,
        description="Event type, of `on` or another → its field that announces how many pairs a key will have.",
    )
    points: int = Field(
        default=100, ge=2, le=MOST_POINTS, description="Points of a key that its line is drawn through."
    )
    milestones: list[float] = Field(
        default_factory=list, max_length=50, description="Ratios above 0 up to 1, ascending."
    )
    milestone_keys: int = Field(
        default=DEFAULT_MILESTONE_KEYS,
        ge=1,
        description="Keys of one partition whose milestones are kept for good; beyond, the oldest are evicted.",
    )
    emit: Emit | None = Field(
        default=None, description="An internal event for each milestone that is reached."
    )

    model_config = ConfigDict(populate_by_name=True)

    @property
    def on(self) -> list[str]:
        """The event types it sees."""
        return [*dict.fromkeys([*self.on_, *self.expected])]

    @property
    def labelled(self) -> list[str]:
        """The event types that have its labels."""
        return self.on_

    @property
    def unit(self) -> None:
        """The value's field says it."""

    @property
    def label_specs(self) -> dict[str, LabelSpec]:
        """Every label that some of its families have from events."""
        return {**self.labels, **self.by}


class WindowSpec(_Metric):
    """What the events of the newest full stretch of time, or the last so many events, come to."""

    type: Literal["window"] = Field(description="Gauges of the newest window that is closed.")
    on: OneOrMany = Field(min_length=1, description="Event type or types it sees.")
    value: str | None = Field(
        default=None, description="Field whose values it sums up; needed by all of `show` but `count`."
    )
    unit: str | None = Field(default=None, description="Unit of the value where its field declares none.")
    distinct: str | None = Field(
        default=None, description="Field whose different values are counted. It is text, in every event type."
    )
    size: Duration | None = Field(default=None, description="Length of a window, in event time; or `events`.")
    every: Duration | None = Field(
        default=None, description="So often a window ends; it divides `size`. Without it they do not overlap."
    )
    lateness: Duration = Field(
        default=0.0,
        description="So long after a window's end, in event time, it takes in what comes out of order; then it closes.",
    )
    events: int | None = Field(
        default=None, ge=1, le=10**9, description="Events of a window, in the order of the stream; or `size`."
    )
    every_events: int | None = Field(
        default=None,
        ge=1,
        description="So often a window ends; it divides `events`. Without it they do not overlap.",
    )
    show: list[Literal["count", "sum", "mean", "min", "max"]] = Field(
        default_factory=list, description="What is shown; without it, all that can be."
    )
    quantiles: list[float] = Field(
        default_factory=list,
        max_length=16,
        description="Shares from 0 to 1: the value at each, 1 % right or left of it at most, is shown.",
    )
    keys: int = Field(
        default=DEFAULT_KEY_LIMIT,
        ge=1,
        description="With `distinct`: values held of one partition, each once for every step and label set.",
    )
    ttl: Duration = Field(
        default=DEFAULT_TTL,
        description="With `events`: so long after its newest event, in event time, a window is shown.",
    )

    @property
    def labelled(self) -> list[str]:
        """The event types that have its labels."""
        return self.on

    @property
    def by_key(self) -> bool:
        """Whether replicas' values cannot be put together, so that partitions must have keys."""
        return bool(self.events or self.distinct or self.quantiles)

    @property
    def shown(self) -> list[str]:
        """What is shown of counts and sums."""
        return [*self.show] or ["count", *(["sum", "mean", "min", "max"] if self.value else [])]


CountingSpec = CounterSpec | GaugeSpec | HistogramSpec
KeyedSpec = ElapsedSpec | ActiveSpec | DeviationSpec | PatternSpec | ConsistencySpec | ProgressSpec
MetricSpec = Annotated[CountingSpec | KeyedSpec | WindowSpec, Field(discriminator="type")]


class ParameterSpec(Strict):
    """A number that rules and panels use as `${name}`, so that it stands in one place and a user can change it."""

    value: float = Field(description="The number that stands in for `${name}`.")
    unit: str = Field(default="", description="Unit of the number, for people.")
    description: Text = Field(description="What it decides, and why this value.")


class ForeignMetric(Strict):
    """A metric that rules or panels use though another program emits it."""

    help: Text = Field(description="What it says, and which program emits it.")
    labels: list[str] = Field(
        default_factory=list, description="Its labels; `job` and `instance` go without saying."
    )
    type: Literal["counter", "gauge", "histogram", "summary"] = Field(
        default="gauge",
        description="A counter is named with its suffix `_total`, a histogram without suffix.",
    )


class RecordingRule(Strict):
    """One recorded series."""

    expr: Text = Field(description="PromQL.")
    description: Text = Field(description="What the recorded series says.")
    labels: dict[LabelName, str] = Field(default_factory=dict, description="Labels added to the result.")
    unit: str = Field(default="", description="Unit of the result, for people and dashboards.")


class RecordingGroup(Strict):
    """Recording rules that are evaluated together."""

    interval: Duration | None = Field(
        default=None, description="How often; without it, as Prometheus is set."
    )
    rules: dict[RecordName, RecordingRule] = Field(min_length=1, description="Recorded name → rule.")


class AlertSpec(Strict):
    """One alert."""

    expr: Text = Field(description="PromQL that gives a series for each thing that is wrong.")
    for_: Duration = Field(default=0.0, alias="for", description="How long it must hold before it fires.")
    keep_firing_for: Duration = Field(default=0.0, description="How long it goes on firing after it ended.")
    severity: Severity = Field(description="Becomes the label `severity`.")
    summary: Text = Field(description="One line, a Prometheus template.")
    description: Text = Field(description="What is wrong and what it means, a Prometheus template.")
    runbook: Text = Field(description="What to look at and to do, for the person who is called.")
    labels: dict[LabelName, str] = Field(default_factory=dict, description="Labels added to the alert.")

    model_config = ConfigDict(populate_by_name=True)


class Query(Strict):
    """One PromQL query of a panel."""

    expr: Text = Field(description="PromQL; `$variable` is a variable of the dashboard.")
    legend: str = Field(
        default="",
        description="Name of each line; `{{label}}` is its label. Of a table, the column's heading.",
    )
    unit: str = Field(default="", description="Unit of its column in a table, where it is not the panel's.")


Color = Literal["green", "yellow", "orange", "red", "blue", "purple"]


class Threshold(Strict):
    """From this value on, this colour."""

    from_: float | str = Field(alias="from", description="A number, or a parameter as ${name}.")
    color: Color = Field(description="The colour.")

    model_config = ConfigDict(populate_by_name=True)


class Matrix(Strict):
    """Two labels of a table's only query, one down and one across, and a colour for each value."""

    rows: LabelName = Field(description="The label whose values go down.")
    columns: LabelName = Field(description="The label whose values go across.")


class Panel(Strict):
    """One panel of the dashboard."""

    title: Text = Field(description="Its heading.")
    description: Text = Field(description="What it shows and how to read it.")
    type: Literal["timeseries", "stat", "gauge", "table", "heatmap", "bargauge", "histogram", "alerts"] = (
        Field(description="Kind of panel; `alerts` lists this pack's alerts and has no queries.")
    )
    queries: list[Query] = Field(default_factory=list, description="What it draws.")
    unit: str = Field(
        default="", description="Unit of Grafana, such as s, percentunit, short, dateTimeAsIso."
    )
    width: int = Field(default=8, ge=1, le=24, description="Columns of 24.")
    height: int = Field(default=8, ge=2, le=30, description="Grid rows.")
    thresholds: list[Threshold] = Field(
        default_factory=list, description="Colours from a value on, ascending."
    )
    base_color: Color = Field(default="green", description="Colour under the first threshold.")
    stack: bool = Field(default=False, description="Lines are stacked.")
    matrix: Matrix | None = Field(
        default=None, description="Of a table with one query: its values by two labels, coloured."
    )
    min: float | None = Field(default=None, description="Lower end of the axis.")
    max: float | None = Field(default=None, description="Upper end of the axis.")


class Row(Strict):
    """A titled row of panels."""

    title: Text = Field(description="Its heading.")
    panels: list[Panel] = Field(min_length=1, description="Its panels, from left to right.")


class Variable(Strict):
    """A choice at the top of the dashboard: the values of one label of one metric."""

    label: LabelName = Field(description="The label whose values are offered.")
    metric: str = Field(description="Series that has the label, as PromQL names it: `x_total`, `y_count`.")
    title: Text = Field(description="What stands beside the choice.")
    multi: bool = Field(default=True, description="Several at once; queries then match it with `=~`.")


class DashboardSpec(Strict):
    """The workload's dashboard."""

    title: Text = Field(description="Its title.")
    description: Text = Field(description="Whom it serves, and with what.")
    tags: list[str] = Field(default_factory=list, description="Tags to find it by.")
    refresh: Duration = Field(default=30.0, description="How often it is drawn anew.")
    range: Duration = Field(default=6 * 3600.0, description="How far back it looks.")
    variables: dict[Name, Variable] = Field(default_factory=dict, description="Choices at its top, by name.")
    rows: list[Row] = Field(min_length=1, description="Its rows, from top to bottom.")


class Pack(Strict):
    """One workload: events, metrics, rules, alerts and dashboard. The only place where any of them is named."""

    pack: Name = Field(description="Name of the pack.")
    version: int = Field(ge=1, description="Counts up when the meaning of something in it changes.")
    title: Text = Field(description="Name of the workload, for people.")
    description: str = Field(default="", description="What the workload is, for people.")
    use: list[EventType] = Field(default_factory=list, description="Event types declared by another pack.")
    events: dict[EventType, EventSpec] = Field(default_factory=dict, description="Event types it declares.")
    metrics: dict[MetricName, MetricSpec] = Field(
        default_factory=dict, description="Metrics, by name; a counter without its suffix `_total`."
    )
    foreign: dict[str, ForeignMetric] = Field(
        default_factory=dict, description="Metrics of other programs that rules and panels use."
    )
    parameters: dict[Name, ParameterSpec] = Field(
        default_factory=dict, description="Numbers that rules and panels use as `${name}`."
    )
    recording: dict[Name, RecordingGroup] = Field(
        default_factory=dict, description="Groups of recording rules."
    )
    alerts: dict[AlertName, AlertSpec] = Field(default_factory=dict, description="Alerts, by name.")
    dashboard: DashboardSpec | None = Field(default=None, description="The workload's dashboard.")
