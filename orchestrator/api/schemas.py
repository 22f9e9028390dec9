"""What goes in and what comes out, as models: they are the OpenAPI document's schemas too.

Times are ISO 8601 in UTC with `Z`, durations integers of milliseconds unless the name says seconds.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from orchestrator.api.paging import Moment, Text
from orchestrator.cron import CatchUp, Crontab, Overlap, TickOutcome
from orchestrator.errors import DeadReason
from orchestrator.task import Durability, Name, Priority, TaskState

MOST_AT_ONCE = 10_000  # tasks in one bulk submission; 4 MiB usually end it before
LONGEST_WINDOW = 366 * 86_400  # seconds
Seconds = Annotated[float, Field(ge=0, le=10 * 366 * 86_400)]  # ten years


class Asked(BaseModel):
    """A request's body: a field that does not exist is an error that names the near one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            for name in given:
                if name not in cls.model_fields:
                    near = get_close_matches(str(name), cls.model_fields, n=1, cutoff=0.5)
                    hint = f"did you mean {near[0]!r}?" if near else f"there are {_names(cls)}"
                    raise ValueError(f"unknown field {str(name)[:100]!r}; {hint}")
        return given


class Shown(BaseModel):
    """A response's body, read off a row by attribute."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class TaskIn(Asked):
    """One task to submit; `agent` and `input` are enough."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"agent": "triage", "input": {"signature": "ET SCAN"}, "priority": "high"},
                {"agent": "report", "input": {}, "countdown": 60, "expires": 3600},
            ]
        }
    )

    agent: Annotated[str, Field(min_length=1, max_length=100)]
    input: Any = Field(default_factory=dict, description="what the agent's input schema asks for")
    queue: Name | None = None
    priority: Priority | None = None
    countdown: Seconds | None = Field(default=None, description="seconds to wait before it runs")
    eta: Moment | None = Field(default=None, description="when to run it; not with `countdown`")
    expires: Moment | Seconds | None = Field(
        default=None, description="seconds from now, or a time, after which it is not begun"
    )
    idempotency_key: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    tenant: Name = "default"
    durability: Durability | None = Field(default=None, description="default: the server's setting")
    task_id: str | None = Field(default=None, description="a UUID of your own; default: a new one")

    @model_validator(mode="after")
    def _one_of_each(self) -> "TaskIn":
        if self.countdown is not None and self.eta is not None:
            raise ValueError("countdown and eta are two ways to say one thing; send one of them")
        if self.task_id is not None and self.idempotency_key is not None:
            raise ValueError("task_id and idempotency_key both name the task; send one of them")
        return self

    def run_at(self, now: datetime) -> datetime | None:
        """When it may run, None for at once."""
        return self.eta if self.countdown is None else now + timedelta(seconds=self.countdown)

    def expires_at(self, now: datetime) -> datetime | None:
        """When it is too late to begin it."""
        if isinstance(self.expires, int | float):
            return now + timedelta(seconds=self.expires)
        return self.expires


class Accepted(Shown):
    """A task was accepted; where it stood at that moment."""

    id: str
    agent: str
    state: TaskState


class AcceptedMany(Shown):
    """One for each task of the request, in its order."""

    items: list[Accepted]


class Stands(Shown):
    """Where a task stands."""

    id: str
    state: TaskState


class TaskSummary(Shown):
    """A task as lists show it."""

    id: str
    agent: str
    state: TaskState
    queue: str
    priority: str
    tenant: str
    attempt: int
    idempotency_key: str | None
    parent_id: str | None
    root_id: str | None
    created_at: datetime
    run_at: datetime | None
    expires_at: datetime | None
    published_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    cancel_requested_by: str | None
    worker: str | None


class AttemptOut(Shown):
    """One try that was long, failed or was retried."""

    attempt: int
    state: str
    error: dict[str, Any] | None
    usage: dict[str, Any] | None
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None


class ResultOut(Shown):
    """How a task ended."""

    state: TaskState
    attempt: int
    output: Any
    error: dict[str, Any] | None
    usage: dict[str, Any] | None
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None
    recorded_at: datetime


class TaskOut(TaskSummary):
    """A task in full. `result` is null until its end is recorded."""

    input: dict[str, Any] | None
    # The row's attribute is `meta`: SQLAlchemy keeps the name `metadata` to itself.
    metadata: dict[str, Any] | None = Field(validation_alias=AliasChoices("meta", "metadata"))
    result: ResultOut | None = None
    attempts: list[AttemptOut] = []


class UsageGroup(Shown):
    """What calls of models cost, under the names that it is grouped by; the others are null."""

    agent: str | None = None
    model: str | None = None
    day: date | None = None  # of UTC
    requests: int
    input_tokens: int  # those of the provider's cache as well
    output_tokens: int
    cached_tokens: int
    tool_calls: int
    # A decimal in text, which no reader rounds; of the requests whose price is known, null: none.
    cost_usd: str | None
    unpriced_requests: int


