"""What one process is made of, each part made when it is first asked for.

What needs Postgres is imported when it is first needed, so that a worker that only runs agents
stays small.
"""

import os
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orchestrator.model_options import ModelOptions
from orchestrator.registry import AgentRegistry, load_agents
from orchestrator.runtime.room import Room
from orchestrator.runtime.submitter import TaskSubmitter
from orchestrator.runtime.witness import Witness
from orchestrator.settings import Settings
from orchestrator.streams.arbiter import Arbiter
from orchestrator.streams.connection import Streams
from orchestrator.streams.consumer import Consumer
from orchestrator.streams.names import Keys
from orchestrator.streams.neighbours import Neighbours, scope_of, unique_name
from orchestrator.streams.publisher import Publisher
from orchestrator.streams.tail import ResultTail
from orchestrator.tracing.opening import open_tracing

if TYPE_CHECKING:
    from orchestrator.api.live import Live
    from orchestrator.db.session import Database
    from orchestrator.db.tasks import TaskStore
    from orchestrator.embedded.llama import LocalModel
    from orchestrator.tracing.spans import Tracing

READING_POOL = 4  # connections of the dashboard; a page takes two at a time


class Parts:
    """What one process is made of, each part made when it is first asked for."""

    def __init__(
        self, settings: Settings, *, role: str, registry: AgentRegistry | None = None
    ) -> None:
        """Store. `registry`: given by tests and programs that have their agents at hand."""
        self.settings = settings
        self.name = unique_name(role)
        self._registry = registry

    @cached_property
    def registry(self) -> AgentRegistry:
        """The agents that the settings name. Raises ConfigurationError."""
        return self._registry or load_agents(self.settings.agents)

    @cached_property
    def tracing(self) -> "Tracing | None":
        """None where OpenTelemetry's variables name no collector."""
        content = self.settings.trace_content
        return open_tracing(os.environ, instance=self.name, content=content)

    @cached_property
    def streams(self) -> Streams:
        return self.open_streams()

    def open_streams(self, *, connections: int = 8) -> Streams:
        """Another door to Redis, with connections of its own."""
        return Streams(
            self.settings.redis_url.get_secret_value(),
            Keys(self.settings.prefix),
            connections=connections,
        )

    @cached_property
    def publisher(self) -> Publisher:
        return Publisher(self.streams, producer=self.name)

    @cached_property
    def neighbours(self) -> Neighbours:
        url = self.settings.redis_url.get_secret_value()
        scope = scope_of(url, self.settings.prefix)
        return Neighbours(self.settings.locks, scope=scope, name=self.name)

    @cached_property
    def witness(self) -> Witness:
        """Of a worker that has entered among its neighbours already."""
        return Witness(self.neighbours.memory)

    @cached_property
    def database(self) -> "Database":
        from orchestrator.db.session import Database  # noqa: PLC0415 - loads SQLAlchemy

        return Database(self.settings.async_database_url, pool_size=self.settings.database_pool)

    @cached_property
    def reading(self) -> "Database":
        """For what people look at: given up after 2 s, and never short of connections for us."""
        from orchestrator.db.session import FOR_PEOPLE, Database  # noqa: PLC0415 - loads SQLAlchemy

        url = self.settings.async_database_url
        return Database(url, pool_size=READING_POOL, settings=FOR_PEOPLE)

    @cached_property
    def store(self) -> "TaskStore":
        from orchestrator.db.tasks import TaskStore  # noqa: PLC0415 - loads SQLAlchemy

        return TaskStore(self.database)

    @cached_property
    def arbiter(self) -> Arbiter:
        return Arbiter(self.streams, ttl=self.settings.marker_ttl)

    @cached_property
    def tail(self) -> ResultTail:
        return ResultTail(self.streams)

    @cached_property
    def submitter(self) -> TaskSubmitter:
        return TaskSubmitter(
            self.publisher,
            store=lambda: self.store,
            tail=self.tail,
            arbiter=self.arbiter,
            durability=self.settings.durability,
            max_payload=self.settings.max_payload,
            room=self.room,
            tracing=self.tracing,
        )

    @cached_property
    def live(self) -> "Live":
        from orchestrator.api.live import Live  # noqa: PLC0415 - loads SQLAlchemy

        return Live(self.streams, self.database, max_payload=self.settings.max_payload)

    @cached_property
    def room(self) -> Room:
        return Room(self.streams, max_backlog=self.settings.max_backlog)

    @cached_property
    def models(self) -> "Models":
        return Models(self.settings)

    def consumer(self, group: str) -> Consumer:
        """A new member of a group, under this process' name."""
        return Consumer(
            self.streams,
            group=group,
            name=self.name,
            lease=self.settings.lease,
            publisher=self.publisher,
            neighbours=self.neighbours,
        )

    async def read(self, sql: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Rows for agents (`ctx.query`), in a transaction that cannot write."""
        from orchestrator.db.reading import read  # noqa: PLC0415 - loads SQLAlchemy

        return await read(self.database, sql, params)

    async def close(self) -> None:
        """Close what was opened."""
        if "submitter" in self.__dict__:
            await self.submitter.close()
        if "tail" in self.__dict__:
            await self.tail.stop()
        if "live" in self.__dict__:
            await self.live.close()
        if "streams" in self.__dict__:
            await self.streams.close()
        if "reading" in self.__dict__:
            await self.reading.close()
        if "database" in self.__dict__:
            await self.database.close()
        if "tracing" in self.__dict__ and self.tracing is not None:
            await self.tracing.close()
        if "models" in self.__dict__:
            await self.models.close()
        if "neighbours" in self.__dict__:
            self.neighbours.leave()


class Models:
    """What agents are told of models: the options, and the one of this machine."""

    def __init__(self, settings: Settings) -> None:
        """Store."""
        self.options = settings.models
        self._locks = settings.locks
        self._file = settings.model_file

    @cached_property
    def _local(self) -> "LocalModel":
        from orchestrator.embedded.llama import LocalModel  # noqa: PLC0415 - an extra's
        from orchestrator.embedded.weights import cache_directory  # noqa: PLC0415

        cache = cache_directory(os.environ)
        # Beside the locks, not among them: a file there without a lock is one that ended.
        in_memory = self._locks.with_name(f"{self._locks.name}-model")
        folder = in_memory if in_memory.parent.is_dir() else cache / "model"
        return LocalModel(folder, cache=cache, file=self._file)

    async def told(self) -> ModelOptions:
        """The options."""
        return self.options

    async def local(self) -> str:
        """Start the model of this machine where it does not run; its address."""
        return await self._local.url()

    async def close(self) -> None:
        """End the model of this machine where we started it."""
        if "_local" in self.__dict__:
            await self._local.close()
