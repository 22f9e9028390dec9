"""Persists tasks and results: reads both streams in batches, and acknowledges after the commit.

What a batch does to the record is `fold.fold`'s to say; this file only reads, writes, and sees to
it that one bad message never holds up the others.
"""

import asyncio
import logging
import time
from collections.abc import Sequence

from orchestrator.db.recording import record
from orchestrator.db.session import Database
from orchestrator.errors import DeadReason, Overloaded, Unavailable
from orchestrator.record import Unrecordable, Writes
from orchestrator.runtime.letter import letter_of
from orchestrator.runtime.service import OUTAGE_PAUSE, Stop
from orchestrator.services.decoding import Decoder, Item
from orchestrator.services.pairing import Pairing
from orchestrator.services.portions import UnderWay, fitting, portions
from orchestrator.streams.consumer import BLOCK, Consumer
from orchestrator.streams.names import RESULTS, TASKS

logger = logging.getLogger("aurora.recorder")

# Messages of each stream at once. With two workers 1,000 drained a tenth faster than 500, and 2,000
# no faster, when one batch was written at a time; with three, 6 % (docs/performance.md).
BATCH = 1_000
FIRST = 100  # before anybody knows how large they are
LOOK_FOR_QUEUES = 1.0  # seconds
# After a small batch, seconds for the next one to gather: each costs a transaction, whose CPU the
# tasks want. What comes after a quiet moment is recorded at once.
GATHER = 0.01
SMALL = 100  # messages


class Recorder:
    """Any number of them may run; a row is locked by one at a time."""

    name = "recorder"

    def __init__(
        self, consumer: Consumer, database: Database, *, max_payload: int, max_output: int
    ) -> None:
        """Store; both in bytes."""
        self.consumer = consumer
        self.database = database
        self._results = consumer.streams.keys.results
        self._decoder = Decoder(self._results, max_payload=max_payload, max_output=max_output)
        self._pairing = Pairing()
        self._stop = Stop()
        self._looked = 0.0
        self._small = False
        self._count = FIRST
        self._under_way = UnderWay()

    def stop(self) -> None:
        """Record what has been read, then return."""
        self._stop.set()

    async def run(self) -> None:
        """Record until stopped; the next batch is read while those before are written."""
        reading = asyncio.create_task(self._next())
        while not self._stop:
            batch = await reading
            reading = asyncio.create_task(self._next())
            await self._keep(self._pairing.ready(batch, time.monotonic()))
        await self._keep([*self._pairing.held, *await reading])
        await self._under_way.settled()

    async def _next(self) -> list[Item]:
        try:
            await self._watch_all()
        except (Unavailable, Overloaded) as error:
            logger.warning("recorder waits: %s", error, extra={"event": "redis.away"})
            await self._stop.sleep(OUTAGE_PAUSE)
            return []
        if self._small:
            await self._stop.sleep(GATHER)
        due = self._pairing.due_in(time.monotonic())
        deliveries = await self.consumer.read(
            self._count,
            keys=[self._results] if self._pairing.full else None,
            known=[
                *(item.delivery.entry_id for item in self._pairing.held),
                *self._under_way.entry_ids(),
            ],
            block=BLOCK if due is None else min(BLOCK, due),
        )
        self._small = 0 < len(deliveries) < SMALL
        items = self._decoder.items(deliveries)
        self._count = min(BATCH, fitting(self._count, items))
        return items

    async def _watch_all(self) -> None:
        """Read every queue that somebody publishes to, also new ones."""
        if time.monotonic() - self._looked < LOOK_FOR_QUEUES:
            return
        keys = self.consumer.streams.keys
        watched = {keys.results: RESULTS}
        for queue in await self.consumer.streams.queues():
            watched.update(dict.fromkeys(keys.lanes(queue), TASKS))
        await self.consumer.watch(watched)
        self._looked = time.monotonic()

    async def _keep(self, batch: Sequence[Item]) -> None:
        for portion in portions(batch):
            await self._under_way.begin(portion, self._settle)

    async def _settle(self, portion: Sequence[Item]) -> None:
        """Write it, then acknowledge it; what is not written is delivered again."""
        if await self._written(portion):
            await self._acknowledge(portion)

    async def _written(self, portion: Sequence[Item]) -> bool:
        """Written, however long Postgres is away; False where it is while we are to stop."""
        said = False
        while True:
            try:
                await self._write(portion)
            except Unavailable as error:
                if not said:
                    logger.warning(
                        "%d messages wait: %s", len(portion), error,
                        extra={"event": "recorder.waits"},
                    )  # fmt: skip
                said = True
                if self._stop:
                    return False
                await self._stop.sleep(OUTAGE_PAUSE)
            else:
                return True

    async def _acknowledge(self, batch: Sequence[Item]) -> None:
        try:
            await self.consumer.acknowledge([item.delivery for item in batch])
        except (Unavailable, Overloaded) as error:
            # Recorded and not acknowledged: seen again, and then nothing new.
            logger.warning("not acknowledged: %s", error, extra={"event": "redis.away"})
            self.consumer.suspect_lost_reply()

    async def _write(self, batch: Sequence[Item]) -> None:
        messages = [item.message for item in batch if item.message is not None]
        also = Writes()
        for item in batch:
            if item.letter is not None:
                also.set_aside(item.letter, actor=self.consumer.name)
        try:
            await record(self.database, messages, also=also)
        except Unrecordable as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._write(batch[:middle])
                await self._write(batch[middle:])
                return
            refused = batch[0].delivery
            logger.error(  # noqa: TRY400 - Postgres' words are enough
                "message %s set aside: %s", refused.entry_id, error,
                extra={"event": "message.unrecordable"},
            )  # fmt: skip
            letter = letter_of(refused, DeadReason.UNRECORDABLE, str(error))
            also = Writes()
            also.set_aside(letter, actor=self.consumer.name)
            await record(self.database, [], also=also)
