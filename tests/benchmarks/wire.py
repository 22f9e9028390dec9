"""The least of a Redis client: commands packed by hiredis, replies parsed by hiredis, in order.

What the raw loops speak with. Plain TCP and a password only; no reconnecting, no timeouts.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import hiredis

Part = str | bytes | int
pack = hiredis.pack_command


class Wire(asyncio.Protocol):
    """One connection; futures are answered first in, first out."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._transport: asyncio.WriteTransport | None = None

    @classmethod
    async def connect(cls, url: str) -> Self:
        """Connect and log in."""
        parts = urlsplit(url)
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(cls, parts.hostname, parts.port or 6379)
        if parts.password:
            login = [unquote(each) for each in (parts.username, parts.password) if each]
            await wire.call("AUTH", *login)
        await wire.call("SELECT", parts.path.strip("/") or "0")
        return wire

    async def call(self, *parts: Part) -> Any:
        """One command and its reply."""
        (reply,) = await self.send([pack(parts)])
        return reply

    async def send(self, packed: Sequence[bytes]) -> list[Any]:
        """Many packed commands in one write; their replies. Raises the first error of them."""
        futures = [asyncio.get_running_loop().create_future() for _ in packed]
        self._waiting.extend(futures)
        assert self._transport is not None
        self._transport.write(b"".join(packed))
        await futures[-1]
        replies = [each.result() for each in futures]
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._waiting.popleft().set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_exception(error or ConnectionError("closed"))
