"""Agents whose provider fails, and what is kept of it: a real worker, a server that is told how."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Literal

import pydantic_ai
import pytest
from pydantic import BaseModel

from orchestrator import Agent, Budget, Retry, RunContext
from orchestrator.client import set_submitter
from orchestrator.errors import TaskUnsuccessful
from orchestrator.models import ModelAgent
from orchestrator.settings import Settings
from orchestrator.testing.provider import (
    Answer,
    Call,
    Disconnect,
    Hang,
    Malformed,
    RateLimit,
    Refused,
    Reply,
    Request,
    Script,
    ScriptedProvider,
    Status,
)
from tests.integration.test_spine import Text, rows, running

ONCE = Retry(max_attempts=1)


class Verdict(BaseModel):
    severity: Literal["low", "high"]
    reason: str


FINE = Answer(output={"severity": "low", "reason": "seen before"})


def asking(settings: Settings, provider: ScriptedProvider, **changed: Any) -> Settings:
    """These settings, with this provider for `openai-chat`."""
    told = {"model": "openai-chat:any", "model_urls": {"openai": provider.url}, **changed}
    return Settings(**{**settings.model_dump(), "model_keys": {"openai": "any-key"}, **told})


@asynccontextmanager
async def working(
    settings: Settings, script: Script, *agents: type, **changed: Any
) -> AsyncIterator[ScriptedProvider]:
    """A provider, and a worker whose agents ask it."""
    async with (
        ScriptedProvider(script) as provider,
        running(asking(settings, provider, **changed), *agents) as parts,
    ):
        set_submitter(parts.submitter)
        yield provider


async def errors(database, handles: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """How each of them failed, from the record."""
    for handle in handles.values():
        with pytest.raises(TaskUnsuccessful):
            await handle.get(timeout=60, recorded=True)
    found = await rows(database, "SELECT task_id::text AS id, error FROM results")
    by_id = {each["id"]: each["error"] for each in found}
    return {name: by_id[handle.task_id] for name, handle in handles.items()}


class Named(Agent[Text, Verdict]):
    """Asks the model that its input names."""

    retry = ONCE

    async def run(self, task_input: Text, ctx: RunContext) -> Verdict:
        agent = pydantic_ai.Agent(output_type=Verdict)
        asked = await ctx.ask(agent, "How serious?", model=f"openai-chat:{task_input.text}")
        return asked.output


# What the provider does: how the task fails, and the line to change in its message.
AT_ONCE: Mapping[str, tuple[Reply, str, str]] = {
    "wrong-key": (Status(401), "model_key_refused", "AURORA_MODEL_KEYS='{\"openai"),
    "no-access": (Status(403), "model_key_refused", "AURORA_MODEL_KEYS"),
    "unknown": (Status(404), "model_unknown", "change AURORA_MODEL"),
    "too-long": (
        Status(400, error_code="context_length_exceeded"),
        "context_too_long",
        "shorten the prompt",
    ),
    "bad-request": (Status(400, message="no such field"), "model_request_refused", "no such field"),
    "quota": (Status(429, error_code="insufficient_quota"), "model_quota_used_up", "account"),
    "broken": (Status(500, message="oh dear"), "provider_unavailable", "oh dear"),
    "refusal": (Refused("I will not."), "answer_refused", "I will not."),
    "filtered": (Refused(by="filter"), "answer_refused", "content_filter"),
    "no-json": (Malformed("<html>"), "malformed_answer", "JSON"),
    "no-choice": (
        Malformed('{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[]}'),
        "malformed_answer",
        "no-choice",
    ),
    "hanging": (Hang(600), "model_timeout", "AURORA_MODEL_TIMEOUT"),
}


async def test_each_failure_of_a_provider_is_the_tasks_error_with_the_line_to_change(
    settings, database
):
    """At once, or at the timeout; the library's own retries do not ask behind our backs."""

    def script(request: Request) -> Reply:
        return AT_ONCE[request.model][0]

    async with working(settings, script, Named, model_timeout=timedelta(seconds=3)) as provider:
        handles = {name: await Named.delay(Text(text=name)) for name in AT_ONCE}
        found = await errors(database, handles)

    assert {name: each["type"] for name, each in found.items()} == {
        name: kind for name, (_, kind, _) in AT_ONCE.items()
    }
    for name, (_, _, line) in AT_ONCE.items():
        assert line in found[name]["message"], name
    assert provider.count.requests == len(AT_ONCE)


@pytest.mark.parametrize("reply", [Status(429), Status(503), Disconnect(FINE)])
async def test_a_provider_that_stays_away_is_waited_for_and_then_said(settings, database, reply):
    """Within AURORA_MODEL_PATIENCE."""
    async with working(settings, reply, Named, model_patience=timedelta(seconds=0.5)):
        found = await errors(database, {"it": await Named.delay(Text(text="any"))})

    assert found["it"]["type"] == "provider_unavailable"
    assert "AURORA_MODEL_PATIENCE" in found["it"]["message"]


