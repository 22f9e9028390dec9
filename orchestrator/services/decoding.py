"""What the recorder reads, as values."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from orchestrator.event import TaskEvent
from orchestrator.record import DeadLetterRecord, HeardEvent, SeenTask
from orchestrator.runtime.letter import letter_of
from orchestrator.streams.batch import Refused, applied, decoded
from orchestrator.streams.consumer import Delivery
from orchestrator.streams.message import Message, decode_call, decode_event, decode_task
from orchestrator.task import Task

# Times AURORA_MAX_OUTPUT: what is larger is no result of ours, also of workers with another limit.
PAST_OUTPUT = 4


class Item(NamedTuple):
    """A delivery, and what was read of it: a message, a dead letter, or nothing of ours."""

    delivery: Delivery
    message: SeenTask | HeardEvent | None = None
    letter: DeadLetterRecord | None = None

    @property
    def size(self) -> int:
        """Bytes of its data."""
        return len(self.delivery.fields.get(b"data", b""))


class Decoder:
    """Knows which stream is the results', and how large an entry of each may be."""

    def __init__(self, results: str, *, max_payload: int, max_output: int) -> None:
        """`results`: the key of that stream; sizes in bytes."""
        self._results = results
        self._max_payload = max_payload
        # A result may be larger than what we accept: a worker's is never refused.
        self._max_event = PAST_OUTPUT * max_output

    def items(self, deliveries: Iterable[Delivery]) -> list[Item]:
        """One of each, tasks before events."""
        tasks: list[Delivery] = []
        events: list[Delivery] = []
        for delivery in deliveries:
            (events if delivery.stream == self._results else tasks).append(delivery)
        return [*_tasks(tasks, self._max_payload), *_events(events, self._max_event)]


def _tasks(deliveries: Sequence[Delivery], limit: int) -> list[Item]:
    messages = decoded(deliveries, limit=limit)
    tasks = applied(decode_task, messages)
    digests = ["" if isinstance(task, Refused) else task.digest for task in tasks]
    # What is refused the dispatcher sets aside, and says so on the results stream.
    return [
        Item(delivery)
        if isinstance(message, Refused) or isinstance(task, Refused)
        else Item(delivery, _seen(message, task, digest))
        for delivery, message, task, digest in zip(
            deliveries, messages, tasks, digests, strict=True
        )
    ]


def _events(deliveries: Sequence[Delivery], limit: int) -> list[Item]:
    messages = decoded(deliveries, limit=limit)
    read = applied(lambda message: (message, decode_event(message)), messages)
    heard = applied(lambda found: _heard(*found), read)
    return [
        Item(delivery, letter=letter_of(delivery, found.reason, found.detail))
        if isinstance(found, Refused)
        else Item(delivery, found)
        for delivery, found in zip(deliveries, heard, strict=True)
    ]


def _seen(message: Message, task: Task, digest: str) -> SeenTask:
    return SeenTask(
        task=task,
        digest=digest,
        stream=message.stream,
        entry_id=message.entry_id,
        at=message.taken,
        said_by=message.producer or message.stream,
        said_at=message.said_at,
    )


def _heard(message: Message, event: TaskEvent) -> HeardEvent:
    return HeardEvent(
        event=event,
        stream=message.stream,
        entry_id=message.entry_id,
        at=message.taken,
        said_by=message.producer or message.stream,
        call=decode_call(message, event),
    )
