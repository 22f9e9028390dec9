"""Redis has less memory than it uses: whoever adds work is refused, whoever ends it is not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from orchestrator.streams.connection import translated
from tests.faults.scenario import EITHER, Noticed, Scenario, Scene

REFUSED = "endings wait: refused for now"  # what a worker's log says then (completion.py)


class MaxMemory(Scenario):
    name = "maxmemory"
    breaks = "maxmemory is set below what is used (noeviction), and up again"
    guards = ("completions are refused, too",)
    tasks = 2_000
    faults = 20
    pause = (1.0, 2.0)
    lasts = 2.0
    durabilities = EITHER

    async def inject(self, scene: Scene) -> None:
        commands = scene.ground.parts.streams.commands
        with translated():
            before = (await commands.config_get("maxmemory"))["maxmemory"]
            used = int((await commands.info("memory"))["used_memory"])
            await commands.config_set("maxmemory", int(used * scene.rng.uniform(0.5, 0.95)))
            await asyncio.sleep(scene.rng.uniform(1.0, 3.0))
            await commands.config_set("maxmemory", before)

    @contextlib.asynccontextmanager
    async def beside(self, scene: Scene) -> AsyncIterator[Noticed]:
        noticed = Noticed()
        yield noticed
        lines = [
            line
            for slot in scene.ground.workers
            for line in slot.log.read_text(errors="replace").splitlines()
        ]
        noticed.wrong = {
            "completions refused": [line for line in lines if REFUSED in line],
            "nobody was refused": [] if scene.load.refused else ["all submissions got through"],
        }
