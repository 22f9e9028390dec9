"""The wire format: what stands in a stream entry, and how an entry becomes a value.

Three flat fields, `id`, `timestamp`, `data` (a JSON object); only `data` is required. Fields that
we do not know are ignored. Writing is strict, reading forgives what has one clear meaning.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from orchestrator.errors import MalformedMessage, PayloadTooLarge
from orchestrator.event import EventKind, TaskEvent
from orchestrator.task import Task, canonical_id, derived_id, idempotent_id, iso, new_id
from orchestrator.tracing.current import valid_traceparent
from orchestrator.usage import ModelCall

Fields = dict[bytes, bytes]
ModelT = TypeVar("ModelT", bound=BaseModel)

ENVELOPE = 512  # bytes of an entry beside `data`: readers count all of it, so every door does too

# A producer's clock this far off is no news about when something happened.
ABSURD = timedelta(days=1)

# What Python can still say of an entry whose id somebody made up; a day before its last moment, so
# that no offset leads past that.
LATEST = datetime(9999, 12, 30, tzinfo=UTC)

# What a dead letter keeps of an entry: bytes of a value, characters of a name and of all together.
KEPT_VALUE, KEPT_NAME, KEPT = 64 * 1024, 200, 128 * 1024
_FIRST = (b"id", b"timestamp", b"data", b"producer")


class Message(NamedTuple):
    """One entry, read: what it says, when, and what had to be put right about it."""

    data: dict[str, Any]
    stream: str
    entry_id: str
    fields: Fields

    # Nobody needs all of these of every message, and some cost as much as reading its `data`.

    @property
    def id(self) -> str:
        """The one that the producer gave, or one derived from where the entry stands."""
        try:
            return canonical_id(self.fields.get(b"id", b"").decode())
        except ValueError:
            return derived_id(self.stream, self.entry_id)

    @property
    def producer(self) -> str | None:
        """Who says that it sent it."""
        return _text(self.fields.get(b"producer"))

    @property
    def traceparent(self) -> str | None:
        """The span that sent it, where the producer names one."""
        sent_by = self.fields.get(b"traceparent")
        return None if sent_by is None else valid_traceparent(sent_by)

    @property
    def taken(self) -> datetime:
        """When Redis took the entry."""
        return entry_time(self.entry_id)

    @property
    def at(self) -> datetime:
        """When it was said: the producer's time, or the entry's own where that is of no use."""
        own = self.taken
        given = _timestamp(_text(self.fields.get(b"timestamp")), own)
        return own if given is None else given.astimezone(UTC)

    @property
    def said_at(self) -> str | None:
        """The producer's time as it stood, where it was of no use."""
        text = _text(self.fields.get(b"timestamp"))
        return text if _timestamp(text, self.taken) is None else None


def encode(
    data: BaseModel | bytes,
    *,
    message_id: str | None = None,
    at: datetime,
    producer: str,
    traceparent: str | None = None,
) -> dict[str, str | bytes]:
    """The fields of one entry; `data` is a model or JSON already serialised."""
    body = data if isinstance(data, bytes) else dump(data)
    fields: dict[str, str | bytes] = {
        "id": message_id or new_id(),
        "timestamp": iso(at),
        "data": body,
        "version": "1",
        "producer": producer,
    }
    if traceparent is not None:
        fields["traceparent"] = traceparent
    return fields


def dump(model: BaseModel) -> bytes:
    """A model as `data`: defaults are left out, the reader has them."""
    return model.model_dump_json(exclude_defaults=True).encode()


def check_size(task: Task, limit: int) -> bytes:
    """The task as `data`. Raises PayloadTooLarge where readers with this limit would refuse it."""
    body = dump(task)
    if len(body) + ENVELOPE > limit:
        raise PayloadTooLarge(len(body) + ENVELOPE, limit)
    return body


def decode(fields: Fields, *, stream: str, entry_id: str, limit: int | None = None) -> Message:
    """Read one entry. Raises MalformedMessage or PayloadTooLarge, which say what would be right.

    `limit`: bytes of all values together.
    """
    size = sum(map(len, fields.values()))
    if limit is not None and size > limit:
        raise PayloadTooLarge(size, limit)
    raw = fields.get(b"data")
    if raw is None:
        raise MalformedMessage(
            'no field `data`; an entry needs data=\'{"agent": ..., "input": {...}}\''
        )
    return Message(_object(raw), stream, entry_id, fields)


