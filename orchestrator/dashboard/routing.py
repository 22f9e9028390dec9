"""What the routes of pages share: known parameters only, and what a page is given."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from orchestrator.api.requests import check_parameters, query_parameters
from orchestrator.db.session import Database


class PageRoute(APIRoute):
    """A route that refuses a filter it does not know: a misspelt one would show everything."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Any]]:  # type: ignore[override] # FastAPI's own is a Coroutine; ours is one too
        """FastAPI's hook for what comes before its own reading."""
        handler = super().get_route_handler()
        known = tuple(query_parameters(self.dependant))

        async def careful(request: Request) -> Response:
            check_parameters(request, known)
            return await handler(request)

        return careful


def pages() -> APIRouter:
    """A router for the pages of one noun."""
    return APIRouter(
        route_class=PageRoute, include_in_schema=False, default_response_class=Response
    )


async def _reading(request: Request) -> Database:
    found: Database = request.app.state.reading
    return found


# For what a page shows: connections of its own, whose statements are given up after 2 s.
Reading = Annotated[Database, Depends(_reading)]
