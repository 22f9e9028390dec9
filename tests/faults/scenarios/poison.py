"""Tasks that end the process they run in."""

from tests.faults.agents import ALONE, IN_WORKER
from tests.faults.scenario import Scenario, Scene


class Poison(Scenario):
    name = "poison"
    breaks = "tasks among the good ones that abort, exit or loop for ever, in workers and alone"
    guards = ("a suspect among the others",)
    tasks = 1_000
    faults = 20
    pause = (0.5, 2.0)
    # A poison takes two workers along, a lease each, and its third start is an interpreter of its
    # own; its neighbours' third start is one, too.
    patience = 12.0

    async def inject(self, scene: Scene) -> None:
        kind = IN_WORKER if scene.rng.random() < 0.4 else ALONE
        await scene.load.poison(scene.rng.choice(kind))
