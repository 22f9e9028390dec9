"""One connection that many callers share: commands go out as they come, answers come in order.

The library's own client takes a connection from its pool for each command and packs it in Python;
commands packed by hiredis go 1.6 times as fast alone and 2.5 times in bulk (`W1 enqueue, raw` of
`python -m tests.benchmarks`). What is hard about a
connection (login, TLS, sockets of either kind, parsing) stays the library's; nothing is retried.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

SMALL = 32 * 1024  # bytes that an idle line takes at once: half of what it buffers before it waits
SECOND_LOOK = 0.1  # seconds for what arrived while this process stood still to be read

Part = str | bytes | int


def packed(*parts: Part) -> bytes:
    """A command as it goes over the wire."""
    found: bytes = pack_command(parts)  # type: ignore[arg-type]
    return found


@dataclass(slots=True)
class _Call:
    """Commands that were sent together, and the answers so far."""

    expected: int
    answered: "asyncio.Future[None]"
    since: float  # by the loop's clock
    replies: list[Any] = field(default_factory=list)


class Channel:
    """Connects at the first call, and again at the first call after a loss."""

    def __init__(self, make: Callable[[], AbstractConnection], *, timeout: float) -> None:
        """Store. `timeout`: seconds for an answer; past it the connection is given up."""
        self._make = make
        self._timeout = timeout
        self._waiting: deque[_Call] = deque()
        self._outgoing: list[bytes] = []
        self._news = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self._connection: AbstractConnection | None = None
        self._line: tuple[asyncio.Task[None], ...] = ()  # who reads and who writes, while it stands
        self._watch: asyncio.TimerHandle | None = None  # while anybody waits
        self._overdue: _Call | None = None

    async def call(self, *parts: Part) -> Any:
        """One command and its answer. Raises the library's errors."""
        (reply,) = await self.send([packed(*parts)])
        return reply

    async def send(self, commands: Sequence[bytes]) -> list[Any]:
        """Packed commands in one write, and their answers. Raises the first error among them.

        A caller that is cancelled leaves the commands sent; their answers are dropped.
        """
        while not self._line:
            self._opening = self._opening or asyncio.create_task(self._open())
            await asyncio.shield(self._opening)
        loop = asyncio.get_running_loop()
        call = _Call(len(commands), loop.create_future(), loop.time())
        idle = not self._waiting and not self._outgoing
        self._waiting.append(call)
        if self._watch is None:
            self._watch = loop.call_later(self._timeout, self._look)
        # A lone caller need not wait for a task to be woken. Many at a time share one write.
        if not (idle and await self._sent_at_once(commands)):
            self._outgoing.extend(commands)
            self._news.set()
        await call.answered
        for reply in call.replies:
            if isinstance(reply, Exception):
                raise reply
        return call.replies

    async def close(self) -> None:
        """Close the connection; whoever still waits hears that it is gone."""
        if self._opening is not None:
            self._opening.cancel()
        line = self._line
        self._lose(RedisConnectionError("the connection was closed"))
        if self._watch is not None:
            self._watch.cancel()
        await asyncio.gather(*line, return_exceptions=True)

    async def _open(self) -> None:
        try:
            connection: Any = self._make()  # typed in parts only
            async with asyncio.timeout(self._timeout):
                await connection.connect()
        except TimeoutError:
            raise RedisTimeoutError(f"not connected within {self._timeout:g} s") from None
        finally:
            self._opening = None
        self._connection = connection
        self._line = (
            asyncio.create_task(self._read(connection), name="aurora redis reading"),
            asyncio.create_task(self._write(connection), name="aurora redis writing"),
        )
        for each in self._line:
            each.add_done_callback(self._ended)

    async def _sent_at_once(self, commands: Sequence[bytes]) -> bool:
        """False for what may have to wait: a caller that is cancelled must not cut it short."""
        connection = self._connection
        if connection is None or not connection.is_connected or sum(map(len, commands)) > SMALL:
            return False
        try:
            await connection.send_packed_command(commands, check_health=False)
        except (RedisError, OSError) as error:
            self._lose(error)  # and the caller hears it as everybody does
        return True

    def _look(self) -> None:
        """Give the connection up when the answer that is next does not come.

        One timer for all who wait, since answers come in order. A late one is looked for twice:
        where this process stood still it has arrived, and was not read yet.
        """
        self._watch = None
        if not self._waiting:
            return
        loop, oldest = asyncio.get_running_loop(), self._waiting[0]
        due = oldest.since + self._timeout
        if loop.time() < due:
            self._watch = loop.call_at(due, self._look)
        elif oldest is not self._overdue:
            self._overdue = oldest
            self._watch = loop.call_later(SECOND_LOOK, self._look)
        else:
            self._lose(RedisTimeoutError(f"no answer within {self._timeout:g} s"))

    async def _write(self, connection: AbstractConnection) -> None:
        while True:
            if not self._outgoing:
                self._news.clear()
                await self._news.wait()
            commands, self._outgoing = self._outgoing, []
            await connection.send_packed_command(commands, check_health=False)

    async def _read(self, connection: AbstractConnection) -> None:
        # Also while nobody waits: so the loss of an idle connection is seen before it is used.
        # The library closes the connection when this is cancelled.
        while True:
            try:
                reply = await connection.read_response(disable_decoding=True)
            except ResponseError as error:
                reply = error
            call = self._waiting[0]
            call.replies.append(reply)
            if len(call.replies) == call.expected:
                self._waiting.popleft()
                if not call.answered.done():
                    call.answered.set_result(None)
            if isinstance(reply, ReadOnlyError):
                # A replica since a failover, which keeps its connections and refuses for good.
                # The next call asks the address again, that leads to the primary by now.
                await connection.disconnect()
                raise reply

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            return
        error = task.exception()
        if task in self._line:
            known = isinstance(error, RedisError | OSError)
            self._lose(error if known else RedisConnectionError(f"lost: {error!r}"))

    def _lose(self, error: BaseException | None) -> None:
        """Forget the connection; nobody waits for what will not come."""
        line, self._line = self._line, ()
        self._connection = self._overdue = None
        waiting, self._waiting = self._waiting, deque()
        self._outgoing = []
        for task in line:
            task.cancel()
        for call in waiting:
            if not call.answered.done():
                call.answered.set_exception(error or RedisConnectionError("lost"))
