"""The command `evalgauge generate`: files out of packs, written or compared with what is there."""

from __future__ import annotations

import difflib
import math
import os
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from evalgauge.core.errors import ConfigError
from evalgauge.core.findings import suggest
from evalgauge.core.pack.loader import load
from evalgauge.generators.rules import RUNBOOKS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evalgauge.core.pack.model import Pack

    Generator = Callable[..., dict[str, str]]
    """Pack → path below the output folder → text of the file. Reads nothing else and writes nothing."""


class Kind(NamedTuple):
    """A kind of file that can be generated."""

    what: str
    """One sentence for the help."""
    folder: str
    """Where a project usually keeps such files."""
    changeable: bool = True
    """Whether parameters can be given."""


KINDS = {
    "dashboards": Kind(
        "Grafana dashboards, one for each pack, as JSON to provision or import.", "dashboards"
    ),
    "rules": Kind("Prometheus rule files, one for each pack: recording rules and alerts.", "alert_rules"),
    "rule-tests": Kind(
        "Unit tests of alerts for promtool, below the folder of the rules.", "alert_rules", changeable=False
    ),
    "runbooks": Kind(
        "Runbooks, a Markdown page for each pack: what an alert means and what to do.", "docs/runbooks"
    ),
}
"""Name → kind. Each is a module of this name (`-` as `_`) beside this one, with a `Generator` called `generate`."""


def generator(kind: str) -> Generator:
    """The generator of a kind of file. Raises `ConfigError` where a library that it needs is not installed."""
    try:
        module = import_module(f"evalgauge.generators.{kind.replace('-', '_')}")
    except ImportError as error:
        missing = error.name or str(error)
        message = f"`evalgauge generate {kind}` needs `{missing}`, which is not installed: "
        raise ConfigError(f"{message}pip install 'evalgauge[generators]'") from error
    made: Generator = module.generate
    return made


def generated(kind: str, packs: Sequence[Pack], **options: str) -> dict[str, str]:
    """Path → text of every file of a kind. Raises `ConfigError` if two packs want the same path."""
    make = generator(kind)
    files: dict[str, str] = {}
    for pack in packs:
        for path, text in make(pack, **options).items():
            if path in files:
                raise ConfigError(f"two packs want to write {path}: generate them into folders of their own.")
            files[path] = text
    return files


def changed(packs: Sequence[Pack], changes: Sequence[str]) -> list[Pack]:
    """The packs with parameters as `[PACK.]NAME=NUMBER` says. Raises `ConfigError` for one that none of them has."""
    wanted: dict[str, dict[str, float]] = {}
    for change in changes:
        name, _, text = change.partition("=")
        of_pack, _, parameter = name.rpartition(".")
        owners = [one.pack for one in packs if parameter in one.parameters and of_pack in {"", one.pack}]
        if not owners:
            prefixed = {pack.pack: f"{pack.pack}." if of_pack else "" for pack in packs}
            hint = suggest(name, {f"{prefixed[pack.pack]}{one}" for pack in packs for one in pack.parameters})
            raise ConfigError(f"--set {change}: no parameter of these packs is called `{name}`. {hint}")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ConfigError(f"--set {change}: `{text}` is no number. Such as --set {name}=5.")
        for owner in owners:
            wanted.setdefault(owner, {})[parameter] = value
    return [_with(pack, wanted.get(pack.pack, {})) for pack in packs]


def _with(pack: Pack, values: dict[str, float]) -> Pack:
    parameters = {
        name: one.model_copy(update={"value": values[name]}) if name in values else one
        for name, one in pack.parameters.items()
    }
    return pack.model_copy(update={"parameters": parameters})


@click.group("generate")
def command() -> None:
    """Make files for other programs out of packs.

    A pack says what is measured; dashboards and rules follow from it, byte for byte the same each time, so they can
    be committed and compared.

    \b
    Example:
      evalgauge generate rules --pack judgment --pack ./mine.yaml -o alert_rules
      evalgauge generate rules --pack judgment --pack ./mine.yaml -o alert_rules --check
      evalgauge generate rules --pack judgment --set mean_duration_limit=8 -o alert_rules
    """  # noqa: D301 - click's mark for a paragraph that keeps its lines


