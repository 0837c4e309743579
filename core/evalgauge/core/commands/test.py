"""`evalgauge test`: the unit test of a pack, events in and expected metrics or refusals out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from evalgauge.core import logs
from evalgauge.core.casefile import Cases, load_cases
from evalgauge.core.caserun import Difference, run_case
from evalgauge.core.commands import options
from evalgauge.core.errors import DocumentError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command(
    epilog="Example: evalgauge test examples/tests/judgment.yaml",
    short_help="The unit test of a pack: events in, expected metrics or refusals out.",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@click.option("--case", "-k", "word", default="", metavar="TEXT", help="Only cases whose name contains this.")
def command(files: tuple[str, ...], word: str) -> None:
    """Run the cases of FILES. Exits with 1 if a case fails, with 2 if a file is wrong."""
    logs.set_up("error", "console")
    results = [_run(cases, word) for cases in _load(files)]
    passed, failed = (sum(column) for column in zip(*results, strict=True))
    if not passed + failed:
        raise click.UsageError(f"no case has a name with {word!r}")
    click.echo(f"{passed} ok, {failed} failed")
    if failed:
        sys.exit(1)


def _load(files: Sequence[str]) -> list[Cases]:
    """All files. Raises `DocumentError` with the faults of every one of them."""
    loaded = []
    problems: list[Problem] = []
    for file in files:
        try:
            loaded.append(load_cases(file))
        except DocumentError as error:
            problems += error.problems
    if problems:
        raise DocumentError(problems)
    return loaded


def _run(cases: Cases, word: str) -> tuple[int, int]:
    """Run the cases of a file and print what came of each; how many held and how many did not."""
    passed = failed = 0
    click.echo(cases.file)
    for case in cases.cases:
        if word not in case.spec.name:
            continue
        differences = run_case(cases, case)
        passed += not differences
        failed += bool(differences)
        click.echo(f"  {'FAILED' if differences else 'ok    '}  {case.spec.name}")
        for difference in differences:
            click.echo(_told(cases.file, difference))
    return passed, failed


def _told(file: str, difference: Difference) -> str:
    place = f"{file}:{difference.at[0]}:{difference.at[1]}"
    lines = [f"{place}: {difference.what}", f"  want: {difference.want}", f"  got:  {difference.got}"]
    return "\n".join(f"    {options.printable(line)}" for line in lines)
