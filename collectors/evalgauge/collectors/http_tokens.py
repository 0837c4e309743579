"""Bearer tokens of a push door: who sends, for which tenant, and how much of it a second."""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, SecretStr, model_validator

from evalgauge.core.errors import ConfigError
from evalgauge.core.web import Refused, problem

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

_LOOK_EVERY = 1.0
"""Seconds between two looks at the token files."""


class Rate(BaseModel):
    """How many events a tenant may send."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    events_per_second: PositiveFloat = Field(description="Events a second in the long run.")
    burst: PositiveInt = Field(
        description=(
            "Events at once after a pause. A request with more is let in when the burst is full, and the next "
            "one waits until that debt is paid, so that no batch is too large to be sent ever."
        )
    )


class Token(BaseModel):
    """One sender."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="What the sender is called in logs; never the token itself.")
    token: SecretStr | None = Field(None, description="The token; better kept in a `token_file`.")
    token_file: Path | None = Field(
        None,
        description=(
            "File with the token, read again when it changes. Several lines are several tokens, valid side by "
            "side while one takes the other's place."
        ),
    )
    tenant: str | None = Field(
        None,
        min_length=1,
        max_length=128,
        description="Written into each event of this sender; events that name another tenant are refused.",
    )
    rate: Rate | None = Field(None, description="Limit of this tenant, shared by all tokens that name it.")
    disabled: bool = Field(
        default=False, description="Known, but turned away (403): a tenant that is suspended."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.token is None) == (self.token_file is None):
            msg = f"token `{self.name}`: give exactly one of `token` and `token_file`"
            raise ValueError(msg)
        if self.token is not None and not self.token.get_secret_value().strip():
            msg = f"token `{self.name}`: the token is empty"
            raise ValueError(msg)
        return self


class Bucket:
    """A token bucket that may go into debt: the rate holds in the long run, whatever the size of a request."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._level = float(rate.burst)
        self._at = time.monotonic()

    def wait(self, events: int) -> float:
        """Seconds until so many events may pass; 0: now, and they are taken."""
        now = time.monotonic()
        self._level = min(self.rate.burst, self._level + (now - self._at) * self.rate.events_per_second)
        self._at = now
        missing = min(events, self.rate.burst) - self._level
        if missing > 0:
            return missing / self.rate.events_per_second
        self._level -= events
        return 0.0

    def give_back(self, events: int) -> None:
        """Undo what `wait` took, for events that were not let in after all."""
        self._level = min(self.rate.burst, self._level + events)


@dataclass(frozen=True, slots=True)
class Sender:
    """Who a token stands for."""

    token: Token
    bucket: Bucket | None


class Tokens:
    """The senders of an input, found by the keyed hash of what they show.

    The key is drawn at start, so that the time a look-up takes says nothing about a token.
    """

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._key = secrets.token_bytes(32)
        buckets = _buckets(tokens)
        self._senders = [Sender(token, buckets.get(_owner(token))) for token in tokens]
        self._stamps: dict[str, tuple[int, int]] = {}
        self._of_sender: dict[str, list[bytes]] = {}
        self._by_digest: dict[bytes, Sender] = {}
        self._look_at = 0.0
        for sender in self._senders:
            self._load(sender.token)
        self._index()

    def sender(self, authorization: str) -> Sender:
        """Find who sent the header `Authorization`. Raises `Refused`: 401, 403 where the sender is disabled."""
        self._look()
        scheme, _, shown = authorization.partition(" ")
        digest = self._digest(shown.strip())
        sender = self._by_digest.get(digest) if scheme.lower() == "bearer" else None
        if sender is None:
            raise _unknown(shown)
        if sender.token.disabled:
            detail = f"The token of `{sender.token.name}` is disabled in the configuration of this input."
            raise Refused(problem(HTTPStatus.FORBIDDEN, "This sender may not send", detail))
        return sender

    def _digest(self, token: str) -> bytes:
        return hashlib.blake2b(
            token.encode("utf-8", "surrogateescape"), key=self._key, digest_size=32
        ).digest()

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY
        for sender in self._senders:
            try:
                if self._load(sender.token):
                    self._index()
                    log.info("token `%s` was read again", sender.token.name)
            except ConfigError as error:
                log.warning("%s; the tokens read before stay valid", error)

    def _load(self, token: Token) -> bool:
        """Read a sender's tokens if they changed. Raises `ConfigError`."""
        if token.token is not None:
            texts = [token.token.get_secret_value()]
        elif token.token_file is not None:
            try:
                found = token.token_file.stat()
                stamp = (found.st_mtime_ns, found.st_ino)
                if self._stamps.get(token.name) == stamp:
                    return False
                self._stamps[token.name] = stamp
                texts = token.token_file.read_text(encoding="utf-8").split()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or error
                msg = f"token `{token.name}`: {token.token_file} cannot be read: {reason}"
                raise ConfigError(msg) from error
            if not texts:
                msg = f"token `{token.name}`: {token.token_file} holds no token"
                raise ConfigError(msg)
        digests = [self._digest(text.strip()) for text in texts]
        changed = self._of_sender.get(token.name) != digests
        self._of_sender[token.name] = digests
        return changed

    def _index(self) -> None:
        index: dict[bytes, Sender] = {}
        for sender in self._senders:
            for digest in self._of_sender.get(sender.token.name, ()):
                other = index.setdefault(digest, sender)
                if other is not sender:
                    msg = f"tokens `{other.token.name}` and `{sender.token.name}` are the same; give each its own"
                    raise ConfigError(msg)
        self._by_digest = index


def _owner(token: Token) -> str:
    """What a limit belongs to: the tenant, or the token where it names none."""
    return f"tenant {token.tenant}" if token.tenant is not None else f"token {token.name}"


def _buckets(tokens: Sequence[Token]) -> dict[str, Bucket]:
    names: set[str] = set()
    buckets: dict[str, Bucket] = {}
    for token in tokens:
        if token.name in names:
            msg = f"two tokens are called `{token.name}`"
            raise ConfigError(msg)
        names.add(token.name)
        if token.rate is None:
            continue
        bucket = buckets.setdefault(_owner(token), Bucket(token.rate))
        if bucket.rate != token.rate:
            msg = f"{_owner(token)} has two different rates; its tokens share one limit"
            raise ConfigError(msg)
    return buckets


def _unknown(shown: str) -> Refused:
    error = ', error="invalid_token"' if shown else ""
    detail = "This token is not known here." if shown else "Send the header `Authorization: Bearer <token>`."
    headers = {"WWW-Authenticate": f'Bearer realm="evalgauge"{error}'}
    return Refused(problem(HTTPStatus.UNAUTHORIZED, "A token is needed", detail, headers=headers))


def too_fast(wait: float) -> Refused:
    """Make the answer 429 to a tenant that is over its limit for `wait` seconds more."""
    seconds = max(1, math.ceil(wait))
    detail = f"The limit of this tenant is reached; send the same events again in {seconds} s."
    headers = {"Retry-After": str(seconds)}
    return Refused(problem(HTTPStatus.TOO_MANY_REQUESTS, "Too many events", detail, headers=headers))
