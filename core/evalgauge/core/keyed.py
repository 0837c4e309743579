"""State by key needs partitions by the same key: where these move between processes, somebody must have said so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalgauge.core.errors import ConfigError
from evalgauge.core.pack.metric_model import GaugeSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from evalgauge.core.config import Config
    from evalgauge.core.instrument import Instrument
    from evalgauge.core.pack.metric_model import MetricSpec
    from evalgauge.core.pack.model import Pack


def needs_keys(spec: MetricSpec, kind: type[Instrument] | None) -> bool:
    """Whether a metric keeps state by key, so that it is wrong where a key is in several partitions."""
    return bool(getattr(kind, "keyed", False) and getattr(spec, "by_key", True))


def wants_keys(spec: MetricSpec) -> bool:
    """Whether it is right only if all events of a label set are in one partition, which may be so unsaid."""
    return isinstance(spec, GaugeSpec) and spec.value is not None


def check_keys(config: Config, packs: Iterable[Pack], kinds: Mapping[str, type[Instrument]]) -> None:
    """Raise `ConfigError` where a metric keeps state by key, and an input does not say what its keys are.

    For a configuration whose store keeps state by partition; elsewhere one process sees every key.
    """
    keyed = [
        f"`{name}` of pack `{pack.pack}`"
        for pack in packs
        for name, spec in pack.metrics.items()
        if needs_keys(spec, kinds.get(spec.type))
    ]
    for name, one in config.inputs.items():
        if keyed and getattr(one, "keyed_by", None) is None:
            raise ConfigError(
                f"input `{name}` is read by a group, and {keyed[0]}"
                f"{f' (and {len(keyed) - 1} more)' if keyed[1:] else ''} keeps state by key: it is right only if all "
                "records of a key are in one partition. Say by which field producers partition (`keyed_by`), or read "
                "without `group`; a topic that has no such keys is copied to one that has by `evalgauge kafka "
                "repartition`"
            )


def unkeyed_gauges(config: Config, packs: Iterable[Pack]) -> list[str]:
    """Gauges that events set, where no input says what its keys are.

    They are right only if all events of a label set are in one partition, which may be so without being said.
    """
    if all(getattr(one, "keyed_by", None) is not None for one in config.inputs.values()):
        return []
    return [name for pack in packs for name, spec in pack.metrics.items() if wants_keys(spec)]
