"""`aurora usage`: what calls of models cost, by agent, model and day."""

import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import opening
from orchestrator.cli.moments import Since, moment
from orchestrator.cli.output import Format, Limit, Output, cell, console, show_list

if TYPE_CHECKING:
    from orchestrator.db.usage import Spending
    from orchestrator.parts import Parts
    from orchestrator.usage import Usage


class By(StrEnum):
    """`db.usage.By`, repeated because importing it would cost `--help` its speed."""

    AGENT = "agent"
    MODEL = "model"
    DAY = "day"


FIGURES = {
    "requests": "requests", "input_tokens": "input", "cached_tokens": "cached",
    "output_tokens": "output", "tool_calls": "tools", "cost_usd": "cost USD",
}  # fmt: skip

LEAST_SHOWN = Decimal("0.0001")  # dollars
# Columns; in fewer, counts are rounded and some left out, so that no name is cut.
WIDE_ENOUGH = 100
LEFT_OUT = frozenset({"cached_tokens", "tool_calls"})
NARROWEST = {By.AGENT: 9, By.MODEL: 16, By.DAY: 10}  # columns


def usage(
    *,
    by: Annotated[str, typer.Option(metavar="WORDS", help="Any of agent,model,day.")] = (
        "agent,model"
    ),
    since: Since = None,
    until: Since = None,
    agent: Annotated[str | None, typer.Option()] = None,
    model: Annotated[str | None, typer.Option()] = None,
    limit: Limit = 1000,
    output: Output = Format.TABLE,
) -> None:
    """Show what calls of models cost: requests, tokens, US dollars. Days are UTC's."""
    words = _words(by)

    async def work(parts: "Parts") -> "Spending":
        from orchestrator.db.usage import By as Grouped
        from orchestrator.db.usage import spending

        return await spending(
            parts.database, by=[Grouped(word) for word in words], since=moment(since),
            until=moment(until), agent=agent, model=model, limit=limit,
        )  # fmt: skip

    found = opening.with_parts(work)
    rows = [
        {word: getattr(each, word) for word in words} | each.usage.as_json()
        for each in found.groups
    ]
    if output is Format.TABLE and rows:
        _print_table(rows, words, found.total)
    else:
        show_list(rows, output, columns=words, nothing="no calls of models")
    if found.left_out:
        print(f"{found.left_out} more; the total counts them (--limit)", file=sys.stderr)


def _words(by: str) -> list[str]:
    """Raises typer.BadParameter."""
    said = [each.strip() for each in by.split(",") if each.strip()]
    for word in said:
        if word not in list(By):
            raise typer.BadParameter(f"cannot group by {word!r}; there are {', '.join(By)}")
    return list(dict.fromkeys(said))


def _print_table(rows: Sequence[Mapping[str, Any]], words: Sequence[str], total: "Usage") -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    out, summed = console(), total.as_json()
    is_wide = out.width >= WIDE_ENOUGH
    names = [name for name in FIGURES if is_wide or name not in LEFT_OUT]
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold",
        show_footer=bool(words), footer_style="bold",
    )  # fmt: skip
    for i, word in enumerate(words):
        table.add_column(
            word, footer="" if i else "total", overflow="fold", no_wrap=word == By.DAY,
            min_width=NARROWEST[By(word)],
        )  # fmt: skip
    for name in names:
        footer = _figure(name, summed, is_wide)
        table.add_column(FIGURES[name], footer=footer, justify="right", no_wrap=True)
    for row in rows:
        shown = [Text(cell(row[word])) for word in words]
        table.add_row(*shown, *(Text(_figure(name, row, is_wide)) for name in names))
    out.print(table)
    if total.unpriced_requests:
        print(f"+ The price of {total.unpriced_requests:,} of {total.requests:,} requests is not"
              " known: they are in no cost.")  # fmt: skip


def _figure(name: str, row: Mapping[str, Any], is_wide: bool) -> str:
    value = row[name]
    if name != "cost_usd":
        return f"{value:,}" if is_wide else _rounded(value)
    if value is None:
        return "unknown"
    # In line with those whose price is known only in part. JSON has all digits.
    cost, mark = Decimal(value), "+" if row["unpriced_requests"] else " "
    return (f"<{LEAST_SHOWN}" if 0 < cost < LEAST_SHOWN else f"{cost:,.4f}") + mark


def _rounded(count: int) -> str:
    if count < 100_000:  # noqa: PLR2004 - five digits are as short
        return f"{count:,}"
    return f"{count / 1e6:,.1f}M" if count >= 10**7 else f"{count / 1e3:,.0f}k"
