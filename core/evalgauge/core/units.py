"""Quantities as people write them (`250ms`, `64MiB`), and units of fields with the base unit each becomes."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, WithJsonSchema

_DURATION = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZE = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_DURATION_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_SIZE_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def parse_duration(value: object) -> float:
    """Seconds of `1h30m`, `250ms` or a plain number of seconds. Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        text = str(value).strip()
        parts = _DURATION_PARTS.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            msg = f"`{value}` is no duration; write it like 250ms, 30s, 5m, 1h30m or 7d"
            raise ValueError(msg)
        seconds = sum(float(number) * _DURATION[unit] for number, unit in parts)
    if not 0 <= seconds < float("inf"):
        msg = f"`{value}` is no duration: it must be finite and not negative"
        raise ValueError(msg)
    return seconds


def parse_size(value: object) -> int:
    """Bytes of `64MiB`, `1.5GB` or a plain number of bytes. Raises ValueError."""
    match = _SIZE_FORM.fullmatch(str(value).strip())
    if match is None or match[2] not in _SIZE or isinstance(value, bool):
        msg = f"`{value}` is no size; write it like 512KiB, 64MiB or 1GB"
        raise ValueError(msg)
    size = Fraction(match[1]) * _SIZE[match[2]]
    if match[2] in {"", "B"} and size.denominator != 1:
        msg = f"`{value}` is no size: bytes are whole"
        raise ValueError(msg)
    return int(size)


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d|w))+$"},
            ]
        }
    ),
]
"""Seconds; written as a number or with units."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^(\d+\s*B?|\d+(\.\d+)?\s*[KMG]i?B)$"},
            ]
        }
    ),
]
"""Bytes; written as a number or with units."""


class Unit(NamedTuple):
    """A declared unit: the base unit it is shown in, and what one of it is in that base unit."""

    base: str
    factor: Fraction


UNITS: dict[str, Unit] = {
    "ns": Unit("seconds", Fraction(1, 10**9)),
    "us": Unit("seconds", Fraction(1, 10**6)),
    "ms": Unit("seconds", Fraction(1, 1000)),
    "s": Unit("seconds", Fraction(1)),
    "min": Unit("seconds", Fraction(60)),
    "h": Unit("seconds", Fraction(3600)),
    "bytes": Unit("bytes", Fraction(1)),
    "KiB": Unit("bytes", Fraction(2**10)),
    "MiB": Unit("bytes", Fraction(2**20)),
    "percent": Unit("ratio", Fraction(1, 100)),
    "ratio": Unit("ratio", Fraction(1)),
    "usd": Unit("usd", Fraction(1)),
    "celsius": Unit("celsius", Fraction(1)),
    "1": Unit("", Fraction(1)),
}
"""Units a field may declare. Base units follow Prometheus: seconds, bytes, ratios from 0 to 1."""
