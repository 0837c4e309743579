"""CloudEvents over Kafka: the two modes of the protocol binding, told apart by headers, each one event a record.

A header can be wrong in ways that JSON cannot, and a collector refuses nothing. Such a record becomes a line
that the engine refuses: a list that holds a sentence of what is wrong, then the event.
"""

from __future__ import annotations

import base64
import json
import re
from enum import Enum, auto
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from evalgauge.collectors.kafka_values import NOTHING, SPACE, lines_of, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

_RAW = msgspec.json.Decoder(msgspec.Raw)
_CONTENT_TYPE = "content-type"
_ATTRIBUTE = re.compile(r"ce_([a-z0-9]+)", re.ASCII)
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]++|\\.)*+"|[^\s;"]*)', re.DOTALL)
_JSON_TYPE = re.compile(r"(?:application|text)/json|[^\s/;]+/[^\s/;]+\+json")
_TEXT_TYPE = re.compile(r"text/[^\s/;]+|application/xml|[^\s/;]+/[^\s/;]+\+xml")
_UTF8 = {"utf-8", "utf8", "us-ascii"}


class _Content(Enum):
    """What a content type says the value is."""

    EVENT = auto()
    """Structured mode."""
    UNREADABLE_EVENT = auto()
    """Structured mode, in a format or charset that is not read here."""
    JSON = auto()
    UNREADABLE_JSON = auto()
    TEXT = auto()
    BYTES = auto()


class _Data(NamedTuple):
    """The event's data: as JSON, to stand under a key of the event."""

    key: bytes
    text: bytes
    fault: str = ""
    """Why it is none."""


def cloudevent(value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> tuple[bytes, int]:
    """The event of a record, as (line, 1). Without headers of CloudEvents, the lines of its value.

    In binary mode a record without a value is an event without data; elsewhere it is none.
    """
    attributes = _attributes(headers)
    content_type = attributes.pop(_CONTENT_TYPE, "")
    if isinstance(content_type, list):
        # Which of them is meant decides between an event and its data, unless no event is about.
        if not attributes and not any(map(_is_event, content_type)):
            return lines_of(value)
        return _refused(f"header `{_CONTENT_TYPE}` has several values", one_line(_stripped(value)))
    content = _content(content_type)
    if content is _Content.EVENT or content is _Content.UNREADABLE_EVENT:
        return _structured(_stripped(value), content, content_type)
    if not attributes:
        return lines_of(value)
    if content_type:
        attributes["datacontenttype"] = content_type
    return _binary(value or b"", attributes)


def _attributes(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str | list[str]]:
    """The event's attributes, and the content type. Bytes that are no UTF-8 become surrogates.

    An attribute that comes again with another value becomes a list: no reader of the attribute accepts one.
    """
    found: dict[str, str | list[str]] = {}
    for header, raw in headers:
        name = _name(header)
        if name is None or raw is None:
            continue
        value = raw.decode("utf-8", "surrogateescape")
        known = found.setdefault(name, value)
        if known != value:
            found[name] = [*known, value] if isinstance(known, list) else [known, value]
    return found


@lru_cache(maxsize=1024)
def _name(header: str) -> str | None:
    """The attribute that a header names, or `content-type`; None for headers that are not of CloudEvents."""
    header = header.lower()
    if header == _CONTENT_TYPE:
        return header
    match = _ATTRIBUTE.fullmatch(header)
    return match[1] if match and match[1] != "data" else None


@lru_cache(maxsize=256)
def _content(content_type: str) -> _Content:
    media_type = content_type.partition(";")[0].strip().lower()
    charsets = [value for name, value in _PARAMETER.findall(content_type) if name.lower() == "charset"]
    utf8 = all(charset.strip('"').lower() in _UTF8 for charset in charsets)
    if _is_event(content_type):
        known = media_type == "application/cloudevents+json" and utf8
        return _Content.EVENT if known else _Content.UNREADABLE_EVENT
    if not media_type or _JSON_TYPE.fullmatch(media_type):
        return _Content.JSON if utf8 else _Content.UNREADABLE_JSON
    return _Content.TEXT if utf8 and _TEXT_TYPE.fullmatch(media_type) else _Content.BYTES


def _is_event(content_type: str) -> bool:
    return content_type.lstrip().lower().startswith("application/cloudevents")


def _structured(value: bytes, content: _Content, content_type: str) -> tuple[bytes, int]:
    if not value:
        return NOTHING
    line = one_line(value)
    if content is _Content.EVENT:
        return line, 1
    shown = content_type[:100].encode("utf-8", "replace").decode()
    return _refused(f"`{_CONTENT_TYPE}: {shown}` is not read; use application/cloudevents+json (UTF-8)", line)


def _binary(value: bytes, attributes: dict[str, str | list[str]]) -> tuple[bytes, int]:
    """Put an event together from its attributes and its data."""
    head, faults = _json(attributes), []
    if not _is_utf8(head):
        faults.append("a `ce_` header, or the content type, is not UTF-8")
    version = attributes.get("specversion")
    if version != "1.0":
        faults.append(f"header `ce_specversion` {'is missing' if version is None else 'must be 1.0'}")
    data = _data(value, attributes.get("datacontenttype", ""))
    if data is None:
        event = head
    elif data.fault:
        return _refused("; ".join([*faults, data.fault]), head, data.text)
    else:
        event = b'%b,"%b":%b}' % (head[:-1], data.key, data.text)
    return _refused("; ".join(faults), event) if faults else (event, 1)


def _data(value: bytes, content_type: str | list[str]) -> _Data | None:
    """The data as the JSON format of CloudEvents has it: JSON as it is, text as a string, the rest as base64."""
    if isinstance(content_type, list):  # two different `ce_datacontenttype`
        return _text(value, "the content type has several values")
    content = _content(content_type)
    if content is _Content.JSON or content is _Content.UNREADABLE_JSON:
        line = one_line(_stripped(value))
        fault = ""
        if content is _Content.UNREADABLE_JSON:
            fault = "JSON must be in UTF-8, and the content type names another charset"
        elif not _is_value(line):
            # Only what is one whole value may be put between others: `1, "id": "x"` would be a second id.
            fault = "the value is not JSON, as the content type says"
        return _Data(b"data", line, fault) if line else None
    if content is _Content.TEXT:
        return _text(value)
    return _Data(b"data_base64", b'"%b"' % base64.b64encode(value)) if value else None


def _text(value: bytes, fault: str = "") -> _Data | None:
    text = _json(value.decode("utf-8", "surrogateescape"))
    if not _is_utf8(text):
        fault = fault or "the value is text, and not UTF-8"
    return _Data(b"data", text, fault) if value or fault else None


def _stripped(value: bytes | None) -> bytes:
    return (value or b"").strip(SPACE)


def _json(value: Any) -> bytes:
    """A JSON text on one line; bytes that were no UTF-8 come out of it as they went in."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_value(line: bytes) -> bool:
    try:
        _RAW.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _refused(why: str, *parts: bytes) -> tuple[bytes, int]:
    """A line that is no object, whatever the parts hold, so that nobody takes it for an event."""
    return b"[%b]" % b",".join([_json(why), *(part for part in parts if part)]), 1
