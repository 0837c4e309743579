"""What `evalgauge run --pack mine.yaml` runs where nobody configured anything: a door and /metrics, on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evalgauge.core.layers import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def with_defaults(path: Path | None, environment: Mapping[str, str]) -> dict[str, Any]:
    """Overrides for `load_config`: inputs and exporters, each where neither a file nor the environment names any."""
    if path is not None:
        return {}
    found: dict[str, Any] = {
        "inputs": {"http": {"type": "http"}},
        "exporters": {"prometheus": {"type": "prometheus"}},
    }
    return {
        section: parts
        for section, parts in found.items()
        if not any(name.startswith(f"{PREFIX}{section.upper()}") for name in environment)
    }
