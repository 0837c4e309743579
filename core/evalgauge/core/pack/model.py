"""The pack format: what one workload's events are, and what becomes of them.

These models only shape a file. Whatever needs more than one key to judge (a label that is no field, a rule
over a metric that nobody emits) is checked by `evalgauge.core.pack.check`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from evalgauge.core.pack.dashboard_model import DashboardSpec
from evalgauge.core.pack.event_model import (
    AlertName,
    EventSpec,
    EventType,
    LabelName,
    MetricName,
    Name,
    RecordName,
    Severity,
    Strict,
    Text,
)
from evalgauge.core.pack.metric_model import MetricSpec
from evalgauge.core.units import Duration


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


class AlertTest(Strict):
    """Series over time, and which alerts of the pack fire at a time; becomes a unit test for promtool."""

    name: Text = Field(description="What it shows; its own among the tests of the pack.")
    like: str | None = Field(
        default=None, description="Name of another test, whose series are there too unless given here."
    )
    series: dict[str, str] = Field(
        default_factory=dict,
        description='Series, such as `a_total{b="c"}` → values from time 0 on, as promtool writes them: `0+10x60`.',
    )
    interval: Duration = Field(default=15.0, gt=0, description="Time between two values.")
    at: Duration = Field(description="When to look, after time 0.")
    firing: list[AlertName] = Field(
        default_factory=list, description="Alerts that fire then; all others of the pack must not."
    )


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
    alert_tests: list[AlertTest] = Field(
        default_factory=list, description="What makes alerts fire, and what does not."
    )
    dashboard: DashboardSpec | None = Field(default=None, description="The workload's dashboard.")
