"""`run_agent` with an agent that asks a model: metered and budgeted as in a worker."""

import pydantic_ai
from pydantic_ai.models.test import TestModel

from orchestrator import Agent, Budget, RunContext
from orchestrator.outcome import Failed
from orchestrator.testing import run_agent

assess = pydantic_ai.Agent(instructions="How serious?")


class Asking(Agent[dict[str, str], str]):
    budget = Budget(requests=1)

    async def run(self, task_input: dict[str, str], ctx: RunContext) -> str:
        asked = [await ctx.ask(assess, each) for each in task_input.values()]
        return asked[0].output


async def test_a_model_for_tests_is_asked_without_servers():
    """What it spent is told."""
    with assess.override(model=TestModel(custom_output_text="low")):
        ran = await run_agent(Asking(), {"alert": "x"})
    assert ran.output == "low"
    assert ran.usage.requests == 1
    assert ran.usage.tokens > 0


async def test_its_budget_holds():
    """The second call does not go."""
    with assess.override(model=TestModel()):
        ran = await run_agent(Asking(), {"alert": "x", "other": "y"})
    assert isinstance(ran.outcome, Failed)
    assert ran.outcome.fault.type == "budget_exceeded"
    assert ran.usage.requests == 1


async def test_an_agent_without_a_model_says_what_is_missing():
    """No provider is called by accident."""
    ran = await run_agent(Asking(), {"alert": "x"})
    assert "AURORA_MODEL" in ran.outcome.fault.message
