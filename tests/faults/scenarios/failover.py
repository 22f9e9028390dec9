"""The primary dies, and its replica had not heard everything."""

import asyncio
import time
from collections.abc import Mapping

from orchestrator.embedded.valkey import EmbeddedValkey
from tests.faults.replicated import Replicated, freeze, thaw
from tests.faults.scenario import Scenario, Scene

LAG = (0.5, 2.0)  # seconds of acknowledged writes that the replica does not get
ZOMBIE_SHARE = 0.4  # of the primaries are not dead
TWO_PRIMARIES = (0.5, 2.0)  # seconds
PROCESSES = ("worker-0", "worker-1", "worker-2", "recorder-0", "client")


class Failover(Scenario):
    name = "failover"
    breaks = "the primary dies, or comes back as a zombie, and a lagging replica takes its place"
    guards = ("no reconciler",)
    tasks = 1_000
    faults = 20
    pause = (0.5, 1.5)
    lasts = 3.0
    servers = Replicated

    async def inject(self, scene: Scene) -> None:
        servers, rng = _servers(scene), scene.rng
        await servers.lag()
        await asyncio.sleep(rng.uniform(*LAG))
        zombie = rng.random() < ZOMBIE_SHARE
        written = await _entries(scene, servers.valkey)
        if zombie:
            freeze(servers.valkey)
        else:
            await asyncio.to_thread(servers.valkey.kill)
        await asyncio.sleep(rng.uniform(0, 0.5))  # until somebody decides
        scene.ground.forgot.append(time.time())
        await servers.promote()
        servers.gone["lost suffix, entries"] += written - await _entries(scene, servers.valkey)
        if zombie:
            # Some reach the new primary; the connections of the others stand, and they go on with
            # the old one until it is told that it is none.
            for who in rng.sample(PROCESSES, 2):
                await servers.lines.cut_off(f"redis:{who}")
            thaw(servers.replica)
            await asyncio.sleep(rng.uniform(*TWO_PRIMARIES))
            servers.gone["zombies"] += 1
            servers.gone["written to zombies, entries"] += (
                await _entries(scene, servers.replica) - written
            )
        else:
            await asyncio.to_thread(servers.replica.start)
        await servers.follow()

    async def told(self, scene: Scene) -> Mapping[str, int]:
        return _servers(scene).gone

    async def wrong(self, scene: Scene) -> Mapping[str, list[str]]:
        lost = _servers(scene).gone["lost suffix, entries"]
        return {"no entry was lost": [] if lost > 0 else ["no fault"]}


def _servers(scene: Scene) -> Replicated:
    servers = scene.ground.servers
    assert isinstance(servers, Replicated)
    return servers


async def _entries(scene: Scene, valkey: EmbeddedValkey) -> int:
    keys = scene.ground.parts.streams.keys
    return await _servers(scene).entries(valkey, keys.tasks, keys.results)
