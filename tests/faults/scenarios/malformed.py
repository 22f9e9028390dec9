"""Entries that nobody should write, on all five streams, by bare XADD."""

import asyncio
import contextlib
import json
from datetime import UTC, datetime
from random import Random
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from orchestrator.task import TaskId
from tests.faults.agents import Target
from tests.faults.fates import Fate, Written, judge, read_record
from tests.faults.ground import Ground
from tests.faults.hostile import Entry, mutated, new_id, valid
from tests.faults.scenario import Scenario, Scene
from tests.faults.settled import settled, waiting
from tests.faults.strategies import some_changes

BATCH = 500  # entries a fault
WAITING = 2_000  # entries that may wait before more are written
FAR = 300_000_000_000_000  # an entry id of the year 11476, and so are all after it on that lane
OTHERS = 10  # tasks whose ids strangers use, a batch
SHARES = {"task": 4, "event": 2, "act": 2, "alert": 1, "cps": 1}


class Malformed(Scenario):
    name = "malformed"
    breaks = f"{BATCH} entries a fault on all five streams, mutated from valid ones or made up"
    guards = ("what is refused is dropped", "an entry id of no year ends its readers")
    tasks = 500
    faults = 20
    pause = (0.05, 0.15)
    workers = 2
    patience = 10.0  # the good ones wait behind what is not

    async def prepare(self, scene: Scene) -> None:
        """Start the role that reads alerts; find what Hypothesis comes up with."""
        await scene.ground.add("alerts")
        # Patient: of a write that is given up nobody knows what has become, and it is not judged.
        urls = await scene.ground.servers.urls("client")
        self.writer = Redis.from_url(urls.redis, socket_timeout=None)
        self.changes = await asyncio.to_thread(some_changes, scene.rng.getrandbits(32), 2_000)
        keys = scene.ground.parts.streams.keys
        self.kinds = dict.fromkeys(keys.lanes("default"), "task") | {
            keys.results: "event", keys.audit: "act",
            f"{keys.prefix}:alerts": "alert", f"{keys.prefix}:cps:alerts": "alert",
        }  # fmt: skip
        self.written = Written(self.kinds)
        low = keys.lanes("default")[2]
        await self._write([(low, f"{FAR}-1", Entry("far", valid(_task(scene.rng), scene.rng)))])

    async def inject(self, scene: Scene) -> None:
        """Write a batch once the last one is on its way."""
        others = [
            row.id for row in await scene.ground.rows(UNDER_WAY, agent=Target.name, most=OTHERS)
        ]
        made = []
        for _ in range(BATCH):
            kind = scene.rng.choices([*SHARES], [*SHARES.values()])[0]
            stream = scene.rng.choice(self._streams(scene.ground, kind))
            made.append((stream, "*", self._entry(kind, others, scene.rng)))
        await self._write(made)
        await self._catch_up(scene.ground)

    async def _catch_up(self, ground: Ground) -> None:
        """Wait until not too many wait."""
        there_are = WAITING + 1
        while there_are > WAITING:
            with contextlib.suppress(RedisError):  # a machine that stood still: asked again
                there_are = await waiting(ground)
            await asyncio.sleep(0.05)

    def _streams(self, ground: Ground, kind: str) -> list[str]:
        keys = ground.parts.streams.keys
        return {
            "task": [*keys.lanes("default")], "event": [keys.results], "act": [keys.audit],
            "alert": [f"{keys.prefix}:alerts"], "cps": [f"{keys.prefix}:cps:alerts"],
        }[kind]  # fmt: skip

    def _entry(self, kind: str, others: list[TaskId], rng: Random) -> Entry:
        data = MAKERS[kind](rng)
        chance = rng.random()
        if chance < 0.02:
            return Entry("valid", valid(data, rng))
        if others and chance < 0.05 and kind in ("task", "event"):
            return Entry("another's id", valid(_anothers(kind, data, rng.choice(others), rng), rng))
        if chance < 0.2:
            return Entry("made up", valid(data | json.loads(rng.choice(self.changes)), rng))
        return mutated(data, rng)

    async def _write(self, made: list[tuple[str, str, Entry]]) -> None:
        pipe = self.writer.pipeline(transaction=False)
        for stream, entry_id, entry in made:
            flat = [part for pair in entry.fields for part in pair]
            pipe.execute_command("XADD", stream, entry_id, *flat)
        for (stream, _, entry), answer in zip(made, await pipe.execute(), strict=True):
            self.written.add(stream, answer.decode(), entry)

    async def wrong(self, scene: Scene) -> dict[str, list[str]]:
        """Each entry is accounted for, nothing is left, and nobody died."""
        await self.writer.aclose()
        left = await settled(scene.ground)
        self.record = await read_record(scene.ground)
        found = judge(self.written, self.record)
        found["left on the streams"] = left
        found["processes that died"] = [
            f"{slot.role} {slot.deaths}" for slot in scene.ground.slots if slot.deaths
        ]
        return found

    async def strangers(self, scene: Scene) -> frozenset[TaskId]:
        """Every task that the load did not submit came out of one of these entries."""
        del scene
        return frozenset(self.record.tasks)

    async def told(self, scene: Scene) -> dict[str, float]:
        """How many there were of what."""
        del scene
        fates = [each.fate for each in self.written.entries.values()]
        return {
            "entries": len(self.written.entries),
            "must be set aside": fates.count(Fate.SET_ASIDE),
            "must be taken": fates.count(Fate.TAKEN),
            "dead letters": len(self.record.letters),
        }


