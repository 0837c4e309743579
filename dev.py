#!/usr/bin/env python3
"""From a fresh clone to a running demo and passing tests: `python3 dev.py demo`, `python3 dev.py test`.

Needs Python 3.11 or later and nothing else; what a command needs is installed into `.venv` of the checkout, once
for each state of pyproject.toml. Arguments after the command go to the program that it starts.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - said to those whose Python is older than pyproject.toml allows
    sys.exit(f"evalgauge needs Python 3.11 or later; {sys.executable} is {sys.version.split()[0]}.")

import difflib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
EVALGAUGE = VENV / "bin" / "evalgauge"
OLDEST_PIP = (25, 1)  # the first that installs dependency groups

PACKS = (
    "--pack",
    "ahp",
    "--pack",
    "judgment",
    "--pack",
    "qna",
    "--pack",
    "server",
    "--pack",
    "stream",
    "--pack",
    "evalgauge",
)


class Generated(NamedTuple):
    """One generated path of the tree: a folder that the command fills, or a file that takes what it prints."""

    path: str
    arguments: tuple[str, ...]  # of evalgauge, or from `-m` on of Python; `{out}` stands for the folder


GENERATED = (
    Generated("dashboards", ("generate", "dashboards", *PACKS, "-o", "{out}")),
    Generated("alert_rules", ("generate", "rules", *PACKS, "-o", "{out}")),
    Generated("alert_rules", ("generate", "rule-tests", *PACKS, "-o", "{out}")),
    Generated("docs/runbooks", ("generate", "runbooks", *PACKS, "-o", "{out}")),
    *(
        Generated(f"core/evalgauge/core/schemas/{kind}.json", ("schema", kind))
        for kind in ("pack", "config", "mapping", "test")
    ),
    Generated("docs/instruments.md", ("-m", "evalgauge.core.instrumentpage", "examples/helpdesk/pack.yaml")),
)


def demo(arguments: Sequence[str]) -> int:
    """Run the main job on the embedded default: `evalgauge demo ARGUMENTS`."""
    install()
    return replace_process(EVALGAUGE, "demo", *arguments)


def test(arguments: Sequence[str]) -> int:
    """Run the tests: `pytest ARGUMENTS`; without arguments all of them, as many at once as there are cores, up to 4."""
    install("test")
    # Most of them wait most of the time for servers. Whoever is done takes over half of what is left to another.
    everything = ("--numprocesses", "auto", "--maxprocesses", "4", "--dist", "worksteal")
    return replace_process(PYTHON, "-m", "pytest", *(arguments or everything))


def soak(arguments: Sequence[str]) -> int:
    """Run the tests that are marked `soak` for hundreds of rounds instead of a few."""
    install("test")
    os.environ["EVALGAUGE_SOAK"] = "1"
    return replace_process(PYTHON, "-m", "pytest", "-m", "soak", "-o", "timeout=0", "-s", *arguments)


def lint(arguments: Sequence[str]) -> int:
    """Run ruff and mypy over everything, each even if the one before found something."""
    install("test", "lint")
    checks: tuple[tuple[str | Path, ...], ...] = (
        (PYTHON, "-m", "ruff", "check", "--output-format=concise", *arguments),
        (PYTHON, "-m", "ruff", "format", "--check", *arguments),
        (PYTHON, "-m", "mypy", *arguments),
    )
    return max([run(*check) for check in checks])


def bench(arguments: Sequence[str]) -> int:
    """Run the benchmarks: `python -m benchmarks ARGUMENTS`; prints tables and writes benchmarks/results/."""
    install("test")
    return replace_process(PYTHON, "-m", "benchmarks", *arguments)


def generate(arguments: Sequence[str]) -> int:
    """Write the generated files anew; with `--check` only say what would change, and end with 1 if anything would."""
    if [*arguments] not in ([], ["--check"]):
        print(f"generate takes `--check` or nothing, not {' '.join(arguments)}", file=sys.stderr)
        return 2
    install()
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        for path, command in GENERATED:
            out = fresh / path
            out.parent.mkdir(parents=True, exist_ok=True)
            program = PYTHON if command[0] == "-m" else EVALGAUGE
            words = [str(program), *(word.replace("{out}", str(out)) for word in command)]
            ended = subprocess.run(words, check=False, cwd=ROOT, stdout=subprocess.PIPE)
            if ended.returncode:
                print(f"`{' '.join(words)}` ended with {ended.returncode}", file=sys.stderr)
                return ended.returncode
            if "{out}" not in command:
                out.write_bytes(ended.stdout)
        paths = dict.fromkeys(path for path, _ in GENERATED)
        differences = [line for path in paths for line in compare(ROOT / path, fresh / path)]
        if not arguments:
            for path in paths:
                replace(ROOT / path, fresh / path)
    print("\n".join(differences) if differences else "Generated files are what the packs and models give.")
    if differences and arguments:
        print("Generated files differ from what the packs and models give. Run `python3 dev.py generate`.")
        return 1
    return 0


def compare(kept: Path, fresh: Path) -> list[str]:
    """Return the lines of a diff that turns the file or folder `kept` into `fresh`; none if they are equal."""
    lines: list[str] = []
    for name in sorted(files_of(kept) | files_of(fresh)):
        before, after = kept / name, fresh / name
        old = before.read_bytes() if before.is_file() else None
        new = after.read_bytes() if after.is_file() else None
        if old != new:
            text = difflib.unified_diff(
                (old or b"").decode(errors="replace").splitlines(),
                (new or b"").decode(errors="replace").splitlines(),
                "/dev/null" if old is None else str(before.relative_to(ROOT)),
                "/dev/null" if new is None else str(before.relative_to(ROOT)),
                n=1,
            )
            diff = [line.rstrip("\n") for line in text]
            lines += diff or [f"{before.relative_to(ROOT)}: differs in line ends, or in being there"]
    return lines


def files_of(top: Path) -> set[Path]:
    """Return the paths of all files below `top`, relative to it; of a file that is itself, an empty path."""
    return {Path()} if top.is_file() else {file.relative_to(top) for file in top.rglob("*") if file.is_file()}


def replace(kept: Path, fresh: Path) -> None:
    """Make the file or folder `kept` what `fresh` is; a file that is only in `kept` goes."""
    if fresh.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(fresh, kept)
        return
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(fresh, kept)


def clean(_: Sequence[str]) -> int:
    """Remove the virtual environment and the tools' caches; parts of tests stay in ~/.cache/evalgauge."""
    for name in (".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "dist", "build"):
        shutil.rmtree(ROOT / name, ignore_errors=True)
    return 0


def install(*groups: str) -> None:
    """Make `.venv` hold the project, editable, with all extras and these dependency groups.

    Done again only when pyproject.toml has changed since, or the checkout has moved.
    """
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + str(VENV).encode()).hexdigest()
    stamp = VENV / f".installed-{'-'.join(groups) or 'demo'}"
    usable = works(PYTHON, "-c", "import pip, sys; sys.exit(sys.version_info < (3, 11))")
    if usable and stamp.exists() and stamp.read_text() == wanted:
        return
    if not usable:
        make_venv()
    pip = (PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    print(f"Installing evalgauge and what it needs into {VENV} …", file=sys.stderr)
    options = [option for group in groups for option in ("--group", group)]
    for step in ((f"pip>={'.'.join(map(str, OLDEST_PIP))}",), ("--editable", ".[all]", *options)):
        if run(*pip, *step):
            sys.exit(
                "The installation failed; pip's message above says why. Is a package index to be reached?"
            )
    stamp.write_text(wanted)


def make_venv() -> None:
    """Create `.venv`. Where Debian left out what that needs, install it as root, else say what to install."""
    packages = ("python3-venv", "ca-certificates")
    if not can_make_venv() and os.geteuid() == 0 and shutil.which("apt-get"):
        print(
            f"Installing Debian's {' and '.join(packages)}, without which there is no virtual environment …"
        )
        os.environ["DEBIAN_FRONTEND"] = "noninteractive"
        run("apt-get", "-qq", "update")
        run("apt-get", "-qq", "install", "-y", "--no-install-recommends", *packages)
    if not can_make_venv():
        sys.exit(
            f"{sys.executable} cannot make a virtual environment: its modules venv and ensurepip are missing.\n"
            f"Debian and Ubuntu: apt-get install {' '.join(packages)}; then run this again."
        )
    if run(sys.executable, "-m", "venv", "--clear", VENV):
        sys.exit(f"{sys.executable} could not make {VENV}; its message above says why.")


def can_make_venv() -> bool:
    """Whether this Python has all that `venv` needs; asked anew of another process, since it may have changed."""
    return works(sys.executable, "-c", "import venv, ensurepip")


def works(*command: str | Path) -> bool:
    """Whether a command is there and ends well."""
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def run(*command: str | Path) -> int:
    """Run a command in the checkout and return its exit code."""
    return subprocess.run(command, check=False, cwd=ROOT).returncode


def replace_process(*command: str | Path) -> int:
    """Become the command, so that signals and the exit code are its own."""
    os.chdir(ROOT)
    sys.stdout.flush()
    os.execv(command[0], [str(word) for word in command])  # noqa: S606 - no shell is wanted


COMMANDS = {run.__name__: run for run in (demo, test, lint, bench, soak, generate, clean)}


def main() -> int:
    """Run the command that the first argument names, or list the commands."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        return COMMANDS[name](arguments)
    listing = "\n".join(
        f"  {name:9} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()
    )
    print(f"Usage: python3 dev.py COMMAND [ARGUMENTS]\n\n{listing}")
    return 0 if name in {"-h", "--help", "help"} else 2


if __name__ == "__main__":
    sys.exit(main())