def decode_task(message: Message) -> Task:
    """The task that a message on a tasks stream carries. Raises MalformedMessage."""
    data = message.data
    if "agent" not in data:
        raise MalformedMessage('`data` has no "agent"; {"agent": str, "input": object} is enough')
    if not isinstance(data.get("input", {}), dict):
        raise MalformedMessage(
            f'"input" is {_kind(data["input"])}; it must be an object, as in {{"input": {{}}}}'
        )
    given: dict[str, Any] = {}
    if "input" not in data:
        given["input"] = {}
    sent_by = message.traceparent
    if sent_by is not None or "traceparent" in data:
        given["traceparent"] = sent_by  # the entry's, whatever `data` calls so
    for moment in ("run_at", "expires_at"):
        if moment in data:
            given[moment] = _aware(data[moment])
    if not data.get("task_id"):
        key = data.get("idempotency_key")
        if isinstance(key, str) and key and isinstance(data["agent"], str):
            tenant = str(data.get("tenant", "default"))
            given["task_id"] = idempotent_id(tenant=tenant, agent=data["agent"], key=key)
        else:
            given["task_id"] = message.id
    return _validated(Task, {**data, **given} if given else data)


def decode_event(message: Message) -> TaskEvent:
    """The event that a message on the results stream carries. Raises MalformedMessage."""
    data = message.data
    return _validated(TaskEvent, data if "at" in data else {"at": message.at, **data})


def decode_call(message: Message, event: TaskEvent) -> ModelCall | None:
    """The call of a model that an event `usage` tells of; None of another event.

    Raises MalformedMessage. A call without an id is that of its message.
    """
    if event.event is not EventKind.USAGE:
        return None
    if event.usage is None:
        raise MalformedMessage(
            'an event "usage" has to say what a call of a model cost, as in "usage": {"id": UUID,'
            ' "model": "openai:gpt-5-mini", "input_tokens": 120, "output_tokens": 8}'
        )
    given = {"id": message.id, "at": event.at, **event.usage}
    return _validated(ModelCall, given, of="usage")


def entry_time(entry_id: str) -> datetime:
    """When Redis took the entry, by its own id; a producer may give any, also of no year."""
    return _moment(entry_id.partition("-")[0])


@lru_cache(maxsize=1024)  # what one script or one write adds has one time
def _moment(milliseconds: str) -> datetime:
    try:
        return min(datetime.fromtimestamp(int(milliseconds) / 1000, UTC), LATEST)
    except (ValueError, OverflowError, OSError):
        return LATEST


def fields_of(flat: Sequence[bytes] | None) -> Fields:
    """An entry's fields as the server lists them; none where it was deleted meanwhile."""
    parts = iter(flat or ())
    return dict(zip(parts, parts, strict=True))


def raw_fields(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """An entry as a dead letter keeps it: text, what is no UTF-8 escaped, cut where it is long."""
    kept: dict[str, str] = {}
    left = KEPT
    ours = [name for name in _FIRST if name in fields]
    for name in [*ours, *(each for each in fields if each not in _FIRST)]:
        shown = name[:KEPT_NAME].decode("utf-8", "backslashreplace")
        value = fields[name][:KEPT_VALUE].decode("utf-8", "backslashreplace")
        if len(shown) >= left:
            break
        kept[shown] = value[: left - len(shown)]
        left -= len(shown) + len(kept[shown])
    return kept


def _validated(model: type[ModelT], given: dict[str, Any], *, of: str = "data") -> ModelT:
    # What `model_validate` calls: the way there costs nearly as much again.
    validator = model.__pydantic_validator__
    try:
        return validator.validate_python(given)  # type: ignore[no-any-return]
    except ValidationError as error:
        problems = "; ".join(
            f"{'/'.join(map(str, each['loc'])) or of}: {each['msg']}"
            for each in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise MalformedMessage(f"`{of}`: {problems}") from error


def _object(raw: bytes) -> dict[str, Any]:
    try:
        # NaN and Infinity are no JSON, and Postgres has no place for them.
        # Of the strings, only names of fields come again: ids and texts are not worth remembering.
        data = from_json(raw, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise MalformedMessage(f"`data` is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise MalformedMessage(f"`data` is {_kind(data)}; it must be a JSON object")
    if _holds_infinity(data):
        raise MalformedMessage("`data` has a number beyond 1.8e308; send it as a string")
    return data


def _holds_infinity(value: dict[str, Any] | list[Any]) -> bool:
    """True where a number did not fit a float: written again, it would silently be null."""
    for each in value.values() if isinstance(value, dict) else value:
        kind = type(each)
        if kind is float:
            if math.isinf(each):
                return True
        elif (kind is dict or kind is list) and _holds_infinity(each):
            return True
    return False


def _timestamp(text: str | None, own: datetime) -> datetime | None:
    """The time the producer gave; None where it is of no use beside the entry's own."""
    if text is None:
        return None
    try:
        given = datetime.fromisoformat(text)
        if given.tzinfo is None:
            given = given.replace(tzinfo=UTC)  # what existing producers write
        return given if abs(given - own) <= ABSURD else None
    except (ValueError, OverflowError):
        return None


def _aware(value: Any) -> Any:
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            return value  # the model says what is wrong with it
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return value


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw[:200].decode("utf-8", "backslashreplace")


def _kind(value: Any) -> str:
    kinds = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")
