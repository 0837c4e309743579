"""JSON Schemas of the files that people write, made from the models that read them."""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import core_schema

MODELS = {
    "pack": "evalgauge.core.pack.model:Pack",
    "mapping": "evalgauge.core.mapping:Mapping",
    "config": "evalgauge.core.config:config_model",
    "test": "evalgauge.core.casefile:CaseFile",
}
"""Kind of file → the model that reads it, or a function that makes it of what is installed."""

_TITLES = {
    "pack": "evalgauge pack",
    "mapping": "evalgauge mapping",
    "config": "evalgauge configuration",
    "test": "evalgauge test",
}


class _Strict(GenerateJsonSchema):
    """Draft 2020-12 without what is OpenAPI's, and as strict about keys as the models are."""

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """A union by tag, without the keyword `discriminator`, which is no part of JSON Schema."""
        made = super().tagged_union_schema(schema)
        made.pop("discriminator", None)
        return made

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """A mapping whose keys follow a pattern takes no other keys."""
        made = super().dict_schema(schema)
        if "patternProperties" in made:
            made["additionalProperties"] = False
        return made


def schema_of(kind: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a kind of file: a key of `MODELS`."""
    module, name = MODELS[kind].split(":")
    found = getattr(import_module(module), name)
    model: type[BaseModel] = found if isinstance(found, type) else found()
    body = model.model_json_schema(by_alias=True, schema_generator=_Strict, mode="validation")
    body["title"] = _TITLES[kind]
    return {"$schema": GenerateJsonSchema.schema_dialect, **_plain_titles(body)}


def schema_text(kind: str) -> str:
    """The JSON Schema of a kind of file as it is shipped: stable, and readable in a diff."""
    return json.dumps(schema_of(kind), indent=2, ensure_ascii=False) + "\n"


def _plain_titles(node: Any) -> Any:
    """Without the titles that pydantic makes of key names, which say nothing that the key does not."""
    if isinstance(node, list):
        return [_plain_titles(one) for one in node]
    if not isinstance(node, dict):
        return node
    is_property = "type" in node or "anyOf" in node or "$ref" in node or "oneOf" in node or "enum" in node
    made = {key: _plain_titles(value) for key, value in node.items()}
    title = made.get("title")
    if is_property and isinstance(title, str) and "properties" not in made:
        del made["title"]
    return made
