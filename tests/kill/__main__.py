"""One run by hand, to see again what a test has seen: `python -m tests.kill SEED [failpoints]`; prints its report."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.kill.run import run
from tests.parts.part import free_port


def main() -> int:
    """Do one run; the exit code says whether all was right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--failpoints", action="store_true", help="It also ends itself around commits.")
    parser.add_argument("--folder", type=Path, help="Empty folder for state, log and events; it stays.")
    parser.add_argument("--ports", type=int, nargs=2, help="Free ports for the HTTP input and for /metrics.")
    given = parser.parse_args()
    door, metrics = given.ports or (free_port(), free_port())
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        report = run(given.seed, folder, door, metrics, failpoints=given.failpoints)
    sys.stdout.write(report.dumped() + "\n")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
