"""What is too large, by every door: HTTP, bare XADD on each stream, and an agent's own output."""

import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil

from orchestrator.db.keys import Scope, create_key
from orchestrator.embedded.ports import free_port
from orchestrator.errors import DeadReason
from orchestrator.task import TaskId, new_id
from tests.faults.agents import Bulky, Size, Target
from tests.faults.fates import LARGEST
from tests.faults.ground import Ground, Slot
from tests.faults.scenario import Scenario, Scene
from tests.faults.settled import settled
from tests.support import wait_until

KB, MB = 1024, 1024 * 1024
SIZES = (257 * KB, MB, 10 * MB, 100 * MB)
OUTPUTS = (7 * MB, 9 * MB)  # the limit is 8
RESULT = 32 * MB  # four times the limit of an output: what is larger is not even read
CHUNK = 256 * KB  # bytes a piece of a body whose length is not said
# Once a run: results and alerts stay on their streams for a while, and Redis has a gigabyte.
ONCE = 100 * MB
STAYS = 128 * MB  # more than a process had before the first of them, once all is done
PEAK = 6 * 100 * MB  # an entry as it was read, in pieces, parsed: a few times the largest


@dataclass(frozen=True)
class Sent:
    """Something too large, and what was heard of it."""

    door: str
    size: int
    said: str = ""  # by the API; a stream's entry id


class Payloads(Scenario):
    name = "payloads"
    breaks = "257 KiB to 100 MiB over HTTP, by XADD on every stream, and as an agent's output"
    guards = ("an act of any size",)
    tasks = 300
    faults = 40
    pause = (0.1, 0.4)
    workers = 2
    patience = 20.0  # the servers move hundreds of megabytes first

    async def prepare(self, scene: Scene) -> None:
        """Start what listens, and look how large everybody is."""
        port = free_port()
        await scene.ground.add("alerts")
        await scene.ground.add("api", AURORA_PORT=str(port))
        _, key = await create_key(
            scene.ground.record, "faults", [Scope.TASKS_WRITE, Scope.ALERTS_WRITE], None,
            actor="faults",
        )  # fmt: skip
        self.client = httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"},
            timeout=60,
        )  # fmt: skip
        await wait_until(self._listens, what="the API listens", timeout=60)
        doors = [*self._streams(scene.ground), "http", "http, chunked"]
        self.turns = itertools.cycle(
            [*((door, size) for size in SIZES for door in doors), *(("output", s) for s in OUTPUTS)]
        )
        self.sent: list[Sent] = []
        self.outputs: dict[TaskId, int] = {}
        self.before = {slot.log.name: _resident(slot) for slot in scene.ground.slots}

    async def inject(self, scene: Scene) -> None:
        """The next door and size."""
        door, size = next(self.turns)
        if size == ONCE and any((each.door, each.size) == (door, size) for each in self.sent):
            door = "http"
        if door == "output":
            task = Bulky.task(Size(bytes=size))
            self.outputs[task.task_id] = size
            await scene.ground.parts.submitter.submit(task)
        elif door.startswith("http"):
            self.sent.append(await self._post(door, size))
        else:
            data = {"agent": Target.name, "task_id": new_id(), "padding": "x" * size}
            entry_id = await scene.ground.parts.streams.commands.xadd(
                self._streams(scene.ground)[door], {"data": json.dumps(data)}
            )
            self.sent.append(Sent(door, size, entry_id.decode()))

    async def wrong(self, scene: Scene) -> dict[str, list[str]]:
        """Refused with words by each door, kept within bounds, and nobody grew or died."""
        left = await settled(scene.ground)
        await self.client.aclose()
        rows = await scene.ground.rows(LETTERS)
        letters = {(row.stream, row.entry_id): row for row in rows}
        keys = self._streams(scene.ground)
        tasks = {row.id: row for row in await scene.ground.rows(TASKS)}
        self.after = {slot.log.name: _resident(slot) for slot in scene.ground.slots}
        self.peaks = {slot.log.name: _peak(slot) for slot in scene.ground.slots}
        return {
            "not refused": [
                f"{each.door} {each.size}: {each.said}" for each in self.sent
                if not (
                    each.said.startswith("413 application/problem+json payload_too_large")
                    if each.door.startswith("http")
                    else _is_refused(each, letters.get((keys[each.door], each.said)))
                )
            ],
            "output of another fate": [
                f"{size}: {tasks[task_id].state}" for task_id, size in self.outputs.items()
                if tasks[task_id].state != ("succeeded" if size < 8 * MB else "failed")
            ],
            "stayed large": [
                f"{name} {self.before[name] // MB} -> {size // MB} MB"
                for name, size in self.after.items() if size > self.before[name] + STAYS
            ],
            "grew too large": [
                f"{name} {size // MB} MB" for name, size in self.peaks.items() if size > PEAK
            ],
            "left on the streams": left,
            "processes that died": [
                f"{slot.role} {slot.deaths}" for slot in scene.ground.slots if slot.deaths
            ],
        }  # fmt: skip

    async def strangers(self, scene: Scene) -> frozenset[TaskId]:
        """What came by XADD and could still be read as a task, and the agents' outputs."""
        rows = await scene.ground.rows(TASKS)
        return frozenset({row.id for row in rows if row.agent in (Target.name, Bulky.name)})

    async def told(self, scene: Scene) -> dict[str, float]:
        """How much there was, and how large everybody grew."""
        del scene
        return {"megabytes sent": sum(each.size for each in self.sent) // MB} | {
            f"{name.removesuffix('.log')}, MB at most": peak // MB
            for name, peak in self.peaks.items()
        }

    def _streams(self, ground: Ground) -> dict[str, str]:
        keys = ground.parts.streams.keys
        return {
            "tasks": keys.tasks, "results": keys.results, "audit": keys.audit,
            "alerts": f"{keys.prefix}:alerts",
        }  # fmt: skip

    async def _listens(self) -> bool:
        try:
            return (await self.client.get("/livez")).status_code == httpx2.codes.OK
        except httpx2.TransportError:
            return False

    async def _post(self, door: str, size: int) -> Sent:
        body = json.dumps({"agent": Target.name, "input": {"n": 1, "word": "x" * size}}).encode()
        content = body if door == "http" else _pieces(body)
        try:
            answer = await self.client.post(
                "/api/v1/tasks", content=content, headers={"Content-Type": "application/json"}
            )
        except httpx2.TransportError as error:
            return Sent(door, size, f"{type(error).__name__} {error}")
        kind = answer.headers.get("content-type", "")
        return Sent(door, size, f"{answer.status_code} {kind} {answer.json().get('code')}")


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), CHUNK):
        yield body[start : start + CHUNK]


LETTERS = "SELECT stream, entry_id, reason, length(fields::text) AS size FROM dead_letters"
TASKS = "SELECT id::text AS id, agent, state FROM tasks"


def _is_refused(sent: Sent, letter: Any) -> bool:
    """Set aside, with a bounded part; as a result it is not too large for long."""
    small = sent.door == "results" and sent.size < RESULT
    reason = DeadReason.MALFORMED if small else DeadReason.TOO_LARGE
    return letter is not None and letter.reason == reason and letter.size < LARGEST


def _resident(slot: Slot) -> int:
    return int(psutil.Process(slot.process.pid).memory_info().rss)


def _peak(slot: Slot) -> int:
    """VmHWM: the most that it ever held."""
    lines = Path(f"/proc/{slot.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * KB for line in lines if line.startswith("VmHWM"))
