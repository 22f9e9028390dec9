"""Postgres stays, its connections do not."""

import asyncpg

from tests.faults.scenario import EITHER, Scenario, Scene

CUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
AND backend_type = 'client backend'"


class PostgresCut(Scenario):
    name = "postgres-cut"
    breaks = "pg_terminate_backend on every connection, every few hundred milliseconds"
    guards = ("acknowledged although not written",)
    faults = 100
    pause = (0.1, 0.6)
    durabilities = EITHER

    async def inject(self, scene: Scene) -> None:
        url = scene.ground.parts.settings.database_url.get_secret_value()
        connection = await asyncpg.connect(url)
        try:
            await connection.fetchval(CUT)
        finally:
            await connection.close()
