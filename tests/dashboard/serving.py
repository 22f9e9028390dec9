"""What the dashboard's tests share: the site over real servers, called without a port."""

import re
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2
from fastapi.routing import APIRoute

from orchestrator.api.parts import ApiParts
from orchestrator.dashboard.forms import token_of
from orchestrator.dashboard.site import Site, create_site
from orchestrator.db import keys
from orchestrator.db.session import FOR_PEOPLE, Database
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from tests.api import parts_of

HERE = "http://dashboard"
SOME_ID = "018f0000-0000-7000-8000-000000000001"


@dataclass(frozen=True)
class Person:
    """A browser of somebody who signed in."""

    client: httpx2.AsyncClient
    key_id: str
    key: str

    async def get(self, path: str) -> httpx2.Response:
        return await self.client.get(path)

    async def send(
        self, path: str, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> httpx2.Response:
        """Send a form as a page of ours does."""
        token = token_of(self.client.cookies["aurora"])
        return await self.client.post(path, data={"csrf": token} | fields, headers=headers)


@dataclass(frozen=True)
class Dashboard:
    """The site of one test."""

    site: Site
    parts: ApiParts
    reading: Database

    @property
    def routes(self) -> list[tuple[str, str, APIRoute]]:
        """(method, path, route) of every page."""
        return [
            (method, route.path, route)
            for route in self.site.pages.routes
            if isinstance(route, APIRoute)
            for method in sorted(route.methods)
        ]

    def filled(self, path: str) -> str:
        """The path with something for each of its parameters."""
        return re.sub(r"\{\w+_id\}", SOME_ID, path).replace("{name}", "echo")

    def browser(self, **headers: str) -> httpx2.AsyncClient:
        """A browser that nobody has signed in with; it follows no redirect by itself."""
        transport = httpx2.ASGITransport(app=self.site, raise_app_exceptions=False)
        sent = {"Sec-Fetch-Site": "same-origin", "Origin": HERE} | headers
        return httpx2.AsyncClient(transport=transport, base_url=HERE, headers=sent)

    async def person(self, scopes: Collection[str] = ("admin",)) -> Person:
        """Somebody with a new key of these scopes, signed in."""
        key_id, key = await keys.create_key(self.parts.database, "test", scopes)
        client = self.browser()
        answer = await client.post("/sign-in", data={"key": key})
        assert answer.status_code == 303, answer.text
        assert urlsplit(answer.headers["location"]).netloc == ""
        return Person(client, key_id, key)


@asynccontextmanager
async def serving(
    settings: Settings, database: Database, streams: Streams
) -> AsyncIterator[Dashboard]:
    """A site of this test's own."""
    parts = parts_of(settings, database, streams)
    reading = Database(settings.async_database_url, pool_size=2, settings=FOR_PEOPLE)
    yield Dashboard(create_site(parts, reading=reading), parts, reading)
    await parts.live.close()
    await reading.close()
