"""`evalgauge replay`: files in, metrics out, and done."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalgauge.core import logs, plugins
from evalgauge.core.cli import INTERRUPTED
from evalgauge.core.commands import options
from evalgauge.core.config import load_config
from evalgauge.core.process import OWN_PACK, Process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evalgauge.core.families import Family

INPUT = "replay"
_TOTALS = ("received", "accepted", "rejected", "duplicated", "ignored")
_ALWAYS = ("accepted", "rejected", "duplicated")
_BAR = 24


@click.command(
    epilog="Example: evalgauge replay events.ndjson.gz --pack judgment --out metrics.prom --workers 2",
    short_help="Count files of events and write the metrics.",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@options.packs
@options.mapping
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    help="Write metrics here, text format 0.0.4; - is standard output.",
)
@click.option("--openmetrics", is_flag=True, help="Write OpenMetrics 1.0 instead.")
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that decode."
)
@click.option(
    "--state", metavar="FOLDER", help="Keep state here and go on from it; without it nothing is kept."
)
@click.option("--deduplicate", is_flag=True, help="Count a repeated (source, id) once.")
@click.option(
    "--unknown-types",
    type=click.Choice(["refuse", "ignore"]),
    default="refuse",
    show_default=True,
    help="Events of types no pack declares.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 if any event was refused.")
@options.log_flags
def command(  # noqa: PLR0913
    *,
    files: tuple[str, ...],
    pack_names: tuple[str, ...],
    mapping: str | None,
    out: Path | None,
    workers: int,
    state: str | None,
    unknown_types: str,
    log_level: str | None,
    log_format: str | None,
    openmetrics: bool,
    deduplicate: bool,
    strict: bool,
) -> None:
    """Count the events of FILES (paths, globs, - for standard input) by the given packs, then write the metrics.

    The same files give the same metrics, byte for byte, however many workers there are.

    With --state, files that were read before are not read again, what was refused can be looked at with
    `evalgauge deadletter`, and a replay that was interrupted goes on where it stopped.
    """
    if not pack_names:
        raise click.UsageError("say which packs the events belong to: --pack judgment")
    logs.set_up(log_level or "warning", log_format or "console")
    with tempfile.TemporaryDirectory(prefix="evalgauge-replay-") as scratch:
        reading = {
            "type": "file",
            "path": list(files),
            "deduplicate": deduplicate,
            "unknown_types": unknown_types,
        }
        if mapping is not None:
            reading["mapping"] = mapping
        config = load_config(
            None,
            {},
            packs=list(pack_names),
            inputs={INPUT: reading},
            state__folder=state or scratch,
            state__on_state_loss="replay",
            engine__workers=workers,
        )
        started = time.perf_counter()
        process = Process(config)
        interrupted = threading.Event()
        _end_on_signals(process, interrupted)
        bar = _Progress(process)
        process.run(until_done=True, progress=bar.show)
        bar.done()
        families = process.families()
        took = time.perf_counter() - started
    if interrupted.is_set():
        hint = "run it again to go on" if state else "nothing was kept; with --state it could be gone on with"
        click.echo(f"Interrupted; no metrics were written, {hint}.", err=True)
        sys.exit(INTERRUPTED)
    if out is not None:
        _write(out, families, openmetrics=openmetrics)
    _summary(families, took)
    if strict and total(families, "evalgauge_events_rejected"):
        sys.exit(1)


def _end_on_signals(process: Process, interrupted: threading.Event) -> None:
    def end(*_: object) -> None:
        interrupted.set()
        process.end()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def _write(out: Path, families: Sequence[Family], *, openmetrics: bool) -> None:
    """Write the packs' metrics; a file appears whole or not at all."""
    exporter = plugins.load(plugins.EXPORTERS, "prometheus")
    ours = [family for family in families if not family.name.startswith(f"{OWN_PACK}_")]
    text = exporter.render(ours, openmetrics=openmetrics)
    if str(out) == "-":
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
        return
    if out.exists() and not out.is_file():  # a pipe, /dev/stdout
        out.write_bytes(text)
        return
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        partial.write_bytes(text)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _summary(families: Sequence[Family], took: float) -> None:
    totals = {name: total(families, f"evalgauge_events_{name}") for name in _TOTALS}
    words = [f"{count:,} {name}" for name, count in totals.items() if count or name in _ALWAYS]
    rate = totals["received"] / took if took else 0.0
    click.echo(f"{', '.join(words)}; {took:.1f} s, {rate:,.0f} events a second", err=True)
    for reason, count in sorted(reasons(families).items()):
        click.echo(f"  rejected as {reason}: {count:,}", err=True)


class _Progress:
    """A line on a terminal that says how far it is; nothing elsewhere."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._terminal = sys.stderr.isatty()

    def show(self) -> None:
        """Draw it anew."""
        if not self._terminal:
            return
        (one,) = self._process.pipeline.inputs.values()
        families = self._process.families()
        done = total(families, "evalgauge_input_bytes")
        left = sum(list(one.context.status.lag_bytes.values()))
        share = done / (done + left) if done + left else 0.0
        filled = round(share * _BAR)
        count = total(families, "evalgauge_events_received")
        text = f"[{'#' * filled}{'.' * (_BAR - filled)}] {count:,} events, {left / 1e6:,.0f} MB to go"
        click.echo(f"\r{text}\x1b[K", nl=False, err=True)

    def done(self) -> None:
        """Take it away."""
        if self._terminal:
            click.echo("\r\x1b[K", nl=False, err=True)


def total(families: Sequence[Family], name: str) -> int:
    """The sum of a counter over all its series."""
    return sum(int(family.values.sum()) for family in families if family.name == name)


def reasons(families: Sequence[Family]) -> dict[str, int]:
    """Reason → refused events."""
    found: dict[str, int] = {}
    for family in families:
        if family.name == "evalgauge_events_rejected":
            place = family.label_names.index("reason")
            for labels, value in zip(family.series, family.values.tolist(), strict=False):
                found[labels[place]] = found.get(labels[place], 0) + int(value)
    return found
