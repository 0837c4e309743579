"""Runbooks: a page for each pack that says of each alert what it means and what to do, to be published for links."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalgauge.core.pack.variables import resolve
from evalgauge.generators.text import do_not_edit, prometheus_duration

if TYPE_CHECKING:
    from evalgauge.core.pack.model import AlertSpec, Pack


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
    """On one line; what Prometheus puts in stands as code."""
    return " ".join(text.replace("{{", "`{{").replace("}}", "}}`").split())
