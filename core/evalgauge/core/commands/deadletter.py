"""`evalgauge deadletter`: refused events, shown, counted after all, or thrown away."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalgauge.core import logs
from evalgauge.core.commands import options
from evalgauge.core.config import load_config
from evalgauge.core.deadletters import DeadLetterBox, Wanted
from evalgauge.core.errors import EvalgaugeError
from evalgauge.core.event import Reason
from evalgauge.core.resend import Outcome, Target, replay_back, replay_here, replay_to
from evalgauge.core.stores import kept_letters

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evalgauge.core.deadletters import LetterBox, ReturningBox
    from evalgauge.core.store import DeadLetter

_KEPT = {
    "cut": "only the first {have:,} of {size:,} bytes were kept (dead_letters.max_event_size)",
    "redacted": "payload fields were taken out (dead_letters.keep: redacted)",
    "reason": "the event itself, {size:,} bytes, was not kept (dead_letters.keep: reason)",
}


def _filters(function: options.F) -> options.F:
    """The conditions that pick letters out."""
    for option in (
        click.option("--newer", type=options.Age(), help="Refused within this time, such as 1h."),
        click.option("--older", type=options.Age(), help="Refused longer ago than this, such as 7d."),
        click.option(
            "--type", "type_", metavar="TYPE", help="Of this event type; _unknown for undeclared ones."
        ),
        click.option(
            "--reason",
            type=click.Choice([one.value for one in Reason]),
            metavar="REASON",
            help="For this reason.",
        ),
        click.option("--input", "input_", metavar="NAME", help="From this input."),
    ):
        function = option(function)
    return function


def _wanted(  # noqa: PLR0913 - they belong together
    *,
    numbers: Iterable[int],
    input_: str | None,
    reason: str | None,
    type_: str | None,
    older: float | None,
    newer: float | None,
) -> Wanted:
    now = time.time()
    since, before = (None if age is None else now - age for age in (newer, older))
    return Wanted(tuple(numbers), input_, reason, type_, since, before)


def _box(state: Path | None, config_path: Path | None) -> LetterBox:
    """Where the letters are."""
    return _kept(state, config_path) or DeadLetterBox(options.state_folder(state, config_path))


def _kept(state: Path | None, config_path: Path | None) -> ReturningBox | None:
    """The letters that an input of the configuration keeps, if one does."""
    kept = None if config_path is None else kept_letters(load_config(config_path))
    if kept is not None and state is not None:
        kept.close()
        raise click.UsageError(
            f"the dead letters of this configuration are not in a state folder: they are kept for {kept.readers}. "
            "Leave --state out"
        )
    return kept


@click.group(name="deadletter", short_help="List, show, replay and purge refused events.")
def command() -> None:
    """Refused events, each kept with its reason and position.

    \b
    evalgauge deadletter list --config evalgauge.yaml --reason missing_field
    evalgauge deadletter show 17 --config evalgauge.yaml
    evalgauge deadletter replay --reason missing_field --config evalgauge.yaml --url http://127.0.0.1:8080/v1/events
    evalgauge deadletter purge --older 7d --config evalgauge.yaml
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


