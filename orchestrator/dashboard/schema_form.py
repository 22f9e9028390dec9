"""A form for what an agent takes: from its JSON Schema to fields, and from the fields to an input.

What a field cannot say (lists, free objects, unions) is typed as JSON. Nothing is judged here: the
agent's own type does that, and what it finds is put beside the field that it is about.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.dashboard.typed_json import NotJson, value_of

DEEPEST = 3  # groups in groups; what lies deeper is typed as JSON
LONGEST = 200  # characters; a text that may be longer gets room for lines

Problems = Iterable[tuple[str, str]]  # (JSON pointer, what would be right)
Schema = Mapping[str, Any]


class Kind(StrEnum):
    """How a field is typed."""

    TEXT = "text"
    LINES = "lines"
    NUMBER = "number"
    CHOICE = "choice"
    JSON = "json"
    GROUP = "group"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One property, or a group of them. Its `name` in the form is its pointer in the input."""

    name: str
    label: str
    kind: Kind
    is_required: bool  # in its group
    is_demanded: bool  # required, and so is every group around it
    description: str
    hint: str
    default: str | None
    options: tuple[tuple[str, str], ...] = ()  # (JSON, as it reads) of a choice
    fields: tuple["Field", ...] = ()  # of a group


def fields_of(schema: Schema | None) -> tuple[Field, ...]:
    """The fields of an object's schema; none where only JSON will do."""
    if schema is None:
        return ()
    root = _resolved(schema, schema)
    if root is None or root.get("type") != "object" or not root.get("properties"):
        return ()
    return tuple(_fields(root, schema, at="", depth=0, demanded=True))


def input_of(
    fields: Iterable[Field], typed: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What was typed as an input, without what was left blank; and what is no JSON, by field."""
    found: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for field in fields:
        if field.kind is Kind.GROUP:
            inner, inner_wrong = input_of(field.fields, typed)
            wrong |= inner_wrong
            if inner or inner_wrong or field.is_required:
                found[field.label] = inner
            continue
        text = typed.get(field.name, "").replace("\r\n", "\n")
        if text == "":
            continue
        try:
            found[field.label] = _value(field, text)
        except NotJson as error:
            wrong[field.name] = str(error)
    return found, wrong


def beside(fields: Iterable[Field], problems: Problems) -> tuple[dict[str, str], list[str]]:
    """Each problem beside the nearest field that it is about; the rest for the form as a whole."""
    names = set(_names(fields))
    wrong: dict[str, str] = {}
    others: list[str] = []
    for pointer, said in problems:
        name = pointer
        while name and name not in names:
            name = name.rpartition("/")[0]
        if not name:
            others.append(f"{pointer}: {said}" if pointer else said)
            continue
        inside = pointer.removeprefix(name)
        full = f"{inside}: {said}" if inside else said
        wrong[name] = f"{wrong[name]}; {full}" if name in wrong else full
    return wrong, others


def example_of(fields: Iterable[Field]) -> dict[str, Any]:
    """What an input could look like: the required properties, with words to replace."""
    found: dict[str, Any] = {}
    for field in fields:
        if not field.is_required:
            continue
        match field.kind:
            case Kind.GROUP:
                found[field.label] = example_of(field.fields)
            case Kind.CHOICE:
                found[field.label] = json.loads(field.options[0][0])
            case Kind.NUMBER:
                found[field.label] = 1
            case Kind.JSON:
                found[field.label] = []
            case _:
                found[field.label] = "..."
    return found


def _fields(
    schema: Schema, root: Schema, *, at: str, depth: int, demanded: bool
) -> Iterator[Field]:
    required = set(schema.get("required") or ())
    for label, given in schema["properties"].items():
        name = f"{at}/{label}"
        own = _resolved(given, root)
        is_required = label in required
        kind, options = _kind(own, depth)
        default = given.get("default") if isinstance(given, Mapping) else None
        inner: tuple[Field, ...] = ()
        if kind is Kind.GROUP and own is not None:
            inner = tuple(
                _fields(own, root, at=name, depth=depth + 1, demanded=demanded and is_required)
            )
        yield Field(
            name=name,
            label=label,
            kind=kind,
            is_required=is_required,
            is_demanded=is_required and demanded,
            description=str(given.get("description") or (own or {}).get("description") or ""),
            hint=_hint(own or {}, kind),
            default=_said(default),
            options=options,
            fields=inner,
        )


def _resolved(schema: Any, root: Schema) -> Schema | None:
    """The schema behind references and an optional null; None for a union, or one that turns."""
    for _ in range(10):
        if not isinstance(schema, Mapping):
            return None
        if "$ref" in schema:
            name = str(schema["$ref"]).removeprefix("#/$defs/")
            schema = root.get("$defs", {}).get(name)
        elif len(schema.get("allOf") or ()) == 1:
            schema = schema["allOf"][0]
        elif ways := schema.get("anyOf") or schema.get("oneOf"):
            others = [each for each in ways if each != {"type": "null"}]
            if len(others) != 1:
                return None
            schema = others[0]
        else:
            return schema
    return None


def _kind(schema: Schema | None, depth: int) -> tuple[Kind, tuple[tuple[str, str], ...]]:
    if schema is None:
        return Kind.JSON, ()
    if options := _options(schema):
        return Kind.CHOICE, options
    match schema.get("type"):
        case "string":
            is_short = "format" in schema or schema.get("maxLength", LONGEST + 1) <= LONGEST
            return (Kind.TEXT if is_short else Kind.LINES), ()
        case "integer" | "number":
            return Kind.NUMBER, ()
        case "object" if schema.get("properties") and depth < DEEPEST:
            return Kind.GROUP, ()
    return Kind.JSON, ()


def _options(schema: Schema) -> tuple[tuple[str, str], ...]:
    if schema.get("type") == "boolean":
        return ("true", "yes"), ("false", "no")
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    return tuple((json.dumps(each), _said(each) or "null") for each in values)


def _hint(schema: Schema, kind: Kind) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    said = []
    if low is not None and high is not None:
        said.append(f"{low} to {high}")
    elif low is not None:
        said.append(f"at least {low}")
    elif high is not None:
        said.append(f"at most {high}")
    if schema.get("format") == "date-time":
        said.append("a time with an offset, as in 2026-11-23T06:00:00Z")
    elif "format" in schema:
        said.append(str(schema["format"]))
    if "pattern" in schema:
        said.append(f"matches {schema['pattern']}")
    if kind is Kind.JSON:
        words = {"array": "a JSON list", "object": "a JSON object"}
        said.append(words.get(str(schema.get("type")), "JSON"))
    return ", ".join(said)


def _said(value: Any) -> str | None:
    if value is None:
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _value(field: Field, text: str) -> Any:
    """The field's value; a number that is none stays text, so that the agent's type names it."""
    match field.kind:
        case Kind.TEXT | Kind.LINES:
            return text
        case Kind.NUMBER:
            try:
                return value_of(text.strip())
            except NotJson:
                return text
        case _:
            return value_of(text)


def _names(fields: Iterable[Field]) -> Iterator[str]:
    for field in fields:
        yield field.name
        yield from _names(field.fields)
