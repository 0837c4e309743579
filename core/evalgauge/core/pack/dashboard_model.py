"""A workload's dashboard, as its pack declares it."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from evalgauge.core.pack.event_model import LabelName, Name, Strict, Text
from evalgauge.core.units import Duration


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
