"""A worker that stands still for longer than its lease, and goes on as if nothing had been."""

import asyncio
import signal

from tests.faults.ground import LEASE
from tests.faults.scenario import EITHER, Scenario, Scene


class Zombie(Scenario):
    name = "zombie"
    breaks = "SIGSTOP of a worker for longer than its lease, then SIGCONT"
    guards = ("no owner check",)
    tasks = 1_500
    faults = 20
    pause = (0.2, 0.8)
    durabilities = EITHER

    async def inject(self, scene: Scene) -> None:
        process = scene.rng.choice(scene.ground.workers).process
        # Others look for entries of the silent once a second, so from one second past the lease
        # on its tasks run elsewhere when it comes back.
        seconds = scene.rng.uniform(LEASE + 0.2, 2 * LEASE)
        process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            process.send_signal(signal.SIGCONT)
