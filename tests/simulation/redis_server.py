"""The model as a server: connections, blocking reads, restarts, and what a loss of power takes."""

import asyncio
import hashlib
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hiredis

from tests.simulation.redis_keys import RedisError, Simple
from tests.simulation.redis_model import Redis
from tests.simulation.redis_scripts import Scripts
from tests.simulation.virtual import CURRENT, NOBODY, START, Process, VirtualLoop

SNAPSHOTS = 0.25  # seconds between states that a loss of power may go back to
KEPT = 8  # of them
NEAREST, FURTHEST = 0.00005, 0.001  # seconds between a process and the server, each way


@dataclass(slots=True)
class Trouble:
    """What the network does to one process just now."""

    slow: float = 0.0  # seconds more, at most, each way
    lose_replies: float = 0.0  # the probability that an answer is lost, and the connection with it
    cut: bool = False  # nothing comes through, and nobody is told


FINE = Trouble()


class RedisServer:
    """One server; its state outlives its restarts."""

    def __init__(self, loop: VirtualLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.skew = 0.0  # seconds that its clock is ahead
        self.up = True
        self.trouble: dict[str, Trouble] = {}  # by a process' name
        self.links: set[Link] = set()
        self.redis = Redis(self._clock)
        self.scripts = Scripts(self.redis)
        self._past: deque[tuple[Any, Any]] = deque(maxlen=KEPT)
        self.trace = hashlib.sha256()
        self.connections = 0
        loop.connect = self.connect

    def _clock(self) -> int:
        return int((START + self.loop.time() + self.skew) * 1000)

    async def connect(self, protocol: asyncio.BaseProtocol) -> "Link":
        """Answer a connection, or refuse it."""
        await asyncio.sleep(self.rng.uniform(0.0001, 0.001))
        process = CURRENT.get()
        if not self.up:
            raise ConnectionRefusedError(111, "Connection refused")
        link = Link(self, protocol, process)
        if self.trouble_of(process).cut:
            await asyncio.Event().wait()  # the connecting side's timeout ends it
        self.links.add(link)
        if process is not None:
            process.on_death.append(link.vanish)
        protocol.connection_made(link)
        return link

    def trouble_of(self, process: Process | None) -> Trouble:
        """What lies between it and us."""
        return self.trouble.get(process.name, FINE) if self.trouble and process else FINE

    def command(self, *args: bytes) -> Any:
        """Somebody else's command, at once."""
        found = self.redis.execute(args)
        self.wake()
        return found

    def execute(self, args: list[bytes]) -> Any:
        """One command, scripts included. Raises RedisError."""
        self.trace.update(b"%.6f " % self.loop.time() + b" ".join(args))
        match args[0].upper():
            case b"EVALSHA":
                return self.scripts.evalsha(*args[1:])
            case b"EVAL":
                return self.scripts.eval(*args[1:])
        return self.redis.execute(args)

    def wake_if_changed(self) -> None:
        """Where entries were added, those who wait for that stream look again."""
        if self.redis.changed:
            changed, self.redis.changed = self.redis.changed, set()
            for link in self._in_order():
                if not changed.isdisjoint(link.waits_for):
                    link.look_again()

    def wake(self) -> None:
        """All blocked readers look again: their streams or groups may be gone."""
        self.redis.changed.clear()
        for link in self._in_order():
            link.look_again()

    def _in_order(self) -> "list[Link]":
        return sorted(self.links, key=lambda each: each.number)

    async def remember(self) -> None:
        """Keep some states of the past, for `lose_power`."""
        while True:
            self._past.append(self.redis.state())
            await asyncio.sleep(SNAPSHOTS)

    def crash(self) -> None:
        """Every connection breaks; what was answered is kept."""
        self.up = False
        self.scripts = Scripts(self.redis)
        for link in self._in_order():
            link.break_off()

    def start(self) -> None:
        """Answer again."""
        self.up = True

    def lose_power(self) -> None:
        """As `crash`, and what was written last is gone."""
        self.crash()
        if self._past:
            self.redis.keys, self.redis.expires = self.rng.choice(self._past)
            self._past.clear()  # they are in use now


class Link(asyncio.Transport):
    """One connection, seen from the client; commands are answered in order."""

    def __init__(
        self, server: RedisServer, protocol: asyncio.BaseProtocol, process: Process | None
    ) -> None:
        super().__init__()
        self._server = server
        self._protocol: Any = protocol
        self._process = process
        self._context = process.context if process else NOBODY
        self._parser = hiredis.Reader()
        self._commands: deque[list[bytes]] = deque()
        self._blocked: asyncio.TimerHandle | None = None
        self.waits_for: list[bytes] = []  # the streams of the last blocking read
        server.connections += 1
        self.number = server.connections
        self._open = True
        self._until = 0.0
        self._deaf = False
        self._reaches_at = 0.0
        self._answers_at = 0.0

    # What the client calls ----------------------------------------------------------------------

    def write(self, data: Any) -> None:
        """On its way; in order, after a while."""
        if self._open:
            self._reaches_at = self._later(self._reaches_at, self._arrive, bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        self.vanish()
        self._server.loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return not self._open

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        """Nothing is ever that much."""

    def resume_reading(self) -> None:
        """See above."""

    # What the server does -----------------------------------------------------------------------

    def vanish(self) -> None:
        """The client is gone; what it sent before is still dealt with."""
        self._open = False
        self._server.links.discard(self)
        if self._blocked is not None:
            self._blocked.cancel()
            self._blocked = None

    def break_off(self) -> None:
        """The connection breaks, and the client hears of it."""
        if self._open:
            self.vanish()
            self._deliver(
                lambda: self._protocol.connection_lost(ConnectionResetError(104, "reset by peer"))
            )

    def _later(self, not_before: float, do: Callable[..., None], *args: Any) -> float:
        loop, draw = self._server.loop, self._server.rng.random
        trouble = self._server.trouble_of(self._process)
        at = loop.time() + (NEAREST + (FURTHEST - NEAREST) * draw()) + trouble.slow * draw()
        at = max(at, not_before + 1e-7)
        # Not in the client's name: what is on its way arrives whatever becomes of it.
        loop.call_at(at, do, *args, context=NOBODY)
        return at

    def _deliver(self, do: Callable[[], None]) -> None:
        """In the client's name: it hears when it runs."""
        self._server.loop.call_soon(do, context=self._context)

    def _arrive(self, data: bytes) -> None:
        if self._is_deaf() or not self._server.up:
            return
        self._parser.feed(data)
        while (command := self._parser.gets()) is not False:
            self._commands.append(command)
        self._work()

    def _work(self) -> None:
        while self._commands and self._blocked is None:
            self._answer(self._commands.popleft())

    def _answer(self, command: list[bytes]) -> None:
        server = self._server
        try:
            reply = server.execute(command)
        except RedisError as error:
            self._send(b"-%s\r\n" % str(error).encode())
            return
        if reply is None and (seconds := _blocks(command)) is not None:
            if not self._open:
                return
            keys = command[[each.upper() for each in command].index(b"STREAMS") + 1 :]
            self.waits_for = keys[: len(keys) // 2]
            self._block(command, server.loop.time() + seconds)
            return
        self._send(encoded(reply, array=command[0].upper() == b"XREADGROUP"))
        server.wake_if_changed()

    def _give_up(self) -> None:
        self._blocked = None
        self._commands.popleft()
        self._send(b"*-1\r\n")
        self._work()

    def look_again(self) -> None:
        """A blocked read looks for what it waits for."""
        if self._blocked is None:
            return
        self._blocked.cancel()
        self._blocked = None
        command = self._commands.popleft()
        try:
            reply = self._server.execute(command)
        except RedisError as error:
            self._send(b"-%s\r\n" % str(error).encode())
        else:
            if reply is None:
                self._block(command, self._until)
                return
            self._send(encoded(reply, array=True))
        self._work()

    def _block(self, command: list[bytes], until: float) -> None:
        self._commands.appendleft(command)
        self._until = until
        self._blocked = self._server.loop.call_at(until, self._give_up, context=NOBODY)

    def _send(self, reply: bytes) -> None:
        if not self._open:
            return
        trouble = self._server.trouble_of(self._process)
        if self._is_deaf():
            return
        if trouble.lose_replies and self._server.rng.random() < trouble.lose_replies:
            self.break_off()
            return
        self._answers_at = self._later(self._answers_at, self._reach_client, reply)

    def _is_deaf(self) -> bool:
        """Half open: what was lost once does not come later, the client's timeout ends it."""
        self._deaf = self._deaf or self._server.trouble_of(self._process).cut
        return self._deaf

    def _reach_client(self, reply: bytes) -> None:
        if self._open:
            self._server.loop.run_in(self._context, self._protocol.data_received, reply)


def encoded(reply: Any, *, array: bool = False) -> bytes:
    """A reply in RESP2."""
    kind = type(reply)
    if kind is bytes:
        return b"$%d\r\n%s\r\n" % (len(reply), reply)
    if kind is int:
        return b":%d\r\n" % reply
    if reply is None:
        return b"*-1\r\n" if array else b"$-1\r\n"
    if kind is Simple:
        return b"+%s\r\n" % bytes(reply)
    return b"*%d\r\n%s" % (len(reply), b"".join([encoded(each) for each in reply]))


def _blocks(command: list[bytes]) -> float | None:
    """Seconds for which a read waits, None where it does not."""
    if command[0].upper() != b"XREADGROUP":
        return None
    upper = [each.upper() for each in command[:10]]
    return int(command[upper.index(b"BLOCK") + 1]) / 1000 if b"BLOCK" in upper else None
