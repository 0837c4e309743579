"""The kinds of metrics that a pack can declare."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from evalgauge.core.pack.event_model import (
    DEFAULT_KEY_LIMIT,
    DEFAULT_METRIC_LIMIT,
    DEFAULT_MILESTONE_KEYS,
    DEFAULT_PROGRESS_TTL,
    DEFAULT_TTL,
    MOST_POINTS,
    EventType,
    Filter,
    Label,
    LabelName,
    LabelSpec,
    Name,
    OneOrMany,
    Severity,
    Strict,
    Text,
)
from evalgauge.core.units import Duration


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
    severity: Severity | None = Field(
        default=None, description="Label `severity` of its series; without it they have none."
    )
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
