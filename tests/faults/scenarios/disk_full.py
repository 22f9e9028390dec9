"""The disk under Postgres is full."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.faults import mounts
from tests.faults.scenario import EITHER, Noticed, Scenario, Scene
from tests.faults.servers import Servers

TOLD = "No space left on device"


class OnSmallDisk(Servers):
    """Postgres on a file system of its own, which 200 MB fill."""

    async def start(self) -> None:
        mounts.mount(self.home / "postgres", megabytes=200)
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        mounts.unmount(self.home / "postgres")


class DiskFull(Scenario):
    name = "disk-full"
    breaks = "the file system under Postgres is filled to the last byte, and freed (needs root)"
    guards = ("acknowledged although not written",)
    tasks = 1_500
    faults = 10
    pause = (1.0, 3.0)
    lasts = 4.0
    durabilities = EITHER
    mounts = True
    servers = OnSmallDisk
    # Postgres may have ended over it, and then reads its log again when it starts.
    patience = 5.0

    async def inject(self, scene: Scene) -> None:
        filler = scene.ground.home / "postgres" / "filler"
        await asyncio.to_thread(_fill, filler)
        await asyncio.sleep(scene.rng.uniform(2.0, 5.0))
        filler.unlink()
        # Where it could not even write its log it has ended; a supervisor would do this.
        await asyncio.to_thread(scene.ground.postgres.start)

    @contextlib.asynccontextmanager
    async def beside(self, scene: Scene) -> AsyncIterator[Noticed]:
        noticed = Noticed()
        yield noticed
        logs = [slot.log.read_text(errors="replace") for slot in scene.ground.recorders]
        noticed.wrong = {"not told": [] if any(TOLD in log for log in logs) else [TOLD]}


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
