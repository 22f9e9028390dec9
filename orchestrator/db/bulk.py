"""One statement for many rows: each column is one text, split and cast in SQL.

SQLAlchemy's multi-row insert does 5,000 rows a second where unnest does 40,000 (measured), and
`insertmanyvalues` makes a new statement for each length. Arrays cost the driver a type check and a
codec for each value, a third of the recorder's time; one joined text a column costs neither.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

# Postgres' jsonb and text hold everything but NUL. An odd number of backslashes before u0000.
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
REPLACEMENT = "\ufffd"
SEPARATOR, NULL = "\x1f", "\x1e"  # JSON text never holds a raw control character
_RESERVED = re.compile("[\x00\x1e\x1f]")


class Insert:
    """`INSERT INTO table (columns) SELECT ... FROM unnest(...)`, with what follows it."""

    def __init__(self, table: str, columns: Mapping[str, str], then: str = "") -> None:
        """`columns`: name -> Postgres type, the key first. `then`: ON CONFLICT, RETURNING."""
        self.columns = dict(columns)
        self._table = table
        self._then = then
        self.statement = text(self.sql())

    def sql(self, first: int = 0) -> str:
        """The statement, whose parameters are `:p<first>` and those after it."""
        names = ", ".join(f'"{name}"' for name in self.columns)
        rows = unnested(tuple(self.columns), lambda i: f":p{first + i}")
        # Names come from this package's own constants, values are bound.
        return (
            f"INSERT INTO {self._table} ({names})"  # noqa: S608
            f" SELECT {picked(self.columns)} FROM {rows} {self._then}"
        )

    async def run(self, connection: AsyncConnection, rows: Sequence[Any]) -> list[Any]:
        """Insert these values, read by attribute; the rows of RETURNING, if there is one."""
        if not rows:
            return []
        result = await connection.execute(self.statement, parameters(texts(rows, self.columns)))
        return list(result) if result.returns_rows else []


async def run_together(
    connection: AsyncConnection,
    parts: Sequence[tuple[Insert, Sequence[Any]]],
    *,
    asked: str = "0",
    about: Mapping[str, str] | None = None,
) -> Row[Any] | None:
    """Several inserts in one statement, which none of the others' rows matter to.

    `asked` is what the statement answers, of the tables as they were before it; what the first of
    the inserts returns it finds as `w0`. `about`: further parameters of `asked`.
    """
    parts = [(insert, rows) for insert, rows in parts if rows]
    if not parts:
        return None
    written: _Written = {}
    given = [each for insert, rows in parts for each in texts(rows, insert.columns, written)]
    statement = _together(tuple(insert for insert, _ in parts), asked)
    return (await connection.execute(statement, {**parameters(given), **(about or {})})).one()


@lru_cache(maxsize=64)
def _together(inserts: tuple[Insert, ...], asked: str) -> TextClause:
    first, written = 0, []
    for insert in inserts:
        written.append(insert.sql(first))
        first += len(insert.columns)
    named = ", ".join(f"w{i} AS ({each})" for i, each in enumerate(written))
    return text(f"WITH {named} SELECT {asked}")


def unnested(names: Sequence[str], place: Callable[[int], str]) -> str:
    """A FROM item that gives each row's texts by these names; `place` writes a parameter's name.

    Each column ends with a null of ours, which is left out here by the key, the first of the names:
    the array of one empty text would otherwise be an empty array.
    """
    quoted = ", ".join(f'"{name}"' for name in names)
    arrays = ", ".join(
        f"string_to_array(CAST({place(i)} AS text), chr(31), chr(30))" for i in range(len(names))
    )
    return f'(SELECT * FROM unnest({arrays}) AS r({quoted}) WHERE "{names[0]}" IS NOT NULL) AS r'  # noqa: S608


def picked(columns: Mapping[str, str]) -> str:
    """Those texts as the columns' types."""
    return ", ".join(f'"{name}"::{kind}' for name, kind in columns.items())


def texts(
    rows: Sequence[Any], columns: Mapping[str, str], written: "_Written | None" = None
) -> list[str]:
    """Each column of these rows, read by attribute, as one text. `written`: joined's."""
    if not rows:
        return [""] * len(columns)
    written = {} if written is None else written
    # All of a row at once: `tasks` has 26 columns, and most of them hold nothing.
    by_column = zip(*map(attrgetter(*columns), rows), strict=True)
    return [
        joined(values, kind, written)
        for values, kind in zip(by_column, columns.values(), strict=True)
    ]


def parameters(given: Sequence[str]) -> dict[str, str]:
    """What SQLAlchemy binds to `:p0`, `:p1` ..."""
    return {f"p{i}": each for i, each in enumerate(given)}


def joined(values: Sequence[Any], kind: str, written: "_Written | None" = None) -> str:
    """A column as one text. Control characters that the format needs become U+FFFD.

    `written`: what other columns of the statement have written already.
    """
    nulls = values.count(None)
    if nulls == len(values):
        return ""  # an empty array, which unnest fills up with nulls
    texts = _texts(values, kind, nulls, {} if written is None else written)
    found = SEPARATOR.join(texts)
    if found.count(SEPARATOR) != len(texts) - 1 or "\0" in found or found.count(NULL) != nulls:
        found = SEPARATOR.join(
            NULL if value is None else _RESERVED.sub(REPLACEMENT, text)
            for value, text in zip(values, texts, strict=True)
        )
    return found + SEPARATOR + NULL


# By identity, with the value itself, so that no other one can have that identity meanwhile. To
# hash a moment costs as much as to write it.
_Written = dict[int, tuple[Any, str]]


def _texts(values: Sequence[Any], kind: str, nulls: int, written: _Written) -> Sequence[str]:
    as_text = _AS_TEXT.get(kind)
    if as_text is not None:
        # A moment stands in several columns and tables; the audit's rows share what they say.
        for value in values:
            if id(value) not in written:
                written[id(value)] = (value, NULL if value is None else as_text(value))
        return [written[id(value)][1] for value in values]
    if kind in _TEXT_ALREADY and not nulls:
        return values
    return [NULL if value is None else str(value) for value in values]


def json_text(value: Any) -> str:
    """JSON that jsonb takes. A NUL in a string becomes U+FFFD; the message itself had it."""
    found = to_json(value, inf_nan_mode="null").decode("utf-8", "replace")
    return _NUL.sub(rf"\1{REPLACEMENT}", found) if "\\u0000" in found else found


_TEXT_ALREADY = frozenset({"text", "uuid"})
_AS_TEXT: dict[str, Callable[[Any], str]] = {"jsonb": json_text, "timestamptz": datetime.isoformat}
