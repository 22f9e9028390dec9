"""SIGKILL of the API, most of all between the commit and the publishing."""

from collections.abc import Mapping

from tests.faults.figures import spread
from tests.faults.http_load import HttpLoad
from tests.faults.orders import next_point, strike
from tests.faults.points import API, COMMITTED
from tests.faults.scenario import Scenario, Scene, Told

PUBLISHED_WITHIN = 5.0  # seconds from the acceptance, p99
DELAYS = """SELECT extract(epoch FROM published_at - created_at) AS seconds
FROM tasks WHERE published_at IS NOT NULL"""


class ApiKill(Scenario):
    name = "api-kill"
    breaks = "SIGKILL of one of two API processes: after its commit, at other points, at random"
    guards = ("no reconciler", "a key that names no task")
    tasks = 1_500
    faults = 40
    pause = (0.1, 0.5)
    workers = 1
    apis = 2
    load = HttpLoad

    async def inject(self, scene: Scene) -> None:
        kind = scene.rng.random()
        if kind < 0.15:
            scene.ground.kill(scene.rng.choice(scene.ground.apis))
            return
        point = COMMITTED if kind < 0.7 else next_point(scene.ground, API, scene.rng)
        await strike(scene.ground, point, scene.rng, feed=lambda: scene.load.more(6))

    async def told(self, scene: Scene) -> Told:
        load = scene.load
        assert isinstance(load, HttpLoad)
        return {
            "seconds to publish": spread(await _delays(scene)),
            "requests": {"unanswered": load.unanswered, "replayed": load.replayed},
        }

    async def wrong(self, scene: Scene) -> Mapping[str, list[str]]:
        p99 = spread(await _delays(scene)).get("p99", 0.0)
        late = [f"{p99} s"] if p99 > PUBLISHED_WITHIN else []
        return {f"p99 published after {PUBLISHED_WITHIN:g} s": late}


async def _delays(scene: Scene) -> list[float]:
    return [float(row.seconds) for row in await scene.ground.rows(DELAYS)]
