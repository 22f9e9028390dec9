"""Times on the command line: `--since 15m`, `--since 2026-11-23T10:00`."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment(text: str | None) -> datetime | None:
    """That long ago, or that time (UTC unless it says otherwise). Raises typer.BadParameter."""
    if text is None:
        return None
    if text[:-1].isdigit() and text[-1] in _UNITS:
        return datetime.now(UTC) - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time; write 15m, 24h, 7d or 2026-11-23T10:00"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


Since = Annotated[str | None, typer.Option(metavar="TIME", help="15m, 24h, 7d or a date.")]
