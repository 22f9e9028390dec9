"""The dashboard on a port with a morning's rows, for browsers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.api.server import HttpServer, listen
from orchestrator.dashboard.rendering import NAVIGATION
from orchestrator.dashboard.site import create_site
from orchestrator.db import keys
from orchestrator.db.session import FOR_PEOPLE, Database
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from tests.api import parts_of
from tests.dashboard.seed import REGISTRY, morning, sow


@dataclass(frozen=True)
class Ground:
    """Where it is, and a key for everything."""

    url: str
    key: str
    database: Database
    streams: Streams
    navigation: list[str]  # paths of the pages that it leads to


@asynccontextmanager
async def served(
    settings: Settings, database: Database, streams: Streams, *, port: int = 0
) -> AsyncIterator[Ground]:
    """Until the end of the block."""
    await sow(database, morning(datetime.now(UTC)))
    _, key = await keys.create_key(database, "Ada Byron, shift lead", ["admin"])
    parts = parts_of(settings, database, streams, registry=REGISTRY)
    reading = Database(settings.async_database_url, pool_size=4, settings=FOR_PEOPLE)
    listener = listen("127.0.0.1", port)
    site = create_site(parts, reading=reading)
    server = HttpServer(site, listener, stopping=parts.live.stop)
    running = asyncio.create_task(server.run())
    try:
        yield Ground(
            f"http://127.0.0.1:{listener.getsockname()[1]}", key, database, streams,
            [each.path for each in NAVIGATION if site.is_page(each.path)],
        )  # fmt: skip
    finally:
        server.stop()
        with suppress(asyncio.CancelledError):
            await running
        await parts.live.close()
        await reading.close()
