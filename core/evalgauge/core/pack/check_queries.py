"""What is wrong with a pack's rules, alerts and panels: PromQL over nothing, texts that name nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from evalgauge.core.findings import suggest
from evalgauge.core.pack.catalogue import Catalogue
from evalgauge.core.pack.check_alert_tests import check_alert_tests
from evalgauge.core.pack.names import TARGET_LABELS
from evalgauge.core.pack.promql import Reading, read
from evalgauge.core.pack.variables import GRAFANA, braced_in, names_in, resolve, stood_in

if TYPE_CHECKING:
    from evalgauge.core.document import Path_
    from evalgauge.core.pack.check import Check
    from evalgauge.core.pack.dashboard_model import DashboardSpec, Panel, Query
    from evalgauge.core.pack.model import AlertSpec

_LABEL_IN_TEMPLATE = re.compile(r"\$labels\.([A-Za-z_]\w*)")
_LABEL_IN_LEGEND = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")
_SET_ALREADY = ("alertname", "alertstate", "severity", "pack")


def check_queries(check: Check) -> None:
    """Report every problem of recording rules, alerts, the dashboard, and of what they refer to."""
    _Queries(check).run()


class _Queries:
    """One pack's queries, with all names they have used."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._pack = check.pack
        self._catalogue = Catalogue(check.pack, check.others, _unsure(check))
        self._used: set[str] = set()
        self._selected: set[str] = set()

    def run(self) -> None:
        """Report every problem."""
        for group, rules in self._pack.recording.items():
            for name, rule in rules.rules.items():
                path = ("recording", group, "rules", name)
                self._rule(path, rule.expr)
                self._text((*path, "description"), rule.description)
                if "le" in rule.labels or "__name__" in rule.labels:
                    self._check.report((*path, "labels"), f"`{name}`: a rule must not set the label `le`")
        recorded: set[str] = set()
        for group, rules in self._pack.recording.items():
            for name in rules.rules:
                if name in recorded:
                    path = ("recording", group, "rules", name)
                    self._check.report(
                        path, f"`{name}` is recorded by two groups", "Rename one.", at_key=True
                    )
                recorded.add(name)
        for name, alert in self._pack.alerts.items():
            self._alert(("alerts", name), alert)
        check_alert_tests(self._check, self._catalogue)
        if self._pack.dashboard is not None:
            self._dashboard(self._pack.dashboard)
        self._unused()

    def _rule(self, path: Path_, expr: str) -> Reading:
        where = (*path, "expr")
        name = path[-1]
        for variable in sorted({*names_in(expr)} - {*self._pack.parameters}):
            known = {f"${{{one}}}" for one in self._pack.parameters}
            message = f"`{name}`: no parameter is called `{variable}`"
            if variable in GRAFANA:
                self._check.report(
                    where,
                    f"`{name}`: `${variable}` is known in dashboards only",
                    "Write the duration out.",
                    at_key=True,
                )
            elif not self._check.is_broken("parameters", variable):
                self._check.report(where, message, suggest(f"${{{variable}}}", known), at_key=True)
        self._used |= {*braced_in(expr)}
        text = re.sub(r"\$\{\w+\}", "1", resolve(expr, self._pack))
        return self._read(where, str(name), text)

    def _read(self, where: Path_, name: str, query: str, variables: dict[str, bool] | None = None) -> Reading:
        reading = read(query, self._catalogue, variables)
        self._selected |= reading.selected
        for fault in reading.faults:
            self._check.report(where, f"`{name}`: {fault.message}", fault.hint, at_key=True)
        if reading.kind in {"matrix", "string"}:
            message = f"`{name}`: the expression gives a {'range of values' if reading.kind == 'matrix' else 'text'}"
            self._check.report(where, message, "Use a function over it, such as `rate`.", at_key=True)
        return reading

    def _text(self, path: Path_, text: str) -> None:
        for name in dict.fromkeys(braced_in(text)):
            self._used.add(name)
            if name not in self._pack.parameters and not self._check.is_broken("parameters", name):
                self._check.report(
                    path, f"no parameter is called `{name}`", suggest(name, self._pack.parameters)
                )

    def _alert(self, path: Path_, alert: AlertSpec) -> None:
        name = path[-1]
        reading = self._rule(path, alert.expr)
        if reading.kind == "scalar":
            message = f"`{name}`: the expression gives a number, so the alert would always fire"
            self._check.report((*path, "expr"), message, "Compare a series.", at_key=True)
        for label in alert.labels:
            if label in _SET_ALREADY:
                hint = "Give `severity` as a key of the alert." if label == "severity" else ""
                self._check.report(
                    (*path, "labels", label), f"`{name}`: label `{label}` is set already", hint, at_key=True
                )
        possible = reading.labels.possible
        for key in ("summary", "description", "runbook"):
            text: str = getattr(alert, key)
            self._text((*path, key), text)
            for label in dict.fromkeys(_LABEL_IN_TEMPLATE.findall(text)):
                if possible is not None and label not in possible and not reading.faults:
                    message = f"`{name}`: its result has no label `{label}`"
                    self._check.report(
                        (*path, key), message, suggest(label, possible) or "It has no labels at all."
                    )

    def _dashboard(self, dashboard: DashboardSpec) -> None:
        for name, variable in dashboard.variables.items():
            path = ("dashboard", "variables", name)
            if name in self._pack.parameters:
                message = f"variable `{name}` is called like a parameter"
                self._check.report(path, message, "Rename one.", at_key=True)
            series = self._catalogue.get(variable.metric)
            self._selected.add(variable.metric)
            if series is None:
                message = f"variable `{name}`: nothing emits `{variable.metric}`"
                self._check.report((*path, "metric"), message, self._series_meant(variable.metric))
            elif series.labels.possible is not None and variable.label not in series.labels.possible:
                message = f"variable `{name}`: `{variable.metric}` has no label `{variable.label}`"
                self._check.report((*path, "label"), message, suggest(variable.label, series.labels.possible))
        self._text(("dashboard", "description"), dashboard.description)
        wanted: set[str] = set()
        for r, row in enumerate(dashboard.rows):
            for p, panel in enumerate(row.panels):
                self._panel(("dashboard", "rows", r, "panels", p), panel, dashboard)
                wanted |= {name for query in panel.queries for name in names_in(query.expr)}
        for name in dashboard.variables:
            if name not in wanted:
                message = f"variable `{name}` is used by no query"
                hint = f'Write `…=~"${name}"` in the queries, or leave it out.'
                self._check.report(("dashboard", "variables", name), message, hint, at_key=True)

    def _series_meant(self, name: str) -> str:
        near = [one for one in self._catalogue if one.startswith(f"{name}_")]
        return f"It is exposed as `{near[0]}`." if near else suggest(name, self._catalogue)

    def _panel(self, path: Path_, panel: Panel, dashboard: DashboardSpec) -> None:
        self._text((*path, "description"), panel.description)
        self._text((*path, "title"), panel.title)
        if panel.type == "alerts" and panel.queries:
            self._check.report(
                (*path, "queries"), f"panel `{panel.title}` lists alerts and has no queries", at_key=True
            )
        if panel.type != "alerts" and not panel.queries:
            self._check.report(path, f"panel `{panel.title}` has no queries", "Give `queries`.", at_key=True)
        for index, query in enumerate(panel.queries):
            self._query((*path, "queries", index), panel, query, dashboard)
        if panel.matrix is not None and (panel.type != "table" or len(panel.queries) != 1):
            message = f"panel `{panel.title}`: `matrix` is for a table with one query"
            self._check.report((*path, "matrix"), message, at_key=True)
        last = float("-inf")
        for index, threshold in enumerate(panel.thresholds):
            where = (*path, "thresholds", index, "from")
            value = threshold.from_
            if isinstance(value, str):
                self._text(where, value)
                resolved = resolve(value, self._pack)
                try:
                    value = float(resolved)
                except ValueError:
                    if not [*braced_in(resolved)]:
                        hint = "Write a number, or a parameter as ${name}."
                        self._check.report(
                            where, f"panel `{panel.title}`: threshold `{value}` is no number", hint
                        )
                    continue
            if value <= last:
                self._check.report(
                    where, f"panel `{panel.title}`: threshold {value:g} comes after {last:g}", "Sort them."
                )
            last = value

    def _query(self, path: Path_, panel: Panel, query_: Query, dashboard: DashboardSpec) -> None:
        where, title, expr = (*path, "expr"), panel.title, query_.expr
        if query_.unit and (panel.type != "table" or not query_.legend):
            message = f"panel `{title}`: a query's `unit` is for a table, where `legend` names its column"
            self._check.report((*path, "unit"), message, "Give the panel a unit.", at_key=True)
        self._used |= {*braced_in(expr)}
        multi = {name: variable.multi for name, variable in dashboard.variables.items()}
        query, faults = stood_in(resolve(expr, self._pack), multi)
        known = {*multi, *self._pack.parameters, *GRAFANA}
        for fault in faults:
            hint = suggest(fault.split("`")[1].strip("${}"), known) if fault.startswith("unknown") else ""
            self._check.report(where, f"panel `{title}`: {fault}", hint, at_key=True)
        if faults:
            return
        reading = self._read(where, title, query, multi)
        possible = reading.labels.possible
        shown = [] if panel.matrix is None else [panel.matrix.rows, panel.matrix.columns]
        for label in shown:
            if possible is not None and label not in possible and not reading.faults:
                message = f"panel `{title}`: the result has no label `{label}`"
                self._check.report(
                    (*path[:-2], "matrix"), message, suggest(label, possible - TARGET_LABELS), at_key=True
                )
        for label in dict.fromkeys(_LABEL_IN_LEGEND.findall(query_.legend)):
            if possible is not None and label not in possible and not reading.faults:
                message = f"panel `{title}`: the result has no label `{label}`"
                hint = suggest(label, possible - TARGET_LABELS) or "It has no labels at all."
                self._check.report((*path, "legend"), message, hint)

    def _unused(self) -> None:
        if any(entry[:1] in {("recording",), ("alerts",), ("dashboard",)} for entry in self._check.broken):
            return  # What was left out may have used it.
        for name in self._pack.parameters:
            if name not in self._used:
                hint = f"Write `${{{name}}}` where it belongs, or leave it out."
                self._check.report(
                    ("parameters", name), f"parameter `{name}` is used by nothing", hint, at_key=True
                )
        for name in self._pack.foreign:
            if not {name, *(f"{name}_{suffix}" for suffix in ("bucket", "sum", "count"))} & self._selected:
                message = f"foreign metric `{name}` is used by nothing"
                self._check.report(("foreign", name), message, "Leave it out.", at_key=True)


def _unsure(check: Check) -> set[str]:
    """Series of entries that were left out for a fault of their own: they exist, and no more is known."""
    names: set[str] = set()
    for entry in check.broken:
        if entry[:1] in {("metrics",), ("foreign",)} and len(entry) > 1:
            names |= {f"{entry[1]}{suffix}" for suffix in ("", "_total", "_bucket", "_sum", "_count")}
        elif entry[:1] == ("recording",) and len(entry) > 3:  # noqa: PLR2004 - recording, group, rules, name
            names.add(str(entry[3]))
    return names
