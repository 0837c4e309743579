"""Parts found by entry points: the built-in ones come in by the same door as anybody's."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from evalgauge.core.document import suggest
from evalgauge.core.errors import ConfigError

COLLECTORS = "evalgauge.collectors"
EXPORTERS = "evalgauge.exporters"
INSTRUMENTS = "evalgauge.instruments"
COMMANDS = "evalgauge.commands"
DERIVE = "evalgauge.derive"


def names(group: str) -> list[str]:
    """The names in a group, sorted."""
    return sorted({point.name for point in entry_points(group=group)})


def load(group: str, name: str) -> Any:
    """One part. Raises `ConfigError` where there is none of that name or it cannot be imported."""
    found: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=group)}
    if name not in found:
        kind = group.rpartition(".")[2].rstrip("s")
        msg = f"there is no {kind} `{name}`. {suggest(name, found)}"
        raise ConfigError(msg)
    try:
        return found[name].load()
    except (ImportError, AttributeError) as error:
        msg = f"{group.rpartition('.')[2].rstrip('s')} `{name}` cannot be loaded: {error}"
        raise ConfigError(msg) from error


def load_all(group: str) -> dict[str, Any]:
    """Every part of a group by name."""
    return {name: load(group, name) for name in names(group)}
