"""What is followed live over HTTP: alerts, and changes of tasks' states. Made once a process."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from pydantic_core import to_json

from orchestrator.alert import Alert, AlertKind, Severity
from orchestrator.api.feed import Feed, Gap, Here, Told
from orchestrator.db.live import alerts_between
from orchestrator.db.session import Database
from orchestrator.errors import Rejected
from orchestrator.event import EventKind, TaskEvent
from orchestrator.formats.normalise import normalise
from orchestrator.streams.connection import Streams
from orchestrator.streams.live import LiveTail
from orchestrator.streams.message import Fields, decode, decode_event
from orchestrator.streams.names import ALERTS, CPS_ALERTS, RESULTS
from orchestrator.streams.position import EntryId
from orchestrator.streams.told import LiveMessage, Reading
from orchestrator.task import iso

FRAME = 64 * 1024  # characters that go to a client at once
ALERT_STREAMS = {AlertKind.NETWORK.value: ALERTS, AlertKind.CPS.value: CPS_ALERTS}


class Live:
    """Both feeds of one process; neither reads anything before its first client."""

    def __init__(self, streams: Streams, database: Database, *, max_payload: int) -> None:
        """Store."""
        self._streams = streams
        self._database = database
        self._max_payload = max_payload
        self.websockets = 0  # clients that are connected
        self.event_streams = 0
        self.alerts: Feed[Alert] = Feed(
            LiveTail(streams, ALERT_STREAMS, read=self._alert),
            name="alert",
            recorded=self._recorded,
        )
        # A task's page reads the record; here a change of its state is news, and no more.
        self.tasks: Feed[TaskEvent] = Feed(
            LiveTail(streams, {"task": RESULTS}, read=self._event, coalesce=_task_of),
            name="task",
            recorded=None,
        )

    @property
    def dropped(self) -> int:
        """Messages that clients were too slow for."""
        return self.alerts.tail.dropped + self.tasks.tail.dropped

    def stop(self) -> None:
        """End what every client follows, at once."""
        self.alerts.tail.stop()
        self.tasks.tail.stop()

    async def close(self) -> None:
        """Stop, at most a second later."""
        await self.alerts.tail.close()
        await self.tasks.tail.close()

    def _alert(self, source: str, entry_id: str, fields: Fields) -> Reading[Alert] | None:
        # As the alert handlers read it; what they set aside is no alert here either.
        key = self._streams.keys.of(ALERT_STREAMS[source])
        try:
            message = decode(fields, stream=key, entry_id=entry_id, limit=self._max_payload)
            alert = normalise(message.data, id=message.id, kind=source, received_at=message.taken)
        except Rejected:
            return None
        return _reading(alert)

    async def _recorded(
        self, source: str, after: EntryId, until: EntryId, most: int
    ) -> list[tuple[EntryId, Reading[Alert]]]:
        found = await alerts_between(self._database, source, after=after, until=until, limit=most)
        return [(EntryId.of(entry_id), _reading(alert)) for entry_id, alert in found]

    def _event(self, source: str, entry_id: str, fields: Fields) -> Reading[TaskEvent] | None:
        del source
        message = decode(fields, stream=self._streams.keys.results, entry_id=entry_id)
        event = decode_event(message)
        if event.event is EventKind.USAGE:
            return None  # no change of a state, and maybe after the task's end
        said = {
            "task_id": event.task_id,
            "agent": event.agent,
            "event": event.event.value,
            "state": event.event.state.value,
            "attempt": event.attempt,
            "at": iso(event.at),
        }
        return Reading(message.id, event, to_json(said).decode())


def wanted(kind: AlertKind | None, severity: Severity | None) -> Callable[[Alert], bool]:
    """Alerts of this kind (None: both), at least this serious."""
    least = severity.rank if severity else 0
    return lambda alert: alert.severity.rank >= least and (kind is None or alert.kind == kind)


def frames(told: Sequence[Told[Any]], name: str) -> Iterator[str]:
    """JSON arrays of messages, as they go to a client: FRAME long unless one alone is longer."""
    for part in _parts([text_of(each, name) for each in told]):
        yield f"[{','.join(part)}]"


def chunks(told: Sequence[Told[Any]], name: str) -> Iterator[str]:
    """Server-sent events, several at a time."""
    for part in _parts([event_of(each, name) for each in told]):
        yield "".join(part)


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    part: list[str] = []
    size = 0
    for each in texts:
        if part and size + len(each) > FRAME:
            yield part
            part, size = [], 0
        part.append(each)
        size += len(each)
    yield part


def text_of(told: Told[Any], name: str) -> str:
    """One message as JSON."""
    match told:
        case LiveMessage():
            # The same text for every client that is live, and for those that come back.
            if name not in told.texts:
                told.texts[name] = (
                    f'{{"id":"{told.position}","kind":"{told.source}",'
                    f'"entry_id":"{told.entry_id}","{name}":{told.reading.body}}}'
                )
            return told.texts[name]
        case Gap():
            gap = {"from": str(told.after), "to": str(told.position), "reason": told.reason}
            return to_json({"id": str(told.position), "gap": gap}).decode()
        case Here():
            return f'{{"id":"{told.position}","live":true}}'


def event_of(told: Told[Any], name: str) -> str:
    """One message as a server-sent event; of `Here` the id alone, which browsers keep unseen."""
    if isinstance(told, Here):
        return f"id: {told.position}\n: live\n\n"
    kind = "gap" if isinstance(told, Gap) else name
    return f"id: {told.position}\nevent: {kind}\ndata: {text_of(told, name)}\n\n"


def _reading(alert: Alert) -> Reading[Alert]:
    return Reading(alert.id, alert, alert.model_dump_json())


def _task_of(event: TaskEvent) -> Hashable:
    return event.task_id
