"""CloudEvents over HTTP: every form a request may have becomes lines, one event each.

Single events are not decoded here. Lines pass as they are, an array is cut into the bytes of its items,
and the binary form is put together from headers and body.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

from evalgauge.core.web import Refused, problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

COMMAS_PER_EVENT = 32
"""An array with more commas than this for each event it may have is not cut: `[0,0,…]` would fill the memory."""


class Form(Enum):
    """How the events of a request are written."""

    LINES = auto()
    ARRAY = auto()
    OBJECT = auto()
    ARRAY_OR_OBJECT = auto()
    BINARY = auto()


class Lines(NamedTuple):
    """Events as newline-delimited JSON, and how many lines that is (blank ones included)."""

    body: bytes
    lines: int


FORMS = {
    "application/cloudevents+json": Form.OBJECT,
    "application/cloudevents-batch+json": Form.ARRAY,
    "application/x-ndjson": Form.LINES,
    "application/ndjson": Form.LINES,
    "application/jsonl": Form.LINES,
    "application/json": Form.ARRAY_OR_OBJECT,
}
ACCEPT = ", ".join(FORMS)

_RAW = msgspec.json.Decoder(msgspec.Raw)
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
_ATTRIBUTE = re.compile(r"ce-([a-z0-9]+)", re.IGNORECASE)
_NO_HEADERS = {"data", "datacontenttype"}
"""The body is the one, Content-Type the other."""
_ESCAPED = re.compile(r"\\(.)")
_JSON_TYPE = re.compile(r"(?:application|text)/json|[\w.!#$&^-]+/[\w.!#$&^-]+\+json", re.ASCII)
_UTF8 = {"utf-8", "utf8", "us-ascii"}


def form_of(headers: Mapping[str, str]) -> Form:
    """Tell the form of a request from its headers. Raises `Refused` (415) for a content type not taken."""
    form, json, known = _content_type(headers.get("Content-Type", ""))
    if (known is None or not known.startswith("application/cloudevents")) and (
        "ce-specversion" in headers or "ce-id" in headers or "ce-type" in headers
    ):
        if json:
            return Form.BINARY
        detail = "In the binary mode of CloudEvents the body is the event's data, and that must be JSON here."
        raise _unsupported(detail, "application/json")
    if form is None:
        detail = f"Content-Type must be one of: {ACCEPT} (UTF-8); or JSON with ce-* headers."
        raise _unsupported(detail, ACCEPT)
    return form


@lru_cache(maxsize=256)
def _content_type(header: str) -> tuple[Form | None, bool, str | None]:
    """Give the form, whether the body is JSON (or nothing is said), and the media type."""
    media_type, *parameters = (part.strip().lower() for part in header.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in _UTF8:
            return None, False, media_type
    return FORMS.get(media_type), not media_type or bool(_JSON_TYPE.fullmatch(media_type)), media_type


def _unsupported(detail: str, accept: str) -> Refused:
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    return Refused(problem(status, "The content type is not taken", detail, headers={"Accept": accept}))


def lines_of(body: bytes, form: Form, max_events: int) -> Lines:
    """Turn a body (inflated, not binary mode) into lines.

    Raises `Refused`: 400 when the body as a whole is not what its type says, 413 above `max_events`.
    """
    if form is Form.LINES:
        return _counted(body, body.count(b"\n") + (not body.endswith(b"\n") and bool(body)), max_events)
    first = body.lstrip(b" \t\r\n")[:1]
    if form is Form.ARRAY_OR_OBJECT:
        form = Form.ARRAY if first == b"[" else Form.OBJECT
    if form is Form.ARRAY:
        return _cut(body, max_events)
    if first != b"{" and _is_json(body):
        raise _malformed("The body must hold an object, or (as another content type) an array of them.")
    return Lines(_one(body), 1)


def binary_event(body: bytes, headers: Iterable[tuple[str, str]]) -> Lines:
    """Put one event together from its ce-* headers and its data (JSON). Raises `Refused` (400)."""
    attributes: dict[str, str] = {}
    for header, value in headers:
        if header[:3].lower() != "ce-":
            continue
        match = _ATTRIBUTE.fullmatch(header)
        name = match[1].lower() if match else ""
        if not name or name in _NO_HEADERS or name in attributes:
            raise _malformed(
                f"Header `{header[:40]}` names no attribute of an event, or one that is there already."
            )
        attributes[name] = _decoded(name, value)
    if attributes.get("specversion") != "1.0":
        raise _malformed("Header `ce-specversion` must be 1.0.")
    event = msgspec.json.encode(attributes)
    if body.strip():
        event = b'%b,"data":%b}' % (event[:-1], _one(body))
    return Lines(event, 1)


def _decoded(name: str, value: str) -> str:
    """Undo what the HTTP binding does to an attribute: double quotes first, then percent-encoding."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = _ESCAPED.sub(r"\1", value[1:-1])
    try:
        # aiohttp hands on bytes that are no UTF-8 as surrogates, which must not get into an event.
        return (unquote_to_bytes(value.encode("utf-8")) if "%" in value else value.encode("utf-8")).decode(
            "utf-8"
        )
    except UnicodeError as error:
        raise _malformed(f"Header `ce-{name}` is not UTF-8.") from error


def _cut(body: bytes, max_events: int) -> Lines:
    if body.count(b",") >= COMMAS_PER_EVENT * max_events:
        raise _too_many(max_events)
    try:
        items = _RAWS.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _malformed(_why(error)) from error
    if len(items) > max_events:
        raise _too_many(max_events)
    if b"\n" in body:
        return Lines(b"\n".join(bytes(item).replace(b"\n", b" ") for item in items), len(items))
    return Lines(b"\n".join(items), len(items))


def _one(body: bytes) -> bytes:
    """One JSON value on one line."""
    try:
        value = bytes(_RAW.decode(body))
    except (msgspec.DecodeError, RecursionError) as error:
        raise _malformed(_why(error)) from error
    return value.replace(b"\n", b" ")


def _is_json(body: bytes) -> bool:
    _one(body)
    return True


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "The body is nested too deep."
    return f"{error}. Nothing of the body was taken; as NDJSON one bad event would be refused alone."


def _malformed(detail: str) -> Refused:
    return Refused(problem(HTTPStatus.BAD_REQUEST, "The body cannot be read", detail))


def _counted(body: bytes, count: int, max_events: int) -> Lines:
    if count > max_events:
        raise _too_many(max_events)
    return Lines(body, count)


def _too_many(max_events: int) -> Refused:
    detail = f"A request may hold {max_events} events; send them in several."
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return Refused(problem(status, "Too many events in one request", detail, max_events=max_events))
