"""The first page: whether all is well, and what needs somebody."""

from starlette.responses import Response

from orchestrator.api.auth import needs
from orchestrator.dashboard.rendering import Shown
from orchestrator.dashboard.routing import pages
from orchestrator.db.keys import Scope

router = pages()


@router.get("/", dependencies=[needs(Scope.TASKS_READ)])
async def overview(show: Shown) -> Response:
    """The whole page."""
    return show("overview.html")
