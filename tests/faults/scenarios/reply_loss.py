"""The request arrives and is carried out; its answer does not come back."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping

from orchestrator.task import TERMINAL
from tests.faults.lines import Lines, Proxied
from tests.faults.scenario import EITHER, Scenario, Scene

# What the answer is to: commands and scripts of Redis (all that changes who has what), and the
# COMMIT of the client and of the recorder.
KINDS = ("XADD", "XREADGROUP", "begin", "finish", "acknowledge", "COMMIT")
PATIENCE = 1.0  # seconds until another kind has its turn: of this one nothing may be under way
PAGE = 1_000  # entries


class ReplyLoss(Scenario):
    name = "reply-loss"
    breaks = "the proxy throws a reply away and resets the connection; the caller asks again"
    guards = ("a second end overwrites the first", "no end marker")
    tasks = 800
    faults = 400
    pause = (0.0, 0.04)
    durabilities = EITHER
    servers = Proxied
    asks_again = True

    async def inject(self, scene: Scene) -> None:
        lines = lines_of(scene)
        before = await lines.lost()
        await lines.lose(scene.rng.choice(KINDS))
        deadline = time.monotonic() + PATIENCE
        while await lines.lost() == before and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await lines.keep()

    async def told(self, scene: Scene) -> Mapping[str, float]:
        lost = await lines_of(scene).lost()
        return {
            "replies lost": sum(lost.values()),
            **{f"  of {kind}": count for kind, count in sorted(lost.items())},
            "entries more than tasks": await self._doubled(scene),
        }

    async def wrong(self, scene: Scene) -> Mapping[str, list[str]]:
        """Here nothing takes a marker away, so it must hold by itself, before Postgres looks."""
        ends: Counter[str] = Counter()
        streams, after = scene.ground.parts.streams, "-"
        while page := await streams.commands.xrange(streams.keys.results, min=after, count=PAGE):
            after = f"({page[-1][0].decode()}"
            said = [json.loads(fields[b"data"]) for _, fields in page]
            ends.update(each["task_id"] for each in said if each["event"] in TERMINAL)
        return {
            "ended twice in Redis": [task_id for task_id, count in ends.items() if count > 1],
            "no entry was doubled": [] if await self._doubled(scene) > 0 else ["no fault"],
        }

    async def _doubled(self, scene: Scene) -> int:
        """What was lost on the way back and sent again: the proof that the replies were lost."""
        streams = scene.ground.parts.streams
        said = await streams.commands.xinfo_stream(streams.keys.tasks)
        (rows,) = await scene.ground.rows("SELECT count(*) AS count FROM tasks")
        return int(said["entries-added"]) - int(rows.count)


def lines_of(scene: Scene) -> Lines:
    """The proxy of a scene that has one."""
    servers = scene.ground.servers
    assert isinstance(servers, Proxied)
    return servers.lines
