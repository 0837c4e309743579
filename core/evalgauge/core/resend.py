"""Dead letters counted after all: here, while nothing runs, by a process through its HTTP door, or by a group."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

from evalgauge.core.collect import Chunk, Verdict
from evalgauge.core.deadletters import DeadLetterBox
from evalgauge.core.errors import ConfigError, EvalgaugeError, StateError, StateLockedError
from evalgauge.core.pipeline import Pipeline
from evalgauge.core.process import OWN_PACK, load_with_own
from evalgauge.core.reduce import Reducer
from evalgauge.core.selfmetrics import SelfMetrics
from evalgauge.core.sqlite_store import SqliteStore
from evalgauge.core.stores import kept_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from evalgauge.core.config import Config
    from evalgauge.core.deadletters import ReturningBox, Wanted
    from evalgauge.core.engine import Engine
    from evalgauge.core.event import Refusal
    from evalgauge.core.store import Commit, DeadLetter, DeadLetterLimits, Restored

BATCH = 500
"""Letters of one transaction, or of one request."""
_BATCH_BYTES = 4 << 20
_TIMEOUT = 120.0
_PATIENCE = 60.0
"""Seconds that a door may go on answering that it is behind."""


@dataclass(slots=True)
class Outcome:
    """What became of the letters that were asked for."""

    accepted: int = 0
    duplicate: int = 0
    refused: list[tuple[int, str, str]] = field(default_factory=list)
    """(number, reason, sentence)."""
    impossible: list[tuple[int, str]] = field(default_factory=list)
    """(number, why it was not tried)."""
    sent: dict[str, int] = field(default_factory=dict)
    """Partition → letters sent back to it, which others count."""


def replay_here(config: Config, wanted: Wanted) -> Outcome:
    """Count letters by the configuration's packs and inputs, while no process runs.

    A letter goes in the transaction in which its event is counted, so whatever happens in between, an event is
    counted once or its letter is still there. Raises `StateLockedError` while a process holds the folder.
    """
    packs = load_with_own(config.packs)
    metrics = SelfMetrics(next(pack for pack in packs if pack.pack == OWN_PACK))
    folder = Path(config.state.folder)
    with closing(DeadLetterBox(folder)) as box:
        try:
            store = SqliteStore(folder)
        except StateLockedError as error:
            msg = f"{error}; or let that process count them: --url with the address of its HTTP input"
            raise StateLockedError(msg) from error
        with closing(store):
            settling = _Settling(store)
            engine = Pipeline(config, packs, settling, metrics, None).engine
            engine.restore()
            if engine.lost:
                msg = f"earlier state is lost ({engine.lost}): decide about that first, see `evalgauge state show`"
                raise StateError(msg)
            if engine.dirty:
                raise ConfigError(
                    "these packs are not those that the state was written with, and metrics would lose their values: "
                    "start `evalgauge run` with this configuration, and send the letters to it with --url"
                )
            return _count_here(engine, settling, box.letters(wanted), config)


def _count_here(
    engine: Engine, settling: _Settling, letters: Iterable[DeadLetter], config: Config
) -> Outcome:
    outcome = Outcome()
    judge = _Judge(engine, config)
    for batch in _batches(letters):
        for letter in batch:
            if not judge.passes(letter, outcome):
                continue
            verdicts: list[Verdict] = []
            chunk = _chunk(letter)
            chunk.acknowledge = verdicts.append
            engine.process(letter.input, chunk)
            settling.verdicts.append((letter.number, verdicts))
        settling.settle(engine, outcome)
    return outcome


class _Judge:
    """Says which letters would be accepted now, without counting anything.

    What is refused again must not count as one more refusal, nor leave one more letter.
    """

    def __init__(self, engine: Engine, config: Config) -> None:
        self._engine = engine
        self._reducers = {name: Reducer(engine.plan(name)) for name in config.inputs}

    def passes(self, letter: DeadLetter, outcome: Outcome) -> bool:
        """Whether it would be; why not goes into the outcome."""
        why = _hindrance(letter)
        if not why and letter.input not in self._reducers:
            why = f"the configuration has no input `{letter.input}`, by whose mapping and rules it would be read"
        if why:
            outcome.impossible.append((letter.number, why))
            return False
        refusal = self._refusal(letter)
        if refusal is not None:
            outcome.refused.append((letter.number, refusal.reason.value, refusal.detail))
        return refusal is None

    def _refusal(self, letter: DeadLetter) -> Refusal | None:
        deltas = self._reducers[letter.input].reduce(self._engine.work(letter.input, _chunk(letter)))
        return next((one for delta in deltas for one in delta.refusals), None)


def replay_back(config: Config, box: ReturningBox, wanted: Wanted) -> Outcome:
    """Send letters back to where they came from, those that the configuration would accept now.

    A letter is taken out in the transaction that sends it. Raises `EvalgaugeError`, which tells how many were sent.
    """
    packs = load_with_own(config.packs)
    metrics = SelfMetrics(next(pack for pack in packs if pack.pack == OWN_PACK))
    store = kept_store(config)
    assert store is not None  # noqa: S101 - for the type checker: where letters are kept so is the state
    outcome = Outcome()
    with closing(store):
        judge = _Judge(Pipeline(config, packs, store, metrics, None).engine, config)
        try:
            box.begin()
            for batch in _batches(box.letters(wanted)):
                sound = [one for one in batch if judge.passes(one, outcome)]
                for letter in sound[:]:
                    if why := box.hindrance(letter):
                        outcome.impossible.append((letter.number, why))
                        sound.remove(letter)
                if sound:
                    box.send_back(sound)
                for letter in sound:
                    outcome.sent[letter.partition] = outcome.sent.get(letter.partition, 0) + 1
        except EvalgaugeError as error:
            before = sum(outcome.sent.values())
            raise EvalgaugeError(
                f"{error}. {before} letters had been sent back before; run it again for those that are left"
            ) from error
    return outcome


def _chunk(letter: DeadLetter) -> Chunk:
    # Where an id is made from the position, the position must be the old one.
    offset = letter.position.rpartition("@")[2]
    base = int(offset) if offset.isdecimal() else 0
    return Chunk(
        letter.partition,
        letter.data,
        lambda _: letter.position,
        tenant=letter.tenant,
        base=base,
        arrival=letter.time,
    )


def _hindrance(letter: DeadLetter) -> str:
    """Why a letter can never count, empty if it can."""
    if letter.kept != "bytes":
        return {"cut": "it is too long, its end was not kept", "redacted": "its payload was not kept"}.get(
            letter.kept, "the event itself was not kept"
        )
    return ""


class _Settling:
    """A store that takes the letters of the events it commits out in the same transaction."""

    by_partition: ClassVar[bool] = False

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.seed = store.seed
        self.verdicts: list[tuple[int, list[Verdict]]] = []

    def restore(self, meanings: Iterable[str], moving: Iterable[str] = (), ids_age: float = 0.0) -> Restored:
        """As the store does."""
        return self._store.restore(meanings, moving, ids_age)

    def waits_for(self) -> str:
        """As the store does."""
        return self._store.waits_for()

    def stop(self) -> None:
        """As the store does."""
        self._store.stop()

    def commit(self, commit: Commit, limits: DeadLetterLimits) -> Mapping[str, int]:
        """As the store does, and the letters go."""
        commit.settled = [number for number, _ in self.verdicts]
        return self._store.commit(commit, limits)

    def settle(self, engine: Engine, outcome: Outcome) -> None:
        """Commit what was counted so far."""
        if engine.dirty:
            engine.commit()
        for _, found in self.verdicts:
            outcome.accepted += found[0].accepted
            outcome.duplicate += found[0].duplicate
        self.verdicts = []

    def facts(self) -> Mapping[str, float]:
        """As the store does."""
        return self._store.facts()

    def size(self) -> int:
        """As the store does."""
        return self._store.size()

    def dead_letters(self) -> int | None:
        """As the store does."""
        return self._store.dead_letters()

    def forget_loss(self) -> None:
        """As the store does."""
        self._store.forget_loss()

    def close(self) -> None:
        """As the store does."""
        self._store.close()


class Target(NamedTuple):
    """A door of a running process."""

    url: str
    token: str | None
    context: ssl.SSLContext | None

    @classmethod
    def of(cls, url: str, token_file: Path | None, ca_file: Path | None) -> Target:
        """The door at a URL. Raises `ConfigError` where that is no HTTP address, or the token file is empty."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"`{url}` is no address of an HTTP input, such as http://127.0.0.1:8080/v1/events"
            )
        lines = token_file.read_text(encoding="utf-8").split() if token_file is not None else []
        if token_file is not None and not lines:
            raise ConfigError(f"{token_file} is empty; put the token in it")
        context = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        return cls(url, lines[0] if lines else None, context)


