"""The page at `/`: what this process reads, where it stands, what it refused and what it waits for."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from evalgauge.core.export import InputReport, StatusReport

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page needs nothing but its own style, so nothing else may load, whatever found its way into it."""

# Relative, since a proxy may serve the page under a prefix.
_OWN_LINKS = {"Metrics": "metrics", "Readiness": "readyz", "Health": "healthz"}

_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884; vertical-align: top }
td { overflow-wrap: anywhere } .number { text-align: right; font-variant-numeric: tabular-nums }
.bad { border-left: 4px solid #d33; padding-left: .8rem } .good { border-left: 4px solid #393; padding-left: .8rem }
nav a { margin-right: 1rem }
"""


def render(report: StatusReport, reasons: Sequence[str], *, now: float | None = None) -> str:
    """Give the page as HTML. `reasons` say why the process is not ready; `now` is Unix time."""
    now = time.time() if now is None else now
    started = datetime.fromtimestamp(report.started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    age = report.last_commit_age
    facts = (
        ("Version", report.version),
        ("Started", f"{started} ({_duration(now - report.started)} ago)"),
        ("Last commit", "none yet" if age is None else f"{_duration(age)} ago"),
        ("Packs", ", ".join(report.packs) or "none"),
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>evalgauge</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>evalgauge</h1>
<nav>{_links({**_OWN_LINKS, **report.links})}</nav>
{_readiness(reasons)}
<table>{"".join(f"<tr><th scope=row>{escape(name)}</th><td>{escape(fact)}</td></tr>" for name, fact in facts)}</table>
<h2>Inputs</h2>
{_inputs(report.inputs)}
<h2>Refused events</h2>
{_rejects(report)}
</body>
</html>
"""


def _readiness(reasons: Sequence[str]) -> str:
    if not reasons:
        return "<p class=good>Ready</p>"
    return f"<div class=bad><p>Not ready</p><ul>{''.join(f'<li>{escape(reason)}' for reason in reasons)}</ul></div>"


def _inputs(inputs: Sequence[InputReport]) -> str:
    if not inputs:
        return "<p>None.</p>"
    rows = []
    for one in inputs:
        partitions = sorted({*one.positions, *one.lag_bytes}) or [""]
        for number, partition in enumerate(partitions):
            lag = one.lag_bytes.get(partition)
            cells = [one.name, one.type] if number == 0 else ["", ""]
            cells += [partition, one.positions.get(partition, "")]
            shown = "" if lag is None else f"{lag:,} bytes"
            note = one.note if number == 0 else ""
            rows.append(f"<tr>{_cells(cells)}<td class=number>{escape(shown)}</td>{_cells([note])}</tr>")
    head = "<th>Input<th>Type<th>Partition<th>Position<th class=number>Lag<th>Note"
    return f"<table><thead><tr>{head}</tr></thead>{''.join(rows)}</table>"


def _rejects(report: StatusReport) -> str:
    found = sorted(((count, reason) for reason, count in report.rejects.items() if count), reverse=True)
    if not found:
        return "<p>None.</p>"
    rows = (f"<tr>{_cells([reason])}<td class=number>{count:,}</td></tr>" for count, reason in found)
    return f"<table><thead><tr><th>Reason<th class=number>Events</tr></thead>{''.join(rows)}</table>"


def _links(links: dict[str, str]) -> str:
    shown = []
    for text, target in links.items():
        name, url = escape(text), escape(target)
        shown.append(f'<a href="{url}">{name}</a>' if _is_page(target) else f"{name}: {url} ")
    return "".join(shown)


def _is_page(target: str) -> bool:
    """Whether a link leads to a page; `javascript:` and its kin are shown as text."""
    try:
        return urlsplit(target.strip()).scheme.lower() in {"", "http", "https"}
    except ValueError:
        return False


def _cells(texts: Iterable[str]) -> str:
    return "".join(f"<td>{escape(text)}</td>" for text in texts)


def _duration(seconds: float) -> str:
    """Seconds as a person says them: `3 s`, `2 h 5 min`, `4 d 1 h`."""
    if not math.isfinite(seconds):
        return "unknown"
    left = max(0, int(seconds))
    if left < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
