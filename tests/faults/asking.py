"""Agents that ask a model, for runs against the scripted provider."""

import pydantic_ai

from orchestrator import Agent, RunContext
from tests.faults.agents import Done, Job, note, proof

QUESTIONS = 3  # a run of Asking
question = pydantic_ai.Agent(instructions="In one word.")


class Asking(Agent[Job, Done]):
    """Asks one thing after the other, so that a kill meets finished calls and one under way."""

    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(ctx)
        for number in range(QUESTIONS):
            await ctx.ask(question, f"task {ctx.task_id}, question {number}")
        return Done(n=task_input.n, proof=proof(task_input.n))


class AskingOnce(Agent[Job, Done]):
    """Asks one thing."""

    async def run(self, task_input: Job, ctx: RunContext) -> Done:
        note(ctx)
        await ctx.ask(question, f"task {ctx.task_id}, question 0")
        return Done(n=task_input.n, proof=proof(task_input.n))
