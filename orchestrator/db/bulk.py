"""One statement for many rows: each column is one text, split and cast in SQL.

SQLAlchemy's multi-row insert does 5,000 rows a second where unnest does 40,000 (measured), and
`insertmanyvalues` makes a new statement for each length. Arrays cost the driver a type check and a
codec for each value, a third of the recorder's time; one joined text a column costs neither.
"""

import re
from collections.abc import Callable, Mapping, Sequence
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
_SEPARATES, _ABSENT = SEPARATOR.encode(), NULL.encode()
_RESERVED = re.compile("[\x00\x1e\x1f]")
# What is written as JSON without a comma inside: a whole column of it is one call.
_PLAIN = frozenset({"int", "bigint", "timestamptz"})
_TEXT_ALREADY = frozenset({"text", "uuid"})


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
    given = [each for insert, rows in parts for each in texts(rows, insert.columns)]
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


def texts(rows: Sequence[Any], columns: Mapping[str, str]) -> list[str]:
    """Each column of these rows, read by attribute, as one text."""
    if not rows:
        return [""] * len(columns)
    # All of a row at once: `tasks` has 26 columns, and most of them hold nothing.
    by_column = zip(*map(attrgetter(*columns), rows), strict=True)
    return [joined(values, kind) for values, kind in zip(by_column, columns.values(), strict=True)]


def parameters(given: Sequence[str]) -> dict[str, str]:
    """What SQLAlchemy binds to `:p0`, `:p1` ..."""
    return {f"p{i}": each for i, each in enumerate(given)}


def joined(values: Sequence[Any], kind: str) -> str:
    """A column as one text. Control characters that the format needs become U+FFFD."""
    nulls = values.count(None)
    if nulls == len(values):
        return ""  # an empty array, which unnest fills up with nulls
    if kind in _PLAIN:
        found = _plain(values)
    elif kind == "jsonb":
        found = _documents(values)
    else:
        found = _words(values, nulls, kind)
    return found + SEPARATOR + NULL


def json_text(value: Any) -> str:
    """JSON that jsonb takes. A NUL in a string becomes U+FFFD; the message itself had it."""
    return _without_nul(to_json(value, inf_nan_mode="null"))


def _plain(values: Sequence[Any]) -> str:
    """Numbers and moments: a third of what `str` of each takes, a fourth of what isoformat does."""
    found = to_json(values).decode()[1:-1]
    return found.replace('"', "").replace("null", NULL).replace(",", SEPARATOR)


def _documents(values: Sequence[Any]) -> str:
    return _without_nul(
        _SEPARATES.join(
            [_ABSENT if each is None else to_json(each, inf_nan_mode="null") for each in values]
        )
    )


def _words(values: Sequence[Any], nulls: int, kind: str) -> str:
    texts: Sequence[str] = values
    if nulls or kind not in _TEXT_ALREADY:
        texts = [NULL if each is None else str(each) for each in values]
    found = SEPARATOR.join(texts)
    if found.count(SEPARATOR) != len(texts) - 1 or "\0" in found or found.count(NULL) != nulls:
        found = SEPARATOR.join(
            NULL if value is None else _RESERVED.sub(REPLACEMENT, text)
            for value, text in zip(values, texts, strict=True)
        )
    return found


def _without_nul(raw: bytes) -> str:
    found = raw.decode("utf-8", "replace")
    return _NUL.sub(rf"\1{REPLACEMENT}", found) if "\\u0000" in found else found
