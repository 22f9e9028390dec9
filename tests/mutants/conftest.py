"""Mutants on all cores: each is a process of its own, which waits for servers most of its time.

They share this run's Postgres, whose start would be half of what a mutant takes.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.servers import Servers

Ran = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def _under_way(
    request: pytest.FixtureRequest, servers: Servers
) -> Iterator[Mapping[str, Future[Ran]]]:
    """By test: each module's `without(name)`, for the names that were chosen. Not for xdist."""
    shared = {"AURORA_TEST_POSTGRES_URL": servers.database_url}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {
            item.nodeid: pool.submit(item.module.without, item.callspec.params["name"], shared)
            for item in request.session.items
            if "ran" in getattr(item, "fixturenames", ())
        }
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def ran(_under_way: Mapping[str, Future[Ran]], request: pytest.FixtureRequest) -> Ran:
    """How this test's process ended."""
    return _under_way[request.node.nodeid].result()
