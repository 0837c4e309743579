"""Flags that several commands share, and what they come to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from evalgauge.core.config import StateConfig, load_config
from evalgauge.core.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

FOLDER_VARIABLE = "EVALGAUGE_STATE__FOLDER"


def config(function: F) -> F:
    """`--config`."""
    return click.option(
        "--config",
        "-c",
        "config_path",
        type=click.Path(path_type=Path),
        envvar="EVALGAUGE_CONFIG",
        show_envvar=True,
        help="Configuration file; EVALGAUGE_… variables override it, flags override both.",
    )(function)


def packs(function: F) -> F:
    """`--pack`, once for each pack."""
    return click.option(
        "--pack",
        "-p",
        "pack_names",
        multiple=True,
        metavar="NAME|FILE",
        help="A built-in pack by name, another by path.",
    )(function)


def mapping(function: F) -> F:
    """`--mapping`."""
    return click.option("--mapping", "-m", metavar="FILE", help="Mapping for events of another shape.")(
        function
    )


def state(function: F) -> F:
    """`--state` and `--config`, of which either names the state folder."""
    folder = click.option(
        "--state",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="State folder; else the configuration's.",
    )
    return config(folder(function))


def log_flags(function: F) -> F:
    """`--log-level` and `--log-format`."""
    level = click.option(
        "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Default: info."
    )
    form = click.option(
        "--log-format", type=click.Choice(["console", "json"]), help="json has ECS field names."
    )
    return level(form(function))


def state_folder(state: Path | None, config_path: Path | None) -> Path:
    """The state folder that the flags, the configuration, the environment or the default name, in that order."""
    if state is not None:
        return state
    if config_path is not None:
        return Path(load_config(config_path).state.folder)
    return Path(os.environ.get(FOLDER_VARIABLE) or StateConfig().folder)


class Age(click.ParamType[float]):
    """A duration such as `1h30m`, in seconds."""

    name = "AGE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds of a text."""
        try:
            text = str(value)
            return parse_duration(float(text) if text.replace(".", "", 1).isdecimal() else text)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def printable(text: str) -> str:
    r"""Text from outside as one line that cannot steer a terminal: control characters become `\x1b` and the like."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode() for one in text
    )


def table(head: list[str], rows: list[list[str]], right: tuple[int, ...] = ()) -> str:
    """Rows in aligned columns below their heads; the columns in `right` are aligned to the right."""
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return "\n".join(lines)


def shortened(text: str, length: int = 100) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
