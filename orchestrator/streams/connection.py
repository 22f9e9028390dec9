"""Connections to Redis or Valkey, for commands, scripts and blocking reads.

What every task passes through goes over a shared `Channel`, the rest through the library's client.
Commands and blocking reads never share a connection, and no client retries by itself: a retried
XADD is a duplicate, and a read that is given up strands entries (measured: 11 % of sparse
messages with the library's defaults).
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import Any

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from orchestrator.errors import ConfigurationError, Overloaded, Unavailable, UnsuitableServer
from orchestrator.streams.channel import Channel, Part, packed
from orchestrator.streams.names import STREAMS, Keys, Stream

# The library types each reply as every shape it could have in either protocol, bytes or text; ours
# are bytes in RESP2 shapes, and the callers say so where they unpack them.
Client = Any

COMMAND_TIMEOUT = 5.0  # seconds for a command's answer
# Seconds for a blocking read's answer: BLOCK is one of them, and a command's five. Redis counts
# BLOCK by its wall clock: set back by an hour, it would answer an hour late (measured).
READER_TIMEOUT = 6.0
OLDEST = (7, 0)  # Redis: XAUTOCLAIM that names deleted entries, scripts with flags
SCRIPTS = (
    "acknowledge", "admit", "begin", "claim", "emit", "end", "finish", "hand_back", "hold", "look",
    "mine", "promote", "renew", "retire", "settle", "spend", "sweep", "take", "take_over", "tell",
)  # fmt: skip
INCLUDED = ("acknowledged.lua", "gated.lua")


class Streams:
    """One process' door to Redis. Translates the library's errors, and retries nothing."""

    def __init__(self, url: str, keys: Keys, *, connections: int = 8) -> None:
        """Store; the first command connects."""
        self.keys = keys
        self._url = url
        self.commands = _client(url, connections)
        self._channel = Channel(_connections(url).make_connection, timeout=COMMAND_TIMEOUT)
        self._scripts = {name: _source(name) for name in SCRIPTS}
        self._digests = {
            name: hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
            for name, source in self._scripts.items()
        }
        self._readers: list[Channel] = []

    async def run(self, script: str, keys: Sequence[str], args: Sequence[Part]) -> Any:
        """Run one of `scripts/`. Raises Unavailable, Overloaded; ResponseError for NOGROUP."""
        with translated():
            try:
                return await self._run(script, keys, args)
            except ReadOnlyError:
                # What the client reads would be a replica's past: it asks the address again, too.
                await self.commands.connection_pool.disconnect()
                raise

    async def add(self, entries: Sequence[tuple[str, Mapping[str, Part]]]) -> list[str]:
        """XADD these (key, fields) in one write; the entries' ids. Raises Unavailable, Overloaded.

        Never trims.
        """
        commands = [
            packed("XADD", key, "*", *chain.from_iterable(fields.items()))
            for key, fields in entries
        ]
        with translated():
            return [entry_id.decode() for entry_id in await self._channel.send(commands)]

    def reader(self) -> Channel:
        """A connection of its own for blocking reads; closed with this object.

        Its timeout is well beyond any BLOCK of ours: a reply that the client gives up waiting for
        is an entry that nobody sees. Past it the connection is dead, and what we own is looked for.
        """
        channel = Channel(_connections(self._url).make_connection, timeout=READER_TIMEOUT)
        self._readers.append(channel)
        return channel

    async def ensure_groups(self, wanted: Mapping[str, Stream]) -> dict[str, list[str]]:
        """Make the required groups that are missing, from their stream's beginning.

        `wanted`: key -> which of the five. Returns the groups that were made, by key.
        """
        asked = [(key, group) for key, stream in wanted.items() for group in stream.groups]
        made: dict[str, list[str]] = {}
        with translated():
            pipe = self.commands.pipeline(transaction=False)
            for key, group in asked:
                pipe.xgroup_create(key, group, id="0", mkstream=True)
            replies = await pipe.execute(raise_on_error=False)
            for (key, group), reply in zip(asked, replies, strict=True):
                if not isinstance(reply, Exception):
                    made.setdefault(key, []).append(group)
                elif "BUSYGROUP" not in str(reply):
                    raise reply
        return made

    async def ensure_all_groups(self) -> None:
        """Make every declared group of every declared stream."""
        await self.ensure_groups({self.keys.of(stream): stream for stream in STREAMS})

    async def check_server(self) -> str:
        """Refuse a server that would break a promise; its name and version otherwise."""
        with translated():
            info = await self.commands.info()
        name = "Valkey" if "valkey_version" in info else "Redis"
        version = str(info.get("valkey_version") or info["redis_version"])
        spoken = str(info["redis_version"])  # Valkey says which Redis it is compatible with
        if tuple(int(part) for part in spoken.split(".")[:2]) < OLDEST:
            raise UnsuitableServer(f"{name} {version} is too old; Redis 7.0 or Valkey 8 is needed")
        policy = str(info.get("maxmemory_policy", "noeviction"))
        if policy != "noeviction":
            raise UnsuitableServer(
                f"{name} may evict our streams (maxmemory-policy {policy});"
                " set: CONFIG SET maxmemory-policy noeviction"
            )
        if info.get("redis_mode") == "cluster" and not self.keys.prefix.startswith("{"):
            raise UnsuitableServer(
                "on a cluster the prefix needs a hash tag:"
                f" set AURORA_PREFIX={{{self.keys.prefix}}}"
            )
        return f"{name} {version}"

    async def hold(self, name: str, holder: str, *, seconds: float) -> bool:
        """True while `holder` is the one of that name; renews it. For work that one should do.

        An optimisation, not a guard: after a jump of Redis' clock there may be two.
        """
        key = f"{self.keys.prefix}:held:{name}"
        return bool(await self.run("hold", [key], [holder, int(seconds * 1000)]))

    async def announce_queues(self, queues: Collection[str]) -> None:
        """Say that these queues are in use; again and again, as Redis may lose it."""
        others = set(queues) - {"default"}
        if others:
            with translated():
                await self.commands.sadd(self.keys.queues, *others)

    async def queues(self) -> list[str]:
        """Every queue that is known, the default one first."""
        with translated():
            members = await self.commands.smembers(self.keys.queues)
        return ["default", *sorted(each.decode() for each in members if each != b"default")]

    async def memory_share(self) -> float:
        """Used share of maxmemory, 0 where no limit is set."""
        with translated():
            info = await self.commands.info("memory")
        limit = int(info.get("maxmemory", 0))
        return int(info["used_memory"]) / limit if limit else 0.0

    async def backlog(self) -> int:
        """Tasks in Redis, of all queues: they wait, are delayed, run, or are not recorded yet."""
        queues = await self.queues()
        with translated():
            pipe = self.commands.pipeline(transaction=False)
            pipe.zcard(self.keys.delayed)
            for queue in queues:
                for lane in self.keys.lanes(queue):
                    pipe.xlen(lane)
            return sum(await pipe.execute())

    async def lag(self, stream: Stream, group: str) -> int:
        """Entries that the group has not acknowledged, as far as Redis can tell; 0 without it."""
        with translated():
            try:
                infos = await self.commands.xinfo_groups(self.keys.of(stream))
            except ResponseError as error:
                if is_missing_group(error):
                    return 0
                raise
        for info in infos:
            if info["name"] == group.encode():
                return int(info["pending"]) + int(info["lag"] or 0)
        return 0

    async def _run(self, script: str, keys: Sequence[str], args: Sequence[Part]) -> Any:
        try:
            return await self._channel.call(
                "EVALSHA", self._digests[script], len(keys), *keys, *args
            )
        except NoScriptError:  # a server that was restarted; this loads it, too
            return await self._channel.call("EVAL", self._scripts[script], len(keys), *keys, *args)

    async def close(self) -> None:
        """Close every connection; never in the middle of a blocking read."""
        for channel in (*self._readers, self._channel):
            await channel.close()
        await self.commands.aclose()


# Replies that callers in this package act on; whatever else Redis refuses is an outage to them, or
# a login that is not allowed what we need.
_ACTED_ON = ("NOGROUP", "UNBLOCKED", "BUSYGROUP", "no such key")
_NOT_ALLOWED = ("NOAUTH", "NOPERM", "WRONGPASS")


@contextmanager
def translated() -> Iterator[None]:
    """Redis' errors in our words; ResponseError stays, its text is the caller's to read."""
    try:
        yield
    except AuthenticationError as error:
        raise ConfigurationError(
            f"Redis refused the login: {error}; check the user and password in AURORA_REDIS_URL"
        ) from error
    except OutOfMemoryError as error:
        raise Overloaded("Redis is at its maxmemory", retry_after=10) from error
    except (BusyLoadingError, ReadOnlyError) as error:
        raise Unavailable("Redis", str(error)) from error
    except (RedisConnectionError, RedisTimeoutError, OSError) as error:
        raise Unavailable("Redis", f"{error} (AURORA_REDIS_URL)") from error
    except ResponseError as error:
        said = str(error)
        if said.startswith(_NOT_ALLOWED) or isinstance(error, NoPermissionError):
            raise ConfigurationError(f"Redis does not allow it: {said}") from error
        if any(word in said for word in _ACTED_ON):
            raise
        raise Unavailable("Redis", said) from error


def is_missing_group(error: RedisError) -> bool:
    """True when the stream or its group is gone: FLUSHALL, failover, DEL."""
    text = str(error)
    return "NOGROUP" in text or "UNBLOCKED" in text or "no such key" in text


def _client(url: str, connections: int) -> Client:
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=None,  # wait for a free connection; the command's own timeout bounds it
        socket_timeout=COMMAND_TIMEOUT,
        **_options(url),
    )
    return Redis.from_pool(pool)


def _connections(url: str) -> ConnectionPool:
    """Makes connections for channels, which keep the time themselves."""
    return ConnectionPool.from_url(url, socket_timeout=None, **_options(url))


def _options(url: str) -> dict[str, Any]:
    found = {
        "socket_connect_timeout": COMMAND_TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,  # one shape of replies for commands and scripts alike
    }
    if not url.startswith("unix://"):  # there the library knows neither the option nor its `False`
        found["socket_keepalive"] = True
    return found


@cache
def _source(script: str) -> str:
    folder = files("orchestrator.streams").joinpath("scripts")
    found = folder.joinpath(f"{script}.lua").read_text("utf-8")
    for shared in INCLUDED:
        if f"-- include {shared}" in found:
            included = folder.joinpath(shared).read_text("utf-8")
            found = found.replace(f"-- include {shared}", included)
    return found
