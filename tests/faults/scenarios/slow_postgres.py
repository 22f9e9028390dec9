"""Postgres takes seconds for each of the recorder's transactions, and the runners do not wait."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import ClassVar

from sqlalchemy import text

from orchestrator.errors import OrchestratorError
from orchestrator.runtime.pressure import RECORDER_LAG
from orchestrator.streams.names import RECORDER, RESULTS
from orchestrator.task import Durability
from tests.faults.ground import Ground
from tests.faults.sampling import Limit, Sampler
from tests.faults.scenario import Noticed, Scenario, Scene

SECONDS = 5  # a transaction
PHASE = 40.0  # seconds of this
CONCURRENCY = 300
# Past the limit of the lag: what three workers have in hand, and what they take in the second
# until they look again, at twenty-five thousand a second at most: ten and thirteen were seen, as
# the recorder leaves them the machine.
MORE = 3 * CONCURRENCY + 25_000
# Of the processes alone. A recorder's batches are larger when much waits (15 % seen); one that read
# all of it ahead would hold fifty thousand results, twice what it has otherwise.
ROOM = {"rss": Limit(1.30, 0)}
SLOW = (
    (
        "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN PERFORM pg_sleep({SECONDS}); RETURN NULL; END $$"
    ),
    "CREATE TRIGGER slow AFTER INSERT ON results FOR EACH STATEMENT EXECUTE FUNCTION slow()",
)


class SlowPostgres(Scenario):
    name = "slow-postgres"
    breaks = f"each transaction with results takes {SECONDS} s, for {PHASE:.0f} s; results pile up"
    guards = ("workers read on while the recorder is far behind",)
    tasks = 130_000
    faults = 2
    pause = (1.0, 1.0)
    lasts = 20.0  # half of it: the tasks come fast enough for the limit to be reached
    durabilities = (Durability.STREAM,)
    batch = 500
    environment: ClassVar[Mapping[str, str]] = {"AURORA_CONCURRENCY": str(CONCURRENCY)}

    async def inject(self, scene: Scene) -> None:
        await _execute(scene.ground, *SLOW)
        await asyncio.sleep(PHASE)
        await _execute(scene.ground, "DROP TRIGGER slow ON results")

    async def wrong(self, scene: Scene) -> Mapping[str, list[str]]:
        again = await scene.ground.rows("SELECT id::text AS id FROM tasks WHERE attempt > 1")
        return {"leases lost": [row.id for row in again]}

    @contextlib.asynccontextmanager
    async def beside(self, scene: Scene) -> AsyncIterator[Noticed]:
        slots = (*scene.ground.workers, *scene.ground.recorders)
        sampler = Sampler(scene.ground, slots, every=0.5)
        lags: list[int] = []
        noticed = Noticed()
        beside = [
            asyncio.create_task(sampler.run()),
            asyncio.create_task(_note_lags(scene.ground, lags)),
        ]
        try:
            yield noticed
        finally:
            sampler.stop()
            for each in beside:
                each.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        most = max(lags, default=0)
        noticed.wrong = sampler.wrong(limits=ROOM) | {
            "too many results wait": [str(most)] if most > RECORDER_LAG + MORE else [],
            "limit not reached": [str(most)] if most < RECORDER_LAG else [],
        }
        noticed.told = sampler.told() | {"results that waited at most": most}


async def _execute(ground: Ground, *statements: str) -> None:
    async with ground.parts.database.transaction() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def _note_lags(ground: Ground, lags: list[int]) -> None:
    while True:
        with contextlib.suppress(OrchestratorError):
            lags.append(await ground.parts.streams.lag(RESULTS, RECORDER))
        await asyncio.sleep(0.5)
