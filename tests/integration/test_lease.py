"""The lease thread, while the main loop is blocked."""

import asyncio
import threading
import time
from datetime import timedelta

import pytest

from orchestrator.runtime.lease import Lease
from orchestrator.runtime.witness import Witness
from orchestrator.streams.connection import Streams
from orchestrator.streams.consumer import Delivery
from orchestrator.streams.names import ORCHESTRATOR
from tests.support import wait_until


@pytest.fixture
async def lease(servers, keys):
    found = Lease(
        lambda: Streams(servers.redis_url, keys),
        group=ORCHESTRATOR,
        consumer="a",
        lease=timedelta(seconds=2),
        marker_ttl=timedelta(minutes=1),
        witness=Witness(),
        lanes=lambda: [keys.tasks],
        on_lost=lambda _: None,
    )
    yield found
    await found.stop()


async def test_it_outlives_a_group_that_is_gone(lease):
    """P5: FLUSHALL while an agent blocks the loop; without the thread every lease is lost."""
    lease.start()

    time.sleep(2.0)  # noqa: ASYNC251 - the fault under test

    assert "aurora lease" in {thread.name for thread in threading.enumerate()}


async def test_it_rests_until_something_is_received(lease, monkeypatch):
    """P5: what a worker has just received, its thread looks after at once."""
    monkeypatch.setattr("orchestrator.runtime.lease.REST", 3600.0)
    lease._lease = timedelta(hours=3)  # or the rest ends with the time to renew
    lease.start()
    await wait_until(lambda: lease._rouse is not None, what="it rests")
    looked = lease._answered

    lease.received([Delivery("tasks", "1-0", {})])

    await wait_until(lambda: lease._answered > looked, what="a look at the main loop")
    await asyncio.wait_for(lease.stop(), 10)  # also on its way to its next rest
