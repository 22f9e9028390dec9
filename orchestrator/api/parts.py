"""What the application is given, and how a route gets at it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from orchestrator.api.live import Live
from orchestrator.db.session import Database
from orchestrator.registry import AgentRegistry
from orchestrator.runtime.submitter import TaskSubmitter
from orchestrator.settings import Settings
from orchestrator.streams.connection import Streams
from orchestrator.streams.publisher import Publisher

if TYPE_CHECKING:
    from orchestrator.tracing.spans import Tracing


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiParts:
    """Made, owned and closed by the composition root; the application only uses them."""

    settings: Settings
    database: Database
    streams: Streams
    publisher: Publisher
    submitter: TaskSubmitter
    registry: AgentRegistry
    live: Live
    tracing: "Tracing | None" = None


async def _parts(request: HTTPConnection) -> ApiParts:
    # Async, or FastAPI would ask a thread for it, twice the cost of all else that it does here.
    found: ApiParts = request.app.state.parts
    return found


Parts = Annotated[ApiParts, Depends(_parts)]
