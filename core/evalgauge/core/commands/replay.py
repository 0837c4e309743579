"""`evalgauge replay`: files in, metrics out, and done."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from evalgauge.core import logs, plugins
from evalgauge.core.commands import options
from evalgauge.core.config import load_config
from evalgauge.core.errors import ConfigError
from evalgauge.core.families import Family
from evalgauge.core.process import Process

INPUT = "replay"


@click.command(
    epilog="Example: evalgauge replay events.ndjson.gz --pack judgment --out metrics.prom --workers 2",
    short_help="Count files of events and write the metrics.",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@options.packs
@click.option("--mapping", "-m", metavar="FILE", help="Mapping for events of another shape.")
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Write metrics here, text format 0.0.4; - is standard output.")
@click.option("--openmetrics", is_flag=True, help="Write OpenMetrics 1.0 instead.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that decode.")
@click.option("--state", metavar="FOLDER", help="Keep state here and go on from it; without it nothing is kept.")
@click.option("--deduplicate", is_flag=True, help="Count a repeated (source, id) once.")
@click.option("--unknown-types", type=click.Choice(["refuse", "ignore"]), default="refuse", show_default=True, help="Events of types no pack declares.")
@click.option("--strict", is_flag=True, help="Exit with 1 if any event was refused.")
@options.log_flags
def command(  # noqa: PLR0913
    files: tuple[str, ...],
    pack_names: tuple[str, ...],
    mapping: str | None,
    out: Path | None,
    openmetrics: bool,  # noqa: FBT001
    workers: int,
    state: str | None,
    deduplicate: bool,  # noqa: FBT001
    unknown_types: str,
    strict: bool,  # noqa: FBT001
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Count the events of FILES (paths, globs, - for standard input) by the given packs, then write the metrics.

    The same files give the same metrics, byte for byte, however many workers there are.
    """
    if not pack_names:
        msg = "say which packs the events belong to: --pack judgment"
        raise ConfigError(msg)
    logs.set_up(log_level or "warning", log_format or "console")
    with tempfile.TemporaryDirectory(prefix="evalgauge-replay-") as scratch:
        reading = {"type": "file", "path": list(files), "deduplicate": deduplicate, "unknown_types": unknown_types}
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
        process = Process(config)
        process.handle_signals()
        bar = _Progress(process)
        process.run(until_done=True, progress=bar.show)
        bar.done()
        families = process.families()
    exporter = plugins.load(plugins.EXPORTERS, "prometheus")
    if out is not None:
        text = exporter.render([f for f in families if not f.name.startswith("evalgauge_")], openmetrics=openmetrics)
        if str(out) == "-":
            sys.stdout.buffer.write(text)
        else:
            out.write_bytes(text)
    totals = {name: total(families, f"evalgauge_events_{name}") for name in ("received", "accepted", "rejected", "duplicated", "ignored")}
    summary = ", ".join(f"{count} {name}" for name, count in totals.items() if count or name in ("accepted", "rejected"))
    click.echo(f"{summary}", err=True)
    for reason, count in sorted(reasons(families).items()):
        click.echo(f"  rejected as {reason}: {count}", err=True)
    if strict and totals["rejected"]:
        sys.exit(1)


class _Progress:
    """A line on a terminal that says how far it is; nothing elsewhere."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._terminal = sys.stderr.isatty()

    def show(self) -> None:
        if self._terminal:
            (one,) = self._process.pipeline.inputs.values()
            left = sum(list(one.context.status.lag_bytes.values()))
            count = total(self._process.families(), "evalgauge_events_received")
            click.echo(f"\r{count:,} events, {left / 1e6:,.0f} MB to go \x1b[K", nl=False, err=True)

    def done(self) -> None:
        if self._terminal:
            click.echo("\r\x1b[K", nl=False, err=True)


def total(families: list[Family] | tuple[Family, ...] | object, name: str) -> int:
    """The sum of a counter over all its series."""
    assert isinstance(families, list)  # noqa: S101 - as Process gives them
    return sum(int(family.values.sum()) for family in families if family.name == name)


def reasons(families: object) -> dict[str, int]:
    """Reason → refused events."""
    assert isinstance(families, list)  # noqa: S101 - as Process gives them
    found: dict[str, int] = {}
    for family in families:
        if family.name == "evalgauge_events_rejected":
            place = family.label_names.index("reason")
            for labels, value in zip(family.series, family.values.tolist(), strict=False):
                found[labels[place]] = found.get(labels[place], 0) + int(value)
    return found
