"""`evalgauge state`: what the checkpoint holds, a backup of it, and the way back to zero."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import click

from evalgauge.core import snapshot
from evalgauge.core.commands import options
from evalgauge.core.sqlite_store import FILE


@click.group(name="state", short_help="Show, back up and reset the checkpoint.")
def command() -> None:
    """Show, back up and reset the checkpoint: counts, positions, de-duplication and dead letters.

    \b
    evalgauge state show --config evalgauge.yaml
    evalgauge state backup /backup/evalgauge-monday --config evalgauge.yaml
    evalgauge state reset --state /var/lib/evalgauge
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


@command.command(epilog="Example: evalgauge state show --state /var/lib/evalgauge")
@options.state
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(state: Path | None, config_path: Path | None, *, as_json: bool) -> None:
    """Show tables, positions and the last commit; a process may run meanwhile."""
    found = snapshot.contents(options.state_folder(state, config_path))
    if as_json:
        value = asdict(found)
        value["file"] = str(found.file)
        value["tables"] = [table._asdict() for table in found.tables]
        value["positions"] = [
            {"input": name, "partition": partition, "position": json.loads(position)}
            for name, partition, position in found.positions
        ]
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
        return
    holder = f"in use by process {found.holder}" if found.holder else "in use by no process"
    click.echo(f"{found.file}: {found.bytes:,} bytes, format {found.format}, {holder}")
    click.echo(f"Last commit: {_when(found.last_commit)}")
    if found.lost:
        click.echo(f"LOST: {options.printable(found.lost)}")
        click.echo(
            "  Inputs that could read again are held (on_state_loss: hold). Put a backup in its place, or start once\n"
            "  with `evalgauge run --on-state-loss end` (go on at the end) or `replay` (count all again)."
        )
    click.echo(f"{found.digests:,} ids remembered against repeats, {found.dead_letters:,} dead letters")
    if found.tables:
        click.echo("\nTables")
        head = ["metric", "series", "pages", "bytes", "meaning"]
        rows = [
            [t.metric, f"{t.series:,}", f"{t.pages:,}", f"{t.bytes:,}", t.meaning[:12]] for t in found.tables
        ]
        click.echo(options.table(head, rows, right=(1, 2, 3)))
    if found.positions:
        click.echo("\nPositions")
        rows = [
            [name, options.printable(part), options.shortened(options.printable(position))]
            for name, part, position in found.positions
        ]
        click.echo(options.table(["input", "partition", "position"], rows))
    if found.set_aside:
        click.echo(f"\nSet aside earlier: {', '.join(found.set_aside)}")


@command.command(epilog="Example: evalgauge state backup /backup/monday --state /var/lib/evalgauge")
@click.argument("destination", type=click.Path(path_type=Path), metavar="DEST")
@options.state
def backup(destination: Path, state: Path | None, config_path: Path | None) -> None:
    """Copy the state, as of one commit, to the folder DEST, while a process goes on working with it.

    To restore: stop the process and run it with DEST (or a copy of it) as its state folder. Inputs that can be read
    again go on from the positions in the backup, so that nothing is counted twice or left out; what was pushed
    after the backup is not in it.
    """
    size = snapshot.backup(options.state_folder(state, config_path), destination)
    click.echo(f"{destination / FILE}: {size:,} bytes")


@command.command(epilog="Example: evalgauge state reset --state /var/lib/evalgauge --yes")
@options.state
@click.option("--forget-loss", is_flag=True, help="Only clear the mark that earlier state was lost.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(state: Path | None, config_path: Path | None, *, forget_loss: bool, yes: bool) -> None:
    """Begin at zero: counts, positions, remembered ids and dead letters. The state file is put aside, not deleted.

    With --forget-loss the state stays; inputs that are held because their position was lost start as on a first
    start, from the beginning unless their configuration says otherwise. `evalgauge run --on-state-loss end` lets
    them go on at their end instead.
    """
    folder = options.state_folder(state, config_path)
    if forget_loss:
        lost = snapshot.forget_loss(folder)
        click.echo(f"no longer held for: {lost}" if lost else "no loss was marked")
        return
    snapshot.present(folder)
    if not yes:
        click.confirm(
            f"Begin at zero in {folder}: counters restart, and files are read from their beginning?",
            abort=True,
        )
    aside = snapshot.reset(folder)
    click.echo(f"The old state is now {aside}; delete it when it is no longer wanted.")


def _when(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)) if moment else "none yet"
