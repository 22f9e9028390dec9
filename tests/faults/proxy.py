"""A TCP proxy that loses replies, delays, and stands still: `python -m tests.faults.proxy`.

A process of its own, so that a busy event loop elsewhere does not slow it down. It takes orders on
its standard input, one JSON object a line, and answers each with one; it ends with its input.
`Lines` (lines.py) is the other end.
"""

import asyncio
import contextlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Any

from tests.faults.wires import WIRES

LOOPBACK = "127.0.0.1"
CHUNK = 65_536  # bytes


class Line:
    """One port to be connected to, and where it leads."""

    def __init__(self, losses: Counter[str], lost: Counter[str], *, kind: str, target: int) -> None:
        self.losses = losses  # replies that are still to be lost, by kind; shared by all lines
        self.lost = lost
        self.kind = kind
        self.target = target
        self.links: set[Link] = set()
        self.delay = (0.0, 0.0)  # seconds, from and to
        self.open = {"up": asyncio.Event(), "down": asyncio.Event()}
        for each in self.open.values():
            each.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection, from its beginning to its end."""
        link = Link(self, reader, writer)
        self.links.add(link)
        try:
            await link.run()
        finally:
            self.links.discard(link)

    async def passing(self, direction: str) -> None:
        """Wait for as long as the network takes, or is cut."""
        if self.delay[1]:
            await asyncio.sleep(random.uniform(*self.delay))
        await self.open[direction].wait()


class Link:
    """One connection through a line."""

    def __init__(
        self, line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._line = line
        self._wire = WIRES[line.kind]()
        self._client = reader, writer
        self._running: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Forward until either side ends, or it is cut off."""
        self._running = asyncio.current_task()
        writers = [self._client[1]]
        try:
            for direction in ("up", "down"):
                await self._line.passing(direction)
            server_reader, server_writer = await asyncio.open_connection(
                LOOPBACK, self._line.target
            )
            writers.append(server_writer)
            up = asyncio.create_task(self._up(self._client[0], server_writer))
            down = asyncio.create_task(self._down(server_reader, self._client[1]))
            try:
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                up.cancel()
                down.cancel()
                await asyncio.gather(up, down, return_exceptions=True)
        except OSError:
            pass
        except asyncio.CancelledError:
            pass  # cut off: it ends here
        finally:
            for writer in writers:
                writer.transport.abort()

    def cut_off(self) -> None:
        """End it with a reset on either side."""
        if self._running is not None:
            self._running.cancel()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            self._wire.asked(data)
            await self._line.passing("up")
            writer.write(data)
            await writer.drain()
        await self._line.passing("up")  # the end is a packet, too

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            answers = self._wire.answered(data)
            if any(self._line.losses[kind] > 0 for kind in answers):
                # The request has been carried out; whoever asked will not hear of it, nor of what
                # else was answered in the same breath.
                for kind in answers:
                    self._line.losses[kind] -= self._line.losses[kind] > 0
                    self._line.lost[kind] += 1
                return
            await self._line.passing("down")
            writer.write(data)
            await writer.drain()
        await self._line.passing("down")


class Proxy:
    """All lines, and the orders that they are given."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._losses: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()

    async def obey(self, order: dict[str, Any]) -> Any:
        """Carry out one order: {"do": the method's name, ...its arguments}."""
        return await getattr(self, order.pop("do"))(**order)

    async def lay(self, *, name: str, kind: str, target: int) -> int:
        """Another line; the port to connect to."""
        line = Line(self._losses, self._lost, kind=kind, target=target)
        server = await asyncio.start_server(line.accept, LOOPBACK, 0)
        self._lines[name] = line
        return int(server.sockets[0].getsockname()[1])

    async def lead(self, *, lines: str, target: int) -> None:
        """New connections go elsewhere; those that stand stay where they are."""
        for line in self._matching(lines):
            line.target = target

    async def lose(self, *, kinds: list[str]) -> None:
        """Lose one more reply of each of these, on whatever connection it comes."""
        self._losses.update(kinds)

    async def lost(self) -> dict[str, int]:
        """How many replies have been lost, by kind."""
        return dict(self._lost)

    async def keep(self) -> None:
        """Lose no more."""
        self._losses.clear()

    async def delay(self, *, lines: str, low: float, high: float) -> None:
        """Each piece of either direction takes so many seconds more."""
        for line in self._matching(lines):
            line.delay = (low, high)

    async def cut(self, *, lines: str, directions: list[str]) -> None:
        """Forward nothing in these directions ("up" is to the server), and end no connection."""
        for line in self._matching(lines):
            for direction in directions:
                line.open[direction].clear()

    async def heal(self, *, lines: str) -> None:
        """Forward again, what was held back first, as TCP would."""
        for line in self._matching(lines):
            line.delay = (0.0, 0.0)
            for each in line.open.values():
                each.set()

    async def cut_off(self, *, lines: str) -> int:
        """Reset every connection; how many there were."""
        links = [link for line in self._matching(lines) for link in line.links]
        for link in links:
            link.cut_off()
        return len(links)

    def _matching(self, pattern: str) -> Iterable[Line]:
        return [line for name, line in self._lines.items() if fnmatch(name, pattern)]


async def main() -> None:
    """Obey until the input ends."""
    proxy = Proxy()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while order := await reader.readline():
        print(json.dumps(await proxy.obey(json.loads(order))), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
