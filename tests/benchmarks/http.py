"""The least of an HTTP/1.1 client, so that what is measured is the server: one connection, kept."""

import asyncio
from typing import Any, Self

from pydantic_core import from_json, to_json

CONNECT_WITHIN = 10.0  # seconds; the port opens a moment after the gate


class Http:
    """POSTs JSON to 127.0.0.1, one request after the other."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._key = key

    @classmethod
    async def connect(cls, port: int, key: str) -> Self:
        """Wait for the port, then connect."""
        async with asyncio.timeout(CONNECT_WITHIN):
            while True:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.02)
                else:
                    return cls(reader, writer, key)

    async def post(self, path: str, body: Any) -> Any:
        """The answer's JSON. Raises RuntimeError unless it was accepted."""
        sent = to_json(body)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
        )
        self._writer.write(head.encode() + sent)
        answered = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(answered.partition("content-length:")[2].partition("\r\n")[0])
        found = await self._reader.readexactly(length)
        if " 202 " not in answered.partition("\r\n")[0]:
            raise RuntimeError(f"{path}: {answered.splitlines()[0]}: {found[:300]!r}")
        return from_json(found)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()
