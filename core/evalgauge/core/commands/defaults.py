"""What `evalgauge run --pack mine.yaml` runs where nobody configured anything: a door and /metrics, on loopback."""

from __future__ import annotations

from typing import Any

DEFAULTS: dict[str, Any] = {
    "inputs": {"http": {"type": "http"}},
    "exporters": {"prometheus": {"type": "prometheus"}},
}
"""The base of a configuration without a file; variables and flags go over it as over a file."""
