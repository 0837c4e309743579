"""Run benchmarks, print a table, write JSON: `python -m benchmarks [NAME…] [--quick] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

NAMES = (
    *(
        "throughput",
        "shapes",
        "exposition",
        "growth",
        "keyed",
        "http_door",
        "latency",
        "kafka",
        "kafka_latency",
    ),
)


def main() -> None:
    """Run what was asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(NAMES)}; default: all")
    parser.add_argument(
        "--quick", action="store_true", help="few events and rounds: that it runs, not what it says"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    system = f"{platform.system()} {platform.release()}"
    machine = f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {system}"
    figures = []
    for name in arguments.names or NAMES:
        started = time.perf_counter()
        figures += import_module(f"benchmarks.{name}").run(quick=arguments.quick)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    print(f"\n{machine}\n")
    table = [["figure", "value", "beside", "ratio", "wanted", ""], *(row.cells() for row in figures)]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"machine": machine, "quick": arguments.quick, "figures": [asdict(row) for row in figures]}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _processor() -> str:
    lines = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if Path("/proc/cpuinfo").exists()
        else []
    )
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )


if __name__ == "__main__":
    main()
