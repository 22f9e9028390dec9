"""Agents that ask models, through a real worker: metered, budgeted, and how they fail."""

import asyncio
import json
from decimal import Decimal

import pydantic_ai
import pytest
from pydantic import BaseModel
from pydantic_ai.exceptions import ModelHTTPError, ModelRateLimitError
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RequestUsage

from orchestrator import Agent, Budget, Retry, RunContext, TaskState
from orchestrator.client import set_submitter
from orchestrator.errors import TaskUnsuccessful
from orchestrator.models import ModelAgent
from orchestrator.usage import ModelCall, Usage
from tests.integration.test_spine import Text, rows, running

ONCE = Retry(max_attempts=1)


class Verdict(BaseModel):
    severity: str


def answers(*said: str, tokens: int = 100) -> FunctionModel:
    """A model that says these one after the other, and then the last one again."""
    left = list(said)

    async def answer(messages, info: AgentInfo) -> ModelResponse:
        text = left.pop(0) if len(left) > 1 else left[0]
        usage = RequestUsage(input_tokens=tokens, output_tokens=10)
        if info.output_tools and text.startswith("{"):
            part = ToolCallPart(info.output_tools[0].name, text)
        else:
            part = TextPart(text)
        return ModelResponse(parts=[part], usage=usage, model_name="scripted")

    return FunctionModel(answer, model_name="scripted")


class Assess(ModelAgent[Text, Verdict]):
    model_agent = pydantic_ai.Agent(answers('{"severity": "low"}'), output_type=Verdict)


class Inside(Agent[Text, Text]):
    async def run(self, task_input: Text, ctx: RunContext) -> Text:
        asked = await ctx.ask(pydantic_ai.Agent(answers("ay", "bee")), task_input.text)
        return Text(text=asked.output)


class Apart(Inside):
    isolation = "process"


async def calls_of(parts) -> list[dict]:
    entries = await parts.streams.commands.xrange(parts.streams.keys.results)
    events = [json.loads(fields[b"data"]) for _, fields in entries]
    return [each for each in events if each["event"] == "usage"]


async def error_of(handle) -> str:
    with pytest.raises(TaskUnsuccessful) as caught:
        await handle.get(timeout=20, recorded=True)
    return str(caught.value)


async def test_an_agent_of_pydantic_ai_is_one_of_ours_in_two_lines(settings, database):
    """Typed in and out; each call is told with what it took."""
    async with running(settings, Assess) as parts:
        set_submitter(parts.submitter)
        found = await (await Assess.delay(Text(text="hello"))).get(timeout=10, recorded=True)
        assert found == Verdict(severity="low")
        (said,) = await calls_of(parts)
        call = ModelCall.model_validate(said["usage"])
        # The answer came as a call of the output tool, which is none of a function.
        assert (call.model, call.tokens, call.tool_calls) == ("function:scripted", 110, 0)
        assert call.cost_usd is None


@pytest.mark.parametrize("agent", [Inside, Apart])
async def test_any_agent_asks_a_model_within_its_run(settings, database, agent):
    """Through the context, also in a process of its own, where the worker tells of it."""
    async with running(settings, agent) as parts:
        set_submitter(parts.submitter)
        handle = await agent.delay(Text(text="hello"))
        assert (await handle.get(timeout=60)).text == "ay"
        (said,) = await calls_of(parts)
        assert said["usage"]["input_tokens"] == 100


class Looping(Agent[Text, Text]):
    """A model that calls its tool for ever; 100 tokens more each time."""

    budget = Budget(tokens=2_000)
    retry = ONCE

    async def run(self, task_input: Text, ctx: RunContext) -> Text:
        count = 0

        async def loop(messages, info: AgentInfo) -> ModelResponse:
            nonlocal count
            count += 1
            usage = RequestUsage(input_tokens=100 * count, output_tokens=10)
            parts = [ToolCallPart("look", {"n": count})]
            return ModelResponse(parts=parts, usage=usage, model_name="scripted")

        agent = pydantic_ai.Agent(FunctionModel(loop))

        @agent.tool_plain
        def look(n: int) -> str:
            return "nothing"

        await ctx.ask(agent, task_input.text)
        raise AssertionError("it never ends")


async def test_a_budget_stops_before_the_call_that_would_pass_it(settings, database):
    """With what was spent, and what would have been needed."""
    async with running(settings, Looping) as parts:
        set_submitter(parts.submitter)
        handle = await Looping.delay(Text(text="go"))
        assert "the budget is 2000 tokens" in await error_of(handle)
        (row,) = await rows(database, "SELECT state, error FROM results")
        assert (row["state"], row["error"]["type"]) == ("failed", "budget_exceeded")
        told = [ModelCall.model_validate(each["usage"]) for each in await calls_of(parts)]
        spent = Usage.of(told)
        assert spent.tokens <= 2_000
        assert row["error"]["budget"]["spent"] == spent.tokens
        assert row["error"]["budget"]["needed"] > 2_000
        # It was not stopped for nothing either: one more of the last size would not have fitted.
        assert spent.tokens + told[-1].tokens > 2_000


