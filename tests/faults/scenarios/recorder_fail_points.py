"""SIGKILL of the recorder, and of the reconciler beside it, at each named point."""

from tests.faults.orders import next_point, strike
from tests.faults.points import RECONCILER, RECORDER
from tests.faults.scenario import EITHER, Scenario, Scene


class RecorderFailPoints(Scenario):
    name = "recorder-fail-points"
    breaks = "the only recorder (and reconciler) kills itself at a named point, one after the other"
    guards = ("acknowledged when it is read", "acknowledged before the commit", "no reconciler")
    tasks = 1_500
    faults = 40
    pause = (0.0, 0.3)
    # The last reconciler that was killed has a hold of 10 s, which the next one waits for.
    patience = 10.0
    durabilities = EITHER

    async def inject(self, scene: Scene) -> None:
        streams = scene.ground.parts.streams
        point = next_point(scene.ground, (*RECORDER, *RECONCILER), scene.rng)

        async def feed() -> None:
            await scene.load.more(3)
            if point in RECONCILER:
                await scene.load.unpublished(2)

        # As though Redis had lost it: else the next reconciler waits for its end at each fault.
        await streams.commands.delete(f"{streams.keys.prefix}:held:reconciler")
        await strike(scene.ground, point, scene.rng, feed=feed)
