"""An agent of pydantic-ai as one of ours: typed in, typed out, metered, with a record."""

from typing import Any, ClassVar

import pydantic_ai

from orchestrator.agent import Agent, InputT, OutputT
from orchestrator.context import RunContext


class ModelAgent(Agent[InputT, OutputT]):
    """Asks `model_agent` once for each task, and returns its output.

    class Assess(ModelAgent[Alert, Verdict]):
        model_agent = pydantic_ai.Agent(output_type=Verdict, instructions="How serious is it?")

    The model is the pydantic-ai agent's own, or AURORA_MODEL. Its tools get `deps`, by default the
    run's context.
    """

    model_agent: ClassVar[pydantic_ai.Agent[Any, Any]]

    def prompt(self, task_input: InputT, ctx: RunContext) -> Any:
        """What the model is given as the user's message: the input as JSON unless overridden.

        An input is data from elsewhere. Instructions belong to the pydantic-ai agent.
        """
        del ctx
        return self.input_type.dump_json(task_input, indent=1).decode()

    def deps(self, task_input: InputT, ctx: RunContext) -> Any:
        """What tools and dynamic instructions get as `deps`."""
        del task_input
        return ctx

    async def run(self, task_input: InputT, ctx: RunContext) -> OutputT:
        """Ask. Raises ModelFailed."""
        asked = await ctx.ask(
            self.model_agent, self.prompt(task_input, ctx), deps=self.deps(task_input, ctx)
        )
        output: OutputT = asked.output
        return output
