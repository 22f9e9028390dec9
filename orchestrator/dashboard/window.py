"""The time that a list is about: what the address says, as two moments."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum


class Window(StrEnum):
    """Back from now. A day is the default: lists stay fast however long the past is."""

    HOUR = "1h"
    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"
    ALL = "all"

    def since(self, now: datetime) -> datetime | None:
        """When it begins; None for all time."""
        span = _SPANS.get(self)
        return None if span is None else now - span

    @property
    def said(self) -> str:
        """As it reads in a sentence: "in the last hour"."""
        return _SAID[self]


_SPANS = {
    Window.HOUR: timedelta(hours=1),
    Window.DAY: timedelta(days=1),
    Window.WEEK: timedelta(days=7),
    Window.MONTH: timedelta(days=30),
}
_SAID = {
    Window.HOUR: "in the last hour",
    Window.DAY: "in the last 24 hours",
    Window.WEEK: "in the last 7 days",
    Window.MONTH: "in the last 30 days",
    Window.ALL: "at any time",
}
OPTIONS: Sequence[tuple[str, str]] = [
    (Window.HOUR.value, "Last hour"),
    (Window.DAY.value, "Last 24 hours"),
    (Window.WEEK.value, "Last 7 days"),
    (Window.MONTH.value, "Last 30 days"),
    (Window.ALL.value, "All time"),
]
