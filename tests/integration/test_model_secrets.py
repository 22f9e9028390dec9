"""A provider's key is nowhere but in the request to it, also where the provider says it aloud."""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pydantic_ai
import pytest
from pydantic import BaseModel

from orchestrator import Agent, Retry, RunContext
from orchestrator.cli.logs import JsonLines, Sentences
from orchestrator.client import set_submitter
from orchestrator.model_failure import ModelFailed
from orchestrator.settings import Settings
from orchestrator.testing.provider import (
    Answer,
    Call,
    Malformed,
    Refused,
    Reply,
    Request,
    ScriptedProvider,
    Status,
)
from tests import api
from tests.collector import Collector, collector
from tests.dashboard import serving as dashboard
from tests.integration.test_model_failures import ONCE
from tests.integration.test_spine import Text, rows, running
from tests.support import wait_until

# One that only its settings tell from other words, and one in a form that everybody knows.
KEYS = {"openai": "Zebra7f3kQ9CrossesTheRoad", "vllm": "sk-proj-Quagga4Lp8CrossesTheRoad"}
DOORS = {"openai": "openai-chat", "vllm": "vllm"}


def saying(key: str) -> dict[str, Reply]:
    """Every way in which a provider may say a key."""
    return {
        "wrong-key": Status(401, message=f"Incorrect API key provided: {key}."),
        "raw-401": Status(401, body=f"denied: {key}", headers={"x-key": key}),
        "unknown": Status(404, message=f"{key} has no such model"),
        "bad-request": Status(400, message=f"Authorization: Bearer {key}"),
        "too-long": Status(400, message=f"{key}: too long", error_code="context_length_exceeded"),
        "quota": Status(429, message=f"{key} is used up", error_code="insufficient_quota"),
        "broken": Status(500, message=f"500 for {key}"),
        "text": Answer(f"your key is {key}"),
        "tool": Answer(calls=[Call("note", {"text": f"the key is {key}"})]),
        "named": Answer(calls=[Call(f"tool_{key}", {"text": key})]),
        "output": Answer(output={"said": f"the key is {key}"}),
        "wrong-output": Answer(output={"unsaid": f"the key is {key}"}),
        "refusal": Refused(f"Not for {key}."),
        "no-json": Malformed(f"<p>{key}</p>"),
        "no-answer": Malformed(f'{{"id": 7, "key": "{key}"}}'),
    }


class Said(BaseModel):
    said: str


class Careless(Agent[Text, Any]):
    """Keeps whatever it gets, and tells of it."""

    retry = ONCE

    async def run(self, task_input: Text, ctx: RunContext) -> Any:
        door, _, what = task_input.text.partition("/")
        told = Said if "output" in what else str
        agent: Any = pydantic_ai.Agent(output_type=told, retries=0)

        @agent.tool_plain
        async def note(text: str) -> str:
            ctx.logger.warning("the model noted %s", text)
            await ctx.progress(note=text)
            raise RuntimeError(f"cannot note {text}")

        return (await ctx.ask(agent, "go", model=f"{DOORS[door]}:{what}")).output


class Rewording(Careless):
    """Makes an error of its own of what failed."""

    retry = Retry(max_attempts=1)

    async def run(self, task_input: Text, ctx: RunContext) -> Any:
        try:
            return await super().run(task_input, ctx)
        except ModelFailed as error:
            logging.getLogger("app").exception("it failed")
            raise RuntimeError(f"assessment failed: {error}") from error


async def written(database, streams, caplog) -> AsyncIterator[tuple[str, str]]:
    """Every row, every key of Redis with its value, and every line of the log."""
    found = await rows(
        database,
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'",
    )
    for name in (each["table_name"] for each in found):
        for row in await rows(database, f'SELECT t::text AS line FROM "{name}" t'):
            yield f"table {name}", row["line"]
    read = {
        b"string": streams.commands.get,
        b"hash": streams.commands.hgetall,
        b"stream": streams.commands.xrange,
        b"zset": lambda key: streams.commands.zrange(key, 0, -1),
        b"set": streams.commands.smembers,
        b"list": lambda key: streams.commands.lrange(key, 0, -1),
    }
    async for key in streams.commands.scan_iter(match=f"{streams.keys.prefix}:*"):
        value = await read[await streams.commands.type(key)](key)
        yield f"Redis {key.decode()}", f"{key!r} {value!r}"
    for record in caplog.records:
        for form in (Sentences(), JsonLines()):
            yield f"log {record.name}", form.format(record)


async def shown(settings, database, streams, task_ids) -> AsyncIterator[tuple[str, str]]:
    """Every page, and every answer of the API that needs no id but a task's."""
    async with api.serving(settings, database, streams) as served:
        paths = [route.path for route in served.routes if "GET" in route.methods]
        for path in paths:
            if "live" in path or "events" in path:  # they do not end
                continue
            for each in _filled(path, task_ids):
                yield f"GET {each}", (await served.client.get(each)).text
    async with dashboard.serving(settings, database, streams) as site:
        person = await site.person()
        for path in {path for method, path, _ in site.routes if method == "GET"}:
            if "live" in path or "events" in path:
                continue
            for each in _filled(path, task_ids):
                yield f"page {each}", (await person.get(each)).text
        await person.client.aclose()


def _filled(path: str, task_ids) -> list[str]:
    if "{" not in path:
        return [path]
    return [path.replace("{task_id}", each) for each in task_ids] if "{task_id}" in path else []


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Where the spans go."""
    with collector() as found:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


async def test_a_key_is_nowhere_also_when_its_provider_says_it(
    settings, database, streams, caplog, collected
):
    """In no table, stream, key of Redis, log, trace, page or answer, whatever failed."""
    # As `--log-level debug` does: all of ours, and the warnings of other libraries.
    caplog.set_level(logging.WARNING)
    caplog.set_level(logging.DEBUG, logger="aurora")

    def script(request: Request) -> Reply:
        return saying(request.secret)[request.model]

    async with ScriptedProvider(script) as provider:
        urls = dict.fromkeys(KEYS, provider.url)
        told = Settings(
            **{
                **settings.model_dump(),
                "model_keys": KEYS,
                "model_urls": urls,
                "trace_content": True,
            },
        )
        async with running(told, Careless, Rewording) as parts:
            set_submitter(parts.submitter)
            asked = [f"{door}/{what}" for door in KEYS for what in saying("")]
            handles = [
                await agent.delay(Text(text=each))
                for agent in (Careless, Rewording)
                for each in asked
            ]
            await wait_until(
                lambda: _ended(database, len(handles)), what="all have ended", timeout=60
            )
            found = [each async for each in written(database, streams, caplog)]
            ids = [handle.task_id for handle in handles]
            found += [each async for each in shown(told, database, streams, ids)]

    # The keys did reach the provider, and it said them: or nothing would have been shown here.
    assert {each.secret for each in provider.requests} == set(KEYS.values())
    assert len(found) > 500
    assert collected.named(f"process {streams.keys.tasks}")
    assert any("[redacted]" in text for _, text in found)
    found += [("a trace", str(each)) for each in collected.raw]
    found += [("settings", f"{told!r} {told.model_dump()} {told.model_dump_json()}")]
    leaks = [
        (place, text[max(0, text.find(key) - 100) : text.find(key) + 100])
        for place, text in found
        for key in KEYS.values()
        if key in text
    ]
    assert leaks == []


async def _ended(database, many: int) -> bool:
    [row] = await rows(database, "SELECT count(*) AS n FROM results")
    return row["n"] == many
