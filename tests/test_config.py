"""The configuration: layers, variables, and faults that name where a value came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalgauge.core.commands.defaults import DEFAULTS
from evalgauge.core.config import Config, load_config
from evalgauge.core.errors import DocumentError
from evalgauge.core.keytables import with_tables

DOCS = Path(__file__).parent.parent / "docs"
SOUND = """\
packs: [judgment]
inputs:
  door-eu: {type: http}
  batch: {type: file, path: /var/log/*.ndjson}
exporters:
  metrics: {type: prometheus}
engine:
  workers: 2
"""


def load(tmp_path: Path, text: str = SOUND, env: dict[str, str] | None = None, **flags: Any) -> Config:
    """The configuration of a file, an environment and flags."""
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return load_config(path, env or {}, **flags)


def faults(
    tmp_path: Path, text: str = SOUND, env: dict[str, str] | None = None, **flags: object
) -> list[str]:
    """What is wrong with it, without the folder's name."""
    with pytest.raises(DocumentError) as caught:
        load(tmp_path, text, env, **flags)
    return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]


@pytest.mark.parametrize("name", ["configuration.md", "commands.md"])
def test_the_tables_are_those_of_the_models(name: str) -> None:
    """After a change of a model: `python -m evalgauge.core.keytables docs/configuration.md docs/commands.md`."""
    text = (DOCS / name).read_text(encoding="utf-8")
    assert text == with_tables(text)
    assert text.count("<!-- keys of") == text.count("<!-- end -->") >= 3


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    """And defaults come last."""
    env = {"EVALGAUGE_ENGINE__WORKERS": "3", "EVALGAUGE_STATE__FOLDER": "/from/env"}
    assert load(tmp_path).engine.workers == 2
    assert load(tmp_path, env=env).engine.workers == 3
    config = load(tmp_path, env=env, engine__workers=4, state__folder=None)
    assert (config.engine.workers, config.state.folder, config.log.level) == (4, "/from/env", "info")


def test_every_key_has_a_variable(tmp_path: Path) -> None:
    """Names of inputs with dashes, entries of lists, whole sections as YAML, and what the file does not have."""
    env = {
        "EVALGAUGE_INPUTS__DOOR_EU__MAX_BODY": "1MiB",
        "EVALGAUGE_INPUTS__DOOR_EU__TOKENS__0__NAME": "judges",
        "EVALGAUGE_INPUTS__DOOR_EU__TOKENS__0__TOKEN": "s3cret: {x} #1",
        "EVALGAUGE_PACKS": "[judgment, ahp]",
        "EVALGAUGE_LOG": "{level: debug, format: json}",
        "EVALGAUGE_SHUTDOWN_TIMEOUT": "2m",
        "EVALGAUGE_DEDUPLICATION__AGE": "90",
        "EVALGAUGE_INPUTS__BATCH__FOLLOW": "true",
    }
    config = load(tmp_path, env=env)
    door = config.inputs["door-eu"]
    assert door.max_body == 1 << 20
    assert door.tokens[0].name == "judges"
    assert door.tokens[0].token.get_secret_value() == "s3cret: {x} #1"
    assert (config.packs, config.log.level, config.log.format) == (["judgment", "ahp"], "debug", "json")
    assert (config.shutdown_timeout, config.deduplication.age, config.inputs["batch"].follow) == (
        120,
        90,
        True,
    )


def test_what_looks_like_a_number_is_text_where_text_is_wanted(tmp_path: Path) -> None:
    """A token of digits, whether from a variable of its own or put in by the file."""
    env = {"EVALGAUGE_EXPORTERS__METRICS__TOKEN": "0123", "TENANT": "42", "NUMBER": "7"}
    text = SOUND.replace(
        "{type: http}", '{type: http, tokens: [{name: "${NUMBER}", token: x, tenant: "${TENANT}"}]}'
    )
    config = load(tmp_path, text, env)
    assert config.exporters["metrics"].token.get_secret_value() == "0123"
    assert (config.inputs["door-eu"].tokens[0].name, config.inputs["door-eu"].tokens[0].tenant) == ("7", "42")


def test_a_fault_in_a_variable_names_the_variable(tmp_path: Path) -> None:
    """Not a line of the file, which says nothing of the kind."""
    env = {
        "EVALGAUGE_ENGINE__WORKERS": "two",
        "EVALGAUGE_STATE__FOLDR": "/x",
        "EVALGAUGE_INPUTS__NEW__PATH": "/x",
        "EVALGAUGE_DEAD_LETTERS": "{keep: [",
        "EVALGAUGE_PACKS__7": "ahp",
    }
    found = "\n".join(faults(tmp_path, env=env))
    variable = "environment variable EVALGAUGE_"
    assert f"{variable}ENGINE__WORKERS: `engine.workers` must be a whole number, not `two`" in found
    assert f"{variable}STATE__FOLDR: unknown key `foldr`\n  Did you mean `folder`?" in found
    assert (
        f"{variable}INPUTS__NEW__PATH: key `type` of `new` is missing\n  One of: file, http, kafka." in found
    )
    assert f"{variable}DEAD_LETTERS: not valid YAML" in found
    assert f"{variable}PACKS__7: `packs` has 1 entries, and `7` is none of them or the next" in found


def test_a_fault_in_a_value_that_a_variable_gave_to_the_file_names_both(tmp_path: Path) -> None:
    """The line of the file, and the variable."""
    (found,) = faults(tmp_path, SOUND.replace("workers: 2", "workers: ${CORES}"), {"CORES": "many"})
    assert found.startswith("c.yaml:8:12: `engine.workers` must be a whole number, not `many`")
    assert found.endswith("The value comes from environment variable CORES.")


def test_a_fault_in_a_flag_names_the_command_line(tmp_path: Path) -> None:
    """A value that no file holds stands in no line."""
    (found,) = faults(tmp_path, engine__workers=0)
    assert found == "command line: `engine.workers`: must be greater than or equal to 1"


def test_variables_in_the_file_have_defaults_and_an_escape(tmp_path: Path) -> None:
    """An unset one without a default is an error with the line."""
    text = SOUND + 'state: {folder: "${ROOT:-/var/lib}/evalgauge$${x}", commit_interval: "${EVERY:-0.5}"}\n'
    state = load(tmp_path, text, {"ROOT": "/data"}).state
    assert (state.folder, state.commit_interval) == ("/data/evalgauge${x}", 0.5)
    assert load(tmp_path, text).state.folder == "/var/lib/evalgauge${x}"
    found = faults(tmp_path, SOUND + "state: {folder: '${NOWHERE}/x'}\n")
    assert found == [
        "c.yaml:9:17: environment variable NOWHERE is not set\n  Set it, or write ${NOWHERE:-a default}."
    ]


def test_variables_of_others_are_left_alone(tmp_path: Path) -> None:
    """Kubernetes sets such ones for a service that is called evalgauge."""
    env = {
        "EVALGAUGE_SERVICE_HOST": "10.0.0.1",
        "EVALGAUGE_PORT": "tcp://10.0.0.1:9464",
        "EVALGAUGE_FAILPOINT": "x",
    }
    assert load(tmp_path, env=env) == load(tmp_path)


def test_all_faults_of_a_file_come_at_once(tmp_path: Path) -> None:
    """Each at its place, with a mend."""
    inputs = "  a: {type: htp}\n  b: {path: x}\n  c: {type: file, path: x, folow: true}\n"
    text = f"packs: []\ninputs:\n{inputs}log: {{level: loud}}\n"
    assert faults(tmp_path, text) == [
        "c.yaml:1:8: `packs`: must not be empty",
        "c.yaml:3:13: `inputs.a.type`: unknown `htp`\n  Did you mean `http`?",
        "c.yaml:4:3: key `type` of `b` is missing\n  One of: file, http, kafka.",
        "c.yaml:5:28: unknown key `folow`\n  Did you mean `follow`?",
        "c.yaml:6:14: `log.level`: unknown `loud`\n  Known: debug, error, info, warning.",
    ]


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    """A configuration that is logged or printed says no token."""
    text = SOUND.replace("{type: prometheus}", "{type: prometheus, token: hush}")
    assert "hush" not in repr(load(tmp_path, text))


def test_without_a_file_there_is_a_door_and_a_metrics_page_which_variables_change() -> None:
    """`evalgauge run --pack mine.yaml` needs nothing more."""
    env = {"EVALGAUGE_INPUTS__HTTP__LISTEN": "127.0.0.1:7000", "EVALGAUGE_EXPORTERS": "{}"}
    plain = load_config(None, {}, DEFAULTS, packs=["judgment"])
    assert (plain.inputs["http"].listen, plain.exporters["prometheus"].listen) == (
        "127.0.0.1:8080",
        "127.0.0.1:9464",
    )
    config = load_config(None, env, DEFAULTS, packs=["judgment"])
    assert (config.inputs["http"].listen, config.exporters) == ("127.0.0.1:7000", {})
    assert DEFAULTS["inputs"] == {"http": {"type": "http"}}
    with pytest.raises(DocumentError, match=r"^configuration: key `packs` is missing$"):
        load_config(None, {}, DEFAULTS)
