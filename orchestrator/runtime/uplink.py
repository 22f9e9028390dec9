"""A child's way to its worker: asks on the agent's behalf, and says how the attempt ended.

Here is no Redis and no Postgres: progress, rows and submissions go through the worker, so that the
child needs none of their passwords.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import IO, Any

from pydantic import TypeAdapter

from orchestrator.client import Receipt
from orchestrator.context import Admission
from orchestrator.errors import PayloadTooLarge
from orchestrator.event import TaskEvent
from orchestrator.model_options import ModelOptions
from orchestrator.provider import News
from orchestrator.runtime.dialogue import (
    decode,
    encode,
    hear_error,
    hear_values,
    line_limit,
    say_news,
    say_values,
)
from orchestrator.spending import Need
from orchestrator.task import Durability, Task, TaskId, TaskState
from orchestrator.usage import ModelCall

LOG_LIMIT = 8_000  # characters of one log message

_RECEIPTS = TypeAdapter(list[Receipt])
_NEED = TypeAdapter(Need)


class Uplink:
    """One line at a time up, from any thread; answers come to who asked, in any order.

    Reads in a thread of its own, so that the worker's death is noticed whatever the agent does.
    """

    def __init__(
        self, channel: socket.socket, lines: IO[bytes], *, nonce: str, max_output: int
    ) -> None:
        """Store. `lines` reads from `channel`."""
        self._channel = channel
        self._lines = lines
        self._nonce = nonce
        self._limit = line_limit(max_output)
        self._max_output = max_output
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[Any]] = {}

    def start(self) -> None:
        """Listen from now on."""
        threading.Thread(target=self._listen, name="aurora uplink", daemon=True).start()
        # A process that the agent forks goes on with the agent's code, and would end the attempt a
        # second time: it has no way to the worker. (`subprocess` closes it by itself.)
        os.register_at_fork(after_in_child=self._cut)

    def say(self, what: str, **body: Any) -> None:
        """Say one thing. Raises PayloadTooLarge, or OSError in a forked process."""
        line = encode({"nonce": self._nonce, "say": what, **body})
        if len(line) > self._limit:
            raise PayloadTooLarge(len(line), self._max_output, setting="AURORA_MAX_OUTPUT")
        with self._lock:
            self._channel.sendall(line)

    async def ask(self, what: str, **body: Any) -> Any:
        """Say one thing and wait for its answer; raises what the worker's side raised."""
        number = next(self._numbers)
        answer: Future[Any] = Future()
        self._waiting[number] = answer
        try:
            self.say(what, id=number, **body)
            return await asyncio.wrap_future(answer)
        finally:
            self._waiting.pop(number, None)

    async def emit(self, detail: dict[str, Any]) -> bool:
        """`ctx.progress`."""
        return bool(await self.ask("progress", detail=detail))

    async def read(self, sql: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """`ctx.query`."""
        rows = await self.ask("query", sql=sql, params=say_values(params))
        return [hear_values(row) for row in rows]

    async def admit(self, call_id: str, provider: str, need: Need) -> Admission:
        """Implements `context.ModelAccess`, as the next three do."""
        said = await self.ask(
            "admit", call_id=call_id, provider=provider, need=_NEED.dump_python(need, mode="json")
        )
        return Admission(*said)

    async def tell(self, call_id: str, provider: str, news: News) -> None:
        await self.ask("tell", call_id=call_id, provider=provider, news=say_news(news))

    async def spend(self, call: ModelCall) -> None:
        await self.ask("spend", call=call.model_dump(mode="json"))

    async def drop(self, call_id: str) -> None:
        await self.ask("drop", call_id=call_id)

    async def models(self) -> ModelOptions:
        """The options of the worker, with the keys."""
        return ModelOptions.model_validate(await self.ask("models"))

    async def local(self) -> str:
        """The address of the model of this machine."""
        return str(await self.ask("local"))

    def extend(self, seconds: float) -> None:
        """Ask the worker for more time, which it watches as well."""
        self.say("extend", seconds=seconds)

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in self._lines:
                self._hear(decode(line))
        # The worker is gone, or has closed the channel: nobody wants to know what comes of this.
        os.killpg(0, signal.SIGKILL)

    def _hear(self, said: dict[str, Any]) -> None:
        answer = self._waiting.pop(said["id"], None)
        if answer is None or not answer.set_running_or_notify_cancel():
            return
        if "error" in said:
            answer.set_exception(hear_error(said["error"]))
        else:
            answer.set_result(said["answer"])

    def _cut(self) -> None:
        # Another thread may have held the lock, and there are no other threads here.
        self._lock = threading.Lock()
        if (descriptor := self._channel.detach()) >= 0:
            os.close(descriptor)


class RemoteSubmitter:
    """Implements `client.Submitter` through the worker's."""

    def __init__(self, uplink: Uplink) -> None:
        """Store."""
        self._uplink = uplink

    async def submit(
        self, task: Task, *, durability: Durability | None = None, session: Any = None
    ) -> Receipt:
        """Accept one task. Raises as the worker's submitter, and TypeError for a session."""
        if session is not None:
            raise TypeError("session= does not reach out of a child process; leave it out")
        return (await self.submit_many([task], durability=durability))[0]

    async def submit_many(
        self, tasks: Sequence[Task], *, durability: Durability | None = None
    ) -> list[Receipt]:
        """Accept many. Raises as the worker's submitter."""
        said = [each.model_dump(mode="json") for each in tasks]
        return _RECEIPTS.validate_python(
            await self._uplink.ask("submit", tasks=said, durability=durability)
        )

    async def ended(
        self, task_id: TaskId, *, since: str | None, timeout: float | None, recorded: bool
    ) -> TaskEvent:
        """Wait for the task's end. Raises TimeoutError after `timeout` seconds."""
        return TaskEvent.model_validate(
            await self._uplink.ask(
                "ended", task_id=task_id, since=since, timeout=timeout, recorded=recorded
            )
        )

    async def state(self, task_id: TaskId) -> TaskState:
        """Where the task stands now. Raises TaskNotFound."""
        return TaskState(await self._uplink.ask("state", task_id=task_id))

    async def cancel(self, task_id: TaskId, *, actor: str) -> TaskState:
        """Ask for the task's end. Raises TaskNotFound."""
        return TaskState(await self._uplink.ask("cancel", task_id=task_id, actor=actor))


class UplinkHandler(logging.Handler):
    """What is logged in the child is logged in the worker."""

    def __init__(self, uplink: Uplink) -> None:
        """Store."""
        super().__init__()
        self._uplink = uplink

    def emit(self, record: logging.LogRecord) -> None:
        """Send it; a forked process has no way to."""
        with contextlib.suppress(OSError):
            self._uplink.say(
                "log",
                name=record.name,
                level=record.levelno,
                text=self.format(record)[:LOG_LIMIT],
                event=getattr(record, "event", None),
            )
