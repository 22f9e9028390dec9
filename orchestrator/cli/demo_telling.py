"""Tells the demo as it happens: a line a step, and a bar on a terminal."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

EVERY = 2.0  # seconds between lines where there is no terminal


class Telling:
    """Steps with the seconds since the beginning. Decides nothing."""

    def __init__(self, console: Console) -> None:
        """Store."""
        self.console = console
        self.began = time.monotonic()
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=40),
            MofNCompleteColumn(), console=console, transient=True,
            disable=not console.is_terminal,
        )  # fmt: skip
        self._bar = self._progress.add_task("starting servers", total=None)
        self._next_line = self.began + EVERY

    def __enter__(self) -> Self:
        self.console.print()
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def end(self) -> None:
        """What follows is no progress any more."""
        self._progress.stop()

    def step(self, text: str, *, mark: str = "✓", style: str = "green") -> None:
        """Something is done."""
        seconds = f"{time.monotonic() - self.began:5.1f} s  "
        self.console.print(
            Text.assemble((seconds, "dim"), (mark, style), " ", text), soft_wrap=True
        )

    def count(self, what: str, done: int, total: int) -> None:
        """How far something long has come."""
        self._progress.update(self._bar, description=what, completed=done, total=total)
        if not self.console.is_terminal and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + EVERY
            self.step(f"{what}: {done} of {total}", mark="·", style="dim")
