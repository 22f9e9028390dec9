"""Submits over HTTP as a careful client does: no answer, so the same Idempotency-Key again."""

import asyncio
import itertools
from typing import Any

import httpx2

from orchestrator.agent import Agent
from orchestrator.api.routes.tasks import REPLAYED
from orchestrator.db import keys
from orchestrator.task import Task
from tests.faults.agents import Done, Job
from tests.faults.load import Load

KEYED = 0.7  # of the submissions; the others name their task, and are not sent again
OVER_HTTP = 0.5  # of the submissions, where both ways are taken
AGAIN_AFTER = 0.1  # seconds
BUSY = (429, 503)
# The last one is anyio's, over uvloop, where the server dies in the moment of connecting.
NO_ANSWER = (httpx2.TransportError, AttributeError)


class HttpLoad(Load):
    """To one API process and the next in turn, so that a task's second request meets another."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._key: str | None = None
        self._turn = itertools.count()
        self.unanswered = 0  # requests that were sent
        self.replayed = 0  # requests whose task was accepted by one that nobody heard the answer of

    def _make(self, agent: type[Agent[Job, Done]], seconds: float) -> Task:
        self._n += 1
        key = f"job {self._n}" if self._rng.random() < KEYED else None
        return agent.task(Job(n=self._n, seconds=seconds), idempotency_key=key)

    async def _submit(self, tasks: list[Task]) -> int:
        self._ledger.ask(tasks)
        async with httpx2.AsyncClient(timeout=10.0, headers=await self._headers()) as client:
            accepted = await asyncio.gather(*(self._post(client, task) for task in tasks))
        return sum(accepted)

    async def _headers(self) -> dict[str, str]:
        if self._key is None:
            scopes = [keys.Scope.TASKS_WRITE]
            _, self._key = await keys.create_key(self._ground.parts.database, "faults", scopes)
        return {"Authorization": f"Bearer {self._key}"}

    async def _post(self, client: httpx2.AsyncClient, task: Task) -> bool:
        body: dict[str, Any] = {"agent": task.agent, "input": task.input}
        headers = {}
        if task.run_at is not None:
            body["eta"] = task.run_at.isoformat()
        if task.idempotency_key is None:
            body["task_id"] = task.task_id
        else:
            headers["Idempotency-Key"] = task.idempotency_key
        while True:
            try:
                answer = await client.post(self._url(), json=body, headers=headers)
            except NO_ANSWER as error:
                self.unanswered += not isinstance(error, httpx2.ConnectError)
                if task.idempotency_key is None:
                    return False  # unknown: promised is nothing
            else:
                if answer.status_code not in BUSY:
                    answer.raise_for_status()
                    self.replayed += REPLAYED in answer.headers
                    # Under the id that the API gave it: another than the key's is a stranger.
                    self._ledger.accept([task.model_copy(update={"task_id": answer.json()["id"]})])
                    return True
            await asyncio.sleep(AGAIN_AFTER)

    def _url(self) -> str:
        apis = self._ground.apis
        port = apis[next(self._turn) % len(apis)].environment["AURORA_PORT"]
        return f"http://127.0.0.1:{port}/api/v1/tasks"


class EitherLoad(HttpLoad):
    """Now over HTTP, now as a Python client."""

    async def _submit(self, tasks: list[Task]) -> int:
        if self._rng.random() < OVER_HTTP:
            return await super()._submit(tasks)
        return await Load._submit(self, tasks)
