"""Every entry three times: what lies on the tasks', results' and audit streams is written again."""

import asyncio
import contextlib
from random import Random

from orchestrator.streams.names import STREAMS
from tests.faults.agents import Flaky
from tests.faults.ground import Ground
from tests.faults.scenario import EITHER, Scenario, Scene
from tests.faults.settled import settled

COPIES = 2  # beside the entry itself
BATCH = 200  # copies a fault, at most
PAGE = 1_000  # entries a read

Entry = tuple[str, tuple[tuple[bytes, bytes], ...]]


class Duplicates(Scenario):
    name = "duplicates"
    breaks = "each entry is written twice more, in any order, while tasks run and after they ended"
    guards = ("a second end overwrites the first", "an act that is read again is another")
    tasks = 2_000
    faults = 40
    pause = (0.2, 0.6)
    durabilities = EITHER
    patience = 10.0  # twice as many entries wait in front

    async def prepare(self, scene: Scene) -> None:
        """Listen to every stream."""
        self.tap = Tap(scene.ground, scene.rng)
        self.listening = asyncio.create_task(self.tap.listen())

    async def inject(self, scene: Scene) -> None:
        """Write some copies, and a task that will be retried."""
        await scene.load.poison(Flaky)
        await self.tap.replay(BATCH)

    async def wrong(self, scene: Scene) -> dict[str, list[str]]:
        """Write what is left, too; nothing was said twice."""
        left: list[str] = []
        while self.tap.waiting:
            while self.tap.waiting:
                await self.tap.replay(BATCH)
            left = await settled(scene.ground)  # what that made the others say is heard, too
        self.listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.listening
        return {
            "said twice": [f"{row.id} {row.action}" for row in await scene.ground.rows(TWICE)],
            "acts without a row": sorted(
                self.tap.acts - {row.id for row in await scene.ground.rows(ACTS)}
            ),
            "set aside": [row.id for row in await scene.ground.rows(LETTERS)],
            "left on the streams": left,
        }

    async def told(self, scene: Scene) -> dict[str, float]:
        """How many copies, and what they cost."""
        (row,) = await scene.ground.rows(AGAIN)
        return {
            "copies": self.tap.replayed, "duplicates that the audit notes": row.duplicates,
            "late ends that the audit notes": row.superseded,
        }  # fmt: skip


# A state that a task is said to have come to twice in one attempt.
TWICE = """SELECT object_id AS id, action FROM audit_events
WHERE object_type = 'task' AND after ? 'state'
GROUP BY object_id, action, after->>'attempt' HAVING count(*) > 1"""
ACTS = "SELECT id::text AS id FROM audit_events"
LETTERS = "SELECT concat_ws(' ', stream, entry_id, reason, detail) AS id FROM dead_letters"
AGAIN = """SELECT count(*) FILTER (WHERE action = 'task.duplicate') AS duplicates,
count(*) FILTER (WHERE action = 'attempt.superseded') AS superseded FROM audit_events"""


class Tap:
    """Reads the streams without a group, and keeps what is to be written again."""

    def __init__(self, ground: Ground, rng: Random) -> None:
        self._commands = ground.parts.streams.commands
        keys = ground.parts.streams.keys
        self._audit = keys.audit
        self._after = dict.fromkeys([*keys.lanes("default"), *map(keys.of, STREAMS)], "0-0")
        self._rng = rng
        self._known: set[Entry] = set()
        self.waiting: list[Entry] = []
        self.acts: set[str] = set()
        self.replayed = 0

    async def listen(self) -> None:
        """Take in what is written, until cancelled; a copy of a copy is none."""
        while True:
            found = await self._commands.xread(self._after, count=PAGE)
            for key, entries in found:
                stream = key.decode()
                for entry_id, fields in entries:
                    self._after[stream] = entry_id.decode()
                    self._take(stream, tuple(fields.items()))
            await asyncio.sleep(0 if found else 0.005)

    async def replay(self, most: int) -> None:
        """Write so many of them, drawn by lot."""
        self._rng.shuffle(self.waiting)
        chosen, self.waiting = self.waiting[:most], self.waiting[most:]
        pipe = self._commands.pipeline(transaction=False)
        for stream, fields in chosen:
            pipe.xadd(stream, dict(fields))
        await pipe.execute()
        self.replayed += len(chosen)

    def _take(self, stream: str, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        entry = stream, fields
        if entry in self._known:
            return
        self._known.add(entry)
        self.waiting += [entry] * COPIES
        if stream == self._audit:
            self.acts.add(dict(fields)[b"id"].decode())
