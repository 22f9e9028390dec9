"""A mountain of tasks waits, and is worked off: no process grows with it."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

from orchestrator.task import Durability
from tests.faults.agents import Short
from tests.faults.sampling import Limit, Sampler
from tests.faults.scenario import Noticed, Scenario, Scene
from tests.support import wait_until

# Of the processes alone: the servers are meant to fill.
ROOM = {"rss": Limit(1.10, 0)}
EVERY = 0.5  # seconds between samples: a hundred thousand are worked off in half a minute


class Backlog(Scenario):
    name = "backlog"
    breaks = "every task (--tasks 1000000) is submitted before the workers may begin"
    guards = ("each delivery is kept",)
    tasks = 100_000
    faults = 1
    pause = (0.1, 0.1)
    lasts = 1.0
    workers = 2
    durabilities = (Durability.STREAM,)
    batch = 1_000
    agents = (Short,)
    longest = 0.05

    async def inject(self, scene: Scene) -> None:
        await _submitted(scene)
        for slot in scene.ground.workers:
            slot.process.send_signal(signal.SIGCONT)
        within = 60 + scene.load.total / 100  # seconds
        await wait_until(lambda: _empty(scene), what="the mountain is worked off", timeout=within)

    @contextlib.asynccontextmanager
    async def beside(self, scene: Scene) -> AsyncIterator[Noticed]:
        # The mountain itself is not to be refused: a million tasks take about 0.6 GB.
        await scene.ground.parts.streams.commands.config_set("maxmemory", "4gb")
        for slot in scene.ground.workers:
            slot.process.send_signal(signal.SIGSTOP)
        slots = (*scene.ground.workers, *scene.ground.recorders)
        sampler = Sampler(scene.ground, slots, every=EVERY)

        async def sample() -> None:
            await _submitted(scene)
            await sampler.run()

        noticed, sampling = Noticed(), asyncio.create_task(sample())
        try:
            yield noticed
        finally:
            sampler.stop()
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
        noticed.wrong = sampler.wrong(limits=ROOM)
        noticed.told = sampler.told()


async def _submitted(scene: Scene) -> None:
    while scene.load.accepted < scene.load.total:  # noqa: ASYNC110 - the load tells nobody
        await asyncio.sleep(0.1)


async def _empty(scene: Scene) -> bool:
    return await scene.ground.parts.streams.backlog() == 0