def replay_to(folder: Path, wanted: Wanted, target: Target) -> Outcome:
    """Send letters to a running process, and take out those it has made durable.

    When this is interrupted between the answer and the removal, a letter is sent again next time; the door's
    de-duplication then counts it once. Raises `EvalgaugeError` where the door takes nothing.
    """
    outcome = Outcome()
    with closing(DeadLetterBox(folder)) as box:
        last = box.last()
        for batch in _batches(one for one in box.letters(wanted) if one.number <= last):
            sendable = []
            for letter in batch:
                why = _hindrance(letter)
                if not why and letter.tenant is not None and target.token is None:
                    why = f"it came with the token of tenant {letter.tenant!r}: give such a token with --token-file"
                if why:
                    outcome.impossible.append((letter.number, why))
                else:
                    sendable.append(letter)
            if sendable:
                _send(box, sendable, target, outcome)
    return outcome


def _send(box: DeadLetterBox, letters: list[DeadLetter], target: Target, outcome: Outcome) -> None:
    after = box.last()
    verdicts = _post(target, b"\n".join(one.data.replace(b"\n", b" ") for one in letters))
    if len(verdicts) != len(letters):
        raise EvalgaugeError(f"{target.url} answered for {len(verdicts)} events, {len(letters)} were sent")
    settled = []
    for letter, verdict in zip(letters, verdicts, strict=True):
        if verdict["status"] == "rejected":
            outcome.refused.append(
                (letter.number, str(verdict.get("reason")), str(verdict.get("detail", "")))
            )
            # A door on this state folder has kept it once more.
            box.drop_copy(letter, after)
            continue
        outcome.accepted += verdict["status"] == "accepted"
        outcome.duplicate += verdict["status"] == "duplicate"
        settled.append(letter.number)
    box.delete(settled)


