"""The proxy (proxy.py) as the program uses it: lines to the servers, one a process and server."""

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tests.faults.servers import ROOT, Servers, Urls

BOTH = ("up", "down")


class Lines:
    """Gives the proxy orders; a name pattern like `redis:*` or `*:worker-0` says which lines."""

    def __init__(self) -> None:
        self._order = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the proxy."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.faults.proxy", cwd=ROOT,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def stop(self) -> None:
        """End it, and every connection through it."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()

    async def lay(self, name: str, kind: str, target: int) -> int:
        """A new line to this port; the port to connect to instead."""
        return int(await self._do("lay", name=name, kind=kind, target=target))

    async def lead(self, lines: str, target: int) -> None:
        """New connections go to this port."""
        await self._do("lead", lines=lines, target=target)

    async def lose(self, *kinds: str) -> None:
        """Lose one more reply of each of these commands or scripts."""
        await self._do("lose", kinds=kinds)

    async def lost(self) -> dict[str, int]:
        """How many replies were lost so far."""
        return dict(await self._do("lost"))

    async def keep(self) -> None:
        """Lose no more."""
        await self._do("keep")

    async def delay(self, lines: str, low: float, high: float) -> None:
        """Let everything take so many seconds more, until healed."""
        await self._do("delay", lines=lines, low=low, high=high)

    async def cut(self, lines: str, directions: Sequence[str] = BOTH) -> None:
        """Forward nothing, and end nothing, until healed."""
        await self._do("cut", lines=lines, directions=directions)

    async def heal(self, lines: str = "*") -> None:
        """Forward again, what was held back first."""
        await self._do("heal", lines=lines)

    async def cut_off(self, lines: str) -> int:
        """Reset every connection; how many there were."""
        return int(await self._do("cut_off", lines=lines))

    async def _do(self, order: str, **said: Any) -> Any:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        async with self._order:
            process.stdin.write(json.dumps({"do": order, **said}).encode() + b"\n")
            answer = await process.stdout.readline()
        return json.loads(answer)


class Proxied(Servers):
    """Both servers behind the proxy, with a line for each process and server: `redis:worker-0`."""

    lines: Lines

    async def start(self) -> None:
        await super().start()
        self.lines = Lines()
        await self.lines.start()

    async def stop(self) -> None:
        await self.lines.stop()
        await super().stop()

    async def urls(self, who: str) -> Urls:
        return Urls(
            redis=await self._through("redis", who, self.direct.redis),
            database=await self._through("postgres", who, self.direct.database),
        )

    async def _through(self, kind: str, who: str, url: str) -> str:
        parts = urlsplit(url)
        port = await self.lines.lay(f"{kind}:{who}", kind, parts.port or 0)
        login = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{login}@{parts.hostname}:{port}"))
