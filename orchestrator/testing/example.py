"""The least value that a JSON schema allows: what the obedient model says without an order."""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]


def example(schema: Schema, root: Schema) -> Any:
    """Valid against `schema`, whose references are to `root`, as far as pydantic's schemas go."""
    schema = resolved(schema, root)
    for told in ("const", "default"):
        if told in schema:
            return schema[told]
    if "enum" in schema:
        return schema["enum"][0]
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return example(schema[union][0], root)
    return _of_type(schema, root)


def resolved(schema: Schema, root: Schema) -> Schema:
    """What a reference is to."""
    while "$ref" in schema:
        schema = root.get("$defs", {}).get(schema["$ref"].rpartition("/")[2], {})
    return schema


def _of_type(schema: Schema, root: Schema) -> Any:
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {})
            return {
                name: example(fields.get(name, {}), root) for name in schema.get("required", ())
            }
        case "array":
            return [example(schema.get("items", {}), root)] * schema.get("minItems", 0)
        case "integer" | "number":
            above = schema.get("exclusiveMinimum")
            return schema.get("minimum", 0) if above is None else above + 1
        case "boolean":
            return False
        case "null":
            return None
        case _:
            return "none".ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]
