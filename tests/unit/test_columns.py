"""Columns as one text each: every row has its own part of it, and a missing value is a null."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.db.bulk import NULL, SEPARATOR, joined, texts
from orchestrator.task import sayable

START = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = {"number": "int", "at": "timestamptz", "said": "jsonb"}
DAY_ONE, LAST_DAY = datetime.fromisoformat("0002-01-01"), datetime.fromisoformat("9998-12-31")
moment = datetime.fromisoformat


@dataclass
class Row:
    """Its values are made anew whenever somebody looks."""

    number: int

    @property
    def at(self) -> datetime:
        return START + timedelta(seconds=self.number)

    @property
    def said(self) -> dict[str, int] | None:
        return {"number": self.number} if self.number % 3 else None


def test_each_row_has_its_own_texts():
    """Values are written as they are met, nothing stays null, and a null of ours ends a column."""
    rows = [Row(i) for i in range(3)]

    number, at, said = texts(rows, COLUMNS)

    assert number.split(SEPARATOR) == ["0", "1", "2", NULL]
    assert [moment(each) for each in at.split(SEPARATOR)[:-1]] == [row.at for row in rows]
    assert said.split(SEPARATOR) == [NULL, '{"number":1}', '{"number":2}', NULL]


@pytest.mark.parametrize("kind", ["int", "timestamptz", "jsonb", "text", "double precision"])
def test_a_missing_value_is_a_null_of_every_kind(kind: str):
    """Not JSON's null, and not the word."""
    value = {"int": 7, "timestamptz": START, "jsonb": {"a": None}}.get(kind, "7")

    first, second, third, end = joined([None, value, None], kind).split(SEPARATOR)

    assert (first, third, end) == (NULL, NULL, NULL)
    assert NULL not in second
    assert joined([None, None], kind) == ""


@given(
    st.datetimes(min_value=DAY_ONE, max_value=LAST_DAY),
    st.timedeltas(min_value=timedelta(hours=-14), max_value=timedelta(hours=14)),
)
def test_a_moment_is_written_as_it_is(at: datetime, offset: timedelta):
    """To the microsecond, whatever its offset: also one of seconds, as old local times have."""
    at = at.replace(tzinfo=timezone(offset))

    text, _ = joined([sayable(at)], "timestamptz").split(SEPARATOR)

    assert moment(text) == at


def test_no_rows_are_columns_all_the_same():
    assert texts([], COLUMNS) == ["", "", ""]
