"""Clocks that are set, forwards and back, while tasks run."""

import asyncio
import time
from collections.abc import Mapping

from tests.faults.checks import began_again
from tests.faults.clocks import Clocked
from tests.faults.ledger import read_starts
from tests.faults.scenario import Scenario, Scene

MINUTES, HOUR, DAY = 120.0, 3_600.0, 86_400.0
JUMPS = (MINUTES, -MINUTES, HOUR, -HOUR, DAY, -DAY)
HELD = (0.5, 4.0)  # seconds until it jumps back: that, too, is a jump
# Seconds from a worker's death until its tasks run again: a lease from when it is seen that the
# clock went back, and the waits of a busy machine.
LATEST = 8.0
KILL_SHARE = 0.4  # of the jumps meet a worker that dies just before the jump back


class ClockJumps(Scenario):
    name = "clock-jumps"
    breaks = "Redis' clock jumps by 2 min, 1 h or a day, and back; so do others' clocks"
    guards = ("a clock that went back is not noticed", "no owner check")
    tasks = 2_400
    faults = 30
    pause = (0.2, 1.0)
    lasts = 2.25
    longest = 2.0
    servers = Clocked

    async def inject(self, scene: Scene) -> None:
        servers, rng = scene.ground.servers, scene.rng
        assert isinstance(servers, Clocked)
        clock = servers.clocks["redis"]
        clock.jump(seconds := rng.choice(JUMPS))
        await asyncio.sleep(rng.uniform(*HELD))
        seen, _ = await scene.ground.parts.streams.commands.time()
        servers.seen += abs(seen - time.time() - seconds) < 1.0 + HELD[1]
        if rng.random() < KILL_SHARE:
            # What it had in hand was delivered at a time that may now be far in the future.
            scene.ground.kill(rng.choice(scene.ground.workers))
        clock.jump(0.0)

    async def told(self, scene: Scene) -> Mapping[str, int]:
        servers = scene.ground.servers
        assert isinstance(servers, Clocked)
        return {"jumps seen in Redis' TIME": servers.seen}

    async def wrong(self, scene: Scene) -> Mapping[str, list[str]]:
        ground = scene.ground
        again = began_again(read_starts(ground.notes), ground.kills)
        return {"waited for the clock": [f"{late:.1f} s" for late, _ in again if late > LATEST]}