def _command(kind: str) -> click.Command:
    what, folder, changeable = KINDS[kind]

    @click.pass_context
    def run(
        context: click.Context, /, packs: tuple[str, ...], output: Path, *, check: bool, **given: object
    ) -> None:
        changes: Sequence[str] = given.pop("changes", ())  # type: ignore[assignment]  # click's own shape
        options = {name: str(value) for name, value in given.items()}
        files = generated(kind, changed([one.pack for one in load(packs)], changes), **options)
        if not files:
            click.echo(f"No {kind}: {', '.join(packs)} declares none.", err=True)
        if not check:
            _write(files, output)
        elif drifted := _differences(files, output):
            click.echo("".join(drifted.values()), nl=False)
            names = ", ".join(str(output / path) for path in drifted)
            words = [f"evalgauge generate {kind}", *(f"--pack {pack}" for pack in packs)]
            words += [f"--set {change}" for change in changes]
            words += [f"--{name} {value}" for name, value in options.items() if value != RUNBOOKS]
            click.echo(f"Not what the packs say: {names}\nMend: {' '.join(words)} -o {output}", err=True)
            context.exit(1)

    parameters: list[click.Parameter] = [
        click.Option(
            ["--pack", "packs"],
            required=True,
            multiple=True,
            metavar="PACK",
            help="Name of an installed pack, or path of a pack file. May be given several times.",
        ),
        click.Option(
            ["-o", "--output"],
            required=True,
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            help="Folder to write into; made if it is not there.",
        ),
        click.Option(
            ["--check"],
            is_flag=True,
            help="Write nothing: print how the files differ and exit with 1 if any does.",
        ),
    ]
    if changeable:
        parameters.append(
            click.Option(
                ["--set", "changes"],
                multiple=True,
                metavar="[PACK.]NAME=NUMBER",
                help="Another value of a parameter of the packs. May be given several times.",
            )
        )
    if kind == "rules":
        parameters.append(
            click.Option(
                ["--runbooks"],
                default=RUNBOOKS,
                show_default=True,
                metavar="ADDRESS",
                help="Where the pages of `evalgauge generate runbooks` are published, for `runbook_url`.",
            )
        )
    example = f"\b\nExample:\n  evalgauge generate {kind} --pack judgment -o {folder}"
    return click.Command(kind, params=parameters, callback=run, help=f"{what}\n\n{example}", short_help=what)


for _kind in KINDS:
    command.add_command(_command(_kind))


def _differences(files: dict[str, str], folder: Path) -> dict[str, str]:
    """Path → unified diff, of each file that is not in `folder` as it should be; an absent one differs wholly."""
    found = {}
    for path, text in files.items():
        target = folder / path
        there = _read(target)
        if there != text:
            lines = difflib.unified_diff(
                there.splitlines(keepends=True),
                text.splitlines(keepends=True),
                str(target) if target.exists() else os.devnull,
                f"{target} (generated)",
            )
            found[path] = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
    return found


def _read(path: Path) -> str:
    """The file as it is, empty where there is none; bytes that are no UTF-8 differ from anything generated."""
    return path.read_bytes().decode("utf-8", errors="replace") if path.is_file() else ""


def _write(files: dict[str, str], folder: Path) -> None:
    """Write what has changed, whole or not at all: a Prometheus that reloads meanwhile never reads half a file."""
    for path, text in files.items():
        target = folder / path
        if target.is_file() and target.read_bytes() == text.encode():
            click.echo(f"{target}: unchanged")
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "wb", dir=target.parent, prefix=f".{target.name}.", delete=False
            ) as file:
                file.write(text.encode())
            Path(file.name).chmod(0o666 & ~_umask())
            Path(file.name).replace(target)
        except OSError as error:
            raise ConfigError(f"{target} cannot be written: {error.strerror}") from error
        click.echo(f"{target}: written")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
