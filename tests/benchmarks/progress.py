"""What is measured now: a bar on a terminal, elsewhere a line every few seconds."""

import sys
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

EVERY = 5.0  # seconds between lines where there is no terminal


class Telling:
    """Says which of `steps` is under way, and how far it has come."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._name = ""
        self._began = self._said = time.monotonic()
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=steps)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def step(self, name: str) -> None:
        """A new measurement begins."""
        self._name = name
        self._done += 1
        if self._bar:
            self._bar.update(self._task, description=name, completed=self._done - 1)
        elif time.monotonic() - self._said > EVERY or self._done == 1:
            self._line("")

    def say(self, detail: str) -> None:
        """How far it has come."""
        if self._bar:
            self._bar.update(self._task, description=f"{self._name}: {detail}")
        elif time.monotonic() - self._said > EVERY:
            self._line(f": {detail}")

    def finish(self) -> None:
        """Everything is measured."""
        if self._bar:
            self._bar.update(self._task, description="done", completed=self._steps)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False)

    def _line(self, detail: str) -> None:
        self._said = time.monotonic()
        print(
            f"{self._said - self._began:6.0f} s  {self._done}/{self._steps}  {self._name}{detail}",
            file=sys.stderr,
            flush=True,
        )
