"""Redis' machine loses power: what was written and not yet on the disk is gone."""

import asyncio
import os
import time

from tests.faults.scenario import Scenario, Scene

# Bytes. A second of this load (appendfsync everysec) is less; the first megabyte would be all.
MOST = 64 * 1024


class PowerLoss(Scenario):
    name = "power-loss"
    breaks = "SIGKILL of Valkey, and the end of its append-only file is cut off before it restarts"
    guards = ("no reconciler",)
    faults = 20
    pause = (0.5, 2.0)

    async def inject(self, scene: Scene) -> None:
        ground = scene.ground
        ground.forgot.append(time.time())
        await asyncio.to_thread(ground.valkey.kill)
        files = (ground.home / "valkey").rglob("*.incr.aof")
        newest = max(files, key=lambda path: path.stat().st_mtime)
        size = newest.stat().st_size
        os.truncate(newest, size - scene.rng.randint(0, min(size, MOST)))
        await asyncio.to_thread(ground.valkey.start)
