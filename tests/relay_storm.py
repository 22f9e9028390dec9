"""`python -m tests.relay_storm [--clients N] [--deaf N] [--alerts N] [--seconds S] [--seed N]`.

Three API processes and an alert handler; clients that come and go at random while alerts flow, and
clients that never read. Judged from outside: each client has every alert once and in its stream's
order, or was told of a gap; the others are not held up; memory stays flat.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from orchestrator.cli.opening import run_long
from orchestrator.db import schema
from orchestrator.db.keys import create_key
from orchestrator.embedded.ports import free_port
from orchestrator.embedded.postgres import EmbeddedPostgres
from orchestrator.embedded.valkey import EmbeddedValkey
from orchestrator.parts import Parts
from orchestrator.registry import AgentRegistry
from orchestrator.settings import Settings
from orchestrator.streams.names import ALERTS, CPS_ALERTS
from orchestrator.task import new_id

ROOT = Path(__file__).parent.parent
REPLICAS = 3
P99 = 0.250  # seconds from the XADD's answer to the client's hand
GROWTH = 1.25  # of a process' memory, between the first and the last third
PATIENCE = 90.0  # seconds after the last alert for everybody to have everything
FILL = "x" * 600  # so that a message is about as long as one of Suricata's


@dataclass
class Heard:
    """What one client was told over all its connections."""

    seen: bytearray
    position: str = ""
    last: dict[bytes, int] = field(default_factory=dict)
    repeated: int = 0
    disordered: int = 0
    gaps: int = 0
    count: int = 0
    connections: int = 0


@dataclass
class Storm:
    """The whole run: who is there, and what came of it."""

    given: argparse.Namespace
    key: str
    ports: list[int]
    chance: random.Random
    published: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    closes: dict[str, int] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Line(asyncio.Protocol):
    """A WebSocket as thin as can be: three hundred of them share a core with what is measured."""

    def __init__(self, storm: Storm, heard: Heard) -> None:
        self.storm, self.heard = storm, heard
        self.buffer = bytearray()
        self.upgraded = self.live = False
        self.lost = asyncio.get_running_loop().create_future()
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(_request(self.storm.key, self.heard.position))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer
        buffer += data
        at = 0
        if not self.upgraded:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._note("refused " + buffer[9:12].decode() if buffer[9:12] != b"101" else "")
            self.upgraded, at = True, end + 4
        now = time.perf_counter()
        while len(buffer) - at >= 2:
            size, start = buffer[at + 1] & 127, at + 2
            if size == 126:
                size, start = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, start = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
            if len(buffer) < start + size:
                break
            self._frame(buffer[at] & 15, bytes(buffer[start : start + size]), now)
            at = start + size
        del buffer[:at]

    def _frame(self, kind: int, body: bytes, now: float) -> None:
        if kind == 9:
            self.transport.write(bytes([0x8A, 0x80 | len(body), 0, 0, 0, 0]) + body)
        elif kind == 8:
            self._note(f"closed {int.from_bytes(body[:2], 'big')}")
            self.transport.close()
        elif kind == 1:
            # As its own alerts read; a program would parse the array.
            for each in body[1:-1].replace(b'},{"id":"', b'}\n{"id":"').split(b"\n"):
                self.heard.position = each[7 : each.index(b'"', 7)].decode()
                self._message(each, now)

    def _message(self, body: bytes, now: float) -> None:
        heard = self.heard
        at = body.find(b'"signature":"#')
        if at < 0:
            self.live = self.live or b'"live":true' in body
            if b'"gap":' in body[:200]:
                gap = json.loads(body)["gap"]
                # Of a client that was too slow: nothing lies between, it comes back for the rest.
                heard.gaps += gap["from"] != gap["to"]
            return
        number = int(body[at + 14 : body.index(b" ", at)])
        source = b"cps" if b'"kind":"cps"' in body[:120] else b"network"
        heard.repeated += heard.seen[number]
        heard.count += not heard.seen[number]
        heard.seen[number] = 1
        heard.disordered += heard.last.get(source, -1) > number
        heard.last[source] = number
        if self.live:
            self.storm.latencies.append(now - self.storm.published[number])

    def _note(self, what: str) -> None:
        if what:
            self.storm.closes[what] = self.storm.closes.get(what, 0) + 1


def _request(key: str, position: str) -> bytes:
    query = f"?last_id={position}" if position else ""
    nonce = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET /api/v1/alerts/live{query} HTTP/1.1\r\nHost: storm\r\nConnection: Upgrade\r\n"
        f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {nonce}\r\n"
        f"Authorization: Bearer {key}\r\n\r\n"
    ).encode()


async def _client(storm: Storm, heard: Heard) -> None:
    """Come, listen for a while, go without a word, come back elsewhere."""
    loop, chance = asyncio.get_running_loop(), storm.chance
    while not storm.over.is_set():
        port = chance.choice(storm.ports)
        try:
            transport, line = await loop.create_connection(
                lambda: Line(storm, heard), "127.0.0.1", port
            )
        except OSError:
            await asyncio.sleep(0.5)
            continue
        heard.connections += 1
        await asyncio.wait({line.lost}, timeout=chance.uniform(5, 40))
        transport.abort()
        await asyncio.sleep(chance.uniform(0, 2))


async def _deaf(storm: Storm) -> None:
    """Connect, and never read; when it is cut off, again."""
    loop = asyncio.get_running_loop()
    while not storm.over.is_set():
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.setblocking(False)
        try:
            await loop.sock_connect(line, ("127.0.0.1", storm.chance.choice(storm.ports)))
            await loop.sock_sendall(line, _request(storm.key, ""))
            while not storm.over.is_set():
                await asyncio.sleep(1)
                if _is_cut(line):
                    break
        except OSError:
            await asyncio.sleep(1)
        finally:
            line.close()


def _is_cut(line: socket.socket) -> bool:
    """True where the other end has reset the connection; nothing is read."""
    return line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 1  # ESTABLISHED


async def _publish(storm: Storm, parts: Parts) -> None:
    """Alerts at an even pace, a third of them of machines."""
    given, began = storm.given, time.perf_counter()
    for number in range(given.alerts):
        due = began + number * given.seconds / given.alerts
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        data = json.dumps({"signature": f"#{number} {FILL}", "severity": "high"})
        stream = CPS_ALERTS if number % 3 == 0 else ALERTS
        storm.published.append(time.perf_counter())
        await parts.streams.add([(parts.streams.keys.of(stream), {"id": new_id(), "data": data})])


async def _watch(storm: Storm, pids: list[int]) -> list[list[int]]:
    """Each process' memory, once a second."""
    found: list[list[int]] = []
    while not storm.over.is_set():
        found.append([psutil.Process(pid).memory_info().rss for pid in pids])
        await asyncio.sleep(1)
    return found


