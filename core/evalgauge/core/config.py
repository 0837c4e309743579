"""The configuration: one YAML file, every key of which an environment variable can override."""

from __future__ import annotations

import copy
import os
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from evalgauge.core import plugins
from evalgauge.core.document import Document, problems_of, read_document
from evalgauge.core.errors import DocumentError
from evalgauge.core.findings import path_in
from evalgauge.core.layers import (
    COMMAND_LINE,
    Layered,
    from_environment,
    layered,
    put,
    substitute,
    take_as_text,
)
from evalgauge.core.units import Duration, Size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from evalgauge.core.errors import Problem


class Section(BaseModel):
    """Every section: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StateConfig(Section):
    """Where the checkpoint is, and how often it is written."""

    folder: str = Field(
        default="evalgauge-state", description="Folder of the checkpoint; it belongs to one process."
    )
    commit_interval: Duration = Field(
        default=1.0, description="Longest time between two commits while events flow."
    )
    min_commit_interval: Duration = Field(
        default=0.05, description="Shortest time between two commits that nobody waits for."
    )
    on_state_loss: Literal["hold", "end", "replay"] = Field(
        default="hold",
        description="When earlier state is gone, inputs that can read again wait, go on at their end, or begin anew.",
    )


class DeduplicationConfig(Section):
    """How far back repeated events are recognised, where an input de-duplicates."""

    ids: int = Field(default=1_000_000, ge=1, description="Ids remembered; about 120 bytes of memory each.")
    age: Duration = Field(default=86_400.0, description="Longest time an id is remembered.")


class DeadLetterConfig(Section):
    """What is kept of refused events; the oldest goes first."""

    number: int = Field(default=100_000, ge=0, description="Events kept.")
    size: Size = Field(default=256 << 20, description="Bytes of all events kept.")
    age: Duration = Field(default=7 * 86_400.0, description="Longest time an event is kept.")
    keep: Literal["bytes", "redacted", "reason"] = Field(
        default="bytes",
        description="The event's bytes, the same without payload fields, or only why it was refused.",
    )
    max_event_size: Size = Field(default=64 << 10, description="More of one event is not kept.")


class EngineConfig(Section):
    """How events are worked on."""

    workers: int = Field(
        default=1, ge=1, le=64, description="Processes that decode bulk input; 1 decodes in the main process."
    )
    queue_size: Size = Field(
        default=64 << 20, description="Bytes taken in but not counted yet, before inputs are held back."
    )
    max_event_size: Size = Field(default=1 << 20, description="A longer event is refused as too_large.")
    max_depth: int = Field(default=32, ge=2, description="A deeper nested event is refused as too_deep.")
    idle_after: Duration = Field(
        default=10.0,
        description="Where nothing has come of a partition for so long, and nothing waits, its time follows the clock.",
    )
    clock_ahead: Duration = Field(
        default=300.0,
        description="An event's time may lie so far after its arrival, to which alone it takes event time; beyond, "
        "metrics by event time, and gauges that events set, leave it out.",
    )


class LogConfig(Section):
    """How the process logs, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="What is logged at least."
    )
    format: Literal["console", "json"] = Field(
        default="console", description="json has the field names of ECS."
    )


class InputCommon(Section):
    """What every input has besides the keys of its collector."""

    mapping: str | None = Field(default=None, description="Mapping file for events of another shape.")
    deduplicate: bool | None = Field(
        default=None, description="Count a repeated (source, id) once; by default on where events are pushed."
    )
    unknown_types: Literal["refuse", "ignore"] | None = Field(
        default=None,
        description="Event types no pack declares; by default refused where pushed, else ignored.",
    )


_INPUTS = "Where events come from, by name."
_EXPORTERS = "Where metrics go, by name."


