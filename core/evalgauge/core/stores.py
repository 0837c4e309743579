"""Which store a configuration asks for, and where its dead letters are: in the state folder, or with an input."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from evalgauge.core import plugins
from evalgauge.core.errors import ConfigError
from evalgauge.core.sqlite_store import SqliteStore, lock_folder

if TYPE_CHECKING:
    from evalgauge.core.config import Config
    from evalgauge.core.deadletters import ReturningBox
    from evalgauge.core.store import KeptStore, Store


def replica_id(config: Config) -> str:
    """The name of this process among those of a group. Raises `ConfigError` where it has none."""
    name = (config.replica if config.replica is not None else socket.gethostname()).strip()
    if not name:
        raise ConfigError(
            "`replica` is empty: a process of a group needs a name that no other has, and that stays"
        )
    return name


def kept_store(config: Config) -> KeptStore | None:
    """The store that an input keeps, connected to nothing yet; None where state goes to the state folder.

    Raises `ConfigError`, also where there are inputs besides: their positions could not be committed with the state.
    """
    found: dict[str, KeptStore] = {}
    for name, one in config.inputs.items():
        opener: Any = getattr(plugins.load(plugins.COLLECTORS, one.type), "open_store", None)
        store = opener(one, name, replica_id(config)) if opener is not None else None
        if store is not None:
            found[name] = store
    if found and len(config.inputs) > 1:
        keeper = next(iter(found))
        other = next(name for name in config.inputs if name != keeper)
        raise ConfigError(
            f"input `{keeper}` keeps the state of the process with its positions, so it must be the only one: "
            f"run `{other}` in a process of its own"
        )
    return next(iter(found.values()), None)


def kept_letters(config: Config) -> ReturningBox | None:
    """The dead letters that an input keeps, connected to nothing yet; None where they are in the state folder.

    Raises `ConfigError`.
    """
    for name, one in config.inputs.items():
        opener: Any = getattr(plugins.load(plugins.COLLECTORS, one.type), "open_letters", None)
        box: ReturningBox | None = opener(one, name) if opener is not None else None
        if box is not None:
            return box
    return None


def open_store(config: Config) -> tuple[Store, IO[str] | None]:
    """The store of a configuration, and a lock on the state folder to close with it where the store has none.

    Raises `ConfigError` and `StateError`.
    """
    folder = Path(config.state.folder)
    kept = kept_store(config)
    if kept is None:
        return SqliteStore(folder), None
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return kept, lock_folder(folder)
