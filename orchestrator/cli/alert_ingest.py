"""Puts the alerts of a file on their streams: each once, however often the file is given.

An id is made of what an alert says, and what has a row already is not sent. So a run that was
killed goes on where the record ends, without a note of its own to lose.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import IO

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from orchestrator.alert import Alert, AlertKind
from orchestrator.cli import opening
from orchestrator.cli.alert_lines import Line, Tally, judge
from orchestrator.cli.output import console
from orchestrator.db.alerts import stored
from orchestrator.errors import Overloaded
from orchestrator.parts import Parts
from orchestrator.runtime.room import admit_alerts
from orchestrator.streams.names import ALERTS, CPS_ALERTS, Stream

BATCH = 500  # alerts looked up and sent together
PATIENCE = 1.0  # seconds that an alert out of a slow pipe waits for others
EVERY = 5.0  # seconds between lines where there is no terminal
# Ids of this run that are not sent twice: the record may be that far behind. 20 MB.
REMEMBERED = 100_000
LONGEST_WAIT = 10.0  # seconds; between looks whether Redis has room again


class Ingest:
    """One run over one file."""

    def __init__(self, parts: Parts, *, name: str, bad: IO[bytes] | None) -> None:
        """Store. `name`: the file's, for the audit; `bad`: where bad lines go."""
        self.parts = parts
        self.name = name
        self.bad = bad
        self.tally = Tally()
        self.new = 0
        self._sent: dict[str, None] = {}
        self._send_at = time.monotonic() + PATIENCE

    async def run(self, file: IO[bytes], *, kind: AlertKind) -> None:
        """To the end of the file. Raises Unavailable; the same run again goes on from there."""
        streams = self.parts.streams
        await streams.ensure_groups({streams.keys.of(each): each for each in (ALERTS, CPS_ALERTS)})
        batch: list[Line] = []
        with self._telling(file) as tell:
            for line in judge(file, kind=kind, limit=self.parts.settings.max_payload):
                self.tally.add(line)
                if line.alert is not None:
                    batch.append(line)
                elif line.problems and self.bad is not None:
                    self.bad.write(line.data + b"\n")
                if len(batch) >= BATCH or (batch and time.monotonic() >= self._send_at):
                    await self._send(batch)
                    batch.clear()
                    self._send_at = time.monotonic() + PATIENCE
                tell(line)
            if batch:
                await self._send(batch)

    async def _send(self, batch: list[Line]) -> None:
        alerts = {line.alert.id: line for line in batch if line.alert and self._unsent(line.alert)}
        for known in await stored(self.parts.database, alerts) if alerts else ():
            del alerts[known]
        lines = list(alerts.values())
        if not lines:
            return
        publisher = self.parts.publisher
        await self._patiently(lambda: publisher.publish_alerts([_entry(each) for each in lines]))
        await self._patiently(
            lambda: publisher.audit(
                "alerts.ingested",
                object_type="alert",
                object_id=next(iter(alerts)),
                actor=opening.actor(),
                detail={"count": len(lines), "file": self.name, "to_line": lines[-1].number},
            )
        )
        self.new += len(lines)
        self._sent |= dict.fromkeys(alerts)
        while len(self._sent) > REMEMBERED:
            del self._sent[next(iter(self._sent))]

    def _unsent(self, alert: Alert) -> bool:
        return alert.id not in self._sent

    async def _patiently(self, act: Callable[[], Awaitable[None]]) -> None:
        """Wait for room where there is none; what was there by half is one alert all the same."""
        while True:
            try:
                await admit_alerts(self.parts.streams)
                return await act()
            except Overloaded as error:
                print(f"aurora: {error}; waiting", file=sys.stderr)
                await asyncio.sleep(min(error.retry_after, LONGEST_WAIT))

    @contextmanager
    def _telling(self, file: IO[bytes]) -> Iterator["Tell"]:
        """A bar on a terminal; elsewhere a line every few seconds."""
        try:
            total = os.fstat(file.fileno()).st_size or None  # a pipe has none
        except OSError:
            total = None
        shown = console(stderr=True)
        with Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=40), TimeRemainingColumn(),
            console=shown, transient=True, disable=not shown.is_terminal,
        ) as progress:  # fmt: skip
            bar = progress.add_task(self.name, total=total)
            yield Tell(self, progress, bar, total)


def _entry(line: Line) -> tuple[Stream, str, bytes]:
    assert line.alert is not None  # noqa: S101 - only such lines are kept
    stream = CPS_ALERTS if line.alert.kind is AlertKind.CPS else ALERTS
    return stream, line.alert.id, line.data


class Tell:
    """How far a run has come."""

    def __init__(self, run: Ingest, progress: Progress, bar: TaskID, total: int | None) -> None:
        """Store. `total`: bytes of the file, None where nobody knows."""
        self.run = run
        self.progress = progress
        self.bar = bar
        self.total = total
        self._next_line = time.monotonic() + EVERY

    def __call__(self, line: Line) -> None:
        """This line is done."""
        said = f"{self.run.tally.alerts:,} alerts, {self.run.new:,} new"
        self.progress.update(self.bar, completed=line.end, description=said)
        if self.progress.disable and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + EVERY
            share = f", {line.end / self.total:.0%}" if self.total else ""
            print(f"{self.run.name}: line {line.number:,}, {said}{share}", file=sys.stderr)
