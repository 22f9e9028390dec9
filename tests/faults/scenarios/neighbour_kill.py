"""SIGKILL of workers of one machine, where the others see it at once."""

from tests.faults.scenario import Scene
from tests.faults.scenarios.worker_kill import WorkerKill


class NeighbourKill(WorkerKill):
    name = "neighbour-kill"
    breaks = "the same on one machine, where nobody waits for a lease"
    guards = ("nobody sees a neighbour's end", "a neighbour's file is proof enough")
    apart = False

    async def wrong(self, scene: Scene) -> dict[str, list[str]]:
        """Each end is seen: what was in hand is taken over before its lease has run out."""
        said = [slot.log.read_text() for slot in scene.ground.workers]
        silent = sum(text.count("from a consumer that fell silent") for text in said)
        over = sum(text.count("from a process of this machine") for text in said)
        return {"waited for the lease": [f"{silent} times, and {over} not"] * (silent >= over)}
