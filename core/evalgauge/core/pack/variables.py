"""What stands for something else in a pack's texts: `${parameter}`, and a dashboard's `$variable`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from evalgauge.core.pack.model import Pack

_BRACED = re.compile(r"\$\{([A-Za-z_]\w*)(?::\w+)?\}")
_PLAIN = re.compile(r"\$([A-Za-z_]\w*)")
_TEXT = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)""")

GRAFANA = {
    "__rate_interval": "5m",
    "__interval": "1m",
    "__range": "1h",
    "__interval_ms": "60000",
    "__range_s": "3600",
    "__range_ms": "3600000",
}
"""Variables that Grafana sets itself, with a value that stands for them while a query is checked."""

_STAND_IN = "__variable_{}__"


def number(value: float) -> str:
    """A number as PromQL and people write it: `5`, `0.95`, `1e-06`."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)  # noqa: PLR2004 - exact floats


def resolve(text: str, pack: Pack) -> str:
    """`text` (PromQL or prose) with each `${parameter}` of the pack as its number; all else stays as it is."""

    def replace(match: re.Match[str]) -> str:
        parameter = pack.parameters.get(match[1])
        return match[0] if parameter is None else number(parameter.value)

    return _BRACED.sub(replace, text)


def names_in(text: str) -> Iterator[str]:
    """Every name written as `${name}`, `${name:format}` or `$name`."""
    for pattern in (_BRACED, _PLAIN):
        yield from (match[1] for match in pattern.finditer(text))


def braced_in(text: str) -> Iterator[str]:
    """Every name written as `${name}`, which is all that counts outside of dashboards."""
    yield from (match[1] for match in _BRACED.finditer(text))


def stood_in(query: str, variables: Collection[str]) -> tuple[str, list[str]]:
    """A dashboard's query in plain PromQL, and what is wrong with its variables.

    A variable of the dashboard becomes a text that `variable_of` knows again; it may only stand in quotes.
    """
    faults: list[str] = []
    parts = _TEXT.split(query)

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name in GRAFANA:
            return GRAFANA[name]
        if name not in variables:
            faults.append(f"unknown variable `{match[0]}`")
        elif not quoted:
            faults.append(f"variable `{match[0]}` stands for a label's value, so it must be in quotes")
        return _STAND_IN.format(name)

    for index, part in enumerate(parts):
        quoted = index % 2 == 1
        parts[index] = _PLAIN.sub(replace, _BRACED.sub(replace, part))
    return "".join(parts), faults


def variable_of(text: str, variables: Collection[str]) -> str | None:
    """The variable that stands in `text`, as `stood_in` left it; None if none does."""
    return next((name for name in variables if _STAND_IN.format(name) in text), None)
