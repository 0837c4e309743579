"""Compressed request bodies, inflated up to a limit and never past it."""

from __future__ import annotations

import zlib
from http import HTTPStatus
from typing import TYPE_CHECKING

from evalgauge.core.web import Refused, problem

if TYPE_CHECKING:
    from collections.abc import Callable

GZIP_MEMBERS = 128
ZSTD_FRAMES = 1000
"""Parts one body may be made of. Each costs a set-up, and an empty one takes only some twenty bytes."""

ZSTD_WINDOW = 8 << 20
"""What a sender of the content coding `zstd` may ask a receiver to hold (RFC 9659)."""

_ZSTD_STEP = 256
"""Bytes of input a step: four bytes can become a block of 128 KiB, so that a step yields 8 MiB at most."""


def decoder_of(encoding: str) -> Callable[[bytes, int], bytes] | None:
    """Find what inflates a `Content-Encoding`: a function of the body and its limit in bytes; None: identity.

    Raises `Refused` (415) for a coding that is unknown or not installed.
    """
    coding = encoding.strip().lower()
    if coding in {"", "identity"}:
        return None
    if coding in {"gzip", "x-gzip"}:
        return gunzip
    hint = ""
    if coding == "zstd":
        try:
            import zstandard  # noqa: F401, PLC0415 - an optional extra
        except ImportError:
            hint = " The server lacks the extra `zstd`: pip install 'evalgauge[zstd]'."
        else:
            return unzstd
    raise Refused(
        problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "The content encoding is not taken",
            f"Send the body as it is, or with one of: {accepted()}.{hint}",
            headers={"Accept-Encoding": accepted()},
        )
    )


def accepted() -> str:
    """List the codings that this installation takes, as the header `Accept-Encoding` does."""
    try:
        import zstandard  # noqa: F401, PLC0415 - an optional extra
    except ImportError:
        return "gzip"
    return "gzip, zstd"


def gunzip(body: bytes, limit: int) -> bytes:
    """Inflate gzip of one or several members. Raises `Refused`: 413 above `limit` bytes, 400 when broken."""
    parts: list[bytes] = []
    left = limit
    rest = body
    while rest or not parts:
        if len(parts) == GZIP_MEMBERS:
            raise _broken(f"gzip of more than {GZIP_MEMBERS} members is not taken")
        member = zlib.decompressobj(wbits=31)
        try:
            part = member.decompress(rest, left + 1)
        except zlib.error as error:
            what = f"what follows the gzip data is no gzip ({error})" if parts else str(error)
            raise _broken(what) from error
        if len(part) > left:
            raise inflated_too_large(limit)
        if not member.eof:
            raise _broken("the gzip data end too early")
        parts.append(part)
        left -= len(part)
        rest = member.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def unzstd(body: bytes, limit: int) -> bytes:
    """Inflate Zstandard of one or several frames. Raises `Refused` as `gunzip` does."""
    import zstandard  # noqa: PLC0415 - an optional extra; `decoder_of` has seen that it is there

    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
    parts: list[bytes] = []
    left = limit
    at = frames = 0
    while at < len(body) or not frames:
        frames += 1
        if frames > ZSTD_FRAMES:
            raise _broken(f"zstd of more than {ZSTD_FRAMES} frames is not taken")
        frame = decompressor.decompressobj()
        while not frame.eof:
            if at >= len(body):
                raise _broken("the zstd data end too early")
            try:
                part = frame.decompress(body[at : at + _ZSTD_STEP])
            except zstandard.ZstdError as error:
                raise _broken(str(error)) from error
            at += _ZSTD_STEP
            left -= len(part)
            if left < 0:
                raise inflated_too_large(limit)
            parts.append(part)
        at = min(at, len(body)) - len(frame.unused_data)
    return b"".join(parts)


def _broken(what: str) -> Refused:
    return Refused(problem(HTTPStatus.BAD_REQUEST, "The compressed body cannot be read", f"{what}."))


def inflated_too_large(limit: int) -> Refused:
    """Make the answer 413 to a body that is larger than `limit` bytes once inflated."""
    detail = f"A body may have {limit} bytes once inflated; send fewer events at a time."
    title = "The inflated body is too large"
    return Refused(problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, title, detail, max_bytes=limit))
