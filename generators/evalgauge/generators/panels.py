"""Panels of a Grafana dashboard, as grafanalib objects: one function, from a pack's panel.

grafanalib's own classes are used where they write what Grafana reads today (time series, stat); its gauge, bar gauge,
heatmap, table and alert list write the shapes of Grafana 6 to 8, so these are its general `Panel` with today's options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grafanalib import core as grafana  # type: ignore[import-untyped]

from evalgauge.core.calendar_time import NAMES
from evalgauge.core.pack.variables import resolve

if TYPE_CHECKING:
    from evalgauge.core.pack.dashboard_model import Matrix, Panel
    from evalgauge.core.pack.model import Pack

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
"""Grafana puts in the data source that the reader has chosen at the top of the dashboard."""

_INSTANT = ("bargauge", "table", "gauge")
"""Panels that show how things are now, not how they came about."""
_PLAIN = "short"
"""Grafana's unit of a plain number; a panel that names no unit shows one."""
_REDUCE = {"calcs": ["lastNotNull"], "fields": "", "values": False}


class Query(grafana.Target):  # type: ignore[misc] # grafanalib has no types
    """A Prometheus query with what Grafana's editor keeps of it, and exemplars, which grafanalib's target lacks."""

    def __init__(self, *, exemplar: bool, **fields: Any) -> None:
        super().__init__(**fields)
        self.exemplar = exemplar

    def to_json_data(self) -> dict[str, Any]:
        """What Grafana reads; without the fields of Graphite that grafanalib adds."""
        return {
            "datasource": self.datasource,
            "editorMode": "code",
            "exemplar": self.exemplar,
            "expr": self.expr,
            "format": self.format,
            "instant": self.instant,
            "legendFormat": self.legendFormat,
            "range": not self.instant,
            "refId": self.refId,
        }


