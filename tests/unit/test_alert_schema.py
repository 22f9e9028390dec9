"""The schema that is printed is the one that is read: JSON Schema, AsyncAPI and docs/alerts.md."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from orchestrator.alert import Alert
from orchestrator.event import Act
from orchestrator.formats.normalise import normalise
from orchestrator.formats.own import EXAMPLES, json_schema
from orchestrator.streams.asyncapi import asyncapi
from orchestrator.streams.message import decode, decode_event, decode_task
from orchestrator.streams.names import STREAMS, Keys
from tests.unit.test_alert import ID, NOW, json_values, unhurried

PAGE = (Path(__file__).parent.parent.parent / "docs" / "alerts.md").read_text()
SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
DOCUMENT = asyncapi(Keys("aurora"), version="1")

# Values that each field may hold by its type, and now and then anything.
_by_type: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(alphabet=st.characters(exclude_categories=())),
    "integer": st.integers(0, 65_535) | st.integers(),
    "object": st.dictionaries(st.text(max_size=5), json_values, max_size=3),
    "null": st.none(),
}


def types_of(field: dict[str, Any]) -> list[str]:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return [f"`{each}`" for each in SCHEMA["$defs"][name]["enum"]]
    return [each["type"] for each in field.get("anyOf", [field])]


def values_of(field: dict[str, Any]) -> st.SearchStrategy[Any]:
    types = types_of(field)
    if types[0].startswith("`"):
        return st.sampled_from([each.strip("`") for each in types])
    return st.one_of(*(_by_type[each] for each in types))


@st.composite
def nearly_by_the_schema(draw: st.DrawFn) -> dict[str, Any]:
    fields = SCHEMA["properties"]
    names = draw(st.sets(st.sampled_from(sorted(fields)))) | {"signature", "severity"}
    data = {name: draw(values_of(fields[name])) for name in sorted(names)}
    data |= draw(st.dictionaries(st.sampled_from(["event_type", "rule", "device", "class_uid",
                                                  "port", *sorted(fields)]),
                                 json_values, max_size=1))  # fmt: skip
    return data


@unhurried
@given(data=nearly_by_the_schema())
def test_whatever_the_schema_accepts_is_an_alert(data: dict[str, Any]):
    """Whoever validates before sending finds nothing among the dead letters."""
    if not VALIDATOR.is_valid(data):
        return

    alert = normalise(data, id=ID, kind="network", received_at=NOW)

    assert alert.severity == data["severity"]


def test_the_schema_refuses_what_is_none():
    """And names the field."""
    wrong = {"signature": 7, "severity": "dreadful", "src_port": 70_000, "details": []}

    found = {error.json_path for error in VALIDATOR.iter_errors(wrong)}

    assert found == {"$.signature", "$.severity", "$.src_port", "$.details"}
    assert not VALIDATOR.is_valid({"signature": "x"})


def test_an_alert_as_we_write_it_is_by_the_schema():
    """What the API shows can be sent again."""
    Draft202012Validator.check_schema(SCHEMA)
    for example in EXAMPLES:
        VALIDATOR.validate(example)
        alert = normalise(example, id=ID, kind="cps", received_at=NOW)
        VALIDATOR.validate(json.loads(alert.model_dump_json()))


def test_the_page_has_each_field_as_the_schema_has_it():
    """Type and words."""
    rows = re.findall(
        r"^\| (`\w+`) \| (.+) \| (.+) \|$", PAGE.split("## The alert")[1], re.MULTILINE
    )
    expected = []
    for name, field in SCHEMA["properties"].items():
        types = types_of(field)
        joined = (", " if types[0].startswith("`") else " or ").join(types)
        expected.append((f"`{name}`", joined, field["description"]))
    assert rows[: len(expected)] == expected
    assert set(SCHEMA["properties"]) == set(Alert.model_fields)


def test_the_examples_of_the_page_are_alerts():
    """By the schema, and by the reader."""
    examples = [json.loads(each) for each in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]

    assert len(examples) >= 2
    for example in examples:
        VALIDATOR.validate(example)
        normalise(example, id=ID, kind="network", received_at=NOW)


def _refs(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [ref for each in value.values() for ref in _refs(each)]
    if isinstance(value, list):
        return [ref for each in value for ref in _refs(each)]
    return []


def test_the_document_has_every_stream_and_leads_nowhere_else():
    """Address, groups, and references that are there."""
    channels = DOCUMENT["channels"].values()

    assert [each["address"] for each in channels] == [Keys("aurora").of(each) for each in STREAMS]
    assert [tuple(each["x-groups"]) for each in channels] == [each.groups for each in STREAMS]
    for ref in set(_refs(DOCUMENT)):
        found: Any = DOCUMENT
        for part in ref.removeprefix("#/").split("/"):
            found = found[part]
        assert found


@pytest.mark.parametrize("name", ["Alert", "Task", "TaskEvent", "Act"])
def test_the_documents_examples_are_read(name: str):
    """As what the schema says that they are."""
    (example,) = DOCUMENT["components"]["messages"][name]["examples"]
    payload = example["payload"]
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    Draft202012Validator(schema).validate(payload)

    message = decode({b"data": json.dumps(payload).encode()}, stream="s", entry_id="1-0")
    match name:
        case "Alert":
            normalise(message.data, id=message.id, kind="network", received_at=NOW)
        case "Task":
            decode_task(message)
        case "TaskEvent":
            decode_event(message)
        case _:
            Act.model_validate(message.data)
