"""/api/v1/agents: which there are, and what each takes and gives."""

from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema

from orchestrator.api.auth import needs
from orchestrator.api.parts import Parts
from orchestrator.api.problems import Problem
from orchestrator.api.requests import guarded
from orchestrator.api.schemas import Shown
from orchestrator.cron import Crontab
from orchestrator.db.keys import Scope
from orchestrator.errors import UnknownAgent
from orchestrator.registry import AgentClass
from orchestrator.task import Priority

router = guarded("/api/v1/agents", "agents")


class DeclaredSchedule(Shown):
    """A schedule that stands on the agent's class."""

    name: str | None
    expression: str
    timezone: str
    in_words: str
    catchup: str
    overlap: str


class AgentSummary(Shown):
    """An agent as lists show it."""

    name: str
    description: str
    queue: str
    priority: Priority
    timeout_ms: int  # of one attempt
    max_attempts: int
    concurrency: int | None  # at a time in one worker; null: the worker's
    schedules: list[DeclaredSchedule]


class AgentOut(AgentSummary):
    """The same with the JSON Schemas of what it takes and gives; null where pydantic has none."""

    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None


class Agents(Shown):
    """Every agent; there are few enough for one page."""

    items: list[AgentSummary]
    next_cursor: None = None


@router.get("", operation_id="listAgents", dependencies=[needs(Scope.AGENTS_READ)])
async def list_agents(parts: Parts) -> Agents:
    """The agents that this process knows, by name."""
    return Agents(items=[AgentSummary(**_described(each)) for each in parts.registry])


@router.get("/{name}", operation_id="readAgent", dependencies=[needs(Scope.AGENTS_READ)])
async def read_agent(name: str, parts: Parts) -> AgentOut:
    """One agent with its schemas, from which a form can be made."""
    try:
        agent = parts.registry.get(name)
    except UnknownAgent as error:
        # Here it is the address that is wrong, not the content.
        raise Problem(404, "unknown_agent", str(error)) from error
    return AgentOut(
        **_described(agent),
        input_schema=_schema(agent.input_type, "validation"),
        output_schema=_schema(agent.output_type, "serialization"),
    )


def _described(agent: AgentClass) -> dict[str, Any]:
    return {
        "name": agent.name,
        "description": (agent.__doc__ or "").strip(),
        "queue": agent.queue,
        "priority": agent.priority,
        "timeout_ms": round(agent.timeout.total_seconds() * 1000),
        "max_attempts": agent.retry.max_attempts,
        "concurrency": agent.concurrency,
        "schedules": [_declared(each) for each in agent.schedules],
    }


def _declared(schedule: Crontab) -> DeclaredSchedule:
    return DeclaredSchedule(
        name=schedule.name,
        expression=schedule.expression,
        timezone=schedule.timezone,
        in_words=schedule.in_words(),
        catchup=schedule.catchup.value,
        overlap=schedule.overlap.value,
    )


def _schema(of: TypeAdapter[Any], mode: Any) -> dict[str, Any] | None:
    try:
        return of.json_schema(mode=mode)
    except PydanticInvalidForJsonSchema:
        return None
