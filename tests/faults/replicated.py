"""Two Valkeys, a primary and its replica, behind an address that is led to either of them."""

import asyncio
import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from orchestrator.embedded.valkey import EmbeddedValkey
from tests.faults.lines import Proxied
from tests.support import wait_until

REPLICATION = "replication"  # the line that the replica follows its primary through
EVERYBODY = "redis:*"
NO_MASTER = ("NO", "ONE")


class Replicated(Proxied):
    """`valkey` is the primary, `replica` the other; a failover exchanges them."""

    replica: EmbeddedValkey

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.replica = EmbeddedValkey(home / "valkey-2")
        self.gone: Counter[str] = Counter()  # entries that a failover took away

    async def start(self) -> None:
        await super().start()
        # One password for both, as one address leads to either.
        (self.home / "valkey-2").mkdir()
        shutil.copy(self.home / "valkey" / "password", self.home / "valkey-2" / "password")
        self._password = (self.home / "valkey" / "password").read_text().strip()
        await asyncio.to_thread(self.replica.start)
        self._port = await self.lines.lay(REPLICATION, REPLICATION, port_of(self.valkey))
        await self._configure(self.valkey)
        await self.follow()

    async def stop(self) -> None:
        await asyncio.to_thread(self.replica.stop)
        await super().stop()

    async def lag(self) -> None:
        """Keep from the replica what the primary writes from now on.

        In the network and not by SIGSTOP of the replica, which loses nothing at this load: the
        kernel keeps up to about 4 MB for a process that stands still, and once continued it reads
        that, although its primary is dead (measured: of 300 entries and of 3,000 none was lost, of
        30,000 with 10 MB 18,856).
        """
        await self.lines.cut(REPLICATION)

    async def promote(self) -> None:
        """The replica is the primary from now on, whatever became of the other."""
        await self.lines.cut_off(REPLICATION)
        self.valkey, self.replica = self.replica, self.valkey
        await self._say(self.valkey, "REPLICAOF", *NO_MASTER)
        await self.lines.lead(EVERYBODY, port_of(self.valkey))

    async def follow(self) -> None:
        """Let the other one begin again as the replica of the primary, and wait until it is."""
        await self.lines.lead(REPLICATION, port_of(self.valkey))
        await self.lines.heal(REPLICATION)
        await self._configure(self.replica)
        await self._say(self.replica, "REPLICAOF", "127.0.0.1", self._port)
        await wait_until(self._in_step, what="the replica follows", timeout=30)

    async def entries(self, valkey: EmbeddedValkey, *streams: str) -> int:
        """How many entries these streams of one server have ever had."""
        found = 0
        async with self._connected(valkey) as redis:
            for stream in streams:
                if await redis.exists(stream):
                    found += (await redis.xinfo_stream(stream))["entries-added"]
        return found

    async def _in_step(self) -> bool:
        async with self._connected(self.replica) as redis:
            return bool((await redis.info("replication"))["master_link_status"] == "up")

    async def _configure(self, valkey: EmbeddedValkey) -> None:
        await self._say(valkey, "CONFIG", "SET", "masterauth", self._password)
        # Otherwise each new pair costs 5 s of waiting for further replicas.
        await self._say(valkey, "CONFIG", "SET", "repl-diskless-sync-delay", 0)

    async def _say(self, valkey: EmbeddedValkey, *command: Any) -> None:
        async with self._connected(valkey) as redis:
            await redis.execute_command(*command)

    def _connected(self, valkey: EmbeddedValkey) -> Any:
        return Redis.from_url(valkey._url(port_of(valkey)))


def port_of(valkey: EmbeddedValkey) -> int:
    """Where it listens."""
    return valkey._port


def freeze(valkey: EmbeddedValkey) -> None:
    """SIGSTOP."""
    os.kill(valkey.pid, signal.SIGSTOP)


def thaw(valkey: EmbeddedValkey) -> None:
    """SIGCONT."""
    os.kill(valkey.pid, signal.SIGCONT)