class Config(Section):
    """The whole configuration. `config_model()` adds the keys of the installed collectors and exporters."""

    packs: list[str] = Field(min_length=1, description="Built-in packs by name, others by path.")
    replica: str | None = Field(
        default=None,
        max_length=120,
        pattern=r"^[A-Za-z0-9._-]*$",
        description="Name of this process among those that share a Kafka group, the same at every start; "
        "by default the host name.",
    )
    inputs: dict[str, Any] = Field(default_factory=dict, description=_INPUTS)
    exporters: dict[str, Any] = Field(default_factory=dict, description=_EXPORTERS)
    state: StateConfig = Field(default_factory=StateConfig, description="The checkpoint.")
    deduplication: DeduplicationConfig = Field(
        default_factory=DeduplicationConfig, description="Repeated events."
    )
    dead_letters: DeadLetterConfig = Field(
        default_factory=DeadLetterConfig, description="What is kept of refused events."
    )
    engine: EngineConfig = Field(
        default_factory=EngineConfig, description="Workers, the queue, limits of one event."
    )
    log: LogConfig = Field(default_factory=LogConfig, description="How the process logs.")
    shutdown_timeout: Duration = Field(default=10.0, description="Longest time from SIGTERM to the end.")


_TEXT_WANTED = {"string_type", "path_type", "literal_error"}
"""What pydantic calls it when a number stands where text belongs."""


@cache
def config_model() -> type[Config]:
    """`Config` with inputs and exporters as unions over what is installed, told apart by `type`."""
    name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=60)]
    inputs = [
        create_model(f"{kind.capitalize()}Input", __base__=(InputCommon, part.Config), type=(_tag(kind), ...))
        for kind, part in plugins.load_all(plugins.COLLECTORS).items()
    ]
    exporters = [
        create_model(f"{kind.capitalize()}Exporter", __base__=part.Config, type=(_tag(kind), ...))
        for kind, part in plugins.load_all(plugins.EXPORTERS).items()
    ]
    union_in: Any = Annotated[Union[tuple(inputs)], Field(discriminator="type")]  # noqa: UP007 - made at run time
    union_out: Any = Annotated[Union[tuple(exporters)], Field(discriminator="type")]  # noqa: UP007
    inputs_by_name: Any = dict[name, union_in]
    exporters_by_name: Any = dict[name, union_out]
    return create_model(
        "Configuration",
        __base__=Config,
        inputs=(inputs_by_name, Field(default_factory=dict, description=_INPUTS)),
        exporters=(exporters_by_name, Field(default_factory=dict, description=_EXPORTERS)),
    )


def _tag(kind: str) -> Any:
    return Literal[kind]


def load_config(
    path: str | Path | None,
    environment: Mapping[str, str] = os.environ,
    base: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> Config:
    """Read, override, substitute and validate. Raises `DocumentError` with every fault.

    `overrides` are whole top-level sections or dotted keys with `__` between their parts, as flags give them; they
    win over the environment, which wins over the file. `base` stands in for the file where there is none.
    """
    document, problems = read_layers(path, environment, base, **overrides)
    return validated(document, problems)


def read_layers(
    path: str | Path | None,
    environment: Mapping[str, str] = os.environ,
    base: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> tuple[Layered, list[Problem]]:
    """The configuration before it is validated, and what was wrong with putting it together.

    Raises `DocumentError` where the file cannot be read at all.
    """
    if path is None:
        document = layered(Document("configuration", copy.deepcopy(dict(base or {})), values={(): (0, 0)}))
    else:
        document = layered(read_document(path))
    if document.value is None:
        document.value = {}
    if not isinstance(document.value, dict):
        problem = document.problem(
            (), "the file must hold a mapping of keys", "See `evalgauge schema config`."
        )
        raise DocumentError([problem])
    problems = substitute(document, environment)
    problems += from_environment(document, environment, Config.model_fields)
    for key, value in overrides.items():
        if value is not None:
            put(document, key.split("__"), Document(COMMAND_LINE, value), COMMAND_LINE)
    return document, problems


def validated(document: Layered, problems: Sequence[Problem] = ()) -> Config:
    """The configuration that a document holds. Raises `DocumentError` with every fault, `problems` included."""
    model = config_model()
    while True:
        try:
            config = model.model_validate(document.value, by_alias=True, by_name=False)
        except ValidationError as error:
            # `TOKEN=12345` is a number at first sight; where text is wanted, it is text.
            wanted = [one["loc"] for one in error.errors(include_url=False) if one["type"] in _TEXT_WANTED]
            if {True} & {take_as_text(document, path_in(document.values, loc)) for loc in wanted}:
                continue
            raise DocumentError([*problems, *problems_of(document, error, model)]) from error
        if problems:
            raise DocumentError(problems)
        return config
