"""SIGKILL of workers at each named point."""

from tests.faults.orders import next_point, strike
from tests.faults.points import WORKER
from tests.faults.scenario import EITHER, Scenario, Scene


class WorkerFailPoints(Scenario):
    name = "worker-fail-points"
    breaks = "one of three workers kills itself at a named point, one point after the other"
    guards = ("nobody takes over from the dead",)
    durabilities = EITHER
    pause = (0.0, 0.5)

    async def inject(self, scene: Scene) -> None:
        point = next_point(scene.ground, WORKER, scene.rng)
        await strike(scene.ground, point, scene.rng, feed=lambda: scene.load.more(6))
