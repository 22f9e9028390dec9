"""A task is one trace, from the request over the stream to the model and the tool."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from orchestrator.db.keys import Scope, create_key
from tests.collector import Collector, Seen, collector
from tests.integration.test_spine import rows
from tests.support import wait_until

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parent.parent.parent
SECRET = "CANARY-b7f3"  # in every input
CANARIES = (SECRET, "PROMPT-canary", "ANSWER-canary", "TOOL-canary", "INSTRUCTIONS-canary")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"  # of the program that submits
CALLER = "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{CALLER}-01"
SERVER, PRODUCER, CONSUMER = 2, 4, 5
ERROR = 2


@pytest.fixture
def collected() -> Iterator[Collector]:
    with collector() as found:
        yield found


class System:
    """An API process, and one with worker and recorder; both send to the collector."""

    def __init__(self, client: httpx2.AsyncClient, collected: Collector, log: Path) -> None:
        self.client = client
        self.collected = collected
        self.log = log

    async def submit(self, agent: str, **given: Any) -> str:
        """Submit a task with the secret in its input, as a program within a trace does."""
        answer = await self.client.post(
            "/api/v1/tasks",
            json={"agent": agent, "input": {"secret": SECRET, **given}},
            headers={"traceparent": GIVEN},
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def span(self, name: str, **attributes: Any) -> Seen:
        """The span of this name with these attributes (`aurora_agent`: `aurora.agent`)."""
        wanted = {key.replace("_", "."): value for key, value in attributes.items()}

        def found() -> Seen | None:
            named = self.collected.named(name)
            return next((s for s in named if wanted.items() <= s.attributes.items()), None)

        try:
            return await wait_until(found, what=f"the span {name} {wanted}")
        except AssertionError:
            print(*self.collected.spans, sep="\n")
            print(self.log.read_text()[-5_000:])
            raise

    def said(self, event: str) -> list[dict[str, Any]]:
        """Lines of the processes' logs."""
        lines = [json.loads(each) for each in self.log.read_text().splitlines() if each[:1] == "{"]
        return [each for each in lines if each.get("event") == event or each["message"] == event]


