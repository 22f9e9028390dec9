"""Agents that the tests of traces load: models of pydantic-ai's own for tests, and no provider."""

from datetime import timedelta
from typing import Any

import pydantic_ai
from opentelemetry import trace
from pydantic_ai.models.test import TestModel

from orchestrator import Agent, Retry, RunContext
from orchestrator.tracing.current import model_instrumentation

Given = dict[str, Any]


class Secretive(Exception):
    """Its text quotes what it was given, as many do."""


def thinker(answer: str, **options: Any) -> pydantic_ai.Agent[None, str]:
    """An agent with one tool."""
    found = pydantic_ai.Agent(
        TestModel(custom_output_text=answer),
        name="thinker",
        instructions="INSTRUCTIONS-canary",
        **options,
    )

    @found.tool_plain
    def look_up(host: str) -> str:
        """What is known of a host."""
        return f"TOOL-canary {host}"

    return found


class Shouted(Agent[Given, str]):
    """Has a task of its own, below its parent."""

    name = "shouted"

    async def run(self, task_input: Given, ctx: RunContext) -> str:
        return "quiet"


class Think(Agent[Given, str]):
    """Asks a model that calls a tool, and starts another task."""

    name = "think"

    async def run(self, task_input: Given, ctx: RunContext) -> str:
        await Shouted.delay({})
        with trace.get_tracer("agent").start_as_current_span("own"):
            await ctx.progress(half=True)
        found = await ctx.ask(thinker("ANSWER-canary"), f"PROMPT-canary {task_input}")
        ctx.logger.warning("thought")
        return str(found.output)


class ThinkAlone(Think):
    """The same in a process of its own."""

    name = "think_alone"
    isolation = "process"


class Forgetful(Agent[Given, str]):
    """Fails once, with an error that quotes the input."""

    name = "forgetful"
    retry = Retry(max_attempts=2, base=timedelta(milliseconds=10))

    async def run(self, task_input: Given, ctx: RunContext) -> str:
        if ctx.attempt == 1:
            raise Secretive(f"could not: {task_input}")
        return "done"


class Blunder(Agent[Given, str]):
    """Runs its model without `ctx.ask`; a tool raises an error that quotes the input."""

    name = "blunder"
    retry = Retry(max_attempts=1)

    async def run(self, task_input: Given, ctx: RunContext) -> str:
        model = thinker("ANSWER-canary")
        model.instrument = model_instrumentation()

        @model.tool_plain
        def blunder() -> str:
            raise Secretive(f"it was {task_input}")

        return (await ctx.ask(model, "PROMPT-canary")).output