UNDER_WAY = """SELECT id::text AS id FROM tasks WHERE agent IN ('short', 'steps')
AND state NOT IN ('queued', 'scheduled') AND agent <> :agent ORDER BY created_at DESC LIMIT :most"""


def _task(rng: Random) -> dict[str, Any]:
    return {"agent": Target.name, "input": {"n": rng.randint(0, 10**9), "word": "x"}}


def _event(rng: Random) -> dict[str, Any]:
    return {
        "task_id": new_id(rng), "agent": Target.name, "attempt": 1, "worker": "stranger",
        "event": rng.choice(("succeeded", "failed", "started", "retrying", "progress")),
        "at": _now(), "output": {"n": 1},
    }  # fmt: skip


def _act(rng: Random) -> dict[str, Any]:
    numbered = {"producer": f"p{rng.randint(0, 9)}", "sequence": rng.getrandbits(40)}
    return {
        "action": "door.opened", "actor": "somebody", "object_type": "door", "at": _now(),
        "object_id": str(rng.randint(0, 99)), **(numbered if rng.random() < 0.3 else {}),
    }  # fmt: skip


def _alert(rng: Random) -> dict[str, Any]:
    signature = rng.choice(("ET SCAN", "for the guard"))
    if rng.random() < 0.5:
        return {"signature": signature, "severity": "high", "src_ip": "192.0.2.1", "details": {}}
    return {
        "event_type": "alert", "timestamp": _now(), "src_ip": "192.0.2.7", "src_port": 4711,
        "alert": {"signature": signature, "signature_id": 1, "severity": 1},
    }  # fmt: skip


def _device(rng: Random) -> dict[str, Any]:
    return {
        "device": f"pump-{rng.randint(0, 9)}", "metric": "pressure", "value": rng.random(),
        "threshold": 7, "severity": "high", "time": _now(),
    }  # fmt: skip


MAKERS = {"task": _task, "event": _event, "act": _act, "alert": _alert, "cps": _device}


def _anothers(kind: str, data: dict[str, Any], other: TaskId, rng: Random) -> dict[str, Any]:
    """With the id of a good task that has begun: it must not matter to that task."""
    if kind == "task":
        ways = ({}, {"agent": "nobody"}, {"expires_at": "2020-01-01T00:00:00Z"})
        return data | {"task_id": other} | rng.choice(ways)
    return data | {"task_id": other, "event": rng.choice(("started", "progress"))}


def _now() -> str:
    return datetime.now(UTC).isoformat()