@asynccontextmanager
async def system(
    settings: Any, database: Any, collected: Collector, folder: Path, **env: str
) -> AsyncIterator[System]:
    """Both processes, ready; afterwards ended in order."""
    _, key = await create_key(database, "traces", [Scope.ADMIN], actor="test")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "AURORA_REDIS_URL": settings.redis_url.get_secret_value(),
        "AURORA_DATABASE_URL": settings.database_url.get_secret_value(),
        "AURORA_PREFIX": settings.prefix,
        "AURORA_AGENTS": "tests.acceptance.thinking_agents",
        "AURORA_PORT": str(port),
        "PYTHONPATH": str(ROOT),
        **collected.environment,
        **env,
    }
    log = folder / "processes.log"
    with log.open("ab") as output:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "orchestrator", *role],
                cwd=folder, env=environment, stderr=output, stdout=output,
            )
            for role in (["api"], ["up", "--roles", "worker,recorder"])
        ]  # fmt: skip
    try:
        await wait_until(
            lambda: log.read_text().count("process.started") == 2,
            what="both processes up", timeout=60,
        )  # fmt: skip
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}
        ) as client:
            yield System(client, collected, log)
        for process in processes:
            process.terminate()
        for process in processes:
            assert await asyncio.to_thread(process.wait, 20) == 0, log.read_text()[-5_000:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def test_a_task_is_one_trace_and_its_content_is_nowhere(
    settings, database, streams, collected, tmp_path
):
    """POST, send, process, agent, model and tool: one trace id, each the child of its cause.

    Also what a task starts, what is tried again, and what runs in a process of its own.
    """
    lane = f"{settings.prefix}:agent:tasks"
    async with system(settings, database, collected, tmp_path) as running:
        task_id = await running.submit("think")
        chat = await running.span("chat test")
        tool = await running.span("execute_tool look_up")
        invoked = await running.span("invoke_agent thinker")
        attempt = await running.span(f"process {lane}", aurora_agent="think")
        sent = await running.span(f"send {lane}", aurora_agent="think")
        request = await running.span("POST /api/v1/tasks")
        own = await running.span("own")
        below = await running.span(f"process {lane}", aurora_agent="shouted")
        below_sent = await running.span(f"send {lane}", aurora_agent="shouted")
        await wait_until(lambda: running.said("thought"), what="the agent's line in the log")
        [thought] = running.said("thought")

        for agent in ("forgetful", "blunder", "think_alone"):
            await running.submit(agent)
        first, again, blunder, alone = [
            await running.span(f"process {lane}", aurora_agent=agent, aurora_attempt=number)
            for agent, number in (
                ("forgetful", 1), ("forgetful", 2), ("blunder", 1), ("think_alone", 1),
            )
        ]  # fmt: skip
        sent_once = await running.span(f"send {lane}", aurora_agent="forgetful")

    chain = [request, sent, attempt, invoked]
    assert request.parent_id == CALLER
    assert [each.parent_id for each in chain[1:]] == [each.span_id for each in chain[:-1]]
    assert {chat.parent_id, tool.parent_id} == {invoked.span_id}
    assert own.parent_id == attempt.span_id
    assert (below_sent.parent_id, below.parent_id) == (attempt.span_id, below_sent.span_id)
    assert {each.trace_id for each in collected.spans} == {TRACE}
    assert [each.kind for each in chain[:3]] == [SERVER, PRODUCER, CONSUMER]
    assert attempt.links == (sent.span_id,)
    assert thought["trace_id"] == TRACE

    assert dict(request.attributes) == {
        "http.request.method": "POST", "url.path": "/api/v1/tasks", "url.scheme": "http",
        "http.route": "/api/v1/tasks", "http.response.status_code": 202,
    }  # fmt: skip
    [entry] = await rows(database, "SELECT entry_id, worker FROM tasks WHERE id = :id", id=task_id)
    of_task = {
        "messaging.system": "redis", "messaging.destination.name": lane,
        "messaging.message.id": entry["entry_id"], "messaging.message.conversation_id": task_id,
        "aurora.task.id": task_id, "aurora.agent": "think", "aurora.queue": "default",
    }  # fmt: skip
    api, worker = (each.resource["service.instance.id"] for each in (sent, attempt))
    assert dict(sent.attributes) == {
        **of_task, "messaging.operation.name": "send", "messaging.operation.type": "send",
        "messaging.client.id": api,
    }  # fmt: skip
    assert dict(attempt.attributes) == {
        **of_task, "messaging.operation.name": "process", "messaging.operation.type": "process",
        "messaging.client.id": entry["worker"], "messaging.consumer.group.name": "orchestrator",
        "aurora.attempt": 1, "aurora.outcome": "succeeded",
    }  # fmt: skip
    assert worker == entry["worker"] != api
    assert {each.resource["service.name"] for each in collected.spans} == {"aurora"}

    assert first.parent_id == again.parent_id == sent_once.span_id
    assert first.links == again.links == (sent_once.span_id,)
    assert (first.status, first.attributes["aurora.outcome"]) == (ERROR, "retrying")
    assert first.attributes["error.type"] == "Secretive"
    assert again.attributes["aurora.outcome"] == "succeeded"
    assert (blunder.attributes["aurora.outcome"], blunder.status) == ("failed", ERROR)
    assert len(collected.named("execute_tool blunder")) == 1
    of_child = [
        s for s in collected.spans if s.resource["service.instance.id"] not in (api, worker)
    ]
    by_name = {each.name: each for each in of_child}
    assert set(by_name) == {"invoke_agent thinker", "chat test", "execute_tool look_up", "own"}
    assert by_name["invoke_agent thinker"].parent_id == alone.span_id

    assert [text for text in CANARIES if collected.holds(text)] == []


async def test_a_collector_that_is_away_holds_nothing_up(
    settings, database, streams, collected, tmp_path
):
    """Tasks go on, processes end in order, and the log says it once for each process."""
    collected.answer = 503
    async with system(settings, database, collected, tmp_path) as running:
        for agent in ("think", "think_alone", "think"):
            await running.submit(agent)

        async def ended() -> bool:
            found = await rows(database, "SELECT state FROM results")
            return [each["state"] for each in found] == ["succeeded"] * 6

        await wait_until(ended, what="six tasks done")
        await wait_until(lambda: collected.requests, what="the collector asked")

    assert 1 <= len(running.said("traces.lost")) <= 3, running.log.read_text()
    assert "opentelemetry" not in running.log.read_text()
