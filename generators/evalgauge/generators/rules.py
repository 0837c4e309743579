"""Prometheus rule files: a pack's recording rules and alerts, with its parameters put in."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from evalgauge.core.pack.variables import resolve
from evalgauge.generators.runbooks import anchor, page
from evalgauge.generators.text import do_not_edit, prometheus_duration, yaml_block

if TYPE_CHECKING:
    from evalgauge.core.pack.model import AlertSpec, Pack, RecordingGroup

COMMENT_WIDTH = 100


RUNBOOKS = "docs/runbooks"
"""Where runbooks are, unless somebody says where theirs are published."""


def generate(pack: Pack, runbooks: str = RUNBOOKS) -> dict[str, str]:
    """The rule file of `pack`, by its name below the output folder; nothing for a pack that has no rules.

    `runbooks` is the folder or address below which the pages of the generator `runbooks` are.

    Each group of recording rules becomes a group `<pack>.<group>`, and the alerts a last one, `<pack>.alerts`.
    Every alert has the labels `severity` and `pack`, and annotations that tell what happened and what to do.
    """
    groups = [_recording_group(pack, name, group) for name, group in pack.recording.items()]
    if pack.alerts:
        alerts = "\n".join(_alert(pack, name, alert, runbooks) for name, alert in pack.alerts.items())
        groups.append(_group(f"{pack.pack}.alerts", "", alerts))
    if not groups:
        return {}
    note = do_not_edit(pack, "rules")
    comment = "".join(f"# {line}\n" for line in note)
    return {f"{pack.pack}.yaml": f"{comment}groups:\n" + "\n".join(groups)}


def _group(name: str, interval: str, rules: str) -> str:
    head = f"  - name: {name}\n"
    if interval:
        head += f"    interval: {interval}\n"
    return f"{head}    rules:\n{textwrap.indent(rules, ' ' * 6)}"


def _recording_group(pack: Pack, name: str, group: RecordingGroup) -> str:
    rules = []
    for record, rule in group.rules.items():
        unit = f" Unit: {rule.unit}." if rule.unit else ""
        comment = textwrap.fill(
            f"{resolve(rule.description, pack)}{unit}",
            COMMENT_WIDTH,
            initial_indent="# ",
            subsequent_indent="# ",
        )
        body: dict[str, object] = {"record": record, "expr": resolve(rule.expr, pack).strip()}
        if rule.labels:
            body["labels"] = dict(rule.labels)
        rules.append(f"{comment}\n{yaml_block([body])}")
    interval = "" if group.interval is None else prometheus_duration(group.interval)
    return _group(f"{pack.pack}.{name}", interval, "\n".join(rules))


def _alert(pack: Pack, name: str, alert: AlertSpec, runbooks: str) -> str:
    body: dict[str, object] = {"alert": name, "expr": resolve(alert.expr, pack).strip()}
    if alert.for_:
        body["for"] = prometheus_duration(alert.for_)
    if alert.keep_firing_for:
        body["keep_firing_for"] = prometheus_duration(alert.keep_firing_for)
    body["labels"] = {"severity": alert.severity, "pack": pack.pack, **alert.labels}
    annotations = {"summary": resolve(alert.summary, pack), "description": resolve(alert.description, pack)}
    if alert.runbook.startswith(("http://", "https://")):
        annotations["runbook_url"] = alert.runbook
    else:
        annotations["runbook"] = resolve(alert.runbook, pack)
        annotations["runbook_url"] = f"{runbooks.rstrip('/')}/{page(pack)}#{anchor(name)}"
    body["annotations"] = annotations
    return yaml_block([body])
