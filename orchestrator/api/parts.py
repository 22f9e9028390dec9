"""What the application is given, and how a route gets at it."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from orchestrator.db.session import Database
from orchestrator.registry import AgentRegistry
from orchestrator.runtime.submitter import TaskSubmitter
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.streams.publisher import Publisher


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiParts:
    """Made, owned and closed by the composition root; the application only uses them."""

    settings: Settings
    database: Database
    streams: Streams
    publisher: Publisher
    submitter: TaskSubmitter
    registry: AgentRegistry


async def _parts(request: Request) -> ApiParts:
    # Async, or FastAPI would ask a thread for it, twice the cost of all else that it does here.
    found: ApiParts = request.app.state.parts
    return found


Parts = Annotated[ApiParts, Depends(_parts)]
