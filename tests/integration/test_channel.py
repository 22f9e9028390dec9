"""The shared connection: answers in order, whoever gives up, fails or loses it meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from orchestrator.embedded.tied import Command
from orchestrator.embedded.valkey import EmbeddedValkey
from orchestrator.errors import Unavailable
from orchestrator.streams.channel import Channel, packed
from orchestrator.streams.connection import Streams
from orchestrator.streams.names import Keys
from tests.servers import Servers


@pytest.fixture
async def channel(servers: Servers) -> AsyncIterator[Channel]:
    pool = ConnectionPool.from_url(servers.redis_url, protocol=2)
    found = Channel(pool.make_connection, timeout=0.5)
    yield found
    await found.close()


async def test_each_caller_gets_his_own_answer(channel):
    said = await asyncio.gather(*(channel.call("ECHO", n) for n in range(2_000)))
    assert said == [str(n).encode() for n in range(2_000)]


async def test_an_error_is_its_callers_alone(channel):
    first, wrong, last = await asyncio.gather(
        channel.call("ECHO", "a"),
        channel.call("XADD", "key"),
        channel.send([packed("ECHO", "b"), packed("ECHO", "c")]),
        return_exceptions=True,
    )
    assert (first, last) == (b"a", [b"b", b"c"])
    assert isinstance(wrong, ResponseError)


async def test_who_gives_up_does_not_shift_the_answers(channel):
    await channel.call("PING")  # who gives up while it connects has sent nothing
    waiting = asyncio.create_task(channel.call("BLPOP", "nothing", "0.3"))
    behind = asyncio.create_task(channel.call("ECHO", "mine"))
    await asyncio.sleep(0.02)
    waiting.cancel()
    assert await behind == b"mine"
    assert await channel.call("ECHO", "after") == b"after"


async def test_a_lost_connection_is_told_to_all_who_wait_and_made_again(channel, streams):
    (own,) = (await channel.call("CLIENT", "ID"),)
    waiting = [asyncio.create_task(channel.call("BLPOP", "nothing", 5)) for _ in range(3)]
    await asyncio.sleep(0.02)
    await streams.commands.client_kill_filter(_id=own)
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, RedisConnectionError) for each in told)
    assert await channel.call("CLIENT", "ID") != own


async def test_an_idle_connection_that_was_lost_is_no_error(channel, streams):
    own = await channel.call("CLIENT", "ID")
    await streams.commands.client_kill_filter(_id=own)
    await asyncio.sleep(0.1)
    assert await channel.call("ECHO", "again") == b"again"


async def test_a_server_that_says_nothing_is_given_up(channel):
    with pytest.raises(RedisTimeoutError, match=r"0\.5 s"):
        await channel.call("BLPOP", "nothing", 5)
    assert await channel.call("ECHO", "again") == b"again"


async def test_a_process_that_stood_still_reads_what_arrived_meanwhile(channel):
    waiting = asyncio.create_task(channel.call("BLPOP", "nothing", "0.1"))
    await asyncio.sleep(0.02)
    time.sleep(1.0)  # noqa: ASYNC251 - the loop stands still, past the timeout
    assert await waiting is None
    assert await channel.call("ECHO", "after") == b"after"


async def test_who_gives_up_while_he_sends_does_not_cut_his_command_short(channel):
    own = await channel.call("CLIENT", "ID")
    sending = asyncio.create_task(channel.call("ECHO", "x" * 10_000_000))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    sending.cancel()
    assert await channel.call("ECHO", "after") == b"after"
    assert await channel.call("CLIENT", "ID") == own


async def test_a_primary_that_became_a_replica_is_left(tmp_path):
    """P1: an address that leads elsewhere after a failover is asked again, also by the client."""
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        streams = Streams(valkey.start(), Keys("test"))
        own = await streams._channel.call("CLIENT", "ID"), await streams.commands.client_id()
        async with Redis.from_url(valkey.start()) as other:
            await other.execute_command("REPLICAOF", "127.0.0.1", 1)
            with pytest.raises(Unavailable, match="replica"):
                await streams.hold("test", "me", seconds=1)
            await other.execute_command("REPLICAOF", "NO", "ONE")

        assert await streams.hold("test", "me", seconds=1)
        now = await streams._channel.call("CLIENT", "ID"), await streams.commands.client_id()
        await streams.close()

    assert now[0] != own[0]
    assert now[1] != own[1]


async def test_a_socket_in_the_file_system_serves_like_a_port(tmp_path):
    with _OnASocket(tmp_path / "valkey") as valkey:
        valkey.start()
        password = (tmp_path / "valkey" / "password").read_text().strip()
        streams = Streams(f"unix://default:{password}@{valkey.socket}?db=0", Keys("test"))
        assert await streams.hold("test", "me", seconds=1)  # a script, over the channel
        assert await streams.queues() == ["default"]  # the library's client
        assert await streams.reader().call("ECHO", "heard") == b"heard"
        await streams.close()


class _OnASocket(EmbeddedValkey):
    @property
    def socket(self) -> Path:
        return self._state.path / "socket"

    def _command(self, port: int) -> Command:
        command = super()._command(port)
        return replace(command, argv=(*command.argv, "--unixsocket", str(self.socket)))


async def test_one_attempt_to_connect_serves_all_who_wait(servers):
    tried = []
    pool = ConnectionPool.from_url("redis://127.0.0.1:1/0", protocol=2)

    def make():
        tried.append(1)
        return pool.make_connection()

    channel = Channel(make, timeout=0.5)
    told = await asyncio.gather(*(channel.call("PING") for _ in range(50)), return_exceptions=True)
    assert all(isinstance(each, RedisConnectionError) for each in told)
    assert len(tried) == 1


async def test_closing_tells_who_waits(channel):
    waiting = asyncio.create_task(channel.call("BLPOP", "nothing", 5))
    await asyncio.sleep(0.02)
    await channel.close()
    with pytest.raises(RedisConnectionError, match="closed"):
        await waiting
