"""From an agent's schema to a form and back: what is typed is what the agent is given."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from orchestrator.dashboard.schema_form import Kind, beside, example_of, fields_of, input_of


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    """A part."""

    x: float
    y: float | None = None


class Turning(BaseModel):
    below: "Turning | None" = None


class Everything(BaseModel):
    words: str = Field(description="what to say")
    short: str = Field(default="hi", max_length=10)
    count: int = Field(default=3, ge=1, le=9)
    on: bool = False
    colour: Colour
    mode: Literal["a", 1] = "a"
    at: datetime | None = None
    place: Inner
    other: Inner | None = None
    many: list[int] = []
    either: int | str = 0
    turning: Turning = Turning()


FIELDS = fields_of(TypeAdapter(Everything).json_schema())
TYPED = {
    "/words": "one\r\ntwo", "/short": "", "/count": "5", "/on": "true", "/colour": '"red"',
    "/mode": "1", "/at": "2026-11-23T06:00:00Z", "/place/x": "1.5", "/place/y": "",
    "/many": "[1, 2]", "/either": '"text"',
}  # fmt: skip


def test_each_property_becomes_the_field_that_fits():
    """What has no field of its own is typed as JSON."""
    found = {each.label: each for each in FIELDS}

    assert {name: each.kind.value for name, each in found.items()} == {
        "words": "lines", "short": "text", "count": "number", "on": "choice", "colour": "choice",
        "mode": "choice", "at": "text", "place": "group", "other": "group", "many": "json",
        "either": "json", "turning": "group",
    }  # fmt: skip
    assert [each.label for each in FIELDS if each.is_required] == ["words", "colour", "place"]
    assert found["words"].description == "what to say"
    assert (found["count"].hint, found["count"].default) == ("1 to 9", "3")
    assert [each.is_demanded for each in found["place"].fields] == [True, False]
    assert [each.is_demanded for each in found["other"].fields] == [False, False]
    assert found["colour"].options == (('"red"', "red"), ('"blue"', "blue"))


def test_what_turns_in_itself_ends_as_json():
    """A group in a group in a group, and no further."""
    field = next(each for each in FIELDS if each.label == "turning")
    depth = 1
    while field.fields:
        field, depth = field.fields[0], depth + 1
    assert (field.kind, depth) == (Kind.JSON, 4)


def test_what_is_typed_is_what_the_agent_takes():
    """Blank is not given, so the agent's own default holds."""
    made, wrong = input_of(FIELDS, TYPED)

    assert wrong == {}
    assert "short" not in made
    assert "other" not in made
    loaded = Everything.model_validate(made)
    assert (loaded.words, loaded.count, loaded.on, loaded.mode) == ("one\ntwo", 5, True, 1)
    assert (loaded.place.x, loaded.either, loaded.short) == (1.5, "text", "hi")


@pytest.mark.parametrize("typed", ["{", "NaN", "1e999", "\ud800", "[1", "'a'"])
def test_what_is_no_json_is_said_beside_its_field(typed: str):
    """And a number that is none is left to the agent's type, which names it."""
    made, wrong = input_of(FIELDS, {"/many": typed, "/count": "many"})
    assert list(wrong) == ["/many"]
    assert made["count"] == "many"


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from([*TYPED, "/x", "mode"]), st.text()))
def test_nothing_that_is_typed_breaks_the_form(typed: dict[str, str]):
    """It is an input, or it is said what is wrong."""
    input_of(FIELDS, typed)


@pytest.mark.parametrize(
    "schema",
    [None, {}, {"type": "string"}, {"type": "object"}, {"$ref": "#/$defs/no"}, {"anyOf": [{}, {}]}],
)
def test_what_is_no_object_with_properties_has_no_fields(schema: dict[str, object] | None):
    """The whole of it is typed as JSON."""
    assert fields_of(schema) == ()


def test_a_problem_stands_beside_the_nearest_field():
    """Also one inside a list, and one of the form as a whole."""
    problems = [("/place/x", "a"), ("/many/3", "b"), ("/nowhere", "c"), ("", "d"), ("/count", "e")]
    wrong, others = beside(FIELDS, problems)
    assert wrong == {"/place/x": "a", "/many": "/3: b", "/count": "e"}
    assert others == ["/nowhere: c", "d"]


def test_an_example_has_what_is_required():
    """With words to replace."""
    assert example_of(FIELDS) == {"words": "...", "colour": "red", "place": {"x": 1}}
