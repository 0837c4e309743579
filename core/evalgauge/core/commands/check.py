"""`evalgauge check`: everything is read and validated, nothing runs; says what would run, or every fault."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalgauge.core import plugins
from evalgauge.core.collect import Chunk, InputContext, InputStatus
from evalgauge.core.commands import options
from evalgauge.core.config import Config, read_layers, validated
from evalgauge.core.document import in_order
from evalgauge.core.errors import ConfigError, DocumentError, EvalgaugeError, Problem
from evalgauge.core.export import ExporterContext, StatusReport
from evalgauge.core.keyed import check_keys, unkeyed_gauges
from evalgauge.core.mapping_check import load_mapping
from evalgauge.core.pack.loader import LoadedPack, load, load_packs, within_reach
from evalgauge.core.pack.names import OWN_PACK
from evalgauge.core.pack.summary import summary
from evalgauge.core.stores import kept_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from evalgauge.core.layers import Layered
    from evalgauge.core.pack.model import Pack


@click.command(
    epilog="Example: evalgauge check --config evalgauge.yaml",
    short_help="Say what a configuration would run, or every mistake in it.",
)
@options.config
@options.packs
@options.mapping
def command(config_path: Path | None, pack_names: tuple[str, ...], mapping: str | None) -> None:
    """Validate a configuration with its packs and mappings, or packs and a mapping alone, without running anything.

    Prints what would run and exits with 0, or prints every fault with its place and exits with 2.
    """
    if config_path is None and not pack_names:
        raise click.UsageError(
            "say what to check: --config evalgauge.yaml, or --pack with or without --mapping"
        )
    faults = _Faults()
    config: Config | None = None
    state: list[str] | None = None
    names = list(pack_names)
    if config_path is not None:
        config, given = _configuration(config_path, names, faults)
        names = names or given
    loaded = faults.of(lambda: load(names)) or []
    if names and loaded:
        if mapping is not None:
            faults.of(lambda: load_mapping(mapping, load_packs(names)))
        if config is not None:
            _mappings(config, names, faults)
    if config is not None:
        _parts(config, faults)
        state = faults.of(partial(_state, config, [one.pack for one in loaded]))
    faults.end()
    for line in _report(config, loaded, mapping, state or []):
        click.echo(line)


@dataclass(slots=True)
class _Faults:
    """Everything that is wrong, in the order it was found."""

    problems: list[Problem] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def of(self, work: Callable[[], Any]) -> Any:
        """Do something, and note its faults."""
        try:
            return work()
        except DocumentError as error:
            self.problems += error.problems
        except EvalgaugeError as error:
            self.others.append(str(error))
        return None

    def end(self) -> None:
        """Raise what was found, if anything was."""
        if self.others and self.problems:
            self.problems += [Problem("configuration", 0, 0, text) for text in self.others]
        if self.problems:
            raise DocumentError(in_order(self.problems))
        if self.others:
            raise ConfigError("\n".join(dict.fromkeys(self.others)))


def _configuration(path: Path, packs: list[str], faults: _Faults) -> tuple[Config | None, list[str]]:
    """The configuration, None where it has faults, and the packs it names as far as they can be told."""
    layers = faults.of(lambda: read_layers(path, packs=packs or None))
    if layers is None:
        return None, []
    document: Layered = layers[0]
    named = document.value.get("packs")
    given = [one for one in named if isinstance(one, str)] if isinstance(named, list) else []
    config: Config | None = faults.of(lambda: validated(*layers))
    if config is not None and not config.inputs:
        faults.problems.append(
            document.problem((), "there are no inputs: nothing would be counted", "Give `inputs:`.")
        )
    return config, given


def _mappings(config: Config, names: list[str], faults: _Faults) -> None:
    for one in config.inputs.values():
        if one.mapping is not None:
            pushes = plugins.load(plugins.COLLECTORS, one.type).pushes
            faults.of(partial(_mapping, one.mapping, names, pushes=pushes))


def _mapping(path: str, names: list[str], *, pushes: bool) -> None:
    load_mapping(path, load_packs(names), pushes=pushes)


def _parts(config: Config, faults: _Faults) -> None:
    """Build every input and exporter without starting it: certificates, tokens and addresses are looked at then."""
    for name, one in config.inputs.items():
        context = InputContext(name, {}, _NoSink(), threading.Event(), InputStatus())
        faults.of(partial(plugins.load(plugins.COLLECTORS, one.type), one, context))
    outside = ExporterContext(
        snapshot=list,
        request_commit=lambda: None,
        readiness=list,
        status=lambda: StatusReport("", 0.0),
        reload=lambda: None,
        observe_scrape=lambda _: None,
    )
    for one in config.exporters.values():
        faults.of(partial(plugins.load(plugins.EXPORTERS, one.type), one, outside))
    owners: dict[str, str] = {}
    for kind, parts in (("input", config.inputs), ("exporter", config.exporters)):
        for name, one in parts.items():
            listen = getattr(one, "listen", None)
            if listen is None or str(listen).endswith(":0"):
                continue
            owner = owners.setdefault(str(listen), f"{kind} `{name}`")
            if owner != f"{kind} `{name}`":
                faults.others.append(
                    f"{owner} and {kind} `{name}` both listen on {listen}: give one another port"
                )


def _state(config: Config, packs: list[Pack]) -> list[str]:
    """Where state is kept and how, in words; an input that keeps it must be alone, and have the keys packs need."""
    commits = f"a commit each {config.state.commit_interval:g} s while events flow"
    store = kept_store(config)
    if store is None:
        folder, letters = Path(config.state.folder), config.dead_letters
        size, days = letters.size / 2**20, letters.age / 86400
        return [
            f"{folder.absolute()}: {_folder(folder)}",
            f"{commits}; on_state_loss: {config.state.on_state_loss}",
            f"dead letters: {letters.number:,} of at most {size:,.0f} MiB, for {days:g} days",
        ]
    said = [store.where, commits]
    by_partition = store.by_partition
    store.close()
    if by_partition:
        check_keys(config, packs, plugins.load_all(plugins.INSTRUMENTS))
        if gauges := unkeyed_gauges(config, packs):
            said.append(
                f"note: {', '.join(gauges)} {'is' if len(gauges) == 1 else 'are'} set by events: right only if all "
                "events of a label set are in one partition, which `keyed_by` would say and watch"
            )
    return said


class _NoSink:
    """Takes nothing: nothing runs here."""

    def put(self, chunk: Chunk) -> None:
        """Never called."""

    def offer(self, chunk: Chunk) -> bool:
        """Never called."""
        del chunk
        return False


def _report(
    config: Config | None, loaded: list[LoadedPack], mapping: str | None, state: list[str]
) -> Iterator[str]:
    if config is not None:
        yield "Inputs"
        yield options.table(
            ["name", "type", "from", "what holds"], [_input(n, o) for n, o in config.inputs.items()]
        )
    yield "Packs"
    rows = []
    together = 0
    for one in loaded:
        found = summary(one, within_reach(one.pack, [other.pack for other in loaded if other is not one]))
        series = sum(part["at_most"] for metric in found["metrics"] for part in metric["series"])
        together += series
        counts = [str(len(found[key])) for key in ("events", "metrics", "recording", "alerts")]
        rows.append([one.pack.pack, str(one.pack.version), one.source, *counts, f"{series:,}"])
    head = [
        "pack",
        "version",
        "from",
        "event types",
        "metrics",
        "recording rules",
        "alerts",
        "series at most",
    ]
    yield options.table(head, rows, right=(3, 4, 5, 6, 7))
    if config is None:
        yield f"Sound: {len(loaded)} {'pack' if len(loaded) == 1 else 'packs'}{' and the mapping' if mapping else ''}."
        return
    if all(one.pack.pack != OWN_PACK for one in loaded):
        yield f"  The metrics of the process itself (pack {OWN_PACK}) come on top."
    yield "Exporters"
    if config.exporters:
        rows = [[name, one.type, _address(one)] for name, one in config.exporters.items()]
        yield options.table(["name", "type", "to"], rows)
    else:
        yield "  none: what is counted is kept, and nobody can see it"
    yield "State"
    yield from (f"  {line}" for line in state)
    workers = config.engine.workers
    yield f"Sound. {workers} {'process decodes' if workers == 1 else 'processes decode'}; at most {together:,} series."


def _input(name: str, one: Any) -> list[str]:
    pushes = plugins.load(plugins.COLLECTORS, one.type).pushes
    said = ["pushed, answered after the commit" if pushes else "read, goes on from its committed position"]
    deduplicate = pushes if one.deduplicate is None else one.deduplicate
    said.append("repeats count once" if deduplicate else "repeats count again")
    said.append(f"unknown types: {one.unknown_types or ('refuse' if pushes else 'ignore')}")
    if one.mapping is not None:
        said.append(f"mapping {one.mapping}")
    return [name, one.type, _address(one), "; ".join(said)]


def _address(one: Any) -> str:
    """Where it reads, listens or sends, in the words of its own configuration."""
    for key in ("listen", "path", "url", "address"):
        found = getattr(one, key, None)
        if found:
            text = ", ".join(found) if isinstance(found, list) else str(found)
            path = getattr(one, "path", "") if key == "listen" else ""
            return f"{text}{path}"
    return ""


def _folder(folder: Path) -> str:
    state = folder / "state.db"
    if not state.exists():
        return "new, starts at zero"
    return f"goes on from {state.stat().st_size / 2**20:,.1f} MiB of state"
