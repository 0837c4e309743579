"""The shipped JSON Schemas: as generated, valid, and as strict as the loader in what a schema can say."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from evalgauge.core.document import parse_document
from evalgauge.core.pack.loader import known_packs, load_pack
from evalgauge.core.schema import MODELS, schema_of, schema_text
from tests.test_document import FAULTS
from tests.test_mapping_model import SOUND as MAPPING
from tests.test_pack_check import SOUND as PACK

if TYPE_CHECKING:
    from collections.abc import Callable

Validator = jsonschema.Draft202012Validator


@pytest.fixture
def faults() -> Callable[[str, Any], list[str]]:
    """What the schema of a kind finds in a value."""

    def find(kind: str, value: Any) -> list[str]:
        return [error.message for error in Validator(schema_of(kind)).iter_errors(value)]

    return find


@pytest.mark.parametrize("kind", MODELS)
def test_the_shipped_schema_is_the_one_of_the_models(kind: str) -> None:
    """After a change of a model: `evalgauge schema KIND > core/evalgauge/core/schemas/KIND.json`."""
    shipped = (files("evalgauge.core") / "schemas" / f"{kind}.json").read_text(encoding="utf-8")
    assert shipped == schema_text(kind)


@pytest.mark.parametrize("kind", MODELS)
def test_the_schema_is_a_valid_one(kind: str) -> None:
    """Draft 2020-12, as its first line says."""
    schema = schema_of(kind)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Validator.check_schema(schema)


@pytest.mark.parametrize("kind", ["pack", "mapping"])
def test_every_object_is_closed_and_every_key_described(kind: str) -> None:
    """So an editor can tell a misspelt key, and show what each is for."""
    schema = schema_of(kind)
    for name, one in [("", schema), *schema["$defs"].items()]:
        if "properties" in one:
            assert one["additionalProperties"] is False, name
            missing = [key for key, spec in one["properties"].items() if not spec.get("description")]
            assert missing == [], name


@pytest.mark.parametrize("name", sorted(known_packs()))
def test_built_in_packs_are_valid(name: str, faults: Callable[[str, Any], list[str]]) -> None:
    """With an independent validator."""
    assert faults("pack", load_pack(name).document.value) == []


def test_what_the_loader_reads_is_valid(faults: Callable[[str, Any], list[str]]) -> None:
    """Shorthands, aliases and unions included."""
    assert faults("pack", parse_document(PACK, "f.yaml").value) == []
    assert faults("mapping", parse_document(MAPPING, "f.yaml").value) == []


@pytest.mark.parametrize("text", [text for text in FAULTS if ".nan" not in text and "soon" not in text])
def test_what_the_loader_refuses_for_its_shape_is_not_valid(
    text: str, faults: Callable[[str, Any], list[str]]
) -> None:
    """The same texts that the reader of documents is held to."""
    value = parse_document(f"{text}\npack: x\nversion: 1\ntitle: x\n", "f.yaml").value
    if value.get("description") == 5:
        value["description"] = 5
    assert faults("pack", value) != []