class UsageOut(Shown):
    """Groups, the newest day and the most costly first; `total` counts those left out, too."""

    items: list[UsageGroup]
    total: UsageGroup
    left_out: int


class LetterSummary(Shown):
    """A message that was set aside, as lists show it."""

    id: str
    stream: str
    entry_id: str
    task_id: str | None
    agent: str | None
    reason: DeadReason
    detail: str
    created_at: datetime
    closed_at: datetime | None
    closed_by: str | None
    closed_as: str | None
    redriven_task_id: str | None


class LetterOut(LetterSummary):
    """The same with the message's fields as they were, long ones cut."""

    fields: dict[str, str]


class AuditOut(Shown):
    """Who did what to which object."""

    id: str
    at: datetime
    action: str
    actor: str
    object_type: str
    object_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    detail: dict[str, Any] | None
    producer: str | None
    sequence: int | None
    recorded_at: datetime


class AlertSummary(Shown):
    """An alert as lists show it: evidence, not truth, and text to escape where it is shown."""

    id: str
    kind: str
    source: str
    severity: str
    signature: str
    signature_id: int | None
    category: str
    action: str | None
    src_ip: str | None
    src_port: int | None
    dest_ip: str | None
    dest_port: int | None
    proto: str | None
    app_proto: str | None
    direction: str | None
    host: str | None
    occurred_at: datetime
    received_at: datetime
    task_ids: list[str]
    entry_id: str | None = Field(description="on the stream of its kind; `last_id` of a live feed")
    acknowledged_at: datetime | None
    acknowledged_by: str | None


class AlertOut(AlertSummary):
    """The same with whatever else the sensor said."""

    details: dict[str, Any] | None


class InvestigationOut(Shown):
    """Alerts that a rule holds for one story; `key` is what they have in common."""

    id: str
    rule: str
    key: str
    agent: str
    severity: str  # the highest of its alerts
    alerts: int
    first_alert_at: datetime
    last_alert_at: datetime
    opened_at: datetime
    open_until: datetime  # an alert of its key after that opens another one
    task_ids: list[str]


class ScheduleChange(Asked):
    """What to change of a schedule; what is left out stays."""

    expression: Annotated[str, Field(max_length=200)] | None = None
    timezone: Annotated[str, Field(max_length=100)] | None = None
    input: dict[str, Any] | None = None
    name: Text | None = None
    catchup: CatchUp | None = None
    catchup_window_seconds: Annotated[int, Field(ge=0, le=LONGEST_WINDOW)] | None = None
    overlap: Overlap | None = None

    def changes(self) -> dict[str, Any]:
        """The fields of `Crontab` that were given."""
        given = self.model_dump(exclude_none=True, exclude={"catchup_window_seconds", "agent"})
        if self.catchup_window_seconds is not None:
            given["catchup_window"] = timedelta(seconds=self.catchup_window_seconds)
        return given


class ScheduleIn(ScheduleChange):
    """A schedule to make; `agent` and `expression` are enough."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"agent": "report", "expression": "0 6 * * *", "timezone": "Asia/Riyadh"},
            ]
        }
    )

    agent: Annotated[str, Field(min_length=1, max_length=100)]
    expression: Annotated[str, Field(max_length=200)]
    input: dict[str, Any] = Field(default_factory=dict)

    def crontab(self) -> Crontab:
        """The rule. Raises InvalidSchedule with what would have been right."""
        return Crontab(**self.changes())


class ScheduleOut(Shown):
    """A schedule as it stands. `origin` is "agent" where it is declared on a class."""

    id: str
    name: str
    agent: str
    expression: str
    timezone: str
    input: dict[str, Any]
    catchup: CatchUp
    catchup_window_seconds: float = Field(validation_alias="catchup_window")
    overlap: Overlap
    origin: str
    revision: int
    next_tick_at: datetime
    last_task_id: str | None
    paused_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @field_validator("catchup_window_seconds", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        return value.total_seconds() if isinstance(value, timedelta) else value


class TickOut(Shown):
    """What became of one due tick, and why."""

    fire_at: datetime
    outcome: TickOutcome
    reason: str | None
    task_id: str | None
    decided_by: str
    decided_at: datetime | None


class CrontabIn(Asked):
    """A cron line that is no schedule yet."""

    expression: Annotated[str, Field(max_length=200)]
    timezone: Annotated[str, Field(max_length=100)] = "UTC"


class Preview(Shown):
    """When a cron line fires next, in UTC; and what it says in English."""

    in_words: str
    timezone: str
    ticks: list[datetime]


class AlertsAccepted(Shown):
    """The alerts' ids, in the order of the request."""

    ids: list[str]


def _names(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)
