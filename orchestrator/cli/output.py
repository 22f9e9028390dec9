"""What commands print: tables for people, JSON for programs; hostile text made harmless."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 200  # columns, where there is no terminal that has a width
LONGEST_CELL = 120  # characters


class Format(StrEnum):
    """How a list is printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


Output = Annotated[
    Format, typer.Option("--output", "-o", help="table for people; json, jsonl for programs.")
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="Rows at most.")]


def harmless(text: str) -> str:
    r"""Text as a terminal may have it: what does not print stands as its escape, `\x1b`.

    Alerts carry what attackers wrote; control and direction characters would repaint the screen.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def one_line(error: BaseException) -> str:
    """An error as one line; a server's own last words, where it carries them, below it."""
    said = str(error)
    tail = getattr(error, "log_tail", "")
    if tail:
        head = harmless(said.removesuffix(tail).strip())
        return "\n".join([head, *(f"    {harmless(line)}" for line in tail.splitlines())])
    return harmless(" ".join(said.split())) or type(error).__name__


def console(*, stderr: bool = False) -> "Console":
    """Rich's console, as wide as the terminal; wide where there is none."""
    from rich.console import Console

    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(
        stderr=stderr, width=None if is_terminal else WIDE, highlight=False, emoji=False,
        markup=False,
    )  # fmt: skip


def show_list(
    rows: Iterable[Mapping[str, Any]], output: Format, *, columns: Sequence[str], nothing: str
) -> None:
    """Print rows: a table of `columns`, or everything as JSON. `nothing`: said of no rows."""
    found = list(rows)
    match output:
        case Format.JSON:
            print(json.dumps(found, default=plain, indent=2))
        case Format.JSONL:
            for row in found:
                print(json.dumps(row, default=plain))
        case Format.TABLE if not found:
            # To stderr: a table of nothing is nothing.
            print(nothing, file=sys.stderr)
        case Format.TABLE:
            _print_table(found, columns)


def show_one(row: Mapping[str, Any], output: Format) -> None:
    """Print one thing in full, a line for each of its parts."""
    if output is Format.TABLE:
        width = max(map(len, row))
        for name, value in row.items():
            first, *rest = _lines(value)
            print(f"{name:<{width}}  {first}".rstrip())
            for line in rest:
                print(" " * (width + 2) + line)
    else:
        print(json.dumps(row, default=plain, indent=2 if output is Format.JSON else None))


def plain(value: Any) -> Any:
    """What JSON has no word for."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)


def cell(value: Any) -> str:
    """A value in one line of a table."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S")
        case timedelta():
            return f"{value.total_seconds():g} s"
        case dict() | list():
            text = json.dumps(value, default=plain, ensure_ascii=False)
        case tuple() | set() | frozenset():
            text = ", ".join(map(str, sorted(value)))
        case _:
            text = str(value)
    text = harmless(text)
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"


def _print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        # An id or a time that is cut helps nobody.
        fixed = name == "id" or name.endswith(("_id", "_at")) or name == "at"
        table.add_column(name.replace("_", " "), no_wrap=fixed, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(row.get(name))) for name in columns))
    console().print(table)


def _lines(value: Any) -> list[str]:
    if isinstance(value, (dict, list)) and value:
        text = json.dumps(value, default=plain, ensure_ascii=False, indent=2)
    elif isinstance(value, datetime):
        text = value.isoformat(sep=" ")
    elif isinstance(value, str):
        text = value
    else:
        text = cell(value)
    return [harmless(line) for line in text.splitlines()] or [""]
