"""Servers start once a run; each test has its own key prefix and its own database."""

import asyncio
import contextlib
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from queue import SimpleQueue
from typing import Any

import asyncpg
import pytest
from redis import Redis

from orchestrator.db import schema
from orchestrator.db.session import Database
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.streams.names import Keys
from tests.servers import Servers, start_servers
from tests.support import wait_until

TEMPLATE = f"template{secrets.token_hex(6)}"  # of this process alone: a server may be shared
_started: list[str] = []
Ran = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Redis and Postgres for the whole run, with a migrated database to copy."""
    with start_servers() as found:
        _started.append(found.kind)
        asyncio.run(_make_template(found))
        yield found
        asyncio.run(_drop_template(found))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which servers the run used."""
    if _started:
        terminalreporter.write_line(f"servers: {_started[0]}")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own settings must not reach a test; what a test wants it sets itself."""
    for name in list(os.environ):
        if name.startswith(("AURORA_", "OTEL_")) and not name.startswith("AURORA_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture
def keys() -> Keys:
    """A key prefix of this test's own."""
    return Keys(f"t{secrets.token_hex(6)}")


@pytest.fixture
async def streams(servers: Servers, keys: Keys) -> AsyncIterator[Streams]:
    """The door to Redis; afterwards nothing of this test is left there."""
    found = Streams(servers.redis_url, keys)
    yield found
    async for key in found.commands.scan_iter(match=f"{keys.prefix}:*", count=1000):
        await found.commands.delete(key)
    await found.close()


@pytest.fixture
async def database_url(servers: Servers) -> AsyncIterator[str]:
    """A migrated database of this test's own, dropped afterwards."""
    name = f"t{secrets.token_hex(6)}"
    admin = await asyncpg.connect(servers.database_url)
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield servers.database(name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The door to Postgres."""
    found = Database(database_url.replace("postgresql://", "postgresql+asyncpg://"))
    yield found
    await found.close()


@pytest.fixture
def settings(servers: Servers, keys: Keys, database_url: str) -> Settings:
    """Settings of one test: a short lease, no agents folder."""
    return Settings(
        redis_url=servers.redis_url,
        database_url=database_url,
        prefix=keys.prefix,
        agents=(),
        lease=timedelta(seconds=2),
    )


async def _make_template(servers: Servers) -> None:
    admin = await wait_until(lambda: _connected(servers.database_url), what="Postgres")
    # Where the server's own default is SQL_ASCII, its jsonb would take no text beyond ASCII.
    await admin.execute(f"CREATE DATABASE {TEMPLATE} ENCODING 'UTF8' TEMPLATE template0")
    await admin.close()
    url = servers.database(TEMPLATE).replace("postgresql://", "postgresql+asyncpg://")
    database = Database(url)
    await schema.upgrade(database)
    await database.close()


async def _connected(url: str) -> asyncpg.Connection | None:
    """None while it listens and is not ready yet: it said only that it listens."""
    try:
        return await asyncpg.connect(url)
    except asyncpg.CannotConnectNowError:
        return None


async def _drop_template(found: Servers) -> None:
    admin = await asyncpg.connect(found.database_url)
    await admin.execute(f"DROP DATABASE {TEMPLATE}")
    await admin.close()


@pytest.fixture(scope="session")
def mutants(
    request: pytest.FixtureRequest, servers: Servers
) -> Iterator[Mapping[str, Future[Ran]]]:
    """By test: each module's `without(name)`, for the names that were chosen. Not for xdist.

    On all cores, since each waits for servers most of its time; from the first integration test on,
    which wait for the same. They share this run's Postgres, and have one Redis at a time each: to
    start them would be half of a mutant.
    """
    items = [each for each in request.session.items if "ran" in getattr(each, "fixturenames", ())]
    free: SimpleQueue[str] = SimpleQueue()

    def run(item: Any) -> Ran:
        redis = free.get()
        try:
            _empty(redis)
            shared = {
                "AURORA_TEST_POSTGRES_URL": servers.database_url, "AURORA_TEST_REDIS_URL": redis,
            }  # fmt: skip
            found: Ran = item.module.without(item.callspec.params["name"], shared)
            return found
        finally:
            free.put(redis)

    with contextlib.ExitStack() as stack:
        for _ in range(min(len(items), os.cpu_count() or 1)):
            started = start_servers(postgres=servers.database_url)
            free.put(stack.enter_context(started).redis_url)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            yield {item.nodeid: pool.submit(run, item) for item in items}
            pool.shutdown(cancel_futures=True)


def _empty(url: str) -> None:
    """Nothing of the mutant before is left, its settings neither."""
    with Redis.from_url(url) as redis:
        redis.config_set("maxmemory", 0)
        redis.config_set("maxmemory-policy", "noeviction")
        redis.flushall()


@pytest.fixture
def ran(mutants: Mapping[str, Future[Ran]], request: pytest.FixtureRequest) -> Ran:
    """How this test's process ended."""
    return mutants[request.node.nodeid].result()
