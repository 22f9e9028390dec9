"""Runs one attempt, and makes an Outcome of whatever the agent does.

Knows neither Redis nor Postgres.
"""

import asyncio
import inspect
import logging
import traceback
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from orchestrator.agent import Agent
from orchestrator.context import RunContext, set_running
from orchestrator.errors import DeadReason, InvalidInput, PayloadTooLarge, text_of
from orchestrator.model_failure import ModelFailed
from orchestrator.outcome import Completed, Failed, Fault, Outcome, Retrying, SetAside
from orchestrator.retry import GiveUp, Retry, RetryLater
from orchestrator.runtime.forked import run_in_loop, run_in_thread
from orchestrator.runtime.witness import Witness

logger = logging.getLogger("aurora.runner")

LONGEST_DELAY = timedelta(days=365)  # what user code asks for far beyond that has no date
TRACEBACK_LIMIT = 8_000  # characters; the innermost frames are at the end and stay


class Runner:
    """One per worker; holds no task's state."""

    def __init__(
        self, threads: Executor, *, max_output: int, witness: Witness | None = None
    ) -> None:
        """Store. `threads` runs agents whose `run` is a plain function; `max_output` in bytes."""
        self._threads = threads
        self._witness = witness or Witness()
        self._max_output = max_output

    async def run(self, agent: Agent[Any, Any], ctx: RunContext) -> Outcome:
        """One attempt under its timeout. Only a cancellation of the caller's passes through."""
        set_running(ctx)
        ctx.clock.start(agent.timeout.total_seconds())
        try:
            try:
                task_input = agent.load_input(ctx.task.input)
            except InvalidInput as error:  # its own: what `run` gives to another agent is an error
                return SetAside(DeadReason.INVALID_INPUT, str(error))
            if _is_coroutine(type(agent).run):
                step = self._witness.step_of(ctx.task_id)
                result = await run_in_loop(
                    agent.run(task_input, ctx), step, limit=ctx.clock.running
                )
            else:
                result = await self._in_thread(agent, task_input, ctx)
            return Completed(self._serialised(agent, result))
        except GeneratorExit:
            raise  # this coroutine is being closed
        except BaseException as error:
            # SIGINT is handled by the loop, so that an interruption is the agent's own, too.
            # A cancellation that nobody asked this attempt for is the agent's own: something that
            # it awaited was cancelled.
            if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                raise
            return _ended_by(error, agent, ctx)
        finally:
            ctx.clock.limit = None  # it knows this run, which knows the context

    def _serialised(self, agent: Agent[Any, Any], result: Any) -> bytes:
        try:
            # Past the adapter's own methods, as in Agent.load_input.
            checked = agent.output_type.validator.validate_python(result)
            found = agent.output_type.serializer.to_json(checked)
        except ValidationError as error:
            raise TypeError(
                f"{agent.name}.run returned what its output type refuses: {error}"
            ) from error
        if len(found) > self._max_output:
            raise PayloadTooLarge(len(found), self._max_output, setting="AURORA_MAX_OUTPUT")
        return found

    async def _in_thread(self, agent: Agent[Any, Any], task_input: Any, ctx: RunContext) -> Any:
        # The thread sees the same context, so that current_run() and delay() work in it. A thread
        # cannot be stopped: after a timeout it runs on, and what it returns is dropped.
        context = copy_context()
        async with ctx.clock.running():
            result = await asyncio.get_running_loop().run_in_executor(
                self._threads, run_in_thread, lambda: context.run(agent.run, task_input, ctx)
            )
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(
                f"{agent.name}.run returned a coroutine: write `async def run`, also where it is"
                " wrapped"
            )
        return result


def _ended_by(error: BaseException, agent: Agent[Any, Any], ctx: RunContext) -> Outcome:
    """What an attempt comes to that raised this."""
    try:
        return _by_policy(error, agent, ctx)
    except Exception as failed:
        # Theirs, too: a policy, or a delay, that cannot be reckoned with.
        logger.exception("task %s: its retry failed", ctx.task_id)
        fault = _fault(error)
        said = f"{fault.message}; and its retry raised {type(failed).__name__}: {text_of(failed)}"
        return Failed(replace(fault, message=_utf8(said[:2_000])))


def _by_policy(error: BaseException, agent: Agent[Any, Any], ctx: RunContext) -> Outcome:
    match error:
        case GiveUp():
            return Failed(_fault(error))
        case ModelFailed():
            fault = _model_fault(error)
            if not error.worth_retrying:
                return Failed(fault)
            return retry_or_fail(agent.retry, ctx.attempt, fault)
        case RetryLater():
            return retry_or_fail(agent.retry, ctx.attempt, _fault(error), error.delay)
    fault = _fault(error)
    if ctx.clock.has_run_out:
        fault = timeout_fault(agent, fault.traceback)
    logger.info(
        "task %s attempt %d: %s: %s", ctx.task_id, ctx.attempt, fault.type, fault.message,
        extra={"event": "attempt.raised", "task_id": ctx.task_id},
    )  # fmt: skip
    return retry_or_fail(agent.retry, ctx.attempt, fault)


@lru_cache(maxsize=1024)
def _is_coroutine(run: Callable[..., Any]) -> bool:
    # Asked once: it unwraps and looks at flags, a tenth of what a short attempt costs.
    return inspect.iscoroutinefunction(run)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def retry_or_fail(
    policy: Retry, attempt: int, fault: Fault, after: timedelta | None = None
) -> Retrying | Failed:
    """What a failed attempt comes to by the agent's policy; `after` replaces its delay."""
    delay = policy.delay_after(attempt)
    if delay is None:
        return Failed(fault)
    if after is not None:
        delay = max(after, timedelta(0))
    return Retrying(fault, min(delay, LONGEST_DELAY))


def timeout_fault(agent: Agent[Any, Any], where: str | None) -> Fault:
    """The error of an attempt that was not done in time; `where`: what it was at."""
    return Fault(
        type="Timeout",
        message=f"not done after {agent.timeout.total_seconds():g} s ({agent.name}.timeout)",
        traceback=where,
    )


def _fault(error: BaseException) -> Fault:
    try:
        lines = traceback.format_exception(error)
    except Exception:  # noqa: BLE001 - it looks at attributes, which may be theirs
        lines = [*traceback.format_tb(error.__traceback__), f"{type(error).__name__}\n"]
    text = "".join(lines)
    return Fault(
        type=type(error).__name__,
        message=_utf8(text_of(error)[:2_000]) or type(error).__name__,
        traceback=_utf8(text[-TRACEBACK_LIMIT:]),
    )


def _model_fault(error: ModelFailed) -> Fault:
    details = {
        name: _utf8(value[:TRACEBACK_LIMIT]) if isinstance(value, str) else value
        for name, value in error.details.items()
    }
    return Fault(type=str(error.kind), message=_utf8(str(error)[:2_000]), details=details)


def _utf8(said: str) -> str:
    """Text that can be written down: a lone surrogate (a hostile file name) is escaped."""
    return said.encode("utf-8", "backslashreplace").decode()
