"""Says the message of a dead letter again on the stream that it came from."""

from typing import Any

from orchestrator.api.parts import ApiParts
from orchestrator.api.problems import Problem
from orchestrator.db import letters
from orchestrator.db.models import DeadLetterRow
from orchestrator.errors import MalformedMessage
from orchestrator.streams.message import Message, decode, decode_task
from orchestrator.streams.names import STREAMS, TASKS, Keys, Stream
from orchestrator.task import Priority, Task


async def redrive(parts: ApiParts, letter_id: str, *, actor: str) -> DeadLetterRow:
    """Say a letter's message again, a task's as a new task, and close it; the row as it then is.

    Raises LetterNotFound, LetterClosed, Unavailable; Problem 409 where the message cannot be read.
    """

    async def again(row: DeadLetterRow) -> Task | None:
        return await _said_again(parts, row)

    row, task = await letters.redrive(parts.database, letter_id, actor=actor, again=again)
    if task is not None:
        await parts.submitter.publish_accepted([task])
    return row


async def _said_again(parts: ApiParts, row: DeadLetterRow) -> Task | None:
    stream = _stream_of(parts.streams.keys, row.stream)
    if stream is None:
        raise Problem(409, "not_redrivable", f"{row.stream} is none of our streams")
    try:
        message = _message(row)
        if stream is TASKS:
            return _new_task(parts.streams.keys, row, message)
    except MalformedMessage as error:
        raise Problem(
            409,
            "not_redrivable",
            f"the message of dead letter {row.id} cannot be read again: {error}; " + _instead(row),
        ) from error
    data = row.fields["data"].encode()
    await parts.publisher.publish_data(stream, data, message_id=message.id)
    return None


def _instead(row: DeadLetterRow) -> str:
    if row.task_id is None:
        return "drop the letter and submit the work anew"
    # Letters keep 64 KiB of a field; the task's row has the whole input.
    return f"if task {row.task_id} has its input, retry that, and drop the letter"


def _message(row: DeadLetterRow) -> Message:
    raw = {name.encode(): value.encode() for name, value in row.fields.items()}
    return decode(raw, stream=row.stream, entry_id=row.entry_id)


def _new_task(keys: Keys, row: DeadLetterRow, message: Message) -> Task:
    """The message's task begun again: another id, first attempt, on the lane it came from."""
    data: dict[str, Any] = {**_lane(keys, row.stream), **message.data}
    # A key or a run time belongs to the submission that died; an expiry that has passed would end
    # the new task at once.
    for name in ("idempotency_key", "run_at", "expires_at", "attempt", "crashes"):
        data.pop(name, None)
    data["task_id"] = letters.redriven_id(row.id)
    told = data.get("metadata")
    data["metadata"] = {**(told if isinstance(told, dict) else {}), "redrive_of": row.id}
    return decode_task(message._replace(data=data))


def _stream_of(keys: Keys, key: str) -> Stream | None:
    if key == keys.tasks or key.startswith(f"{keys.tasks}:"):
        return TASKS
    return next((each for each in STREAMS if keys.of(each) == key), None)


def _lane(keys: Keys, key: str) -> dict[str, str]:
    """Queue and priority that a lane's key stands for; the reverse of `Keys.lane`."""
    parts = [part for part in key.removeprefix(keys.tasks).split(":") if part]
    priority = parts.pop() if parts and parts[-1] in set(Priority) else Priority.NORMAL.value
    return {"queue": parts[0] if parts else "default", "priority": priority}
