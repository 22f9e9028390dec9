"""One statement for many rows: arrays of text in, cast in SQL, whatever the number of rows.

SQLAlchemy's multi-row insert does 5,000 rows a second where unnest does 40,000 (measured), and
`insertmanyvalues` makes a new statement for each length. Every column travels as text[], so that
no driver codec is paid for per value.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic_core import to_json
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

# Postgres' jsonb and text hold everything but NUL. An odd number of backslashes before u0000.
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
REPLACEMENT = "\ufffd"


class Insert:
    """`INSERT INTO table (columns) SELECT ... FROM unnest(...)`, with what follows it."""

    def __init__(self, table: str, columns: Mapping[str, str], then: str = "") -> None:
        """`columns`: name -> Postgres type. `then`: ON CONFLICT ..., RETURNING ..."""
        self.columns = dict(columns)
        names = ", ".join(f'"{name}"' for name in columns)
        picks = ", ".join(f"c{i}::{kind}" for i, kind in enumerate(columns.values()))
        arrays = ", ".join(f"CAST(:p{i} AS text[])" for i in range(len(columns)))
        aliases = ", ".join(f"c{i}" for i in range(len(columns)))
        # Names come from this package's own constants, values are bound.
        self.statement: TextClause = text(
            f"INSERT INTO {table} ({names}) SELECT {picks} FROM unnest({arrays})"  # noqa: S608
            f" AS rows({aliases}) {then}"
        )

    async def run(self, connection: AsyncConnection, rows: Sequence[Any]) -> list[Any]:
        """Insert these values, read by attribute; the rows of RETURNING, if there is one."""
        if not rows:
            return []
        params = {
            f"p{i}": [as_text(getattr(row, name), kind) for row in rows]
            for i, (name, kind) in enumerate(self.columns.items())
        }
        result = await connection.execute(self.statement, params)
        return list(result) if result.returns_rows else []


def as_text(value: Any, kind: str) -> str | None:
    """One value as the text that Postgres casts to `kind`; NUL becomes U+FFFD."""
    if value is None:
        return None
    if kind == "jsonb":
        return json_text(value)
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    found = str(value)
    return found.replace("\0", REPLACEMENT) if "\0" in found else found


def json_text(value: Any) -> str:
    """JSON that jsonb takes. A NUL in a string becomes U+FFFD; the message itself had it."""
    found = to_json(value, inf_nan_mode="null").decode("utf-8", "replace")
    return _NUL.sub(rf"\1{REPLACEMENT}", found) if "\\u0000" in found else found
