"""The lease thread, while the main loop is blocked."""

import threading
import time
from datetime import timedelta

from orchestrator.runtime.lease import Lease
from orchestrator.runtime.witness import Witness
from orchestrator.streams.connection import Streams
from orchestrator.streams.names import ORCHESTRATOR


async def test_it_outlives_a_group_that_is_gone(servers, keys):
    """P5: FLUSHALL while an agent blocks the loop; without the thread every lease is lost."""
    lease = Lease(
        lambda: Streams(servers.redis_url, keys),
        group=ORCHESTRATOR,
        consumer="a",
        lease=timedelta(seconds=2),
        marker_ttl=timedelta(minutes=1),
        witness=Witness(),
        lanes=lambda: [keys.tasks],
        on_lost=lambda _: None,
    )
    lease.start()

    time.sleep(1.5)  # noqa: ASYNC251 - the fault under test

    assert "aurora lease" in {thread.name for thread in threading.enumerate()}
    await lease.stop()
