"""What happened to a task, as it travels on the results stream, and who did what on the audit's."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from orchestrator.errors import DeadReason
from orchestrator.task import CanonicalId, Moment, TaskState, sayable

# Bounded, since it is indexed: Postgres refuses an index entry of more than 2,704 bytes.
Word = Annotated[str, BeforeValidator(lambda said: said[:500] if isinstance(said, str) else said)]


# Attempts of a task, far above a message's; ten times as many are an integer of Postgres' still.
MOST = 100_000_000


class EventKind(StrEnum):
    """The `event` of a result message (design section 2)."""

    STARTED = "started"
    PROGRESS = "progress"
    USAGE = "usage"  # a model has answered; changes no state
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DEAD = "dead"

    @property
    def state(self) -> TaskState:
        """The state that a task is in after this event."""
        return _STATE_AFTER[self]


_STATE_AFTER = {
    EventKind.STARTED: TaskState.RUNNING,
    EventKind.PROGRESS: TaskState.RUNNING,
    EventKind.USAGE: TaskState.RUNNING,
    EventKind.RETRYING: TaskState.RETRYING,
    EventKind.SUCCEEDED: TaskState.SUCCEEDED,
    EventKind.FAILED: TaskState.FAILED,
    EventKind.CANCELLED: TaskState.CANCELLED,
    EventKind.EXPIRED: TaskState.EXPIRED,
    EventKind.DEAD: TaskState.DEAD,
}


class DeadLetter(BaseModel):
    """A message that was set aside: which, why, and what it said."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    stream: str
    entry_id: str
    reason: DeadReason
    detail: str
    fields: dict[str, str]
    # False: the message was none of the task's (undecodable, or a task id used twice); the task,
    # if there is one, goes on.
    ends_task: bool = True


class TaskEvent(BaseModel):
    """One change of one task; `data` of a message on the results stream."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task_id: CanonicalId
    agent: str = Field(max_length=100)  # empty where a message could not be read
    event: EventKind
    at: Moment
    attempt: int = Field(default=1, ge=1, le=MOST)
    crashes: int = Field(default=0, ge=0, le=MOST)  # starts before this attempt that did not end
    crashed: bool = False  # and this attempt did not, either: its own process died
    output: Any = None
    error: dict[str, Any] | None = None
    usage: dict[str, Any] | None = Field(
        default=None, description="Of an event `usage`: a ModelCall. Of others it is not read."
    )
    detail: dict[str, Any] | None = None  # what progress() was given
    worker: str | None = None
    started_at: Moment | None = None
    finished_at: Moment | None = None
    run_at: Moment | None = None  # of a retry: when the next attempt is due
    dead_letter: DeadLetter | None = None


class Act(BaseModel):
    """Who did what to which object; `data` of a message on the audit stream."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    action: Word  # "transport.reset", "key.created", ...
    actor: Word  # "worker:host-1234-ab12", "key:ak_1f2e", "scheduler:..."
    object_type: Word
    object_id: Word
    at: datetime
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    detail: dict[str, Any] | None = None
    producer: Word | None = None
    sequence: int | None = Field(
        default=None, ge=0, lt=2**63
    )  # gapless within one producer; a gap is a loss on the stream

    @field_validator("at")
    @classmethod
    def _aware(cls, value: datetime) -> datetime:
        """A naive time means UTC, as everywhere on the wire."""
        return sayable(value if value.tzinfo else value.replace(tzinfo=UTC))
