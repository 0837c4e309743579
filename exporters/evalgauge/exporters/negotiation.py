"""What a scraper wants: the format from `Accept`, and gzip from `Accept-Encoding`."""

from __future__ import annotations

from typing import NamedTuple

TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Offer(NamedTuple):
    """A format that can be served."""

    openmetrics: bool
    content_type: str


class _Range(NamedTuple):
    """One element of an `Accept` header."""

    kind: str
    subtype: str
    version: str
    q: float
    order: int

    def specificity(self, kind: str, subtype: str, version: str) -> int:
        """How closely this range names the type: 0 not at all, 4 with its version."""
        if self.kind == "*":
            return 1 if self.subtype == "*" else 0
        if self.kind != kind:
            return 0
        if self.subtype == "*":
            return 2
        if self.subtype != subtype or self.version not in {"", version}:
            return 0
        return 4 if self.version else 3


# In order of liking where the client has no preference. `OpenMetrics 0.0.1` is the draft by another name.
_OFFERS = (
    ("text", "plain", "0.0.4", Offer(openmetrics=False, content_type=TEXT)),
    *(
        (
            "application",
            "openmetrics-text",
            version,
            Offer(
                openmetrics=True,
                content_type=f"application/openmetrics-text; version={version}; charset=utf-8",
            ),
        )
        for version in ("1.0.0", "0.0.1")
    ),
)


def negotiate(accept: str) -> Offer:
    """Choose the format for an `Accept` header; text 0.0.4 for a client that takes nothing we have.

    The greatest q wins; among equals what is named more closely, then what is named first. Parameters
    other than `version` and `q`, such as Prometheus' `escaping`, do not matter: no name needs escaping.
    """
    ranges = _ranges(accept)
    best, chosen = (0.0, 0, 0), _OFFERS[0][3]
    for kind, subtype, version, offer in _OFFERS:
        fits = [(one.specificity(kind, subtype, version), -one.order, one.q) for one in ranges]
        # RFC 9110: what names a type most closely decides on it, whatever a wildcard says.
        specificity, order, q = max(fits, default=(0, 0, 0.0))
        if specificity and q > 0 and (q, specificity, order) > best:
            best, chosen = (q, specificity, order), offer
    return chosen


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an `Accept-Encoding` header allows gzip."""
    allowed: dict[str, float] = {}
    for element in accept_encoding.split(","):
        coding, *parameters = element.split(";")
        allowed[coding.strip().lower()] = _q(parameters)
    return allowed.get("gzip", allowed.get("x-gzip", allowed.get("*", 0.0))) > 0


def _ranges(accept: str) -> list[_Range]:
    ranges = []
    for order, element in enumerate(accept.split(",")):
        media, *parameters = element.split(";")
        kind, slash, subtype = media.strip().lower().partition("/")
        if slash:
            ranges.append(_Range(kind, subtype, _parameter(parameters, "version"), _q(parameters), order))
    return ranges


def _q(parameters: list[str]) -> float:
    """Weight from 0 to 1; an unreadable one is 0: not to be had is safer than preferred."""
    try:
        q = float(_parameter(parameters, "q") or "1")
    except ValueError:
        return 0.0
    return q if 0 <= q <= 1 else 0.0


def _parameter(parameters: list[str], wanted: str) -> str:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == wanted:
            return value.strip().strip('"')
    return ""
