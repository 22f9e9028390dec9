"""Redis dies and comes back with its append-only file."""

import asyncio

from tests.faults.scenario import Scenario, Scene


class RedisRestart(Scenario):
    name = "redis-restart"
    breaks = "SIGKILL of Valkey, up to a second of nothing, then its append-only file again"
    guards = ("no reconciler",)
    faults = 20
    pause = (0.5, 2.0)

    async def inject(self, scene: Scene) -> None:
        valkey = scene.ground.valkey
        await asyncio.to_thread(valkey.kill)
        await asyncio.sleep(scene.rng.uniform(0, 1.0))
        await asyncio.to_thread(valkey.start)
