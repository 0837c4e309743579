"""Grafana dashboards: the one that a pack declares, as JSON that can be provisioned or imported."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from grafanalib import core as grafana  # type: ignore[import-untyped]
from grafanalib._gen import DashboardEncoder  # type: ignore[import-untyped]

from evalgauge.core.pack.variables import resolve
from evalgauge.generators.panels import DATASOURCE, grafana_panel
from evalgauge.generators.text import do_not_edit, grafana_duration

if TYPE_CHECKING:
    from evalgauge.core.pack.dashboard_model import DashboardSpec, Variable
    from evalgauge.core.pack.model import Pack

SCHEMA_VERSION = 39
"""Of Grafana 10.4: what is written here needs no migration there, and later Grafanas migrate it themselves."""
GRID_COLUMNS = 24
UID_LENGTH = 40
"""Grafana takes no longer uid."""
_ON_TIME_RANGE_CHANGE = 2
_SHARED_CROSSHAIR = 1
_LEFT_OVER = frozenset(
    {"__inputs", "rows", "hideControls", "sharedCrosshair", "style", "gnetId", "error", "hideTimeOverride"}
)
"""Keys that grafanalib writes and that Grafana dropped long before the schema version above."""


def generate(pack: Pack) -> dict[str, str]:
    """The dashboard of `pack`, by its name below the output folder; nothing for a pack that declares none.

    Ids and uid follow from the pack, so the same pack gives the same bytes. JSON has no comments: the dashboard is
    not editable, and its description says where it comes from.
    """
    if pack.dashboard is None:
        return {}
    plain = json.loads(json.dumps(_dashboard(pack, pack.dashboard).to_json_data(), cls=DashboardEncoder))
    return {
        f"{pack.pack}.json": json.dumps(_cleaned(plain), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    }


def uid(pack: Pack) -> str:
    """The dashboard's identity in Grafana; a link to it survives every regeneration."""
    plain = f"evalgauge-{pack.pack}"
    if len(plain) <= UID_LENGTH:
        return plain
    return f"evalgauge-{hashlib.sha256(pack.pack.encode()).hexdigest()[:20]}"


def _dashboard(pack: Pack, spec: DashboardSpec) -> grafana.Dashboard:
    origin = " ".join(do_not_edit(pack, "dashboards"))
    return grafana.Dashboard(
        title=spec.title,
        description=f"{resolve(spec.description, pack)}\n\n{origin}",
        uid=uid(pack),
        version=pack.version,
        editable=False,
        tags=["evalgauge", *(tag for tag in spec.tags if tag != "evalgauge")],
        links=[
            grafana.DashboardLink(type="dashboards", tags=["evalgauge"], title="evalgauge", asDropdown=True),
        ],
        templating=grafana.Templating(list=_variables(spec)),
        panels=_panels(pack, spec),
        refresh=grafana_duration(spec.refresh) if spec.refresh else "",
        time=grafana.Time(f"now-{grafana_duration(spec.range)}", "now"),
        timezone="browser",
        graphTooltip=_SHARED_CROSSHAIR,
        schemaVersion=SCHEMA_VERSION,
    )


def _variables(spec: DashboardSpec) -> list[dict[str, Any]]:
    datasource = grafana.Template(
        name="datasource", type="datasource", query="prometheus", label="Data source"
    ).to_json_data()
    return [
        {**datasource, "current": {}},
        *(_variable(name, variable, spec) for name, variable in spec.variables.items()),
    ]


def _variable(name: str, variable: Variable, spec: DashboardSpec) -> dict[str, Any]:
    """A choice of label values; of those only that go with the choices to its left, where the series is the same."""
    earlier = []
    for other_name, other in spec.variables.items():
        if other_name == name:
            break
        if other.metric == variable.metric:
            earlier.append(f'{other.label}{"=~" if other.multi else "="}"${other_name}"')
    selector = f"{variable.metric}{{{', '.join(earlier)}}}" if earlier else variable.metric
    query = f"label_values({selector}, {variable.label})"
    template = grafana.Template(
        name=name,
        query={"query": query, "refId": f"variable-{name}"},
        dataSource=DATASOURCE,
        label=variable.title,
        includeAll=variable.multi,
        multi=variable.multi,
        # Without it Grafana lists every value in the query, which grows too long, and leaves out series that
        # lack the label.
        allValue=".*" if variable.multi else None,
        refresh=_ON_TIME_RANGE_CHANGE,
    ).to_json_data()
    everything = {"selected": True, "text": ["All"], "value": ["$__all"]}
    return {**template, "current": everything if variable.multi else {}, "definition": query}


def _panels(pack: Pack, spec: DashboardSpec) -> list[grafana.Panel]:
    """Rows from top to bottom, panels from left to right, on to a new line where the next one does not fit."""
    panels: list[grafana.Panel] = []
    top = 0
    for row in spec.rows:
        grid = grafana.GridPos(h=1, w=GRID_COLUMNS, x=0, y=top)
        panels.append(grafana.RowPanel(title=row.title, id=len(panels) + 1, gridPos=grid, maxDataPoints=None))
        top += 1
        left = tallest = 0
        for panel in row.panels:
            if left + panel.width > GRID_COLUMNS:
                left, top, tallest = 0, top + tallest, 0
            grid = grafana.GridPos(h=panel.height, w=panel.width, x=left, y=top)
            panels.append(grafana_panel(panel, pack, len(panels) + 1, grid))
            left += panel.width
            tallest = max(tallest, panel.height)
        top += tallest
    return panels


def _cleaned(value: Any) -> Any:
    """Without what grafanalib writes for nothing; a threshold's first step has the value null and keeps it."""
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _cleaned(item)
        for key, item in value.items()
        if key not in _LEFT_OVER and (item is not None or key == "value")
    }