def _post(target: Target, body: bytes) -> list[dict[str, Any]]:
    """Verdicts of the lines of a body, in their order; waits while the door is behind."""
    parts = urlsplit(target.url)
    path = (parts.path or "/v1/events") + (f"?{parts.query}" if parts.query else "")
    headers = {"Content-Type": "application/x-ndjson", "Prefer": "return=representation"}
    if target.token is not None:
        headers["Authorization"] = f"Bearer {target.token}"
    end = time.monotonic() + _PATIENCE
    while True:
        connection = _connection(parts.hostname or "", parts.port, target.context)
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise EvalgaugeError(
                f"{target.url} cannot be reached: {error}; no letter was taken out"
            ) from error
        finally:
            connection.close()
        busy = response.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)
        if not busy or time.monotonic() > end:
            break
        time.sleep(min(float(response.headers.get("Retry-After") or 1), 10.0))
    try:
        said = json.loads(answer)
    except ValueError:
        said = {}
    if isinstance(said, dict) and isinstance(said.get("events"), list):
        return list(said["events"])
    why = (
        f"{said.get('title', '')}: {said.get('detail', '')}" if isinstance(said, dict) and said else "no JSON"
    )
    raise EvalgaugeError(
        f"{target.url} answers {response.status} ({why}); what was not accepted before is still here"
    )


def _connection(host: str, port: int | None, context: ssl.SSLContext | None) -> http.client.HTTPConnection:
    if context is not None:
        return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT, context=context)
    return http.client.HTTPConnection(host, port, timeout=_TIMEOUT)


def _batches(letters: Iterable[DeadLetter]) -> Iterator[list[DeadLetter]]:
    batch: list[DeadLetter] = []
    size = 0
    for letter in letters:
        batch.append(letter)
        size += len(letter.data)
        if len(batch) >= BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