async def test_a_budget_of_the_call_counts_where_it_is_the_stricter(settings, database):
    """Each field by itself; a message can ask for less, not for more."""
    async with running(settings, Looping) as parts:
        set_submitter(parts.submitter)
        strict = Budget(requests=2, tokens=10_000)
        handle = await Looping.apply_async(Text(text="go"), budget=strict)
        assert "the budget is 2 requests" in await error_of(handle)
        assert len(await calls_of(parts)) == 2


class Spending(Agent[Text, Text]):
    """Spends 110 tokens in each attempt, and fails."""

    budget = Budget(tokens=200)
    retry = Retry(max_attempts=5)

    async def run(self, task_input: Text, ctx: RunContext) -> Text:
        await ctx.ask(pydantic_ai.Agent(answers("ay", tokens=100)), "x")
        raise ValueError("again")


async def test_a_budget_is_the_tasks_and_not_the_attempts(settings, database, monkeypatch):
    """The third attempt knows what two have spent."""
    monkeypatch.setattr(Spending, "retry", Retry(max_attempts=5, jitter=lambda: -1.0))
    async with running(settings, Spending) as parts:
        set_submitter(parts.submitter)
        handle = await Spending.delay(Text(text="go"))
        assert "220 are spent" in await error_of(handle)
        assert len(await calls_of(parts)) == 2


class Malformed(ModelAgent[Text, Verdict]):
    retry = ONCE
    model_agent = pydantic_ai.Agent(answers("no JSON at all"), output_type=Verdict, retries=1)


async def test_an_answer_that_cannot_be_used_is_kept_for_reading(settings, database):
    """After the retries of the pydantic-ai agent; each of its calls is told."""
    async with running(settings, Malformed) as parts:
        set_submitter(parts.submitter)
        await error_of(await Malformed.delay(Text(text="go")))
        (row,) = await rows(database, "SELECT state, error FROM results")
        assert row["error"]["type"] == "malformed_answer"
        assert row["error"]["answer"] == "no JSON at all"
        assert len(await calls_of(parts)) == 2


class Limited(Agent[Text, Text]):
    async def run(self, task_input: Text, ctx: RunContext) -> Text:
        refusals = 2

        async def answer(messages, info: AgentInfo) -> ModelResponse:
            nonlocal refusals
            if refusals:
                refusals -= 1
                raise ModelHTTPError.for_category(
                    ModelRateLimitError, status_code=429, model_name="m",
                    headers={"retry-after": "0.1"},
                )  # fmt: skip
            return ModelResponse(parts=[TextPart("ay")])

        asked = await ctx.ask(pydantic_ai.Agent(FunctionModel(answer)), "x")
        return Text(text=asked.output)


async def test_a_limit_is_waited_out_within_the_attempt(settings, database):
    """No attempt is used up."""
    async with running(settings, Limited) as parts:
        set_submitter(parts.submitter)
        handle = await Limited.delay(Text(text="go"))
        assert (await handle.get(timeout=20, recorded=True)).text == "ay"
        (row,) = await rows(database, "SELECT attempt, state FROM tasks")
        assert (row["attempt"], row["state"]) == (1, TaskState.SUCCEEDED)


class Unpriced(ModelAgent[Text, str]):
    retry = ONCE
    budget = Budget(usd=Decimal(1))
    model_agent = pydantic_ai.Agent(TestModel())


async def test_a_budget_in_dollars_needs_a_price(settings, database):
    """Rather than being taken for kept."""
    async with running(settings, Unpriced) as parts:
        set_submitter(parts.submitter)
        said = await error_of(await Unpriced.delay(Text(text="go")))
        assert "no price is known" in said
        assert await calls_of(parts) == []


class Nameless(ModelAgent[Text, str]):
    retry = ONCE
    model_agent = pydantic_ai.Agent()


async def test_an_agent_without_a_model_says_which_line_is_missing(settings, database):
    """No default is made up."""
    async with running(settings, Nameless) as parts:
        set_submitter(parts.submitter)
        assert "set AURORA_MODEL" in await error_of(await Nameless.delay(Text(text="go")))


async def test_two_calls_of_one_task_do_not_pass_its_budget_together(settings, database):
    """They go one after the other."""

    class Both(Agent[Text, Text]):
        budget = Budget(requests=1)
        retry = ONCE

        async def run(self, task_input: Text, ctx: RunContext) -> Text:
            one = pydantic_ai.Agent(answers("ay"))
            await asyncio.gather(ctx.ask(one, "x"), ctx.ask(one, "y"))
            return task_input

    async with running(settings, Both) as parts:
        set_submitter(parts.submitter)
        assert "the budget is 1 requests" in await error_of(await Both.delay(Text(text="go")))
        assert len(await calls_of(parts)) == 1


async def test_a_model_that_overrides_the_agents_is_metered_all_the_same(settings, database):
    """Whatever asks in a run is told of."""

    class Overridden(Agent[Text, Text]):
        async def run(self, task_input: Text, ctx: RunContext) -> Text:
            agent = pydantic_ai.Agent(answers("ay"))
            with agent.override(model=answers("bee", tokens=7)):
                asked = await ctx.ask(agent, "x")
            return Text(text=asked.output)

    async with running(settings, Overridden) as parts:
        set_submitter(parts.submitter)
        assert (await (await Overridden.delay(Text(text="go"))).get(timeout=10)).text == "bee"
        (said,) = await calls_of(parts)
        assert said["usage"]["input_tokens"] == 7
