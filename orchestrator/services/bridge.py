"""Takes readings from an MQTT broker and publishes those that are alerts on aurora:cps:alerts.

The broker keeps each message until what came of it is on a stream: it is acknowledged after, never
before. Whatever the broker does, nothing else in this process waits for it or ends by it.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import blake2b

from pydantic_core import to_json

from orchestrator.errors import BrokerRefused, Overloaded, Unavailable
from orchestrator.mapping import TopicMapping, When
from orchestrator.mqtt import Broker, Connection, Received
from orchestrator.reading import (
    BadReading,
    Heard,
    Reported,
    Unremarkable,
    Value,
    alert_id,
    bad_topic,
    judge,
    matching,
)
from orchestrator.retry import Retry
from orchestrator.runtime.room import RETRY_AFTER, Room
from orchestrator.runtime.service import OUTAGE_PAUSE, Stop, every
from orchestrator.streams import bridges
from orchestrator.streams.bridges import BridgeFigures
from orchestrator.streams.names import CPS_ALERTS
from orchestrator.streams.publisher import Publisher

logger = logging.getLogger("aurora.bridge")

# About 0.5 s, then doubling to 30 s: a broker that restarts is back in a few seconds, and one that
# is away for the night is not asked a thousand times.
BACK_OFF = Retry(max_attempts=2**31, base=timedelta(seconds=0.5), ceiling=timedelta(seconds=30))
TELL_EVERY = 1.0  # seconds
# What was set aside is audited one by one up to so many at once, and so many a second in the long
# run; more is garbage, and told as a number every SUM_UP seconds.
ASIDE_AT_ONCE, ASIDE_A_SECOND, SUM_UP = 30, 0.5, 60.0
SHOWN = 1_024  # bytes of a payload in the audit
MOST_REMEMBERED = 100_000  # values of topics, for `changed-to`
NO_MAPPING = "none"  # the label of what no mapping matches


class MessageOutcome(StrEnum):
    """What became of a message; the `outcome` of aurora_mqtt_messages_total."""

    ALERT = "alert"
    UNREMARKABLE = "unremarkable"
    SET_ASIDE = "set_aside"
    DROPPED = "dropped"  # QoS 0 beyond what fits


@dataclass(frozen=True, slots=True)
class Aside:
    """A message, or part of it, that is no reading."""

    mapping: str
    reason: str
    heard: Heard


@dataclass(slots=True)
class Decided:
    """What is to be done about a batch before it may be acknowledged."""

    alerts: list[tuple[bytes, str]] = field(default_factory=list)  # data and message id
    asides: list[Aside] = field(default_factory=list)
    values: dict[tuple[str, str], Value] = field(default_factory=dict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def remember(self, mapping: TopicMapping, heard: Heard, value: Value | None) -> None:
        """For the next reading of that topic, where it matters."""
        if mapping.when is When.CHANGED_TO and value is not None:
            self.values[mapping.name, heard.topic] = value


class Bridge:
    """One broker's readings. Run one for each client id; another takes its session over."""

    name = "bridge"

    def __init__(
        self,
        broker: Broker,
        mappings: Sequence[TopicMapping],
        publisher: Publisher,
        room: Room,
        *,
        max_payload: int,
    ) -> None:
        """Store. `max_payload`: bytes of a message."""
        self.broker = broker
        self.mappings = mappings
        self.publisher = publisher
        self.room = room
        self.max_payload = max_payload
        self.topic_filters = tuple(dict.fromkeys(each.topic_filter for each in mappings))
        self.counts: Counter[tuple[str, str]] = Counter()
        self._stop = Stop()
        self._connection: Connection | None = None
        self._failures = 0
        self._last: OrderedDict[tuple[str, str], Value] = OrderedDict()
        self._deliveries = Deliveries()
        self._allowance = Allowance()
        self._told_only: Counter[tuple[str, str]] = Counter()
        self._summed_up = time.monotonic()

    def stop(self) -> None:
        """Return; what is not acknowledged is delivered again to the next."""
        self._stop.set()
        if self._connection is not None:
            self._connection.wake()

    async def run(self) -> None:
        """Bridge until stopped, through every outage of the broker and of Redis."""
        telling = asyncio.create_task(
            every(TELL_EVERY, self._tell, stop=self._stop, name="bridge's figures")
        )
        try:
            await every(
                BACK_OFF.ceiling.total_seconds(), self._session, stop=self._stop, name=self.name
            )
        finally:
            telling.cancel()
            with contextlib.suppress(asyncio.CancelledError, Unavailable, Overloaded):
                await telling
            with contextlib.suppress(Unavailable, Overloaded):
                await self._sum_up()
                await self._tell()

    async def _session(self) -> float:
        """One connection, from beginning to end; the seconds to wait before the next."""
        try:
            connection = await self.broker.connect(self.topic_filters)
        except Unavailable as error:
            self._failures += 1
            pause = _pause(self._failures)
            logger.log(
                logging.ERROR if isinstance(error, BrokerRefused) else logging.WARNING,
                "%s; the bridge tries again in %.1f s", error, pause,
                extra={"event": "bridge.refused" if isinstance(error, BrokerRefused)
                       else "bridge.away"},
            )  # fmt: skip
            return pause
        self._failures, self._connection = 0, connection
        logger.info(
            "the bridge hears %s at %s%s", ", ".join(self.topic_filters), self.broker.address,
            ", where the broker had kept its session" if connection.resumed else "",
            extra={"event": "bridge.connected"},
        )  # fmt: skip
        try:
            await self._serve(connection)
        finally:
            self._connection = None
            await connection.close()
        if not self._stop:
            logger.warning(
                "the broker at %s is gone: %s", self.broker.address, connection.gone,
                extra={"event": "bridge.cut"},
            )  # fmt: skip
        return _pause(1)

    async def _serve(self, connection: Connection) -> None:
        dropped = 0
        while not self._stop:
            batch = await connection.messages()
            if not batch:
                if connection.gone is not None:
                    return
                continue
            if connection.unpromised_dropped > dropped:
                more = connection.unpromised_dropped - dropped
                self.counts[NO_MAPPING, MessageOutcome.DROPPED] += more
                dropped += more
            decided = self._decide(batch)
            if not await self._publish(decided, connection):
                return
            # In the order in which they came, as MQTT asks for; only now may the broker forget.
            for each in batch:
                connection.acknowledge(each)
            self._remember(decided)

    def _decide(self, batch: Sequence[Received]) -> Decided:
        decided = Decided()
        for received in batch:
            heard = self._deliveries.first(received)
            why = bad_topic(heard.topic)
            if received.undecodable:
                why = "a topic that is no UTF-8"
            if len(heard.payload) > self.max_payload:
                why = (
                    f"a payload of {len(heard.payload)} bytes; at most {self.max_payload}"
                    " (AURORA_MQTT_MAX_PAYLOAD)"
                )
            matched = [each for each in self.mappings if matching(each, heard.topic) is not None]
            if why is None and not matched:
                why = "no mapping matches this topic, or none does any longer"
            if why is not None:
                self._set_aside(decided, Aside(NO_MAPPING, why, heard))
                continue
            for mapping in matched:
                self._decide_one(decided, mapping, heard)
        return decided

    def _decide_one(self, decided: Decided, mapping: TopicMapping, heard: Heard) -> None:
        where = (mapping.name, heard.topic)
        match judge(mapping, heard, decided.values.get(where, self._last.get(where))):
            case Reported(data, value, timed):
                id_ = alert_id(mapping, heard, client_id=self.broker.client_id, timed=timed)
                decided.alerts.append((to_json(data), id_))
                decided.counts[mapping.name, MessageOutcome.ALERT] += 1
                decided.remember(mapping, heard, value)
            case Unremarkable(value):
                decided.counts[mapping.name, MessageOutcome.UNREMARKABLE] += 1
                decided.remember(mapping, heard, value)
            case BadReading(reason):
                self._set_aside(decided, Aside(mapping.name, reason, heard))

    def _set_aside(self, decided: Decided, aside: Aside) -> None:
        decided.counts[aside.mapping, MessageOutcome.SET_ASIDE] += 1
        if self._allowance.take():
            decided.asides.append(aside)
        else:
            self._told_only[aside.mapping, _kind_of(aside.reason)] += 1

    async def _publish(self, decided: Decided, connection: Connection) -> bool:
        """True once all of it is on the streams; False where we stop, or the connection is gone."""
        waited = False
        while not self._stop and connection.gone is None:
            try:
                if decided.alerts or decided.asides:
                    await self._put(decided)
            except (Unavailable, Overloaded) as error:
                if not waited:
                    logger.warning(
                        "the bridge acknowledges nothing for now, the broker keeps it: %s", error,
                        extra={"event": "bridge.waits"},
                    )  # fmt: skip
                waited = True
                await self._stop.sleep(OUTAGE_PAUSE)
            else:
                return True
        return False

    async def _put(self, decided: Decided) -> None:
        if (why := await self.room.refusal()) is not None:
            raise Overloaded(why, retry_after=RETRY_AFTER)
        # One write. What of it was taken before a failure is published again under the same id.
        put = await asyncio.gather(
            *(
                self.publisher.publish_data(CPS_ALERTS, data, message_id=id_)
                for data, id_ in decided.alerts
            ),
            return_exceptions=True,
        )
        for each in put:
            if isinstance(each, BaseException):
                raise each
        while decided.asides:
            await self._audit(decided.asides[0])
            decided.asides.pop(0)

    async def _audit(self, aside: Aside) -> None:
        heard = aside.heard
        logger.warning(
            "a message on %r set aside: %s", heard.topic[:SHOWN], aside.reason,
            extra={"event": "bridge.set_aside"},
        )  # fmt: skip
        await self.publisher.audit(
            "mqtt.set_aside",
            object_type="topic",
            object_id=heard.topic[:200] or "(empty)",
            detail={
                "mapping": aside.mapping,
                "reason": aside.reason,
                "bytes": len(heard.payload),
                "payload": heard.payload[:SHOWN].decode("utf-8", "backslashreplace"),
            },
        )

    def _remember(self, decided: Decided) -> None:
        self.counts.update(decided.counts)
        for where, value in decided.values.items():
            self._last[where] = value
            self._last.move_to_end(where)
        while len(self._last) > MOST_REMEMBERED:
            self._last.popitem(last=False)

    async def _tell(self) -> None:
        await bridges.tell(
            self.publisher.streams,
            BridgeFigures(
                client_id=self.broker.client_id,
                connected=self._connection is not None and self._connection.gone is None,
                messages={(mapping, str(out)): n for (mapping, out), n in self.counts.items()},
            ),
        )
        if time.monotonic() - self._summed_up >= SUM_UP:
            await self._sum_up()

    async def _sum_up(self) -> None:
        """Tell the number of what was set aside and not told one by one."""
        self._summed_up = time.monotonic()
        if not self._told_only:
            return
        summed = [
            {"mapping": mapping, "reason": reason, "messages": count}
            for (mapping, reason), count in self._told_only.most_common(100)
        ]
        await self.publisher.audit(
            "mqtt.set_aside",
            object_type="bridge",
            object_id=self.broker.client_id,
            detail={"messages": self._told_only.total(), "of": summed},
        )
        self._told_only.clear()


