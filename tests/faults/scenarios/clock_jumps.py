"""Clocks that are set, forwards and back, while tasks run."""

import asyncio
import time
from collections.abc import Mapping

from orchestrator.streams.names import ORCHESTRATOR
from tests.faults.checks import MADE_UP, began_again
from tests.faults.clocks import Clocked
from tests.faults.ground import Slot
from tests.faults.ledger import read_starts
from tests.faults.scenario import Scenario, Scene

MINUTES, HOUR, DAY = 120.0, 3_600.0, 86_400.0
JUMPS = (MINUTES, -MINUTES, HOUR, -HOUR, DAY, -DAY)
# Of clocks that the checker itself reads: it must see that they were off, to leave them out.
LONG_JUMPS = (HOUR, -HOUR, DAY, -DAY)
HELD = (0.5, 4.0)  # seconds until it jumps back: that, too, is a jump
# Seconds from a worker's death until its tasks run again, where a clock went back just then: until
# another worker looks, then a lease, and the waits of a busy machine. Measured: Valkey counts BLOCK
# by its wall clock. BLOCK 1000 was answered after 0.3 s when that was set forwards, and not within
# 6 s when it was set back by an hour; we give up after 6.
LATEST = 15.0
KILL_SHARE = 0.4  # of the jumps meet a worker that dies just before the jump back
FED = 20  # tasks for that worker and the others; three of them run for a second
TAKEN = 0.2  # seconds until they run, and the shorter ones have ended


class ClockJumps(Scenario):
    name = "clock-jumps"
    breaks = "Redis' clock, Postgres' or a worker's jumps by 2 min, 1 h or a day, and back"
    guards = ("a clock that went back is not noticed", "no owner check")
    tasks = 2_400
    faults = 40  # each is two jumps
    pause = (0.2, 1.0)
    lasts = 2.25
    longest = 2.0
    delayed = 0.2
    servers = Clocked
    apart = True  # the dead are waited for by Redis' clock
    patience = 6.0  # for such a read

    async def inject(self, scene: Scene) -> None:
        rng, clocks = scene.rng, _servers(scene).clocks
        # Mostly Redis', whose wall clock is what leases and delays go by.
        whose = rng.choice(["redis", "redis", "redis", "postgres", "worker-0"])
        seconds = rng.choice(JUMPS if whose == "redis" else LONG_JUMPS)
        clocks[whose].jump(seconds)
        await asyncio.sleep(rng.uniform(*HELD))
        await self._look(scene, whose, seconds)
        if rng.random() < KILL_SHARE:
            # What it has in hand was delivered at a time that may then be far in the future.
            await scene.load.more(FED)
            await asyncio.sleep(TAKEN)
            scene.ground.kill(await _busiest(scene))
        clocks[whose].jump(0.0)

    async def _look(self, scene: Scene, whose: str, seconds: float) -> None:
        """Count the jump, once the server's own clock has shown it; a worker is not asked."""
        now = time.time()
        if whose == "redis":
            now, _ = await scene.ground.parts.streams.commands.time()
        elif whose == "postgres":
            (row,) = await scene.ground.rows("SELECT extract(epoch FROM now())::float8 AS now")
            now = row.now
        if whose == "worker-0" or abs(now - time.time() - seconds) < MINUTES / 2:
            _servers(scene).seen[f"jumps of {whose}, forth and back"] += 2

    async def told(self, scene: Scene) -> Mapping[str, int]:
        return _servers(scene).seen

    async def wrong(self, scene: Scene) -> Mapping[str, list[str]]:
        ground = scene.ground
        again = began_again(read_starts(ground.notes), ground.kills)
        # What worker-0 noted while its own clock was off says nothing.
        late = [f"{late:.1f} s" for late, *_ in again if LATEST < late < MADE_UP]
        return {"waited for the clock": late}


async def _busiest(scene: Scene) -> Slot:
    streams = scene.ground.parts.streams
    found = await streams.commands.xinfo_consumers(streams.keys.tasks, ORCHESTRATOR)
    in_hand = {each["name"].decode().split("-")[-2]: each["pending"] for each in found}
    return max(scene.ground.workers, key=lambda slot: in_hand.get(str(slot.process.pid), 0))


def _servers(scene: Scene) -> Clocked:
    servers = scene.ground.servers
    assert isinstance(servers, Clocked)
    return servers