def _judge(storm: Storm, everybody: list[Heard], memory: list[list[int]]) -> dict[str, Any]:
    latencies = sorted(storm.latencies) or [0.0]
    third = max(1, len(memory) // 3)
    # The first third begins where everybody is connected.
    growth = max(
        max(row[n] for row in memory[-third:]) / max(row[n] for row in memory[5 : 5 + third])
        for n in range(REPLICAS)
    )
    total = storm.given.alerts
    silent = sum(each.count < total and not each.gaps for each in everybody)
    return {
        "clients": len(everybody), "deaf": storm.given.deaf, "alerts": total,
        "seconds": storm.given.seconds, "seed": storm.given.seed,
        "connections": sum(each.connections for each in everybody),
        "messages": sum(each.count for each in everybody),
        "clients that lack alerts without a gap": silent,
        "clients that were told of a gap": sum(each.gaps > 0 for each in everybody),
        "repeated": sum(each.repeated for each in everybody),
        "out of order": sum(each.disordered for each in everybody),
        "p50 ms": round(1000 * latencies[len(latencies) // 2], 1),
        "p99 ms": round(1000 * latencies[int(len(latencies) * 0.99)], 1),
        "memory growth": round(growth, 3),
        "largest MB": round(max(max(row) for row in memory) / 1e6),
        "closes": storm.closes,
        "load": os.getloadavg()[0],
    }  # fmt: skip


VERDICTS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "every alert, or a gap": lambda f: f["clients that lack alerts without a gap"] == 0,
    "each once": lambda f: f["repeated"] == 0,
    "in order": lambda f: f["out of order"] == 0,
    f"p99 <= {P99 * 1000:.0f} ms": lambda f: f["p99 ms"] <= P99 * 1000,
    f"memory grows by less than {GROWTH - 1:.0%}": lambda f: f["memory growth"] < GROWTH,
}


async def _run(given: argparse.Namespace, settings: Settings, home: Path) -> dict[str, Any]:
    parts = Parts(settings, role="storm", registry=AgentRegistry([]))
    await schema.upgrade(parts.database)
    await parts.streams.ensure_all_groups()
    _, key = await create_key(parts.database, "storm", ["alerts:read"])
    ports = [free_port() for _ in range(REPLICAS)]
    processes = [_start(settings, home, "api", AURORA_PORT=str(port)) for port in ports]
    processes.append(_start(settings, home, "alerts"))
    storm = Storm(given, key, ports, random.Random(given.seed))
    try:
        await asyncio.gather(*(_answers(port) for port in ports))
        everybody = [Heard(bytearray(given.alerts)) for _ in range(given.clients)]
        # From the very beginning, so that nobody may lack the first ones.
        for each in everybody:
            each.position = "0-0/0-0"
        running = [asyncio.create_task(_client(storm, each)) for each in everybody]
        running += [asyncio.create_task(_deaf(storm)) for _ in range(given.deaf)]
        watching = asyncio.create_task(_watch(storm, [each.pid for each in processes[:REPLICAS]]))
        await asyncio.sleep(3)
        publishing = asyncio.create_task(_publish(storm, parts))
        while not publishing.done():
            await asyncio.wait({publishing}, timeout=10)
            done = sum(each.count for each in everybody) / given.clients
            print(f"{len(storm.published)} published, {done:.0f} heard by each", flush=True)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and any(each.count < given.alerts for each in everybody):  # noqa: ASYNC110 - polled from outside
            await asyncio.sleep(0.5)
        storm.over.set()
        memory = await watching
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        return _judge(storm, everybody, memory)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)
        await parts.close()


def _start(settings: Settings, home: Path, role: str, **env: str) -> "subprocess.Popen[bytes]":
    ours = {
        "AURORA_REDIS_URL": settings.redis_url.get_secret_value(),
        "AURORA_DATABASE_URL": settings.database_url.get_secret_value(),
        "AURORA_AGENTS": "tests.benchmarks.agents",
    }
    with (home / f"{role}-{env.get('AURORA_PORT', '')}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.role", role],
            cwd=ROOT, env={**os.environ, **ours, **env}, stdout=log, stderr=log,
        )  # fmt: skip


async def _answers(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            writer.close()
            return


def main() -> int:
    """Run once; 0 where every verdict is good."""
    parser = argparse.ArgumentParser(prog="python -m tests.relay_storm", description=__doc__)
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--deaf", type=int, default=30)
    parser.add_argument("--alerts", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aurora-storm-") as directory:
        home = Path(directory)
        with EmbeddedValkey(home / "valkey") as valkey, EmbeddedPostgres(home / "pg") as postgres:
            settings = Settings(redis_url=valkey.start(), database_url=postgres.start(), agents=())
            found: dict[str, Any] = run_long(_run(given, settings, home))
            logs = "".join(path.read_text()[-2000:] for path in home.glob("*.log"))
    table = Table("what", "figure", title="relay storm")
    for name, value in found.items():
        table.add_row(name, str(value))
    found["verdicts"] = {name: bool(is_good(found)) for name, is_good in VERDICTS.items()}
    for name, is_good in found["verdicts"].items():
        table.add_row(name, "good" if is_good else "BAD")
    Console().print(table)
    if "Traceback" in logs:
        print(logs[-3000:])
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if all(found["verdicts"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
