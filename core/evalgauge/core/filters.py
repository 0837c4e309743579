"""Filters: which events of a batch a metric sees, decided for whole columns at once."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from evalgauge.core.pack.event_model import AllOf, AnyOf, Comparison, Not
from evalgauge.core.series import passing

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from evalgauge.core.pack.event_model import Filter


class FilterColumns(Protocol):
    """What a filter reads of a batch of n events."""

    n: int

    def is_number(self, field: str) -> bool:
        """True where the field holds numbers."""

    def numbers(self, field: str) -> NDArray[np.float64]:
        """Shape (n,); NaN where absent."""

    def codes(self, field: str) -> tuple[NDArray[np.intp], list[str | None]]:
        """Codes (n,) of a text field, and the text of each code; None is absent."""

    def present(self, field: str) -> NDArray[np.bool_]:
        """Shape (n,)."""


_WHOLE = 1e16
"""From here on a double is written with an exponent."""
_ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def mask(where: Filter, columns: FilterColumns) -> NDArray[np.bool_]:
    """Shape (n,): True for the events that pass. A comparison with an absent field is false; `not` negates plainly."""
    if isinstance(where, AllOf):
        return np.asarray(np.all([mask(part, columns) for part in where.all], axis=0))
    if isinstance(where, AnyOf):
        return np.asarray(np.any([mask(part, columns) for part in where.any], axis=0))
    if isinstance(where, Not):
        return ~mask(where.not_, columns)
    result = np.ones(columns.n, np.bool_)
    for field, comparison in where.items():
        result &= _compare(field, comparison, columns)
    return result


def _compare(field: str, comparison: Comparison, columns: FilterColumns) -> NDArray[np.bool_]:
    result = np.ones(columns.n, np.bool_)
    if comparison.present is not None:
        result &= columns.present(field) == comparison.present
    bounds = {name: getattr(comparison, name) for name in _ORDER if getattr(comparison, name) is not None}
    if columns.is_number(field):
        if bounds or comparison.eq is not None or comparison.in_ is not None:
            # NaN compares false with everything, which is what an absent field must do.
            values = columns.numbers(field)
            for name, bound in bounds.items():
                result &= _ORDER[name](values, bound)
            if comparison.eq is not None:
                result &= values == float(comparison.eq)
            if comparison.in_ is not None:
                result &= np.isin(values, [float(member) for member in comparison.in_])
        return result
    if comparison.eq is None and comparison.in_ is None:
        return result
    wanted = {text_of(member) for member in comparison.in_ or ()}
    if comparison.eq is not None:
        wanted.add(text_of(comparison.eq))
    codes, texts = columns.codes(field)
    return result & passing(codes, texts, wanted.__contains__)


def text_of(value: str | float | bool) -> str:  # noqa: FBT001 - a JSON value
    """A value as label text and as what a filter compares: booleans as JSON writes them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        # A whole number looks the same whether JSON wrote 5 or 5.0; any other as short as it can be told apart.
        return str(int(value)) if value.is_integer() and abs(value) < _WHOLE else repr(value)
    return str(value)


def optional_text(value: Any) -> str | None:
    """Label text of a scalar; None stays absent."""
    return None if value is None else text_of(value)
