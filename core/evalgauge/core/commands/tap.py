"""`evalgauge tap`: events as they pass, and what each instrument makes of them. Nothing is counted or kept."""

from __future__ import annotations

import json
import signal
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from evalgauge.core import logs, observe, plugins
from evalgauge.core.collect import Chunk, FileRange, InputContext, InputStatus, Stopped
from evalgauge.core.commands import options
from evalgauge.core.config import load_config
from evalgauge.core.mapping_check import load_mapping
from evalgauge.core.observe import Observation, Observer
from evalgauge.core.pack.loader import load_packs
from evalgauge.core.reduce import read_body

if TYPE_CHECKING:
    from collections.abc import Callable

INPUT = "tap"
_CHUNK = 256 << 10


@click.command(
    epilog="Example: evalgauge tap --pack judgment --refused-only events.ndjson",
    short_help="Show events as they pass and what each instrument makes of them.",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE…|-")
@options.packs
@options.mapping
@click.option(
    "--follow", "-f", is_flag=True, help="Go on as files grow and are rotated; begins at their end."
)
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only events of this type.")
@click.option("--refused-only", is_flag=True, help="Only events that are refused or of an unknown type.")
@click.option("--limit", "-n", type=click.IntRange(1), help="End after so many events shown.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each event.")
def command(  # noqa: PLR0913
    *,
    files: tuple[str, ...],
    pack_names: tuple[str, ...],
    mapping: str | None,
    types: tuple[str, ...],
    limit: int | None,
    follow: bool,
    refused_only: bool,
    as_json: bool,
) -> None:
    """Show each event of FILES (paths, globs, - for standard input): position, type, id, verdict and metrics.

    The event's other fields are never printed. Each event is looked at alone, so repeats are not recognised, and
    labels are shown as they are before any limit.
    """
    if not pack_names:
        raise click.UsageError("say which packs look at the events: --pack judgment")
    logs.set_up("warning", "console")
    packs = load_packs(list(pack_names))
    observer = Observer(packs, None if mapping is None else load_mapping(mapping, packs))
    reading = {
        "type": "file",
        "path": list(files),
        "follow": follow,
        "start_at": "end" if follow else "beginning",
    }
    config = load_config(None, {}, packs=list(pack_names), inputs={INPUT: reading}).inputs[INPUT]
    show = _as_json if as_json else _as_line
    sink = _Show(observer, show, _Filter(types, refused_only=refused_only), limit)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    context = InputContext(INPUT, {}, sink, stop, InputStatus(), max_chunk_bytes=_CHUNK)
    plugins.load(plugins.COLLECTORS, "file")(config, context).run()


class _Filter:
    """Which events are shown."""

    def __init__(self, types: tuple[str, ...], *, refused_only: bool) -> None:
        self._types = types
        self._refused_only = refused_only

    def __call__(self, one: Observation) -> bool:
        if self._refused_only and one.verdict == "accepted":
            return False
        return not self._types or one.type in self._types


class _Show:
    """The sink of the file collector: prints what it is given."""

    def __init__(
        self, observer: Observer, show: Callable[[str, Observation], str], wanted: _Filter, limit: int | None
    ) -> None:
        self._observer, self._show, self._wanted, self._left = observer, show, wanted, limit

    def put(self, chunk: Chunk) -> None:
        """Print the events of a chunk. Raises `Stopped` after the last one that is wanted."""
        body = read_body(chunk.body) if isinstance(chunk.body, FileRange) else chunk.body
        arrival = chunk.arrival or time.time()
        for one in self._observer.observe(body, chunk.partition, chunk.base, arrival, self._wanted):
            if not self._wanted(one):
                continue
            click.echo(self._show(chunk.locate(one.line), one))
            if self._left is not None:
                self._left -= 1
                if not self._left:
                    raise Stopped

    def offer(self, chunk: Chunk) -> bool:
        """As `put`."""
        self.put(chunk)
        return True


def _as_line(position: str, one: Observation) -> str:
    verdict = one.verdict if one.verdict == "accepted" else f"{one.verdict} {one.reason}: {one.detail}"
    words = [position, one.type, f"id={one.id}" if one.id else "id=?", verdict]
    words += [f"| {observe.shown(reading)}" for reading in one.readings]
    return options.printable(" ".join(words))


def _as_json(position: str, one: Observation) -> str:
    value = {"position": position, **asdict(one)}
    del value["line"]
    return json.dumps(value, ensure_ascii=False)
