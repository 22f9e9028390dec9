"""SIGKILL of the recorder, with the reconciler in the same process."""

from tests.faults.scenario import EITHER, Scenario, Scene


class RecorderKill(Scenario):
    name = "recorder-kill"
    breaks = "SIGKILL of the only recorder (and reconciler), which is started again at once"
    guards = ("acknowledged when it is read",)
    durabilities = EITHER
    pause = (1.0, 2.5)  # a recorder needs a second to start, and is to be met at work

    async def inject(self, scene: Scene) -> None:
        scene.ground.kill(scene.rng.choice(scene.ground.recorders))
