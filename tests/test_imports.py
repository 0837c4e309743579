"""The import rule and the layout: roles meet in `core` alone, and importing one has no effect."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROLES = [
    Path(package).parts[0] for package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
]
SOURCES = [file for role in ROLES for file in sorted((ROOT / role).rglob("*.py"))]

# Importing every module of every role must leave these as they were.
GLOBAL_STATE = """
import importlib, json, logging, signal, sys, threading
import prometheus_client

def state():
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "log handlers": [str(handler) for handler in logging.getLogger().handlers],
        "log level": logging.getLogger().level,
        "metrics registered": sorted(map(str, prometheus_client.REGISTRY._names_to_collectors)),
    }

before = state()
for module in json.loads(sys.argv[1]):
    importlib.import_module(module)
after = state()
print(json.dumps([[what, before[what], after[what]] for what in before if before[what] != after[what]]))
"""


def module_name(file: Path) -> str:
    """The dotted name under which a source file is imported."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts[1:])


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports anywhere, by line: in functions, for types alone, by importlib."""
    package = module_name(file).split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text(), filename=str(file))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"}:
            yield from (
                (node.lineno, argument.value)
                for argument in node.args[:1]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            )


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def test_every_role_has_sources_to_look_at() -> None:
    """A rule over no files would hold for ever."""
    for role in ROLES:
        assert (ROOT / role / "evalgauge" / role).is_dir(), f"{role}/evalgauge/{role} is not there"
    assert {file.relative_to(ROOT).parts[0] for file in SOURCES} >= {
        "core",
        "collectors",
        "exporters",
        "generators",
    }


@pytest.mark.parametrize("role", ROLES)
def test_a_role_imports_only_itself_and_core(role: str) -> None:
    """Core imports no sibling, and siblings never import each other: any of them can be left out or replaced."""
    strangers = {f"evalgauge.{other}" for other in ROLES} - {"evalgauge.core", f"evalgauge.{role}"}
    found = [
        f"{file.relative_to(ROOT)}:{line}: imports {module}"
        for file in SOURCES
        if file.relative_to(ROOT).parts[0] == role
        for line, module in imported(file)
        if any(module == stranger or module.startswith(f"{stranger}.") for stranger in strangers)
    ]
    assert not found, "\n".join([*found, "Roles meet in core only; plugins are found by entry points."])


def test_no_source_imports_tests_benchmarks_or_examples() -> None:
    """What is shipped stands without what is not."""
    not_shipped = {"tests", "benchmarks", "examples", "dev"}
    found = [
        (file, module)
        for file in SOURCES
        for _, module in imported(file)
        if module.split(".")[0] in not_shipped
    ]
    assert found == []


def test_roles_are_namespace_roots_marked_as_typed() -> None:
    """An `__init__.py` in evalgauge/ would hide the other roots; without py.typed users get no types."""
    assert [str(file) for role in ROLES for file in (ROOT / role / "evalgauge").glob("__init__.py*")] == []
    for role in ROLES:
        assert (ROOT / role / "evalgauge" / role / "py.typed").is_file()
        others = {path.name for path in (ROOT / role / "evalgauge").iterdir() if path.name != "__pycache__"}
        assert others == {role}, f"{role}/evalgauge holds {others}; it must hold {role} alone"


def test_an_init_file_exports_nothing() -> None:
    """Names have one home; an `__init__.py` may hold a docstring."""
    for file in SOURCES:
        if file.name == "__init__.py":
            body = ast.parse(file.read_text()).body
            assert all(isinstance(node, ast.Expr) for node in body), f"{file} holds more than a docstring"


def test_importing_every_module_registers_nothing() -> None:
    """No metric, thread, signal or log handler comes into being by an import; plugins are entry points."""
    modules = [module_name(file) for file in SOURCES if file.name not in {"__init__.py", "__main__.py"}]
    paths = [str(ROOT / role) for role in ROLES]
    program = f"import sys; sys.path[:0] = {paths!r}\n{GLOBAL_STATE}"
    command = [sys.executable, "-W", "error", "-c", program, json.dumps(modules)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == []
    assert ended.stderr == ""


OPTIONAL = ("kafka", "confluent_kafka", "crc32c", "zstandard", "bcrypt", "isal", "grafanalib")
"""What the extras install, as it is imported."""
WITHOUT_EXTRAS = f"""
import importlib, json, sys
sys.modules.update(dict.fromkeys({OPTIONAL!r}))  # None there makes an import of it fail
for target in json.loads(sys.argv[1]):
    module, _, attribute = target.partition(":")
    found = importlib.import_module(module)
    assert not attribute or hasattr(found, attribute), target
"""


def test_every_entry_point_loads_without_the_extras() -> None:
    """They are imported when they are used, so that a missing one stops only who asks for it, by its name."""
    targets = [target for points in PROJECT["project"]["entry-points"].values() for target in points.values()]
    command = [sys.executable, "-W", "error", "-c", WITHOUT_EXTRAS, json.dumps(targets)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""


def test_every_entry_point_names_something_that_is_there() -> None:
    """A typo in pyproject.toml would show only when somebody names the plugin."""
    groups = {**PROJECT["project"]["entry-points"], "console scripts": PROJECT["project"]["scripts"]}
    for group, points in groups.items():
        for name, target in points.items():
            module, _, attribute = target.partition(":")
            inside = Path(*module.split("."))
            role = module.split(".")[1]
            file, folder = ROOT / role / inside.with_suffix(".py"), ROOT / role / inside
            assert file.is_file() or folder.is_dir(), f"{group}: {name} = {target}: no such module"
            if attribute:
                names = {
                    node.name
                    for node in ast.parse(file.read_text()).body
                    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                }
                assert attribute in names, f"{group}: {name} = {target}: {file} defines no {attribute}"
