"""What is wrong with the tests of a pack's alerts: series that nothing emits, alerts that there are not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import promql_parser as promql

from evalgauge.core.findings import suggest
from evalgauge.core.pack.promql import read

if TYPE_CHECKING:
    from evalgauge.core.document import Path_
    from evalgauge.core.pack.catalogue import Catalogue
    from evalgauge.core.pack.check import Check
    from evalgauge.core.pack.model import AlertTest

_NUMBER = r"(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|Inf|NaN)"
_VALUES = re.compile(rf"(?:(?:_|stale|[+-]?{_NUMBER}(?:[+-]{_NUMBER})?)(?:x\d+)?(?:\s+|$))+")


def check_alert_tests(check: Check, catalogue: Catalogue) -> None:
    """Report every problem of `alert_tests`."""
    tests = {one.name: one for one in check.pack.alert_tests}
    seen: set[str] = set()
    for index, test in enumerate(check.pack.alert_tests):
        path: Path_ = ("alert_tests", index)
        if test.name in seen:
            check.report((*path, "name"), f"two tests are called `{test.name}`", "Rename one.")
        seen.add(test.name)
        if test.like is not None:
            other = tests.get(test.like)
            if other is None:
                check.report((*path, "like"), f"no test is called `{test.like}`", suggest(test.like, tests))
            elif other.like is not None:
                hint = f"Name `{other.like}`, or give the series here."
                check.report((*path, "like"), f"`{test.like}` is like another test itself", hint)
        for name in test.firing:
            if name not in check.pack.alerts and not check.is_broken("alerts", name):
                message = f"`{test.name}`: no alert is called `{name}`"
                check.report((*path, "firing"), message, suggest(name, check.pack.alerts), at_key=True)
        _series(check, path, test, catalogue)


def _series(check: Check, path: Path_, test: AlertTest, catalogue: Catalogue) -> None:
    for series, values in test.series.items():
        where = (*path, "series", series)
        if not _is_series(series):
            hint = 'Write its name and labels with their values, such as up{job="a"}.'
            check.report(where, f"`{test.name}`: `{series}` is no series", hint, at_key=True)
            continue
        for fault in read(series, catalogue).faults:
            check.report(where, f"`{test.name}`: {fault.message}", fault.hint, at_key=True)
        if not _VALUES.fullmatch(values.strip()):
            hint = "Such as `1 2 _ 4`, `0+10x60` (0, 10, … 600), `5x60` or `stale`, with spaces between."
            check.report(where, f"`{test.name}`: `{values}` are no values as promtool takes them", hint)


def _is_series(text: str) -> bool:
    try:
        found = promql.parse(text)
    except ValueError:
        return False
    if not isinstance(found, promql.VectorSelector) or found.offset is not None or found.at is not None:
        return False
    return all(one.op == promql.MatchOp.Equal for one in found.matchers.matchers)