class Deliveries:
    """Remembers when a message was first delivered, to know it again when it is delivered twice.

    A bridge that was killed has forgotten; then `alert_id`'s window decides.
    """

    def __init__(self) -> None:
        # By packet number, of which MQTT has 65,535.
        self._seen: dict[int, tuple[bytes, datetime]] = {}

    def first(self, received: Received) -> Heard:
        """The message as it was delivered first."""
        heard = received.heard
        said = blake2b(f"{heard.topic}\x1f".encode() + heard.payload, digest_size=16).digest()
        known = self._seen.get(heard.packet)
        if received.dup and known is not None and known[0] == said:
            return replace(heard, received_at=known[1])
        if heard.qos:
            self._seen[heard.packet] = (said, heard.received_at)
        return heard


class Allowance:
    """ASIDE_AT_ONCE at a time, ASIDE_A_SECOND in the long run."""

    def __init__(self) -> None:
        self._left = float(ASIDE_AT_ONCE)
        self._at = time.monotonic()

    def take(self) -> bool:
        """True where one more may be told."""
        now = time.monotonic()
        self._left = min(ASIDE_AT_ONCE, self._left + (now - self._at) * ASIDE_A_SECOND)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _pause(failures: int) -> float:
    delay = BACK_OFF.delay_after(failures)
    return BACK_OFF.ceiling.total_seconds() if delay is None else delay.total_seconds()


def _kind_of(reason: str) -> str:
    """A reason without what differs from message to message: few keys, however much garbage."""
    return "".join(each for each in reason if not each.isdigit())[:60]