@command.command(
    name="list", epilog="Example: evalgauge deadletter list --state /var/lib/evalgauge --newer 1h"
)
@options.state
@_filters
@click.option(
    "--limit", type=click.IntRange(0), default=50, show_default=True, help="Newest letters shown; 0 is all."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_letters(  # noqa: PLR0913
    *,
    state: Path | None,
    config_path: Path | None,
    input_: str | None,
    reason: str | None,
    type_: str | None,
    older: float | None,
    newer: float | None,
    limit: int,
    as_json: bool,
) -> None:
    """List refused events, oldest first."""
    wanted = _wanted(numbers=(), input_=input_, reason=reason, type_=type_, older=older, newer=newer)
    with closing(_box(state, config_path)) as box:
        count = box.count(wanted)
        found = box.newest(wanted, limit or -1)
    if as_json:
        click.echo(json.dumps([_plain(one) for one in found], indent=2, ensure_ascii=False))
        return
    if found:
        head = ["number", "refused", "input", "position", "type", "reason", "because"]
        rows = [
            [
                str(one.number),
                _when(one.time),
                one.input,
                options.printable(one.position),
                one.type,
                one.reason,
                options.shortened(options.printable(one.detail)),
            ]
            for one in found
        ]
        click.echo(options.table(head, rows, right=(0,)))
    click.echo(
        f"{len(found)} of {count} shown." if count > len(found) else f"{count} dead letters.", err=True
    )


@command.command(epilog="Example: evalgauge deadletter show 17 --state /var/lib/evalgauge")
@click.argument("number", type=int)
@options.state
@click.option("--raw", is_flag=True, help="Print the bytes alone, as they came.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(number: int, state: Path | None, config_path: Path | None, *, raw: bool, as_json: bool) -> None:
    r"""Show one refused event: why, from where, and its bytes (what is no text as \xNN)."""
    with closing(_box(state, config_path)) as box:
        letter = next(box.letters(Wanted((number,))), None)
    if letter is None:
        raise EvalgaugeError(
            f"there is no dead letter {number}: it was purged, replayed, or dropped by the limits"
        )
    if raw:
        sys.stdout.buffer.write(letter.data)
        return
    text = _text(letter.data)
    if as_json:
        click.echo(json.dumps({**_plain(letter), "data": text}, indent=2, ensure_ascii=False))
        return
    click.echo(f"{letter.reason}: {options.printable(letter.detail)}")
    facts = {
        "number": str(letter.number),
        "refused": _when(letter.time),
        "input": letter.input,
        "position": letter.position,
        "type": letter.type,
        "pack": letter.pack,
        "tenant": letter.tenant or "",
    }
    for key, value in facts.items():
        if value:
            click.echo(f"  {key:9} {options.printable(value)}")
    note = _KEPT.get(letter.kept, "").format(have=len(letter.data), size=letter.size)
    click.echo(f"  {'bytes':9} {note or f'{letter.size:,}'}")
    if letter.data:
        click.echo(f"\n{text}")


@command.command(epilog="Example: evalgauge deadletter replay --reason not_in_enum --config evalgauge.yaml")
@click.argument("numbers", nargs=-1, type=int, metavar="[NUMBER…]")
@options.state
@_filters
@click.option("--all", "everything", is_flag=True, help="Every letter.")
@click.option(
    "--url",
    metavar="URL",
    help="Send to this door of a running process, such as http://127.0.0.1:8080/v1/events.",
)
@click.option(
    "--token-file", type=click.Path(path_type=Path, exists=True), help="File with the door's bearer token."
)
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path, exists=True),
    help="Certificates that the door's must come from.",
)
def replay(  # noqa: PLR0913
    *,
    numbers: tuple[int, ...],
    state: Path | None,
    config_path: Path | None,
    input_: str | None,
    reason: str | None,
    type_: str | None,
    older: float | None,
    newer: float | None,
    url: str | None,
    token_file: Path | None,
    ca_file: Path | None,
    everything: bool,
) -> None:
    """Send the original bytes again, after the pack, the mapping or the sender's fault was mended.

    What is accepted now is taken out of the dead letters; what is refused again stays as it is.

    With --url a running process counts them. Without it none may run: they are counted here, by the packs and
    inputs of --config, and each letter goes in the same transaction in which its event is counted.

    Letters of a group are sent back to the partitions that they came from, where the group counts them.
    """
    wanted = _wanted(numbers=numbers, input_=input_, reason=reason, type_=type_, older=older, newer=newer)
    if wanted.everything and not everything:
        raise click.UsageError("say which: numbers, --reason, --input, --type, --older, --newer, or --all")
    kept = _kept(state, config_path)
    if kept is not None and config_path is not None:
        with closing(kept):
            if url is not None:
                raise click.UsageError(f"{kept.readers} counts these letters: leave --url out")
            logs.set_up("warning", "console")
            outcome = replay_back(load_config(config_path), kept, wanted)
        _tell_sent(outcome, kept.readers)
    else:
        outcome = _counted(
            wanted, options.state_folder(state, config_path), config_path, url, token_file, ca_file
        )
    if outcome.refused or outcome.impossible:
        sys.exit(1)


