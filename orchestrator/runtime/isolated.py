"""Runs one attempt in a child process of its own, and serves what the agent asks from in there.

The same `run` as the Runner's, for agents with `isolation = "process"` and for suspects. A death of
the child is a value, too: `Crashed`.
"""

import asyncio
import logging
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from pydantic import TypeAdapter

from orchestrator.agent import Agent
from orchestrator.client import Receipt, Submitter
from orchestrator.context import RunContext
from orchestrator.errors import ConfigurationError, Overloaded, PayloadTooLarge
from orchestrator.model_options import ModelOptions
from orchestrator.outcome import Crashed, Fault, Outcome
from orchestrator.runtime.child_process import ChildProcess
from orchestrator.runtime.dialogue import (
    Start,
    encode,
    hear_news,
    hear_outcome,
    hear_values,
    line_limit,
    say_error,
    say_options,
    say_values,
)
from orchestrator.runtime.runner import retry_or_fail, timeout_fault
from orchestrator.spending import Need
from orchestrator.task import Durability, Task
from orchestrator.tracing.current import current_tracing
from orchestrator.usage import ModelCall

logger = logging.getLogger("aurora.isolated")

CHILD = "orchestrator.runtime.child"
START_LIMIT = 60.0  # seconds to import the agent; some bring a model's whole framework
# Seconds past the timeout: the child's own comes first, and knows the line where the agent stood.
TIMEOUT_GRACE = 1.0
RESTART_AFTER = timedelta(seconds=1)  # soon; not at once, so that what dies at once does not spin
REQUESTS = 1_000  # at a time from one child

_RECEIPTS = TypeAdapter(list[Receipt])
_NEED = TypeAdapter(Need)


class Models(Protocol):
    """What a child is told of models when its agent asks one: it calls the provider itself."""

    options: ModelOptions

    async def local(self) -> str:
        """The address of the model of this machine."""
        ...


class IsolatedRunner:
    """One per worker; holds no task's state."""

    def __init__(self, submitter: Submitter, models: Models, *, max_output: int) -> None:
        """Store. `submitter`: what agents submit through; `max_output` in bytes."""
        self._submitter = submitter
        self._models = models
        self._max_output = max_output
        # A hundred interpreters that start together would each take as long as all of them.
        self._starts = asyncio.Semaphore(os.cpu_count() or 1)

    async def run(self, agent: Agent[Any, Any], ctx: RunContext) -> Outcome:
        """One attempt under its timeout, which begins when the agent is imported.

        Only a cancellation of the caller's passes through; the child is dead then, too.
        """
        turn = _Turn(self._starts)
        async with turn:
            try:
                child = await ChildProcess.start(CHILD, limit=line_limit(self._max_output))
            except OSError as error:  # no memory, no processes, no descriptors: the machine's fault
                fault = Fault(type=type(error).__name__, message=f"no child process: {error}")
                return retry_or_fail(agent.retry, ctx.attempt, fault)
            talk = _Talk(
                child, agent, ctx, self._submitter, self._models, max_output=self._max_output
            )
            try:
                return await self._outcome(talk, turn)
            finally:
                await talk.end()

    async def _outcome(self, talk: "_Talk", turn: "_Turn") -> Outcome:
        child, agent = talk.child, talk.agent
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(START_LIMIT)

        def ready() -> None:
            if not turn.released:  # said again, it is no more time
                turn.release()
                limit.reschedule(loop.time() + agent.timeout.total_seconds() + TIMEOUT_GRACE)
                talk.ctx.clock.limit = limit  # which the child's waits for a provider extend

        try:
            async with limit:
                await talk.begin()
                found = await talk.outcome(ready)
            return found or self._crashed(talk, await child.how_it_ended())
        except TimeoutError:
            if not turn.released:
                return self._crashed(talk, f"did not start within {START_LIMIT:g} s")
            fault = timeout_fault(agent, child.tail() or None)
            return retry_or_fail(agent.retry, talk.ctx.attempt, fault)
        except (ValueError, TypeError, LookupError, PayloadTooLarge) as error:
            return self._crashed(talk, f"said what is no message of ours: {error}")
        finally:
            talk.ctx.clock.limit = None

    def _crashed(self, talk: "_Talk", how: str) -> Crashed:
        child, ctx = talk.child, talk.ctx
        said = f"child {child.pid} of worker {ctx.worker} {how}"[:2_000]
        logger.warning(
            "task %s attempt %d: %s", ctx.task_id, ctx.attempt, said,
            extra={"event": "attempt.crashed", "task_id": ctx.task_id},
        )  # fmt: skip
        fault = Fault(type="Crashed", message=said, traceback=child.tail() or None)
        return Crashed(fault, RESTART_AFTER)


class _Turn:
    """A turn to start an interpreter; given back once it has started, or has failed to."""

    def __init__(self, starts: asyncio.Semaphore) -> None:
        self._starts = starts
        self.released = False

    async def __aenter__(self) -> None:
        await self._starts.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        if not self.released:
            self.released = True
            self._starts.release()


