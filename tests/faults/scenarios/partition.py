"""One process and one server do not hear each other for a while, and no connection ends."""

import asyncio

from tests.faults.lines import BOTH, Proxied
from tests.faults.scenario import EITHER, Scenario, Scene
from tests.faults.scenarios.reply_loss import lines_of

# Seconds: from shorter than the lease (2 s) to longer than the wait for a command's answer (5 s).
CUT = (1.0, 6.0)
SLOW = (1.0, 3.0)  # seconds of a slow network,
JITTER = (0.2, 1.0)  # in which each piece takes so many seconds more
DIRECTIONS = (BOTH, ("up",), ("down",))


class Partition(Scenario):
    name = "partition"
    breaks = "one process is cut off from one server (both directions, one, or slow) for 1 to 6 s"
    guards = ("no owner check",)
    tasks = 1_200
    faults = 30
    pause = (0.1, 0.6)
    durabilities = EITHER
    lasts = 3.0
    servers = Proxied
    longest = 5.0  # so that a run that was cut off is under way when others begin it again
    # What was on its way when the last cut healed may be given up by its sender only then, after
    # the 5 s for an answer; and a task may have begun just then.
    patience = 10.0

    async def inject(self, scene: Scene) -> None:
        lines, rng = lines_of(scene), scene.rng
        # Workers are met three times as often as the others, as there are three. They use no
        # Postgres here.
        who = rng.choice(["worker-0", "worker-1", "worker-2", "recorder-0", "client"])
        server = "redis" if who.startswith("worker") else rng.choice(["redis", "postgres"])
        line = f"{server}:{who}"
        if rng.random() < 0.25:
            await lines.delay(line, *JITTER)
            await asyncio.sleep(rng.uniform(*SLOW))
        else:
            await lines.cut(line, rng.choice(DIRECTIONS))
            await asyncio.sleep(rng.uniform(*CUT))
        # Either what was held back arrives late, or the network between has forgotten it.
        if rng.random() < 0.5:
            await lines.cut_off(line)
        await lines.heal(line)
