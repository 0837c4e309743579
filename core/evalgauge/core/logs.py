"""Logging on standard error: lines for people, or JSON with the field names of the Elastic Common Schema."""

from __future__ import annotations

import logging
import sys
import time

from ecs_logging import StdlibFormatter


class ConsoleFormatter(logging.Formatter):
    """Time, level, logger and message."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"
        )


def set_up(level: str, form: str) -> None:
    """Log at `level` (debug, info, warning, error) as `console` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        StdlibFormatter(extra={"service.name": "evalgauge"}) if form == "json" else ConsoleFormatter()
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
