"""What a task is, which states it goes through, and which of two reports about it is the later.

Values and rules only. A `Task` is what the wire carries in `data` (design section 2).
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any
from uuid import UUID, uuid5

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetPydanticSchema,
    StringConstraints,
    field_validator,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import CoreSchema, core_schema, to_json
from uuid_utils import uuid7

from orchestrator.budget import Budget

# The root of every id that we derive: uuid5 of the DNS namespace and "aurora-orchestrator".
NAMESPACE = UUID("ae37848d-4000-58c2-a7b5-80b4fe022e7d")

Name = Annotated[
    str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.\-]+$")
]


def is_name(given: Any) -> bool:
    """True of what `Name` takes, for classes that users write."""
    return isinstance(given, str) and re.fullmatch(r"[A-Za-z0-9_.\-]{1,100}", given) is not None


_CANONICAL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


FARTHEST = timedelta(hours=15)  # from UTC; Kiritimati's 14 is the most


def sayable(moment: datetime) -> datetime:
    """The moment as Postgres takes it, where it is one in UTC, too. Raises ValueError.

    Postgres takes year 1 with any offset and gives back year 0, which Python cannot say; and no
    offset of 16 hours, which is none of this world's and which ISO 8601 can write. An offset of
    seconds is one that JSON would cut.
    """
    offset = moment.utcoffset() or timedelta(0)
    usual = abs(offset) < FARTHEST and not offset % timedelta(minutes=1)
    if MINYEAR < moment.year < MAXYEAR and usual:
        return moment
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("in UTC it is not within the years 1 to 9999") from error


def canonical_id(text: str) -> str:
    """The one spelling of a UUID. Raises ValueError."""
    # Nearly all come as we write them; parsing each would cost more than the rest of the reading.
    return text if _CANONICAL.fullmatch(text) else str(UUID(text))


def _usually(
    spelling: CoreSchema, otherwise: Callable[[Any], object], *, right: str
) -> GetPydanticSchema:
    """What comes in its usual spelling is validated without a call of Python; the rest, with one.

    Those calls, four an event, were three fifths of what validating it costs.
    """
    return GetPydanticSchema(
        lambda source, handler: core_schema.union_schema(
            [spelling, core_schema.no_info_after_validator_function(otherwise, handler(source))],
            mode="left_to_right",
            custom_error_type="wrong_spelling",
            custom_error_message=right,
        )
    )


Moment = Annotated[
    AwareDatetime,
    _usually(
        core_schema.datetime_schema(
            tz_constraint=0,
            ge=datetime(MINYEAR + 1, 1, 1, tzinfo=UTC),
            lt=datetime(MAXYEAR, 1, 1, tzinfo=UTC),
        ),
        sayable,
        right="a moment is written with its offset, as in 2026-11-24T09:30:00Z, and is in UTC"
        " within the years 1 to 9999",
    ),
]
CanonicalId = Annotated[
    str,
    _usually(
        core_schema.str_schema(pattern=f"^{_CANONICAL.pattern}$"),
        canonical_id,
        right="an id is a UUID as text, as in 01a20b56-2112-708a-911f-fd44f2cd921c",
    ),
]

TaskId = str  # canonical text of a UUID; kept as text because it is only ever passed on


class TaskState(StrEnum):
    """Where a task stands; the last five are terminal."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DEAD = "dead"

    @property
    def is_terminal(self) -> bool:
        """True when nothing follows."""
        return self in TERMINAL


TERMINAL = frozenset(
    {
        TaskState.SUCCEEDED,
        TaskState.FAILED,
        TaskState.CANCELLED,
        TaskState.EXPIRED,
        TaskState.DEAD,
    }
)

# Order within one attempt; a retry is later than anything else of its attempt.
_ORDER = {
    TaskState.SCHEDULED: 0,
    TaskState.QUEUED: 1,
    TaskState.RUNNING: 2,
    TaskState.WAITING: 3,
    TaskState.RETRYING: 4,
}
TERMINAL_PROGRESS = 2**31 - 1  # Postgres' largest integer


def progress(state: TaskState, attempt: int) -> int:
    """How far a task has come, as one number: of two reports the larger is the later.

    queued, attempt 1: 11. retrying after attempt 1: 14. running, attempt 2: 22. Any end: the
    largest integer, so the first end that is recorded stays.
    """
    if state.is_terminal:
        return TERMINAL_PROGRESS
    return attempt * 10 + _ORDER[state]


class Priority(StrEnum):
    """Which lane of its queue a task waits in."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


_PRIORITIES = frozenset(each.value for each in Priority)


class Durability(StrEnum):
    """What accepts a submission: the row in Postgres, or the entry in Redis."""

    DATABASE = "database"
    STREAM = "stream"


class Task(BaseModel):
    """One unit of work, as accepted; `data` of a message on the tasks stream."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task_id: CanonicalId
    agent: Name
    input: dict[str, Any]
    queue: Name = "default"
    priority: Priority = Priority.NORMAL
    attempt: int = Field(default=1, ge=1, le=1_000_000)
    crashes: int = Field(default=0, ge=0, le=1_000_000)  # unfinished starts before this message
    idempotency_key: str | None = Field(default=None, max_length=200)
    run_at: Moment | None = None
    expires_at: Moment | None = None
    parent_id: CanonicalId | None = None
    root_id: CanonicalId | None = None
    tenant: Name = "default"
    budget: Budget | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    # The span that sent it (W3C). Beside `data` in its entry, never in it.
    traceparent: SkipJsonSchema[str | None] = Field(default=None, exclude=True)

    @field_validator("queue")
    @classmethod
    def _no_lane_names(cls, value: str) -> str:
        if value in _PRIORITIES:
            raise ValueError(f"{value!r} is a priority, not a queue; set priority instead")
        return value

    @property
    def digest(self) -> str:
        """Agent and input in one canonical hash: two messages of one task must agree on it."""
        return content_digest(self.agent, self.input)


def content_digest(agent: str, task_input: Mapping[str, Any]) -> str:
    """32 hex digits over agent and input; key order and white space do not matter."""
    content = [agent, _in_order(task_input)]
    canonical = to_json(content)
    if not canonical.isascii():
        # Escaped, as in every digest that is recorded. Of plain letters this is the same text, and
        # takes twice as long to write.
        canonical = to_json(content, ensure_ascii=True)
    return hashlib.sha256(canonical).hexdigest()[:32]


def _in_order(value: Any) -> Any:
    """The same JSON value, each object's fields by name."""
    if isinstance(value, dict):
        return {name: _in_order(value[name]) for name in sorted(value)}
    return [_in_order(each) for each in value] if isinstance(value, list) else value


def new_id() -> str:
    """A fresh id: UUID version 7, so that ids sort by time of birth."""
    return str(uuid7())


def idempotent_id(*, tenant: str, agent: str, key: str) -> TaskId:
    """The task id that this key stands for; the same wherever and however often it is derived."""
    return str(uuid5(NAMESPACE, f"task\x1f{tenant}\x1f{agent}\x1f{key}"))


def derived_id(stream: str, entry_id: str) -> str:
    """The id of an entry that brought none; stable over redelivery."""
    return str(uuid5(NAMESPACE, f"entry\x1f{stream}\x1f{entry_id}"))


@lru_cache(maxsize=16)  # of many messages sent together it is one
def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with `Z`, microseconds: one spelling on every stream."""
    return moment.isoformat(timespec="microseconds")[:26] + "Z"
