"""Redis forgets everything."""

import time

from tests.faults.scenario import Scenario, Scene


class FlushAll(Scenario):
    name = "flushall"
    breaks = "FLUSHALL: every message, group and marker is gone (durability database)"
    guards = ("no reconciler",)
    faults = 30
    pause = (0.5, 2.0)

    async def inject(self, scene: Scene) -> None:
        scene.ground.forgot.append(time.time())
        await scene.ground.parts.streams.commands.flushall()
