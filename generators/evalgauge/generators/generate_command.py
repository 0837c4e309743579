"""The command `evalgauge generate`: files out of packs, written or compared with what is there."""

from __future__ import annotations

import difflib
import os
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from evalgauge.core.errors import ConfigError
from evalgauge.core.pack.loader import load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evalgauge.core.pack.model import Pack

    Generator = Callable[[Pack], dict[str, str]]
    """Pack → path below the output folder → text of the file. Reads nothing else and writes nothing."""


class Kind(NamedTuple):
    """A kind of file that can be generated."""

    what: str
    """One sentence for the help."""
    folder: str
    """Where a project usually keeps such files."""


KINDS = {
    "dashboards": Kind(
        "Grafana dashboards, one for each pack, as JSON to provision or import.", "dashboards"
    ),
    "rules": Kind("Prometheus rule files, one for each pack: recording rules and alerts.", "alert_rules"),
}
"""Name → kind. Each is a module of this name beside this one, with a `Generator` called `generate`."""


def generator(kind: str) -> Generator:
    """The generator of a kind of file. Raises `ConfigError` where a library that it needs is not installed."""
    try:
        module = import_module(f"evalgauge.generators.{kind}")
    except ImportError as error:
        missing = error.name or str(error)
        message = f"`evalgauge generate {kind}` needs `{missing}`, which is not installed: "
        raise ConfigError(f"{message}pip install 'evalgauge[generators]'") from error
    made: Generator = module.generate
    return made


def generated(kind: str, packs: Sequence[Pack]) -> dict[str, str]:
    """Path → text of every file of a kind. Raises `ConfigError` if two packs want the same path."""
    make = generator(kind)
    files: dict[str, str] = {}
    for pack in packs:
        for path, text in make(pack).items():
            if path in files:
                raise ConfigError(f"two packs want to write {path}: generate them into folders of their own.")
            files[path] = text
    return files


@click.group("generate")
def command() -> None:
    """Make files for other programs out of packs.

    A pack says what is measured; dashboards and rules follow from it, byte for byte the same each time, so they can
    be committed and compared.

    \b
    Example:
      evalgauge generate rules --pack judgment --pack ./mine.yaml -o alert_rules
      evalgauge generate rules --pack judgment --pack ./mine.yaml -o alert_rules --check
    """  # noqa: D301 - click's mark for a paragraph that keeps its lines


def _command(kind: str) -> click.Command:
    @click.option(
        "--pack",
        "packs",
        required=True,
        multiple=True,
        metavar="PACK",
        help="Name of an installed pack, or path of a pack file. May be given several times.",
    )
    @click.option(
        "-o",
        "--output",
        required=True,
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Folder to write into; made if it is not there.",
    )
    @click.option(
        "--check", is_flag=True, help="Write nothing: print how the files differ and exit with 1 if any does."
    )
    @click.pass_context
    def run(context: click.Context, packs: tuple[str, ...], output: Path, *, check: bool) -> None:
        files = generated(kind, [one.pack for one in load(packs)])
        if not files:
            click.echo(f"No {kind}: {', '.join(packs)} declares none.", err=True)
        if not check:
            _write(files, output)
        elif drifted := _differences(files, output):
            click.echo("".join(drifted.values()), nl=False)
            names = ", ".join(str(output / path) for path in drifted)
            mend = f"evalgauge generate {kind} {' '.join(f'--pack {pack}' for pack in packs)} -o {output}"
            click.echo(f"Not what the packs say: {names}\nMend: {mend}", err=True)
            context.exit(1)

    what, folder = KINDS[kind]
    example = f"\b\nExample:\n  evalgauge generate {kind} --pack judgment -o {folder}"
    return click.command(kind, help=f"{what}\n\n{example}", short_help=what)(run)


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
