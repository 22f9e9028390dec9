"""One after the other, whatever the seed says."""

from tests.faults.scenario import Scenario, Scene
from tests.faults.scenarios.flushall import FlushAll
from tests.faults.scenarios.postgres_cut import PostgresCut
from tests.faults.scenarios.recorder_kill import RecorderKill
from tests.faults.scenarios.redis_restart import RedisRestart
from tests.faults.scenarios.worker_kill import WorkerKill
from tests.faults.scenarios.zombie import Zombie

KINDS = (WorkerKill(), RecorderKill(), Zombie(), FlushAll(), RedisRestart(), PostgresCut())


class Mix(Scenario):
    name = "mix"
    breaks = "one of the others, chosen by the seed"
    guards = ("nobody takes over from the dead",)
    tasks = 800
    faults = 12
    # The reconciler that was killed has a hold of 10 s, which the next one waits for.
    patience = 10.0

    async def inject(self, scene: Scene) -> None:
        await scene.rng.choice(KINDS).inject(scene)