class _Talk:
    """One attempt's conversation with its child."""

    def __init__(
        self,
        child: ChildProcess,
        agent: Agent[Any, Any],
        ctx: RunContext,
        submitter: Submitter,
        models: Models,
        *,
        max_output: int,
    ) -> None:
        self.child = child
        self.agent = agent
        self.ctx = ctx
        self._submitter = submitter
        self._models = models
        self._max_output = max_output
        self._nonce = secrets.token_hex(16)
        self._serving: set[asyncio.Task[None]] = set()
        self._extended = 0.0  # seconds

    async def begin(self) -> None:
        """Say what to run."""
        tracing = current_tracing()
        start = Start(
            nonce=self._nonce,
            parent=os.getpid(),
            path=tuple(sys.path),
            module=type(self.agent).__module__,
            task=self.ctx.task,
            attempt=self.ctx.attempt,
            worker=self.ctx.worker,
            deadline=datetime.now(UTC) + self.agent.timeout,
            memory_limit=self.agent.memory_limit,
            cpu_limit=self.agent.cpu_limit,
            max_output=self._max_output,
            log_level=self.ctx.logger.getEffectiveLevel(),
            # It would wait for a collector that is away, at its end and again for each attempt.
            traceparent=tracing.traceparent() if tracing and tracing.delivering else None,
            trace_content=tracing.content if tracing else False,
        )
        await self.child.say(encode(start.model_dump(mode="json")))

    async def outcome(self, ready: Callable[[], None]) -> Outcome | None:
        """Listen until the first result, and no further; None when the child ends without one.

        Raises ValueError, TypeError or LookupError where it says what is no message.
        """
        while (said := await self.child.hear()) is not None:
            if said["nonce"] != self._nonce:
                raise ValueError("a line without this attempt's nonce")
            match said["say"]:
                case "result":
                    return hear_outcome(said["outcome"], max_output=self._max_output)
                case "unfit":
                    fault = Fault(type=str(said["type"]), message=str(said["message"])[:2_000])
                    return retry_or_fail(self.agent.retry, self.ctx.attempt, fault)
                case "ready":
                    ready()
                case "log":
                    self._log(said)
                case "extend":
                    # By no more than a run may wait for its provider, whatever the child says.
                    self._extend(float(said["seconds"]))
                case _:
                    self._serve(said)
        return None

    async def end(self) -> None:
        """End the child, and what was still being done for it."""
        for serving in self._serving:
            serving.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self.child.end()

    def _serve(self, said: dict[str, Any]) -> None:
        serving = asyncio.create_task(self._answer(int(said["id"]), said))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _answer(self, number: int, said: Mapping[str, Any]) -> None:
        try:
            line = await self._reply(number, said)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the agent's that asked
            line = encode({"id": number, "error": say_error(error)})
        await self.child.say(line)

    async def _reply(self, number: int, said: Mapping[str, Any]) -> bytes:
        if len(self._serving) > REQUESTS:
            raise Overloaded(f"{REQUESTS} requests of one attempt are open", retry_after=1)
        line = encode({"id": number, "answer": await self._do(said)})
        if len(line) > line_limit(self._max_output):
            raise PayloadTooLarge(len(line), self._max_output, setting="AURORA_MAX_OUTPUT")
        return line

    async def _do(self, said: Mapping[str, Any]) -> Any:
        match said["say"]:
            case "progress":
                return await self.ctx.emit(said["detail"])
            case "query":
                rows = await self.ctx.read(said["sql"], hear_values(said["params"]))
                return [say_values(row) for row in rows]
            case "admit" | "tell" | "spend" | "drop":
                return await self._do_for_calls(said)
            case "models":
                return say_options(self._models.options)
            case "local":
                return await self._models.local()
            case _:
                return await self._do_for_tasks(said)

    async def _do_for_tasks(self, said: Mapping[str, Any]) -> Any:
        match said["say"]:
            case "submit":
                tasks = [Task.model_validate(each) for each in said["tasks"]]
                chosen = Durability(said["durability"]) if said["durability"] else None
                receipts = await self._submitter.submit_many(tasks, durability=chosen)
                return _RECEIPTS.dump_python(receipts, mode="json")
            case "ended":
                event = await self._submitter.ended(
                    said["task_id"],
                    since=said["since"],
                    timeout=said["timeout"],
                    recorded=said["recorded"],
                )
                return event.model_dump(mode="json")
            case "state":
                return await self._submitter.state(said["task_id"])
            case "cancel":
                return await self._submitter.cancel(said["task_id"], actor=said["actor"])
            case unknown:
                raise ValueError(f"nothing that a worker does: {unknown}")

    async def _do_for_calls(self, said: Mapping[str, Any]) -> Any:
        access = self.ctx.access
        if access is None:
            raise ConfigurationError("this worker has no access to models")
        match said["say"]:
            case "admit":
                need = _NEED.validate_python(said["need"])
                admission = await access.admit(said["call_id"], said["provider"], need)
                return [admission.wait, admission.tokens_left]
            case "tell":
                await access.tell(said["call_id"], said["provider"], hear_news(said["news"]))
            case "spend":
                await access.spend(ModelCall.model_validate(said["call"]))
            case _:
                await access.drop(said["call_id"])
        return None

    def _extend(self, seconds: float) -> None:
        room = self._models.options.patience.total_seconds() - self._extended
        if 0 < seconds <= room:
            self._extended += seconds
            self.ctx.clock.extend(seconds)

    def _log(self, said: Mapping[str, Any]) -> None:
        name = said["name"]
        # Only loggers that exist: a name of the child's own would be kept for ever.
        known = name in logging.root.manager.loggerDict
        said_to = logging.getLogger(name) if known else self.ctx.logger
        text = said["text"] if known else f"{name}: {said['text']}"
        extra = {"event": said["event"], "task_id": self.ctx.task_id}
        said_to.log(int(said["level"]), "%s", text, extra=extra)
