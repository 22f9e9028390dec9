"""Runs an agent of pydantic-ai inside an attempt (`ctx.ask`), under its budget and record."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import pydantic_ai
from pydantic_ai.exceptions import (
    OutputTokenLimitExceeded,
    UnexpectedModelBehavior,
    UsageLimitExceeded,
)
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model
from pydantic_ai.models.instrumented import InstrumentedModel
from pydantic_ai.run import AgentRunResult

from orchestrator.context import RunContext
from orchestrator.errors import ConfigurationError
from orchestrator.model_failure import FailureKind, ModelFailed
from orchestrator.model_options import ModelOptions
from orchestrator.models.failures import raw_answer, unusable
from orchestrator.models.metered import Metered
from orchestrator.models.source import Found, LocalModel, ModelSource
from orchestrator.tracing.current import model_instrumentation

DepsT = TypeVar("DepsT")
AnswerT = TypeVar("AnswerT")


def asker(options: ModelOptions, *, local: LocalModel) -> "ModelAsker":
    """What `ctx.ask` of this process goes through."""
    return ModelAsker(ModelSource(options, local=local))


class ModelAsker:
    """Implements `context.Asker`; one per process."""

    def __init__(self, source: ModelSource) -> None:
        """Store."""
        self._source = source

    async def ask(
        self,
        ctx: RunContext,
        agent: pydantic_ai.Agent[DepsT, AnswerT],
        prompt: Any,
        *,
        deps: DepsT,
        options: Mapping[str, Any],
    ) -> AgentRunResult[AnswerT]:
        """Raises ModelFailed."""
        if ctx.access is None:
            raise ConfigurationError("models can be asked within a task only")
        given = dict(options)
        with pydantic_ai.capture_run_messages() as messages:
            model = Metered(
                await self._found(_wanted(agent, given.pop("model", None))),
                ctx.access,
                ctx.clock,
                timeout=self._source.options.timeout,
                patience=self._patience(ctx),
                keys=[each.get_secret_value() for each in self._source.options.keys.values()],
            )
            try:
                # Not as `model=`, which an `override` around this call would pass by.
                with agent.override(model=_traced(model)):
                    return await agent.run(prompt, deps=deps, **given)
            except OutputTokenLimitExceeded as error:
                raise self._cut(error, model, messages) from error
            except UnexpectedModelBehavior as error:
                raise unusable(error, model=model.name, raw=_raw(model, messages)) from error
            except UsageLimitExceeded as error:
                raise ModelFailed(
                    FailureKind.BUDGET_EXCEEDED, f"usage_limits of the run: {error}"
                ) from error

    async def close(self) -> None:
        """End the connections to providers."""
        await self._source.close()

    async def _found(self, wanted: Any) -> Found:
        try:
            return await self._source.get(wanted)
        except ConfigurationError as error:  # it will not be there a second later either
            raise ModelFailed(FailureKind.NOT_CONFIGURED, str(error)) from error

    def _cut(
        self, error: OutputTokenLimitExceeded, model: Metered, messages: list[ModelMessage]
    ) -> ModelFailed:
        if not model.was_cut:
            return unusable(error, model=model.name, raw=_raw(model, messages))
        return ModelFailed(
            FailureKind.BUDGET_EXCEEDED,
            f"{model.name}: the answer was cut where the task's budget of tokens ended",
            answer=_raw(model, messages),
        )

    def _patience(self, ctx: RunContext) -> Any:
        patience = self._source.options.patience
        if ctx.task.expires_at is None:
            return patience
        return min(patience, ctx.task.expires_at - datetime.now(UTC))


def _raw(model: Metered, messages: list[ModelMessage]) -> str:
    return model.scrub(raw_answer(messages))


def _traced(model: Model) -> Model:
    """With spans where there is tracing; pydantic-ai then makes those of the run and its tools."""
    instrumentation = model_instrumentation()
    return model if instrumentation is None else InstrumentedModel(model, instrumentation)


def _wanted(agent: pydantic_ai.Agent[Any, Any], given: Any) -> Any:
    """The model to wrap: that of an `agent.override(model=...)`, the call's, the agent's."""
    override = getattr(agent, "_override_model", None)  # no public way to ask for it
    found = override.get() if override is not None else None
    return found.value if found is not None else given or agent.model
