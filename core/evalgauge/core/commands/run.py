"""`evalgauge run`: the long-running process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from evalgauge.core import logs
from evalgauge.core.commands import options
from evalgauge.core.commands.defaults import DEFAULTS
from evalgauge.core.config import Config, load_config
from evalgauge.core.errors import ConfigError
from evalgauge.core.process import Process

if TYPE_CHECKING:
    from pathlib import Path


@click.command(
    epilog="Example: evalgauge run --config evalgauge.yaml --workers 2",
    short_help="Collect events and serve metrics until told to end.",
)
@options.config
@options.packs
@click.option("--state", metavar="FOLDER", help="Folder of the checkpoint (state.folder).")
@click.option("--workers", type=int, help="Processes that decode bulk input (engine.workers).")
@click.option(
    "--on-state-loss",
    type=click.Choice(["hold", "end", "replay"]),
    help="For this start: what inputs do whose position was lost (state.on_state_loss).",
)
@options.log_flags
def command(  # noqa: PLR0913
    *,
    config_path: Path | None,
    pack_names: tuple[str, ...],
    state: str | None,
    workers: int | None,
    on_state_loss: str | None,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Collect events by the configured inputs, keep exact counts, and serve them by the configured exporters.

    SIGTERM ends in order: inputs stop, what was taken in is committed. SIGHUP reads the configuration again.

    Without --config: the given packs, an HTTP door at 127.0.0.1:8080 and /metrics at 127.0.0.1:9464.
    """

    def read() -> Config:
        config = load_config(
            config_path,
            base=DEFAULTS,
            packs=list(pack_names) or None,
            state__folder=state,
            state__on_state_loss=on_state_loss,
            engine__workers=workers,
            log__level=log_level,
            log__format=log_format,
        )
        if not config.inputs:
            raise ConfigError(
                "there are no inputs: nothing would be counted. Give `inputs:` in the configuration."
            )
        return config

    loaded = read()
    logs.set_up(loaded.log.level, loaded.log.format)
    process = Process(loaded, read)
    process.handle_signals()
    process.run()
