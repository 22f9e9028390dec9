"""What the API's tests share: the application over real servers, called without a port."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx2
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from orchestrator import Agent, RunContext, crontab
from orchestrator.api.app import create_app
from orchestrator.api.live import Live
from orchestrator.api.parts import ApiParts
from orchestrator.db import keys
from orchestrator.db.session import Database
from orchestrator.db.tasks import TaskStore
from orchestrator.registry import AgentRegistry
from orchestrator.runtime.room import Room
from orchestrator.runtime.submitter import TaskSubmitter
from orchestrator.settings import Settings
from orchestrator.streams.arbiter import Arbiter
from orchestrator.streams.connection import Streams
from orchestrator.streams.publisher import Publisher
from orchestrator.streams.tail import ResultTail


class Words(BaseModel):
    """What the agent of these tests takes."""

    text: str = Field(max_length=100)
    times: int = 1


class Echo(Agent[Words, str]):
    """Say it again."""

    schedules = (crontab("0 6 * * *", input={"text": "good morning"}),)

    async def run(self, task_input: Words, ctx: RunContext) -> str:
        return task_input.text * task_input.times


class Anything(Agent[dict[str, Any], Any]):
    """Take any object."""

    name = "anything"
    queue = "side"

    async def run(self, task_input: dict[str, Any], ctx: RunContext) -> Any:
        return task_input


@dataclass(frozen=True)
class Api:
    """The application, and a client that carries an admin's key."""

    app: FastAPI
    parts: ApiParts
    client: httpx2.AsyncClient
    key: str
    key_id: str

    @property
    def actor(self) -> str:
        return f"key:{self.key_id}"

    def anonymous(self) -> httpx2.AsyncClient:
        """A client without a key."""
        return _client(self.app)

    async def with_scopes(self, scopes: Collection[str]) -> dict[str, str]:
        """The headers of a new key with these scopes."""
        _, text = await keys.create_key(self.parts.database, "test", scopes)
        return {"Authorization": f"Bearer {text}"}

    @property
    def routes(self) -> list[APIRoute]:
        return [each for each in self.app.routes if isinstance(each, APIRoute)]

    async def submit(self, **body: Any) -> str:
        """Submit one task; its id."""
        answer = await self.client.post(
            "/api/v1/tasks", json={"agent": "echo", "input": {"text": "hello"}} | body
        )
        assert answer.status_code == 202, answer.text
        found: str = answer.json()["id"]
        return found


@asynccontextmanager
async def serving(settings: Settings, database: Database, streams: Streams) -> AsyncIterator[Api]:
    """An application of this test's own."""
    parts = parts_of(settings, database, streams)
    app = create_app(parts)
    key_id, key = await keys.create_key(database, "test", ["admin"])
    async with _client(app, {"Authorization": f"Bearer {key}"}) as client:
        yield Api(app=app, parts=parts, client=client, key=key, key_id=key_id)
    await parts.live.close()


def parts_of(
    settings: Settings,
    database: Database,
    streams: Streams,
    *,
    registry: AgentRegistry | None = None,
) -> ApiParts:
    """What the application is given, with two agents unless others are given."""
    publisher = Publisher(streams, producer="api:test")
    tail = ResultTail(streams)
    return ApiParts(
        settings=settings,
        database=database,
        streams=streams,
        publisher=publisher,
        submitter=TaskSubmitter(
            publisher,
            store=lambda: TaskStore(database),
            tail=tail,
            arbiter=Arbiter(streams, ttl=timedelta(minutes=1)),
            durability=settings.durability,
            max_payload=settings.max_payload,
            room=Room(streams, max_backlog=1_000_000),
        ),
        registry=registry or AgentRegistry([Echo, Anything]),
        live=Live(streams, database, max_payload=settings.max_payload),
    )


def _client(app: FastAPI, headers: dict[str, str] | None = None) -> httpx2.AsyncClient:
    # As a server would: an exception is answered, not raised at the caller.
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://api", headers=headers)


def assert_problem(answer: httpx2.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The body, after a look at whether it is a problem as RFC 9457 and design section 5 say."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert {
        "type", "title", "status", "detail", "instance", "code", "errors", "request_id",
        "retryable",
    } <= set(body)  # fmt: skip
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    if code is not None:
        assert body["code"] == code, body
    return body
