"""Runbooks: a page for each pack that says of each alert what it means and what to do, to be published for links."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from evalgauge.core.pack.variables import resolve
from evalgauge.generators.text import do_not_edit, prometheus_duration

if TYPE_CHECKING:
    from evalgauge.core.pack.model import AlertSpec, Pack

_LABEL = re.compile(r"\{\{-?\s*\$labels\.(\w+)\s*-?\}\}")
_VALUE = re.compile(r"\{\{-?\s*\$value\b[^}]*\}\}")
_REST = re.compile(r"\{\{[^}]*\}\}")
"""What Prometheus puts into a text: a label, the value, conditions."""


def generate(pack: Pack) -> dict[str, str]:
    """The page of `pack`; nothing for a pack without alerts."""
    if not pack.alerts:
        return {}
    note = " ".join(do_not_edit(pack, "runbooks"))
    parts = [
        f"<!-- {note} -->",
        f"# Runbook: {pack.title}",
        *(_alert(pack, name, alert) for name, alert in pack.alerts.items()),
    ]
    return {page(pack): "\n\n".join(parts) + "\n"}


def page(pack: Pack) -> str:
    """The name of the page of `pack`."""
    return f"{pack.pack}.md"


def anchor(alert: str) -> str:
    """What leads to an alert within the page: its heading, as forges and wikis make an anchor of it."""
    return alert.lower()


def _alert(pack: Pack, name: str, alert: AlertSpec) -> str:
    lasting = f", once it has held for {prometheus_duration(alert.for_)}" if alert.for_ else ""
    keeps = prometheus_duration(alert.keep_firing_for)
    kept = f"; goes on for {keeps} after it ended" if alert.keep_firing_for else ""
    return (
        f"## {name}\n\n"
        f"*{alert.severity}{lasting}{kept}*\n\n"
        f"{_plain(resolve(alert.summary, pack))}.\n\n"
        f"{_plain(resolve(alert.description, pack))}\n\n"
        f"**What to do.** {_plain(resolve(alert.runbook, pack))}\n\n"
        f"```promql\n{resolve(alert.expr, pack).strip()}\n```"
    )


def _plain(text: str) -> str:
    """On one line, as it reads for any label and value; what stands only under a condition is there."""
    text = _LABEL.sub(r"`<\1>`", text)
    text = _VALUE.sub("`<value>`", text)
    return " ".join(_REST.sub("", text).split())
