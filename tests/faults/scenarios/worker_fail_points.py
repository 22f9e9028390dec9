"""SIGKILL of workers, and of the promoter in each, at each named point."""

from tests.faults.orders import next_point, strike
from tests.faults.points import PROMOTER, WORKER
from tests.faults.scenario import EITHER, Scenario, Scene


class WorkerFailPoints(Scenario):
    name = "worker-fail-points"
    breaks = "one of three workers (and promoters) kills itself at a named point, one after another"
    guards = ("nobody takes over from the dead",)
    durabilities = EITHER
    apart = True
    delayed = 0.2  # for the promoter to move
    pause = (0.5, 1.5)
    # A task that two workers died with runs alone, in an interpreter of its own: a second of CPU.
    patience = 12.0

    async def inject(self, scene: Scene) -> None:
        point = next_point(scene.ground, (*WORKER, *PROMOTER), scene.rng)
        await strike(scene.ground, point, scene.rng, feed=lambda: scene.load.more(2))
