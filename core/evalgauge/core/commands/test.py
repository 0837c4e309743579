"""`evalgauge test`: the unit test of a pack, events in and expected metrics or refusals out."""

from __future__ import annotations

import sys

import click

from evalgauge.core import logs
from evalgauge.core.caserun import Difference, run_case
from evalgauge.core.casefile import load_cases
from evalgauge.core.commands import options
from evalgauge.core.errors import DocumentError, Problem


@click.command(
    epilog="Example: evalgauge test examples/tests/judgment.yaml",
    short_help="The unit test of a pack: events in, expected metrics or refusals out.",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@click.option("--case", "-k", "word", default="", metavar="TEXT", help="Only cases whose name contains this.")
def command(files: tuple[str, ...], word: str) -> None:
    """Run the cases of FILES. Exits with 1 if a case fails, with 2 if a file is wrong."""
    logs.set_up("error", "console")
    loaded = []
    problems: list[Problem] = []
    for file in files:
        try:
            loaded.append(load_cases(file))
        except DocumentError as error:
            problems += error.problems
    if problems:
        raise DocumentError(problems)
    passed = failed = 0
    for cases in loaded:
        click.echo(cases.file)
        for case in cases.cases:
            if word not in case.spec.name:
                continue
            differences = run_case(cases, case)
            if not differences:
                passed += 1
                click.echo(f"  ok      {case.spec.name}")
                continue
            failed += 1
            click.echo(f"  FAILED  {case.spec.name}")
            for difference in differences:
                click.echo(_told(cases.file, difference))
    click.echo(f"{passed} ok, {failed} failed")
    if not passed + failed:
        raise click.UsageError(f"no case has a name with {word!r}")
    if failed:
        sys.exit(1)


def _told(file: str, difference: Difference) -> str:
    place = f"{file}:{difference.at[0]}:{difference.at[1]}"
    lines = [f"{place}: {difference.what}", f"  want: {difference.want}", f"  got:  {difference.got}"]
    return "\n".join(f"    {options.printable(line)}" for line in lines)