class Assess(ModelAgent[Text, Verdict]):
    retry = ONCE
    model_agent = pydantic_ai.Agent(output_type=Verdict, retries=1)

    def prompt(self, task_input: Text, ctx: RunContext) -> str:
        return task_input.text


async def test_a_provider_that_comes_back_costs_no_attempt(settings, database):
    """A limit, an absence and a lost answer, one after the other; the run waits."""
    away = [Status(429, retry_after=1), Status(503, retry_after=1), Disconnect(FINE)]
    async with working(settings, [*away, FINE], Assess) as provider:
        found = await (await Assess.delay(Text(text="go"))).get(timeout=60, recorded=True)

    assert found.severity == "low"
    [task] = await rows(database, "SELECT attempt FROM tasks")
    assert task["attempt"] == 1
    assert provider.count.by_status == {"429": 1, "503": 1, "closed": 1, "200": 1}


def nonsense(prompt: str) -> list[Reply]:
    """Fifty ways, in five kinds, to answer what nobody can use; each says which prompt it was."""
    wrong = {"severity": "apocalyptic", "reason": prompt}
    return [
        Answer(f"In short, {prompt}: it is LOW, I think."),
        Answer(json.dumps({"severity": "low"}) + f"}} {prompt}"),
        Answer(output=wrong),
        Answer(calls=[Call("final_result", f'{{"severity": "low", "reason": "{prompt}')]),
        Answer(calls=[Call("no_such_tool", {"because": prompt})]),
    ]


async def test_fifty_malformed_answers_are_kept_each_with_its_text(settings, database):
    """After the pydantic-ai agent's own retries; each task has its own answer, not another's."""

    def script(request: Request) -> Reply:
        prompt = request.texts("user")[0]
        return nonsense(prompt)[int(prompt.split()[-1]) % 5]

    async with working(settings, script, Assess) as provider:
        prompts = [f"alert number {n}" for n in range(50)]
        handles = {each: await Assess.delay(Text(text=each)) for each in prompts}
        found = await errors(database, handles)

    assert {each["type"] for each in found.values()} == {"malformed_answer"}
    for prompt in prompts:
        answer = found[prompt]["answer"]
        assert answer.count(prompt) == 1, (prompt, answer)
        assert answer.strip('.}") ').split()[-1].isalnum()
    assert provider.count.answers == 100


class Looping(ModelAgent[Text, str]):
    """Its model looks again and again."""

    retry = ONCE
    model_agent = pydantic_ai.Agent(instructions="Look, until you know.")

    @staticmethod
    @model_agent.tool_plain
    def look(place: str) -> str:
        return f"nothing at {place}, " + "look further " * 5


async def test_a_model_that_loops_is_stopped_before_the_call_that_passes_its_budget(
    settings, database
):
    """By the server's own count; the error says what was spent, and what would have been needed."""

    def script(request: Request) -> Reply:
        return Answer(calls=[Call("look", {"place": f"place {request.turns}"})])

    async with working(settings, script, Looping) as provider:
        handle = await Looping.apply_async(Text(text="go"), budget=Budget(tokens=2_000))
        found = await errors(database, {"it": handle})

    said = found["it"]
    assert said["type"] == "budget_exceeded"
    assert provider.count.answers >= 3
    assert provider.count.tokens <= 2_000
    assert said["spent"]["input_tokens"] + said["spent"]["output_tokens"] == provider.count.tokens
    assert said["budget"]["spent"] == provider.count.tokens
    assert said["budget"]["needed"] > said["budget"]["allowed"] == 2_000
    # The last call was no smaller than the one that was not made: it was not stopped for nothing.
    last = provider.seen[-1].tokens
    assert provider.count.tokens + last.input + last.output > 2_000


async def test_a_long_answer_ends_where_the_budget_does(settings, database):
    """The provider is told how much is left; it would have written ten times as much."""
    async with working(settings, Answer("word " * 4_000), Assess) as provider:
        handle = await Assess.apply_async(Text(text="go"), budget=Budget(tokens=500))
        found = await errors(database, {"it": handle})

    assert found["it"]["type"] == "budget_exceeded"
    assert 0 < provider.count.tokens <= 500


async def test_what_a_provider_says_is_left_reaches_its_gate(settings, database):
    """P8: so that calls are spaced before one is refused."""
    limit = RateLimit(requests=60, per=100, headers=True)
    async with (
        ScriptedProvider(FINE, rules=[limit]) as provider,
        running(asking(settings, provider), Named) as parts,
    ):
        set_submitter(parts.submitter)
        commands, pattern = parts.streams.commands, parts.streams.keys.gate("*")
        await (await Named.delay(Text(text="any"))).get(timeout=20)

        (gate,) = [each async for each in commands.scan_iter(match=pattern, count=1000)]
        assert await commands.hmget(gate, "left", "most") == [b"59", b"59"]
