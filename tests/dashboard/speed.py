"""How long the server takes for each page with a million tasks: no network, no browser.

The tasks are spread over a month, one in a hundred failed; `tests.benchmarks` fills the same way.
"""

import argparse
import asyncio
import time
from collections.abc import Mapping
from html import unescape

import httpx2
from rich.console import Console
from rich.table import Table

from orchestrator.api import paging
from tests.benchmarks.figures import percentile
from tests.dashboard.ground import Ground
from tests.dashboard.standing import standing

REPEATS = 60
GOAL = 60.0  # ms, p95 of the list of tasks
HEADERS = {"Sec-Fetch-Site": "same-origin"}
PAGES: Mapping[str, str] = {
    "tasks, as it opens": "/tasks",
    "tasks of all time": "/tasks?window=all",
    "tasks, 500,000 deep": "/tasks?window=all&cursor={deep}",
    "tasks that failed, all time": "/tasks?state=failed&window=all",
    "tasks that run (none), all time": "/tasks?state=running&window=all",
    "tasks of an agent, a week": "/tasks?agent=agent-3&window=7d",
    "tasks of a queue that is unused, a day": "/tasks?queue=unused",
    "tasks of a queue that is unused, all time": "/tasks?queue=unused&window=all",
    "what is new, every ring": "{news}",
    "one task": "/tasks/{task}",
    "overview": "/",
    "agents": "/agents",
    "schedules": "/schedules",
    "dead letters": "/dead-letters",
    "audit": "/audit",
    "audit of schedules, all time": "/audit?action=schedule.*&window=all",
}


async def measure(asked: argparse.Namespace) -> None:
    """Fill, ask, print."""
    async with standing(rows=asked.rows) as ground:
        async with httpx2.AsyncClient(base_url=ground.url, headers=HEADERS, timeout=30) as client:
            await client.post("/sign-in", data={"key": ground.key})
            names = await _names(ground, client)
            table = Table("page", "p50 ms", "p95 ms", "kB", title=f"{asked.rows:,} tasks")
            for what, path in PAGES.items():
                took, size = await _took(client, path.format(**names))
                table.add_row(
                    what, f"{percentile(took, 0.5):.1f}", f"{percentile(took, 0.95):.1f}",
                    f"{size / 1024:.0f}",
                )  # fmt: skip
        Console().print(table, f"goal: {GOAL:.0f} ms at p95 for the list of tasks")


async def _names(ground: Ground, client: httpx2.AsyncClient) -> dict[str, str]:
    """What stands in the paths: a cursor in the middle, a task, the page's own question."""
    async with ground.database.transaction() as connection:
        found = await connection.exec_driver_sql(
            "SELECT id::text, created_at FROM tasks ORDER BY created_at OFFSET"
            " (SELECT count(*) / 2 FROM tasks) LIMIT 1"
        )
        task, at = found.one()
    page = (await client.get("/tasks")).text
    news = unescape(page.split('hx-get="')[1].split('"')[0])
    return {"deep": paging.cursor_of((at, task), {"window": "all"}), "news": news, "task": task}


async def _took(client: httpx2.AsyncClient, path: str) -> tuple[list[float], int]:
    took, size = [], 0
    for _ in range(REPEATS):
        await asyncio.sleep(0.02)
        began = time.perf_counter()
        answer = await client.get(path)
        took.append((time.perf_counter() - began) * 1e3)
        assert answer.status_code == 200, answer.text
        size = len(answer.content)
    return took[5:], size  # the first ones connect and compile
