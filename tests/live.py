"""What the tests of the live feeds share: an API on a port, alerts on the streams, clients."""

import asyncio
import json
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from orchestrator.api.server import HttpServer
from orchestrator.db.session import Database
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.streams.names import ALERTS, CPS_ALERTS
from orchestrator.task import new_id
from tests.api import Api, serving
from tests.support import wait_until


@dataclass(frozen=True)
class Replica:
    """One API process, as far as its clients can tell."""

    api: Api
    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/api/v1/alerts/live"

    @property
    def header(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api.key}"}

    @asynccontextmanager
    async def client(self, query: str = "", **options: Any) -> AsyncIterator["Client"]:
        """A WebSocket that is live: its first word was heard."""
        options.setdefault("additional_headers", self.header)
        # Or its close would wait for messages that nobody takes any more.
        options.setdefault("max_queue", None)
        async with connect(f"{self.url}{query}", **options) as found:
            yield Client(found)


@dataclass
class Client:
    """One WebSocket, and what it was told."""

    socket: ClientConnection
    position: str | None = None
    heard: deque[dict[str, Any]] = field(default_factory=deque)  # of a frame, and not yet asked for

    async def next(self) -> dict[str, Any]:
        """The next message, whatever it is."""
        if not self.heard:
            async with asyncio.timeout(20):
                self.heard.extend(json.loads(await self.socket.recv()))
        said = self.heard.popleft()
        self.position = said["id"]
        return said

    async def live(self) -> "Client":
        """Itself, when the past is told."""
        while "live" not in await self.next():
            pass
        return self

    async def alerts(self, count: int) -> list[dict[str, Any]]:
        """The next alerts; a gap among them is returned as well."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            said = await self.next()
            if "live" not in said:
                found.append(said)
        return found

    async def signatures(self, count: int) -> list[str]:
        """The next alerts, by what they say."""
        return [said["alert"]["signature"] for said in await self.alerts(count)]


@asynccontextmanager
async def replica(
    settings: Settings, database: Database, streams: Streams
) -> AsyncIterator[Replica]:
    """An API on a port of its own, stopped as a process stops."""
    async with serving(settings, database, streams) as api:
        listener = socket.create_server(("127.0.0.1", 0))
        server = HttpServer(api.app, listener, stopping=api.parts.live.stop)
        running = asyncio.create_task(server.run())
        await wait_until(lambda: server._server.started, what="the API serves")
        try:
            yield Replica(api, listener.getsockname()[1])
        finally:
            server.stop()
            await running


async def alert(
    streams: Streams, signature: str, *, severity: str = "high", cps: bool = False, **fields: str
) -> str:
    """Publish one as any program could; its entry id."""
    data = json.dumps({"signature": signature, "severity": severity})
    key = streams.keys.of(CPS_ALERTS if cps else ALERTS)
    entry = await streams.commands.xadd(key, {"id": new_id(), "data": data, **fields})
    return str(entry.decode())
