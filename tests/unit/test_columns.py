"""Columns as one text each: what is written once for many rows is still each row's own."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from orchestrator.db.bulk import NULL, SEPARATOR, texts

START = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = {"number": "int", "at": "timestamptz", "said": "jsonb"}


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


def test_what_is_gone_lends_its_text_to_nobody():
    """A value that is made after another one has gone may stand in its very place."""
    written: dict[int, tuple[object, str]] = {}
    for start in range(0, 300, 3):
        rows = [Row(start + i) for i in range(3)]

        _, at, said = texts(rows, COLUMNS, written)

        assert at.split(SEPARATOR) == [*(row.at.isoformat() for row in rows), NULL]
        assert said.split(SEPARATOR) == [
            NULL, f'{{"number":{start + 1}}}', f'{{"number":{start + 2}}}', NULL,
        ]  # fmt: skip
        del rows


def test_no_rows_are_columns_all_the_same():
    assert texts([], COLUMNS) == ["", "", ""]