def _counted(  # noqa: PLR0913, PLR0917 - they belong together
    wanted: Wanted,
    folder: Path,
    config_path: Path | None,
    url: str | None,
    token_file: Path | None,
    ca_file: Path | None,
) -> Outcome:
    """Letters of a state folder, counted here or by the process at a URL."""
    if url is None:
        if config_path is None:
            raise click.UsageError(
                "--config says by which packs they are counted; or --url, which process counts them"
            )
        config = load_config(config_path, state__folder=str(folder))
        logs.set_up("warning", "console")
        outcome = replay_here(config, wanted)
    else:
        outcome = replay_to(folder, wanted, Target.of(url, token_file, ca_file))
    click.echo(
        f"{outcome.accepted} accepted, {outcome.duplicate} counted before, {len(outcome.refused)} refused again"
    )
    _tell_left(outcome)
    return outcome


def _tell_sent(outcome: Outcome, readers: str) -> None:
    click.echo(
        f"{sum(outcome.sent.values())} sent, to be counted by {readers}; {len(outcome.refused)} refused again"
    )
    for partition, count in sorted(outcome.sent.items()):
        click.echo(f"  {count} sent to {partition}")
    _tell_left(outcome)


def _tell_left(outcome: Outcome) -> None:
    for number, reason, detail in outcome.refused:
        click.echo(f"  {number}: {reason}: {options.printable(detail)}")
    for number, why in outcome.impossible:
        click.echo(f"  {number}: not sent: {why}")


@command.command(epilog="Example: evalgauge deadletter purge --older 7d --state /var/lib/evalgauge")
@click.argument("numbers", nargs=-1, type=int, metavar="[NUMBER…]")
@options.state
@_filters
@click.option("--all", "everything", is_flag=True, help="Every letter.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(  # noqa: PLR0913
    *,
    numbers: tuple[int, ...],
    state: Path | None,
    config_path: Path | None,
    input_: str | None,
    reason: str | None,
    type_: str | None,
    older: float | None,
    newer: float | None,
    everything: bool,
    yes: bool,
) -> None:
    """Throw dead letters away, whether or not a process runs."""
    wanted = _wanted(numbers=numbers, input_=input_, reason=reason, type_=type_, older=older, newer=newer)
    if wanted.everything and not everything:
        raise click.UsageError("say which: numbers, --reason, --input, --type, --older, --newer, or --all")
    with closing(_box(state, config_path)) as box:
        count = box.count(wanted)
        if count and not yes:
            click.confirm(f"Throw away {count} refused events for good?", abort=True)
        click.echo(f"{box.purge(wanted) if count else 0} purged")


def _plain(letter: DeadLetter) -> dict[str, Any]:
    """A letter as JSON values, without the event itself."""
    return {
        "number": letter.number,
        "time": _when(letter.time),
        "input": letter.input,
        "partition": letter.partition,
        "position": letter.position,
        "type": letter.type,
        "reason": letter.reason,
        "detail": letter.detail,
        "pack": letter.pack,
        "tenant": letter.tenant,
        "kept": letter.kept,
        "size": letter.size,
    }


def _text(data: bytes) -> str:
    r"""Bytes as text: what is not UTF-8, and what could steer a terminal, as `\xNN`."""
    lines = data.decode("utf-8", "backslashreplace").split("\n")
    return "\n".join(options.printable(line) for line in lines)


def _when(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
