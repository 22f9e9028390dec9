"""Redis' clock is set back, by a library that a server of the test is started with."""

from datetime import timedelta

import pytest

from orchestrator.streams.connection import Streams
from orchestrator.streams.consumer import Consumer
from orchestrator.streams.names import ORCHESTRATOR, TASKS, Keys
from orchestrator.streams.publisher import Publisher
from tests.faults.clocks import Clock, JumpyValkey, compiled
from tests.faults.servers import CannotRun
from tests.support import wait_until

HOUR = 3_600.0


async def test_what_the_dead_have_in_hand_does_not_wait_for_a_clock_that_went_back(tmp_path):
    """P5: an entry that was delivered in what is the future now is claimed a lease later."""
    try:
        clock = Clock(tmp_path / "clock", compiled(tmp_path))
    except CannotRun as missing:
        pytest.skip(str(missing))
    valkey = JumpyValkey(tmp_path / "valkey")
    valkey.clock = clock
    clock.jump(HOUR)
    with valkey:
        streams = Streams(valkey.start(), Keys("test"))
        publisher = Publisher(streams, producer="test")
        dead, alive = (
            Consumer(
                streams, group=ORCHESTRATOR, name=name, lease=timedelta(seconds=0.2),
                publisher=publisher,
            )
            for name in ("dead", "alive")
        )  # fmt: skip
        key = streams.keys.tasks
        await dead.watch({key: TASKS})
        await alive.watch({key: TASKS})
        await publisher.publish_data(TASKS, b"{}")
        (taken,) = await dead.read(1)

        clock.jump(0.0)

        (claimed,) = await wait_until(lambda: alive.read(1, block=0.1), what="it is claimed")
        await streams.close()

    assert claimed.entry_id == taken.entry_id
    assert claimed.times == 2
