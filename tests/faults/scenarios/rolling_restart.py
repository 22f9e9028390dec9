"""Every process is asked to end and started again, one after the other, as a deployment does it."""

import asyncio
import signal
from collections import Counter
from collections.abc import Mapping
from typing import ClassVar

from tests.faults.ground import Slot
from tests.faults.ledger import read_starts
from tests.faults.scenario import EITHER, Scenario, Scene
from tests.support import wait_until

GRACE = 5.0  # seconds; the longest task takes one


class RollingRestart(Scenario):
    name = "rolling-restart"
    breaks = "SIGTERM of each worker and recorder in turn; the next one once it has ended"
    guards = ("nothing is finished at SIGTERM",)
    tasks = 2_000
    faults = 20  # rounds, each of every process
    pause = (0.3, 0.8)
    lasts = 6.0
    workers = 3
    recorders = 2
    durabilities = EITHER
    environment: ClassVar[Mapping[str, str]] = {"AURORA_GRACE": str(GRACE)}

    async def inject(self, scene: Scene) -> None:
        for slot in (*scene.ground.workers, *scene.ground.recorders):
            await _restart(slot)
            await asyncio.sleep(scene.rng.uniform(0.2, 0.8))

    async def wrong(self, scene: Scene) -> Mapping[str, list[str]]:
        starts = Counter(start.task_id for start in read_starts(scene.ground.notes))
        return {"started more than once": [each for each, count in starts.items() if count > 1]}


async def _restart(slot: Slot) -> None:
    ended = slot.process
    ended.send_signal(signal.SIGTERM)
    # The ground's supervisor sees its end, and starts the next one.
    await wait_until(
        lambda: slot.process is not ended, what=f"{slot.log.stem} ends", timeout=GRACE + 10
    )
