"""Somebody removes a consumer group, and with it what was delivered to whom."""

from orchestrator.streams.names import ORCHESTRATOR, RECORDER
from tests.faults.scenario import Scenario, Scene


class GroupDestroyed(Scenario):
    name = "group-destroyed"
    breaks = "XGROUP DESTROY of the workers' or the recorder's group (durability database)"
    guards = ("a group made anew skips what waits, and nobody publishes it again",)
    faults = 20
    pause = (0.5, 2.0)

    async def inject(self, scene: Scene) -> None:
        keys = scene.ground.parts.streams.keys
        stream, group = scene.rng.choice(
            [(keys.tasks, ORCHESTRATOR), (keys.tasks, RECORDER), (keys.results, RECORDER)]
        )
        await scene.ground.parts.streams.commands.xgroup_destroy(stream, group)
