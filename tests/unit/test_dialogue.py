"""What crosses between a worker and a child: values and errors come out as they went in."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from uuid import UUID

import pytest
from asyncpg.pgproto import pgproto
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import (
    DeadReason,
    NotConnected,
    Overloaded,
    PayloadTooLarge,
    TaskIdConflict,
    TaskNotFound,
    TaskUnsuccessful,
    Unavailable,
)
from orchestrator.outcome import Completed, Failed, Fault, Retrying, SetAside
from orchestrator.runtime.dialogue import (
    decode,
    encode,
    hear_error,
    hear_outcome,
    hear_values,
    say_error,
    say_outcome,
    say_values,
)

ID = "0198a5f2-0000-7000-8000-000000000001"


def crossed(value):
    return json.loads(json.dumps(decode(encode({"value": value}))["value"]))


@pytest.mark.parametrize(
    "outcome",
    [
        Completed(b'{"text":"a \\"quoted\\" \xc3\xa4"}'),
        Retrying(Fault(type="E", message="m", traceback="t"), timedelta(seconds=1.5)),
        Failed(Fault(type="E", message="m")),
        SetAside(DeadReason.INVALID_INPUT, "/word: missing"),
    ],
    ids=lambda outcome: type(outcome).__name__,
)
def test_outcomes_cross(outcome):
    """Each that a runner gives."""
    assert hear_outcome(crossed(say_outcome(outcome)), max_output=100) == outcome


@pytest.mark.parametrize(
    "said",
    [
        ["Completed", {"output": "{not json"}],
        ["Completed", {"output": '"' + "x" * 200 + '"'}],
        ["Completed", {"output": '{"n": Infinity}'}],
        ["Postponed", {}],
        ["Completed"],
        {"Completed": 1},
        None,
    ],
    ids=str,
)
def test_an_output_that_is_none_is_refused(said):
    """It is written into the record unparsed: what a child says is checked."""
    with pytest.raises((ValueError, TypeError, LookupError, PayloadTooLarge)):
        hear_outcome(said, max_output=100)


@pytest.mark.parametrize(
    "error",
    [
        TaskIdConflict(ID), PayloadTooLarge(5, 4), TaskNotFound(ID), NotConnected(),
        TaskUnsuccessful(ID, "failed", "why"), Unavailable("Redis", "it is away", retry_after=7),
        Overloaded("Redis is full", retry_after=3), TimeoutError("30 s"), ValueError("v"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_errors_come_out_as_what_they_were(error):
    """Class, text and data: an agent's `except` works in a child as in the worker."""
    found = hear_error(crossed(say_error(error)))

    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)


def test_an_error_of_another_class_keeps_its_name_in_its_text():
    """SQLAlchemy's, say: the child need not have it."""
    found = hear_error(crossed(say_error(ZeroDivisionError("by zero"))))

    assert type(found) is RuntimeError
    assert str(found) == "ZeroDivisionError: by zero"


@given(
    st.dictionaries(
        st.text(),
        st.none() | st.booleans() | st.integers() | st.text() | st.uuids() | st.decimals(
            allow_nan=False, allow_infinity=False
        ) | st.datetimes(timezones=st.just(UTC)) | st.dates() | st.times()
        | st.ip_addresses() | st.lists(st.text()),
    )
)  # fmt: skip
def test_values_keep_their_types(values):
    """A suspect's rows look as in the worker."""
    found = hear_values(crossed(say_values(values)))

    assert found == values
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in values.items()
    }


def test_values_of_the_driver():
    """The driver has a UUID class of its own; bytes say what to do."""
    row = {
        "id": pgproto.UUID(ID), "at": datetime(2026, 11, 23, tzinfo=UTC), "on": date(2026, 11, 23),
        "for": timedelta(seconds=1.5), "much": Decimal("1.10"), "from": IPv4Address("10.0.0.1"),
        "input": {"a": [1, None]},
    }  # fmt: skip

    assert hear_values(crossed(say_values(row))) == {**row, "id": UUID(ID)}
    with pytest.raises(TypeError, match="encode them in the SQL"):
        say_values({"raw": b"\xff"})
