"""`evalgauge kafka replicas` and `retire`: who belongs to a group, and who has left it for good."""

from __future__ import annotations

import getpass
import json
import socket
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import click

from evalgauge.collectors.kafka import open_library
from evalgauge.collectors.kafka_client import Unavailable
from evalgauge.collectors.kafka_config import KafkaConfig
from evalgauge.collectors.kafka_retire import Brokers, Changelog, Retiring
from evalgauge.collectors.kafka_retired import when
from evalgauge.core.commands import options
from evalgauge.core.config import load_config
from evalgauge.core.errors import ConfigError, EvalgaugeError
from evalgauge.core.findings import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from evalgauge.collectors.kafka_config import KafkaGroup

LIVE, ABSENT, RETIRING, RETIRED = "live", "absent", "retiring", "retired"


@dataclass(frozen=True, slots=True)
class Standing:
    """One replica as it stands with its group."""

    replica: str
    state: str
    """`live`: a member; `absent`: none now; `retired`: left for good; `retiring`: that was begun and not finished."""
    last_commit: str | None
    """RFC 3339; None where it has never committed."""
    age_seconds: float | None
    """Since then."""
    version: str | None
    """Of evalgauge, as of then."""
    metrics: int
    series: int
    partitions: list[str]
    """Those it has now, as `topic/number`."""
    retired: str | None
    """Since when it is retired, RFC 3339."""
    retired_by: str | None


@click.command(
    short_help="Show who is live, absent or retired in a group.",
    epilog="Example: evalgauge kafka replicas --config evalgauge.yaml",
)
@options.config
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def replicas(config_path: Path | None, *, as_json: bool) -> None:
    """Show the replicas of a group: who is live, absent or retired, what they hold and what they read.

    All of the group's changelog is read for it; nothing is changed, and nobody is disturbed.
    """
    name, config, group = _input(config_path)
    with _answered():
        found = _standings(name, config, group)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2, ensure_ascii=False))
        return
    click.echo(f"Group {group.id}, changelog {group.changelog_topic}")
    head = ["replica", "state", "last commit", "age", "version", "metrics", "series", "partitions"]
    rows = [
        [
            options.printable(one.replica),
            one.state,
            one.last_commit or "never",
            "" if one.age_seconds is None else _age(one.age_seconds),
            one.version or "",
            f"{one.metrics:,}",
            f"{one.series:,}",
            options.shortened(options.printable(" ".join(_short(one.partitions)))),
        ]
        for one in found
    ]
    click.echo(options.table(head, rows, right=(5, 6)) if rows else "No replica has committed yet.")
    for one in found:
        if one.retired is not None:
            click.echo(
                f"{options.printable(one.replica)}: {one.state} since {one.retired}, by {one.retired_by}"
            )
        if one.state == RETIRING:
            click.echo(f"  That was not finished: evalgauge kafka retire {options.printable(one.replica)}")


@click.command(
    short_help="Say that a replica has left for good.",
    epilog="Example: evalgauge kafka retire r3 --config evalgauge.yaml",
)
@click.argument("replica")
@options.config
@click.option("--yes", is_flag=True, help="Do not ask.")
def retire(replica: str, config_path: Path | None, *, yes: bool) -> None:
    """Retire REPLICA for good: its process is gone and will not come back under that name.

    From then on the replica that reads the group's first partition shows its totals, frozen, with the label `replica`.
    They are never added to those of another replica. There is no way back: a process that starts under that name ends
    at once. A replica that is a member of the group is not retired.
    """
    name, config, group = _input(config_path)
    with _answered():
        found = {one.replica: one for one in _standings(name, config, group)}
        one = found.get(replica)
        if one is None or (one.last_commit is None and one.state == ABSENT):
            raise EvalgaugeError(
                f"group {group.id} has no replica {replica} that has committed anything. {suggest(replica, found)}"
            )
        if one.state == RETIRED:
            click.echo(f"replica {replica} is retired already, since {one.retired}, by {one.retired_by}")
            return
        if one.state == ABSENT and not yes:
            age = "" if one.age_seconds is None else f" {_age(one.age_seconds)} ago"
            click.echo(
                f"Replica {replica} of group {group.id}: last commit{age}, {one.metrics} metrics, "
                f"{one.series:,} series."
            )
            click.confirm("Retire it for good?", abort=True)
        by = f"{getpass.getuser()} on {socket.gethostname()}"
        mark = Retiring(config, name, open_library(config, name), by).retire(replica)
    click.echo(
        f"replica {replica} is retired since {when(mark.time)}; within a minute its totals are shown, frozen, by the "
        "replica that reads the first partition"
    )


def _input(config_path: Path | None) -> tuple[str, KafkaConfig, KafkaGroup]:
    if config_path is None:
        raise ConfigError("say with --config which configuration the replicas of the group run with")
    for name, one in load_config(config_path).inputs.items():
        if isinstance(one, KafkaConfig) and one.group is not None:
            return name, one, one.group
    raise ConfigError(f"{config_path} has no input of type kafka with a `group`")


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except Unavailable as error:
        raise EvalgaugeError(f"the brokers do not answer as they should: {error}; try again") from error


def _standings(name: str, config: KafkaConfig, group: KafkaGroup) -> list[Standing]:
    with Changelog(group, open_library(config, name)) as changelog:
        changelog.there()
        seen = changelog.replicas()
        marks = changelog.marks()
    members = Brokers(config, name).members()
    now = time.time()
    standings = []
    for replica in sorted(seen.keys() | marks.keys() | members.keys()):
        one, mark = seen.get(replica), marks.get(replica)
        said = None if one is None else one.said
        state = LIVE if replica in members else ABSENT
        if mark is not None:
            state = RETIRED if mark.settled else RETIRING
        standings.append(
            Standing(
                replica=replica,
                state=state,
                last_commit=None if said is None else when(said.time),
                age_seconds=None if said is None else round(max(0.0, now - said.time), 1),
                version=None if said is None else said.version,
                metrics=0 if one is None else one.metrics,
                series=0 if one is None else one.series,
                partitions=[str(partition) for partition in members.get(replica, ())],
                retired=None if mark is None else when(mark.time),
                retired_by=None if mark is None else mark.by,
            )
        )
    return standings


def _age(seconds: float) -> str:
    """For people: the largest unit of which there are two."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _short(partitions: Sequence[str]) -> list[str]:
    """Partitions of one topic as `topic/0-3,7`."""
    found = []
    split = sorted((one.rpartition("/")[0], int(one.rpartition("/")[2])) for one in partitions)
    for topic, of_topic in groupby(split, key=lambda one: one[0]):
        runs: list[list[int]] = []
        for _, number in of_topic:
            if runs and number == runs[-1][-1] + 1:
                runs[-1].append(number)
            else:
                runs.append([number])
        text = ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
        found.append(f"{topic}/{text}")
    return found
