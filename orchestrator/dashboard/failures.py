"""Whatever goes wrong on a page, as a page that says what to do next."""

import logging
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from orchestrator.api.problems import Problem, invalid, problem_of
from orchestrator.dashboard.forms import inside
from orchestrator.dashboard.rendering import Rendering
from orchestrator.errors import OrchestratorError, TookTooLong, Unavailable

logger = logging.getLogger("aurora.dashboard")

# What to do, by the problem's code; commands are to be typed as they stand.
NEXT: dict[str, tuple[str, str | None]] = {
    "forbidden": (
        "Sign in with a key that has it, or ask whoever runs Aurora for one:",
        "aurora keys create NAME --scope {missing_scope}",
    ),
    "unavailable": ("Try again in a few seconds. To see what is wrong:", "aurora doctor"),
    "overloaded": ("Work is refused for a moment so that nothing is lost. Try again soon.", None),
    "internal_error": ("The log of the API has it under this request id.", None),
    "invalid_request": ("Correct the address, or go back to the page without filters.", None),
    "unknown_parameter": ("Correct the address, or go back to the page without filters.", None),
}
TITLES = {
    "forbidden": "This needs another key",
    "unavailable": "{what} does not answer",
    "took_too_long": "This takes too long",
    "not_found": "Nothing here",
    "invalid_request": "This filter cannot be read",
    "unknown_parameter": "There is no such filter",
}


class SignInNeeded(OrchestratorError):
    """Nobody is signed in, or no longer."""


def install(app: FastAPI) -> None:
    """Answer whatever is raised with a page."""
    # Starlette types handlers by Exception, not by what each is registered for.
    handlers: dict[Any, Any] = {
        OrchestratorError: _ours,
        RequestValidationError: _invalid,
        HTTPException: _http,
        ClientDisconnect: _gone,
        Exception: _unforeseen,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def failed(request: Request, error: OrchestratorError) -> Response:
    """The answer for an error of ours."""
    if isinstance(error, SignInNeeded):
        return _to_sign_in(request)
    problem = problem_of(error)
    if isinstance(error, TookTooLong):
        problem.code, problem.detail = "took_too_long", "The question was given up after 2 s."
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, Problem):
        logger.error(
            "page %s: %s", request.url.path, error,
            exc_info=None if isinstance(error, Unavailable) else error,
            extra={"event": "page.failed", "request_id": request.state.request_id},
        )  # fmt: skip
    what = error.what if isinstance(error, Unavailable) else ""
    return _page(request, problem, what=what)


def _to_sign_in(request: Request) -> Response:
    if request.headers.get("hx-request"):  # a part of a page that is open: the whole of it
        return Response(status_code=401, headers={"HX-Refresh": "true"})
    if request.method == "GET" and request.headers.get("sec-fetch-site") == "cross-site":
        # A link from a mail or a ticket: the browser keeps a SameSite=Strict cookie to itself. It
        # sends it when a page of ours asks for the same again.
        return _rendering(request).answer(request, "arriving.html", to=_address(request))
    to = quote(_address(request), safe="") if request.method == "GET" else "%2F"
    return RedirectResponse(f"/sign-in?next={to}", 303)


def _page(request: Request, problem: Problem, *, what: str = "") -> Response:
    said = problem.detail[:1].upper() + problem.detail[1:]
    advice, command = NEXT.get(problem.code, ("", None))
    title = TITLES.get(problem.code, problem.code.replace("_", " ").capitalize())
    template = "failure_part.html" if request.headers.get("hx-request") else "failure.html"
    answer = _rendering(request).answer(
        request,
        template,
        status=problem.status,
        title=title.format(what=what),
        said=said,
        advice=advice,
        command=command.format(**problem.more) if command else None,
        code=problem.code,
        request_id=request.state.request_id,
    )
    answer.headers.update(problem.headers)
    return answer


def _rendering(request: Request) -> Rendering:
    found: Rendering = request.app.state.rendering
    return found


def _address(request: Request) -> str:
    query = request.scope["query_string"].decode("latin-1")
    return inside(quote(request.scope["path"]) + (f"?{query}" if query else ""))


async def _ours(request: Request, error: OrchestratorError) -> Response:
    return failed(request, error)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    return _page(request, invalid(error))


async def _http(request: Request, error: HTTPException) -> Response:
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    detail = {
        404: f"There is no page {request.url.path}.",
        405: f"{request.method} is not for {request.url.path}.",
    }.get(error.status_code, str(error.detail))
    return _page(request, Problem(error.status_code, code, detail, headers=error.headers))


async def _gone(_request: Request, _error: ClientDisconnect) -> Response:
    # Nobody reads this; it keeps a closed connection from being logged as a fault.
    return PlainTextResponse("the request ended half way\n", 400)


async def _unforeseen(request: Request, error: Exception) -> Response:
    logger.error(
        "page %s failed", request.url.path, exc_info=error,
        extra={"event": "page.failed", "request_id": request.state.request_id},
    )  # fmt: skip
    return _page(request, Problem(500, "internal_error", "A fault of ours."))
