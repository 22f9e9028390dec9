"""Bulk writes: every value arrives as it was, whatever it holds."""

from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from orchestrator.db.bulk import Insert


@dataclass
class Row:
    id: str
    body: str | None
    number: int | None
    json: object


INSERT = Insert("kept", {"id": "text", "body": "text", "number": "bigint", "json": "jsonb"})
plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
rows_of = st.lists(
    st.builds(
        Row,
        id=plain,
        body=st.none() | plain,
        number=st.none() | st.integers(-(2**63), 2**63 - 1),
        json=st.dictionaries(plain, st.none() | plain | st.integers(-(2**53), 2**53), max_size=3),
    ),
    min_size=1,
    max_size=6,
)


def kept(value: str | None) -> str | None:
    """What Postgres has for it: the three characters that the format or Postgres needs are lost."""
    if value is None:
        return None
    return value.translate(dict.fromkeys([0, 0x1E, 0x1F], "\ufffd"))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=rows_of)
async def test_what_goes_in_comes_out(database, rows):
    """Empty texts, nulls, control characters, separators, quotes: nothing shifts or is lost."""
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "CREATE TEMP TABLE kept (id text, body text, number bigint, json jsonb)"
                " ON COMMIT DROP"
            )
        )
        await INSERT.run(connection, rows)
        found = (await connection.execute(text("SELECT id, body, number, json FROM kept"))).all()

    assert len(found) == len(rows)
    for row, (row_id, body, number, _json) in zip(rows, found, strict=True):
        assert (row_id, body, number) == (kept(row.id), kept(row.body), row.number)
