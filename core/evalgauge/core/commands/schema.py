"""`evalgauge schema`: the JSON Schema of a pack, a mapping or the configuration, for editors and CI."""

from __future__ import annotations

import click

from evalgauge.core.schema import MODELS, schema_text


@click.command(name="schema")
@click.argument("kind", type=click.Choice(sorted(MODELS)))
def command(kind: str) -> None:
    """Print the JSON Schema (draft 2020-12) of a KIND of file.

    An editor with YAML support completes and checks a file that begins with a line such as
    `# yaml-language-server: $schema=pack.schema.json`.

    \b
    evalgauge schema pack > pack.schema.json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    click.echo(schema_text(kind), nl=False)
