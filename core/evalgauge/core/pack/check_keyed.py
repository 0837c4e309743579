"""What is wrong with a metric that keeps state by key."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from evalgauge.core.findings import suggest
from evalgauge.core.pack.emitted import emitted
from evalgauge.core.pack.model import ElapsedSpec

if TYPE_CHECKING:
    from evalgauge.core.document import Path_
    from evalgauge.core.pack.check import Check
    from evalgauge.core.pack.model import ActiveSpec, KeyedSpec


def check_keyed(check: Check, path: Path_, name: str, metric: KeyedSpec) -> None:
    """Report every problem of a metric whose event types are known."""
    _check_key(check, path, name, metric)
    if isinstance(metric, ElapsedSpec):
        _check_limits(check, path, name, metric)
    else:
        _check_closed(check, path, name, metric)
    added = {label for family in emitted(name, metric, "") for label in family.more}
    for label in sorted(added & metric.labels.keys()):
        message = f"metric `{name}`: label `{label}` is one that `{metric.type}` adds itself"
        check.report((*path, "labels", label), message, "Choose another name.", at_key=True)


def _check_key(check: Check, path: Path_, name: str, metric: KeyedSpec) -> None:
    for index, field in enumerate(metric.key):
        where = (*path, "key", index)
        if field in metric.key[:index]:
            check.report(where, f"metric `{name}`: `{field}` stands in `key` twice")
        for event in metric.on:
            spec = check.events[event].fields.get(field)
            if spec is None:
                fields = [one for one, found in check.events[event].fields.items() if found.type == "string"]
                message = f"metric `{name}`: key `{field}` is no field of `{event}`"
                check.report(where, message, suggest(field, fields))
            elif spec.type != "string":
                message = f"metric `{name}`: key `{field}` of `{event}` is of type `{spec.type}`, not text"
                check.report(where, message, "Declare it as `string`: an id is text.")
            elif spec.payload:
                message = f"metric `{name}`: key `{field}` of `{event}` is payload, which no state may hold"
                check.report(where, message)


def _check_limits(check: Check, path: Path_, name: str, metric: ElapsedSpec) -> None:
    for index, (lower, upper) in enumerate(pairwise([0.0, *metric.within])):
        if lower >= upper:
            message = f"metric `{name}`: limit {upper:g} s does not come after {lower:g} s"
            check.report((*path, "within", index), message, "Sort them, each once, above zero.")
    most = max(metric.within, default=0.0) + metric.lateness
    if metric.ttl <= most:
        message = (
            f"metric `{name}`: a key is forgotten after {metric.ttl:g} s, and decided only after {most:g} s"
        )
        check.report(
            (*path, "ttl"), message, "`ttl` must be longer than the last limit and `lateness` together."
        )


def _check_closed(check: Check, path: Path_, name: str, metric: ActiveSpec) -> None:
    for index, event in enumerate(metric.closed):
        if event not in metric.on:
            message = f"metric `{name}`: `{event}` in `closed` is not in `on`"
            check.report((*path, "closed", index), message, suggest(event, metric.on))
    if not {*metric.on} - {*metric.closed} and not check.is_broken(*path):
        check.report(
            (*path, "closed"), f"metric `{name}`: no event type shows a key to be active", at_key=True
        )
