"""Fields made of others: whole columns from columns, texts once for each that is new.

A ratio and a difference are of doubles; the hash is xxHash (Y. Collet, XXH3, 64 bits, seed 0) of the text's UTF-8.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash

from evalgauge.core import plugins
from evalgauge.core.columns import FieldReader
from evalgauge.core.filters import optional_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from evalgauge.core.columns import Columns
    from evalgauge.core.pack.event_model import DeriveSpec, EventSpec
    from evalgauge.core.series import Encoder

_BOOLEANS = {"true": True, "false": False, None: None}


def ratio(upper: str, lower: str, columns: Columns) -> NDArray[np.float64]:
    """One number (n,) by another; NaN where either is absent, the second is 0, or no double holds the result."""
    over, under = columns.numbers(upper), columns.numbers(lower)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return _finite(over / under, over, under)


def difference(first: str, second: str, columns: Columns) -> NDArray[np.float64]:
    """One number (n,) less another; NaN where either is absent, or no double holds the result."""
    more, less = columns.numbers(first), columns.numbers(second)
    with np.errstate(invalid="ignore", over="ignore"):
        return _finite(more - less, more, less)


def _finite(values: NDArray[np.float64], *of: NDArray[np.float64]) -> NDArray[np.float64]:
    there = np.isfinite(values)
    for one in of:
        there &= np.isfinite(one)
    return np.where(there, values, np.nan)


def bucket(
    field: str, bounds: NDArray[np.float64], names: tuple[str, ...], columns: Columns, encoder: Encoder
) -> NDArray[np.intp]:
    """Codes (n,) of the names of the ranges that numbers are in."""
    values = columns.numbers(field)
    places = np.searchsorted(bounds, values, side="left")
    return encoder.codes_of(names, np.where(np.isnan(values), -1, places))


def translated(
    field: str, translate: Callable[[str], str], columns: Columns, encoder: Encoder
) -> NDArray[np.intp]:
    """Codes (n,) of what texts become, or numbers as a label shows them; made once for each that is new."""
    codes, texts = columns.codes(field)
    return encoder.codes_from(codes, texts, translate)


def hashed(into: int, text: str) -> str:
    """One of `into` numbers, as text: the same one on every machine and in every version."""
    return str(xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) % into)


class _Results(NamedTuple):
    values: list[Any]
    """What came of each different set of arguments."""
    places: NDArray[np.intp]
    """Shape (n,): which of them an event has."""
    failed: dict[int, str]
    """Place → why nothing came of it."""


class Function:
    """What a Python function makes of the values of some fields.

    It is asked once for each set of values that is different in a batch: what it returns must depend on nothing else.
    """

    def __init__(
        self, name: str, spec: DeriveSpec, kinds: Mapping[str, str], call: Callable[..., Any]
    ) -> None:
        """`kinds` are the types of the fields."""
        self._name, self._spec, self._kinds, self._call = name, spec, kinds, call
        self._allowed = None if spec.enum is None else frozenset(spec.enum)

    def failures(self, columns: Columns) -> dict[int, str]:
        """Row → why the function gave nothing that can be used."""
        results = self._results(columns)
        if not results.failed:
            return {}
        return {
            row: results.failed[place]
            for row, place in enumerate(results.places.tolist())
            if place in results.failed
        }

    def numbers(self, columns: Columns) -> NDArray[np.float64]:
        """Values (n,); NaN where it failed, too."""
        values, places, _ = self._results(columns)
        return np.array([math.nan if one is None else one for one in values], np.float64)[places]

    def codes(self, columns: Columns, encoder: Encoder) -> NDArray[np.intp]:
        """Codes (n,); absent where it failed, too."""
        values, places, _ = self._results(columns)
        return np.array([encoder[one] for one in values], np.intp)[places]

    def _results(self, columns: Columns) -> _Results:
        found = columns.kept.get(self._name)
        if found is None:
            found = columns.kept[self._name] = self._asked(columns)
        return found

    def _asked(self, columns: Columns) -> _Results:
        arguments, codes = [], np.zeros(columns.n, np.intp)
        for field in self._spec.fields:
            argument, own = self._argument(columns, field)
            arguments.append(argument)
            # Two codes become one, of those that there are: the product of many would not fit.
            codes = np.unique(codes * (int(own.max(initial=0)) + 1) + own, return_inverse=True)[1]
        _, rows, places = np.unique(codes, return_index=True, return_inverse=True)
        values: list[Any] = []
        failed: dict[int, str] = {}
        for place, row in enumerate(rows.tolist()):
            try:
                values.append(self._judged(self._call(*(one(row) for one in arguments))))
            except Exception as error:  # noqa: BLE001 - somebody else's function may raise anything
                values.append(None)
                failed[place] = f"`{self._name}`: {type(error).__name__}: {error}"
        return _Results(values, places, failed)

    def _argument(self, columns: Columns, field: str) -> tuple[Callable[[int], Any], NDArray[np.intp]]:
        """The plain value of a row, and codes (n,) that are the same where the values are."""
        kind = self._kinds[field]
        if kind in {"number", "integer"}:
            numbers = columns.numbers(field)
            whole = kind == "integer"
            bits = np.ascontiguousarray(numbers).view(np.int64)  # 0.0 and -0.0 are two
            return lambda row: _plain(float(numbers[row]), whole=whole), np.unique(bits, return_inverse=True)[
                1
            ]
        codes, texts = columns.codes(field)
        if kind == "boolean":
            return lambda row: _BOOLEANS[texts[codes[row]]], codes
        return lambda row: texts[codes[row]], codes

    def _judged(self, value: Any) -> Any:
        """What the function returned. Raises TypeError or ValueError where the field can not be it."""
        if value is None:
            return None
        if self._spec.type == "number":
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise TypeError(f"it returned a {type(value).__name__}, not a number or None")
            number = float(value)
            if not math.isfinite(number):
                raise ValueError(f"it returned {number}, which no field may be")
            least, most = self._spec.min, self._spec.max
            if (least is not None and number < least) or (most is not None and number > most):
                raise ValueError(f"it returned {number:g}, which is not within `min` and `max`")
            return number
        if not isinstance(value, str):
            raise TypeError(f"it returned a {type(value).__name__}, not text or None")
        if self._allowed is not None and value not in self._allowed:
            raise ValueError(f"it returned {value[:100]!r}, which is not in the enum")
        value.encode()  # a lone surrogate can be shown nowhere; raises UnicodeEncodeError, which is a ValueError
        return str(value)


def _plain(number: float, *, whole: bool) -> float | None:
    if math.isnan(number):
        return None
    return int(number) if whole and math.isfinite(number) else number


def derived_fields(spec: EventSpec) -> tuple[dict[str, FieldReader], list[Function]]:
    """How the derived fields of an event type are read, whatever shape it came in, and the functions among them.

    Raises `ConfigError` where a function is not there.
    """
    readers: dict[str, FieldReader] = {}
    functions: list[Function] = []
    kinds = {name: one.type for name, one in spec.columns.items()} if spec.derive else {}
    for name, one in spec.derive.items():
        if one.function is not None:
            function = Function(name, one, kinds, plugins.load(plugins.DERIVE, one.function))
            functions.append(function)
            readers[name] = _numbers(function.numbers) if one.is_number else _texts(function.codes)
        elif one.ratio is not None:
            readers[name] = _numbers(partial(ratio, one.ratio[0], one.ratio[1]))
        elif one.difference is not None:
            readers[name] = _numbers(partial(difference, one.difference[0], one.difference[1]))
        elif one.bucket is not None:
            bounds = np.array(one.bucket.bounds, np.float64)
            readers[name] = _texts(partial(bucket, one.bucket.field, bounds, tuple(one.bucket.names)))
        elif one.hash is not None:
            readers[name] = _texts(partial(translated, one.hash.field, partial(hashed, one.hash.into)))
        else:
            readers[name] = _texts(partial(translated, str(one.lower), str.lower))
    return readers, functions


def _numbers(made: Callable[[Columns], NDArray[np.float64]]) -> FieldReader:
    return FieldReader(None, number=True, translate=optional_text, made_numbers=made)


def _texts(made: Callable[[Columns, Encoder], NDArray[np.intp]]) -> FieldReader:
    return FieldReader(None, translate=optional_text, made_codes=made)
