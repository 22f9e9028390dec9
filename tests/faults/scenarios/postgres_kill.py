"""Postgres dies and recovers."""

import asyncio

from tests.faults.scenario import EITHER, Scenario, Scene


class PostgresKill(Scenario):
    name = "postgres-kill"
    breaks = "SIGKILL of Postgres, up to a second of nothing, then its crash recovery"
    guards = ("acknowledged although not written",)
    faults = 15
    pause = (5.0, 20.0)
    durabilities = EITHER

    async def inject(self, scene: Scene) -> None:
        postgres = scene.ground.postgres
        await asyncio.to_thread(postgres.kill)
        await asyncio.sleep(scene.rng.uniform(0, 1.0))
        await asyncio.to_thread(postgres.start)
