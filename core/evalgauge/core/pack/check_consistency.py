"""What is wrong with a metric of consistency ratios."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalgauge.core.findings import suggest

if TYPE_CHECKING:
    from evalgauge.core.document import Path_
    from evalgauge.core.pack.check import Check
    from evalgauge.core.pack.metric_model import ConsistencySpec

_NUMBERS = ("number", "integer")
_RATIOS = (None, "1", "ratio")
"""Units of a field that holds ratios as they are."""


def check_consistency(check: Check, path: Path_, name: str, metric: ConsistencySpec) -> None:
    """Report every problem of what is compared, and of what may be given."""
    if metric.comparison == metric.complete:
        message = f"metric `{name}`: `{metric.complete}` is the comparison, and cannot complete it"
        check.report((*path, "complete"), message, "Name the event type that ends a node.")
    if metric.left == metric.right:
        message = f"metric `{name}`: `left` and `right` are both `{metric.left}`"
        check.report((*path, "right"), message, "A comparison is of two elements.")
    for key in ("left", "right"):
        _check_field(check, (*path, key), metric.comparison, getattr(metric, key), ("string",))
    _check_field(check, (*path, "value"), metric.comparison, metric.value, _NUMBERS)
    if metric.given is None:
        return
    _check_field(check, (*path, "given"), metric.complete, metric.given, _NUMBERS)
    spec = check.events[metric.complete].columns.get(metric.given)
    if spec is not None and spec.type in _NUMBERS and spec.unit not in _RATIOS:
        message = f"metric `{name}`: `given` is in `{spec.unit}`, and a consistency ratio is a ratio"
        check.report((*path, "given"), message, 'Its unit must be `ratio`, `"1"` or none.')


def _check_field(check: Check, path: Path_, event: str, field: str, kinds: tuple[str, ...]) -> None:
    name, key = path[1], path[-1]
    fields = check.events[event].columns
    spec = fields.get(field)
    if spec is None:
        fit = [one for one, found in fields.items() if found.type in kinds]
        message = f"metric `{name}`: {key} `{field}` is no field of `{event}`"
        check.report(path, message, suggest(field, fit))
    elif spec.type not in kinds:
        message = f"metric `{name}`: {key} `{field}` of `{event}` is of type `{spec.type}`"
        check.report(path, message, f"It must be {'text' if kinds == ('string',) else 'a number'}.")
    elif spec.payload:
        message = f"metric `{name}`: {key} `{field}` of `{event}` is payload, which no state may hold"
        check.report(path, message)
