"""Hours of faults: what processes and servers hold does not grow."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import ClassVar

import httpx2

from orchestrator.db.keys import create_key
from orchestrator.embedded.ports import LOOPBACK, free_port
from tests.faults.agents import GOOD, Flaky
from tests.faults.ground import Ground
from tests.faults.sampling import Sampler
from tests.faults.scenario import EITHER, Noticed, Scenario, Scene
from tests.faults.scenarios.postgres_cut import PostgresCut
from tests.faults.scenarios.recorder_kill import RecorderKill
from tests.faults.scenarios.redis_restart import RedisRestart
from tests.faults.scenarios.worker_kill import WorkerKill
from tests.faults.scenarios.zombie import Zombie

# FLUSHALL is not among them: it would hide whatever gathers in Redis.
KILLS = (WorkerKill(), RecorderKill())
OTHERS = (Zombie(), PostgresCut())
# A restart forgets for how long consumers have been silent, so that none would ever be for long.
SELDOM = (RedisRestart(),)
ASKED = ("/readyz", "/metrics", "/api/v1/tasks?limit=50", "/api/v1/audit?limit=50")


class Soak(Scenario):
    name = "soak"
    breaks = "a mix for hours; one worker, one recorder and the API are never killed, and measured"
    guards = ("each delivery is kept", "dead consumers are kept", "descriptors are kept")
    tasks = 9_000  # about 30 a second
    faults = 54  # about five minutes
    pause = (2.0, 6.0)
    lasts = 1.0
    workers = 3
    recorders = 2
    durabilities = EITHER
    agents = (*GOOD, Flaky)
    delayed = 0.2
    # So that what is remembered of ended tasks has its full size after a quarter of five minutes.
    environment: ClassVar[Mapping[str, str]] = {"AURORA_MARKER_TTL": "60"}
    # As in the mix: the reconciler's hold. And a delayed task may have its retry still before it.
    patience = 14.0

    async def inject(self, scene: Scene) -> None:
        kind = scene.rng.choice((KILLS + OTHERS) * 2 + SELDOM)
        if kind in KILLS:
            scene = replace(scene, ground=_mortal(scene.ground))
        await kind.inject(scene)

    @contextlib.asynccontextmanager
    async def beside(self, scene: Scene) -> AsyncIterator[Noticed]:
        ground, port = scene.ground, free_port()
        _, key = await create_key(ground.parts.database, "soak", ["admin"])
        api = await ground.add("api", AURORA_PORT=str(port))
        steady = (ground.workers[0], ground.recorders[0], api)
        sampler = Sampler(ground, steady)
        noticed = Noticed()
        beside = [
            asyncio.create_task(sampler.run()),
            asyncio.create_task(_ask(f"http://{LOOPBACK}:{port}", key)),
        ]
        try:
            yield noticed
        finally:
            sampler.stop()
            for each in beside:
                each.cancel()
            ended = await asyncio.gather(*beside, return_exceptions=True)
        noticed.wrong = sampler.wrong()
        noticed.wrong["ended by itself"] = [slot.log.stem for slot in steady if slot.deaths]
        noticed.wrong["not asked"] = [
            repr(each) for each in ended if not isinstance(each, asyncio.CancelledError)
        ]
        noticed.told = sampler.told()


def _mortal(ground: Ground) -> Ground:
    """The same without the first worker and the first recorder."""
    return replace(ground, workers=ground.workers[1:], recorders=ground.recorders[1:])


async def _ask(url: str, key: str) -> None:
    """Requests as people and scrapers make them, a few a second; each on a new connection."""
    headers = {"Authorization": f"Bearer {key}"}
    while True:
        for path in ASKED:
            with contextlib.suppress(httpx2.HTTPError):
                async with httpx2.AsyncClient(base_url=url, headers=headers) as client:
                    await client.get(path)
            await asyncio.sleep(0.5)