class Visual(grafana.Panel):  # type: ignore[misc] # grafanalib has no types
    """A panel of a kind that grafanalib has no present-day class for."""

    def __init__(
        self,
        *,
        kind: str,
        options: dict[str, Any],
        defaults: dict[str, Any] | None = None,
        overrides: list[dict[str, Any]] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(**fields)
        self.kind = kind
        self.defaults = defaults or {}
        self.overrides = overrides or []
        self.options = options

    def to_json_data(self) -> Any:
        """The general panel with this kind's options."""
        return self.panel_json(
            {
                "type": self.kind,
                "fieldConfig": {"defaults": self.defaults, "overrides": self.overrides},
                "options": self.options,
            }
        )


def grafana_panel(panel: Panel, pack: Pack, number: int, grid: grafana.GridPos) -> grafana.Panel:
    """The panel `panel` of `pack`, with the id `number`, at its place in the grid."""
    steps: list[dict[str, Any]] = [{"color": panel.base_color, "value": None}]
    for threshold in panel.thresholds:
        value = threshold.from_
        from_ = float(resolve(value, pack)) if isinstance(value, str) else value
        steps.append({"color": threshold.color, "value": from_})
    common: dict[str, Any] = {
        "title": panel.title,
        "description": resolve(panel.description, pack),
        "id": number,
        "gridPos": grid,
        "maxDataPoints": None,
        "thresholds": steps,
    }
    if panel.type == "alerts":
        return Visual(**common, kind="alertlist", options=_alert_options(pack))
    common["dataSource"] = DATASOURCE
    common["targets"] = _targets(panel, pack)
    if panel.type == "timeseries":
        return _time_series(panel, common)
    if panel.type == "stat":
        return grafana.Stat(
            **common,
            format=panel.unit or _PLAIN,
            color={"mode": "thresholds"},
            reduceCalc="lastNotNull",
            noValue="no data",
            extraJson=_limits(panel),
        )
    defaults = {
        "unit": panel.unit or _PLAIN,
        "color": {"mode": "thresholds"},
        "noValue": "no data",
        **_ends(panel),
    }
    if panel.matrix is not None:
        # Grafana's heatmap has time across; a calendar has not.
        defaults["color"] = {"mode": "continuous-blues"}
        defaults["custom"] = {"align": "center", "cellOptions": {"mode": "basic", "type": "color-background"}}
    common["transformations"] = _transformations(panel)
    units = _units_of_columns(panel)
    return Visual(**common, kind=panel.type, defaults=defaults, overrides=units, options=_options(panel))


def _targets(panel: Panel, pack: Pack) -> list[Query]:
    form = {"heatmap": "heatmap", "table": "table"}.get(panel.type, "time_series")
    return [
        Query(
            expr=resolve(query.expr, pack).strip(),
            legendFormat=query.legend or "__auto",
            refId=_ref(index),
            format=form,
            instant=panel.type in _INSTANT,
            # Exemplars hang on histograms' buckets, and only these two kinds of panel can draw them.
            exemplar=panel.type in {"timeseries", "heatmap"} and "_bucket" in query.expr,
            datasource=DATASOURCE,
        )
        for index, query in enumerate(panel.queries)
    ]


def _ref(index: int) -> str:
    """Grafana's names of queries: A to Z, then AA and so on."""
    last = chr(ord("A") + index % 26)
    return last if index < 26 else _ref(index // 26 - 1) + last  # noqa: PLR2004 - letters


def _ends(panel: Panel) -> dict[str, float]:
    return {key: value for key, value in (("min", panel.min), ("max", panel.max)) if value is not None}


def _limits(panel: Panel) -> dict[str, Any]:
    """The ends of the axis, given apart because grafanalib takes whole numbers only."""
    return {"fieldConfig": {"defaults": _ends(panel)}}


def _time_series(panel: Panel, common: dict[str, Any]) -> grafana.TimeSeries:
    return grafana.TimeSeries(
        **common,
        unit=panel.unit or _PLAIN,
        fillOpacity=40 if panel.stack else 8,
        stacking={"mode": "normal" if panel.stack else "none", "group": "A"},
        showPoints="never",
        legendDisplayMode="list",
        tooltipMode="multi",
        tooltipSort="desc",
        thresholdsStyleMode="dashed" if panel.thresholds else "off",
        extraJson=_limits(panel),
    )


def _options(panel: Panel) -> dict[str, Any]:
    match panel.type:
        case "gauge":
            return {"reduceOptions": _REDUCE, "showThresholdLabels": False, "showThresholdMarkers": True}
        case "bargauge":
            shape = {"displayMode": "basic", "orientation": "horizontal", "valueMode": "color"}
            return {"reduceOptions": _REDUCE, "minVizHeight": 16, "showUnfilled": True, **shape}
        case "table":
            return {"showHeader": True, "cellHeight": "sm"}
        case "heatmap":
            return {
                "calculate": False,
                "cellGap": 1,
                "color": {
                    "mode": "scheme",
                    "scheme": "Oranges",
                    "scale": "exponential",
                    "exponent": 0.5,
                    "steps": 64,
                },
                "exemplars": {"color": "rgba(255,0,255,0.7)"},
                "filterValues": {"le": 1e-9},
                "legend": {"show": True},
                "rowsFrame": {"layout": "auto"},
                "tooltip": {"mode": "single", "yHistogram": True},
                "yAxis": {"axisPlacement": "left", "reverse": False, "unit": panel.unit or _PLAIN},
            }
        case _:
            return {"legend": {"displayMode": "list", "placement": "bottom"}, "combine": False}


def _units_of_columns(panel: Panel) -> list[dict[str, Any]]:
    """What Grafana is told of columns whose unit is their own."""
    return [
        {
            "matcher": {"id": "byName", "options": query.legend},
            "properties": [{"id": "unit", "value": query.unit}],
        }
        for query in panel.queries
        if query.unit
    ]


def _matrix(matrix: Matrix) -> list[dict[str, Any]]:
    """Rows in the order of their names; columns as a calendar has them, others as they come."""
    corner = f"{matrix.rows}\\{matrix.columns}"
    cells = {
        "columnField": matrix.columns,
        "rowField": matrix.rows,
        "valueField": "Value",
        "emptyValue": "null",
    }
    return [
        {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": matrix.rows}]}},
        {"id": "groupingToMatrix", "options": cells},
        {
            "id": "organize",
            "options": {
                "indexByName": {
                    name: place for place, name in enumerate((corner, *NAMES.get(matrix.columns, ())))
                },
                "renameByName": {corner: matrix.rows},
            },
        },
    ]


def _transformations(panel: Panel) -> list[dict[str, Any]]:
    """A table's queries side by side, one row for each set of labels, columns named by the queries' legends."""
    if panel.type != "table":
        return []
    if panel.matrix is not None:
        return _matrix(panel.matrix)
    several = len(panel.queries) > 1
    names = {
        f"Value #{_ref(index)}" if several else "Value": query.legend
        for index, query in enumerate(panel.queries)
        if query.legend
    }
    organize = {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": names}}
    return [{"id": "merge", "options": {}}, organize] if several else [organize]


def _alert_options(pack: Pack) -> dict[str, Any]:
    return {
        "alertInstanceLabelFilter": f'{{pack="{pack.pack}"}}',
        "groupMode": "default",
        "maxItems": 20,
        "sortOrder": 3,
        "stateFilter": {"error": True, "firing": True, "noData": False, "normal": False, "pending": True},
        "viewMode": "list",
    }
