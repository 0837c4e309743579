"""`evalgauge packs`: which packs there are, and what one of them holds."""

from __future__ import annotations

import json
from typing import Any

import click

from evalgauge.core.errors import EvalgaugeError
from evalgauge.core.pack.event_model import DERIVATIONS
from evalgauge.core.pack.loader import known_packs, load_pack, within_reach
from evalgauge.core.pack.summary import summary


@click.group(name="packs")
def command() -> None:
    """Show which packs there are and what they hold.

    \b
    evalgauge packs list
    evalgauge packs show judgment
    evalgauge packs show ./mine.yaml --json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_packs(*, as_json: bool) -> None:
    """List the packs that can be had by name.

    \b
    evalgauge packs list
    """  # noqa: D301
    rows: list[dict[str, Any]] = []
    for name, known in sorted(known_packs().items()):
        try:
            pack = load_pack(name).pack
        except EvalgaugeError as error:
            rows.append({"pack": name, "title": "", "source": known.source, "error": str(error)})
        else:
            rows.append({"pack": name, "version": pack.version, "title": pack.title, "source": known.source})
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    _table(["pack", "title", "source"], [[row["pack"], row["title"], row["source"]] for row in rows])
    for row in rows:
        if "error" in row:
            click.echo(f"\n{row['pack']} cannot be used:\n{row['error']}", err=True)


@command.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, *, as_json: bool) -> None:
    """Show the events, series, rules and alerts of the pack NAME (or of a file).

    "At most" is how many series there can be: what enums and limits allow together.

    \b
    evalgauge packs show judgment
    """  # noqa: D301
    loaded = load_pack(name)
    found = summary(loaded, within_reach(loaded.pack))
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    click.echo(f"{found['pack']} {found['version']}: {found['title']} ({found['source']})")
    if found["description"]:
        click.echo(found["description"])
    _show_events(found)
    _show_series(found)
    if found["parameters"]:
        click.echo("\nParameters")
        rows = [
            [one["name"], f"{one['value']:g}", one["unit"], one["description"]] for one in found["parameters"]
        ]
        _table(["name", "value", "unit", "decides"], rows, right=(1,))
    if found["recording"]:
        click.echo("\nRecording rules")
        rows = [
            [one["name"], _labels(one["labels"]), one["unit"], one["description"]]
            for one in found["recording"]
        ]
        _table(["name", "labels", "unit", "description"], rows)
    if found["alerts"]:
        click.echo("\nAlerts")
        _table(
            ["name", "severity", "summary"],
            [[one["name"], one["severity"], one["summary"]] for one in found["alerts"]],
        )


def _show_events(found: dict[str, Any]) -> None:
    for event, spec in found["events"].items():
        click.echo(f"\nEvent {event}: {spec['description']}")
        rows = []
        for field, one in spec["fields"].items():
            rules = ["required"] if one.get("required") else []
            rules += [f"one of {', '.join(one['enum'])}"] if "enum" in one else []
            rules += [f"{key} {one[key]:g}" for key in ("min", "max", "max_length") if key in one]
            rules += ["payload"] if one.get("payload") else []
            rows.append([field, one["type"], one.get("unit", ""), "; ".join(rules)])
        _table(["field", "type", "unit", "rules"], rows)
        if spec["derived"]:
            rows = [
                [field, one["type"], one.get("unit", ""), _made(one)]
                for field, one in spec["derived"].items()
            ]
            _table(["derived", "type", "unit", "made of"], rows)
        if spec["quality"]:
            rows = []
            for rule, one in spec["quality"].items():
                asks = [word for word in ("present", "not_empty") if one.get(word)]
                asks += [f"{key} {one[key]:g}" for key in ("min", "max") if key in one]
                rows.append([rule, one["field"], "; ".join(asks).replace("_", " ")])
            _table(["quality rule", "field", "asks"], rows)
    if found["uses"]:
        click.echo(f"\nUses events of other packs: {', '.join(found['uses'])}")


def _made(one: dict[str, Any]) -> str:
    """How a field is derived, in words."""
    kind = next(key for key in DERIVATIONS if key in one)
    given = one[kind]
    if kind == "bucket":
        return f"bucket of {given['field']}: {', '.join(given['names'])}"
    if kind == "hash":
        return f"hash of {given['field']} into {given['into']}"
    if kind == "function":
        return f"function {given} of {', '.join(one['fields'])}"
    return f"{kind} of {given if kind == 'lower' else ', '.join(given)}"


def _show_series(found: dict[str, Any]) -> None:
    rows, total = [], 0
    for metric in found["metrics"]:
        for series in metric["series"]:
            total += series["at_most"]
            row = [series["name"], series["type"], metric["type"], series["unit"], _labels(series["labels"])]
            rows.append([*row, f"{metric['limit']:,}", f"{series['at_most']:,}"])
    if rows:
        click.echo("\nSeries")
        head = ["series", "type", "instrument", "unit", "labels", "limit", "at most"]
        _table(head, rows, right=(5, 6))
        click.echo(f"Together at most {total:,}.")


def _labels(labels: list[str] | None) -> str:
    return "any" if labels is None else ", ".join(labels)


def _table(head: list[str], rows: list[list[str]], right: tuple[int, ...] = ()) -> None:
    """Print rows in aligned columns; those in `right` are aligned to the right."""
    widths = [max(len(str(row[index])) for row in [head, *rows]) for index in range(len(head))]
    for row in [head, *rows]:
        cells = [
            str(cell).rjust(width) if index in right else str(cell).ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo(f"  {'  '.join(cells)}".rstrip())
