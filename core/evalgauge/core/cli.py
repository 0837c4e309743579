"""The command line: every command is found by an entry point, the built-in ones too."""

from __future__ import annotations

import sqlite3
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from evalgauge.core import plugins
from evalgauge.core.errors import DocumentError, EvalgaugeError, StateError
from evalgauge.core.findings import suggest

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_CODES = """\
Exit codes: 0 done · 1 failed, or something was refused and --strict given · 2 a file or flag is wrong ·
3 the state folder cannot be used · 130 interrupted."""
INTERRUPTED = 130


class _Commands(click.Group):
    """Commands of the entry-point group `evalgauge.commands`; one is imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, sorted."""
        del ctx
        return plugins.names(plugins.COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, None where there is none; one that cannot be loaded says so, and spoils no list."""
        del ctx
        if cmd_name not in plugins.names(plugins.COMMANDS):
            return None
        try:
            command: click.Command = plugins.load(plugins.COMMANDS, cmd_name)
        except EvalgaugeError as error:
            return _broken(cmd_name, error)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name. Raises `UsageError` with the name that was probably meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = suggest(args[0], self.list_commands(ctx))
            raise click.UsageError(f"{error.message} {near}", ctx) from error

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Exit codes, below the list of commands."""
        del ctx
        formatter.write("\n" + EXIT_CODES + "\n")


def _broken(name: str, error: EvalgaugeError) -> click.Command:
    """What stands in the list for a command that cannot be loaded; called, it raises why."""

    def fail() -> NoReturn:
        raise error

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(name, anything, fail, short_help=f"({error})", add_help_option=False)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="evalgauge", prog_name="evalgauge")
def cli() -> None:
    """Evaluation and judgment events in; metrics, dashboards and alerts out, all from one pack file."""


def main() -> NoReturn:
    """Run a command; errors meant for people are printed without a traceback."""
    sys.exit(run())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments (by default the program's own) name; the exit code."""
    try:
        code = cli.main(arguments, prog_name="evalgauge", standalone_mode=False)
    except (EvalgaugeError, click.ClickException, click.Abort, sqlite3.Error, OSError) as error:
        return _failed(error)
    return code if isinstance(code, int) else 0


def _failed(error: Exception) -> int:
    """Say what went wrong; the exit code."""
    code = 1
    match error:
        case DocumentError():
            # Each line begins with its place, so that an editor or a terminal can go there.
            number = len(error.problems)
            click.echo(f"{error}\nevalgauge: {number} {'problem' if number == 1 else 'problems'}", err=True)
            code = error.exit_code
        case EvalgaugeError():
            click.echo(f"evalgauge: {error}", err=True)
            code = error.exit_code
        case click.ClickException():
            error.show()
            code = error.exit_code
        case click.Abort():
            click.echo("Interrupted.", err=True)
            code = INTERRUPTED
        case sqlite3.Error():
            click.echo(f"evalgauge: the state cannot be used: {error}", err=True)
            code = StateError.exit_code
        case OSError(filename=str() | bytes()):
            click.echo(f"evalgauge: {error.filename}: {error.strerror}", err=True)
        case _:
            raise error
    return code
