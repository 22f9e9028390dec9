"""SIGKILL of workers, each as on a machine of its own: the lease decides."""

from tests.faults.scenario import EITHER, Scenario, Scene


class WorkerKill(Scenario):
    name = "worker-kill"
    breaks = "SIGKILL of one of three workers, which is started again at once"
    guards = ("nobody takes over from the dead",)
    durabilities = EITHER
    apart = True

    async def inject(self, scene: Scene) -> None:
        scene.ground.kill(scene.rng.choice(scene.ground.workers))
