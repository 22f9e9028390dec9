"""One after the other, whatever the seed says."""

from tests.faults.http_load import EitherLoad
from tests.faults.scenario import Scenario, Scene
from tests.faults.scenarios.api_kill import ApiKill
from tests.faults.scenarios.flushall import FlushAll
from tests.faults.scenarios.postgres_cut import PostgresCut
from tests.faults.scenarios.recorder_fail_points import RecorderFailPoints
from tests.faults.scenarios.recorder_kill import RecorderKill
from tests.faults.scenarios.redis_restart import RedisRestart
from tests.faults.scenarios.worker_fail_points import WorkerFailPoints
from tests.faults.scenarios.worker_kill import WorkerKill
from tests.faults.scenarios.zombie import Zombie

KINDS = (
    WorkerKill(), WorkerFailPoints(), RecorderKill(), RecorderFailPoints(), ApiKill(), Zombie(),
    FlushAll(), RedisRestart(), PostgresCut(),
)  # fmt: skip


class Mix(Scenario):
    name = "mix"
    breaks = "one of the others, chosen by the seed"
    guards = ("nobody takes over from the dead",)
    tasks = 800
    faults = 12
    apis = 1
    delayed = 0.1
    load = EitherLoad
    # The reconciler that was killed has a hold of 10 s, which the next one waits for.
    patience = 10.0

    async def inject(self, scene: Scene) -> None:
        await scene.rng.choice(KINDS).inject(scene)
