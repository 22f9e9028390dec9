"""Every 4xx and 5xx as RFC 9457 application/problem+json, and the request id that each carries.

A problem says what would have been right; of a fault of ours it gives the request id alone, and
the log has the rest under that id.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import (
    RequestValidationError,
    ValidationException,
    WebSocketRequestValidationError,
)
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from orchestrator.db.acknowledging import AlertNotFound
from orchestrator.db.letters import LetterClosed, LetterNotFound
from orchestrator.errors import (
    InvalidInput,
    InvalidSchedule,
    MalformedMessage,
    OrchestratorError,
    Overloaded,
    PayloadTooLarge,
    Rejected,
    TaskIdConflict,
    TaskNotFound,
    Unavailable,
    UnknownAgent,
)
from orchestrator.task import new_id

logger = logging.getLogger("aurora.api")

MEDIA_TYPE = "application/problem+json"
REQUEST_ID = "X-Request-ID"
_ACCEPTABLE_ID = re.compile(rb"[A-Za-z0-9._\-]{1,64}")
Wrong = dict[str, str]  # {"pointer": JSON pointer, "message": what is wrong}

# The first that fits, so a class stands before its parent.
_STATUS: Mapping[type[OrchestratorError], tuple[int, str]] = {
    TaskNotFound: (404, "task_not_found"),
    AlertNotFound: (404, "alert_not_found"),
    LetterNotFound: (404, "dead_letter_not_found"),
    LetterClosed: (409, "dead_letter_closed"),
    TaskIdConflict: (409, "task_id_conflict"),
    PayloadTooLarge: (413, "payload_too_large"),
    UnknownAgent: (422, "unknown_agent"),
    InvalidInput: (422, "invalid_input"),
    InvalidSchedule: (422, "invalid_schedule"),
    MalformedMessage: (422, "malformed"),
    Rejected: (422, "rejected"),
    Overloaded: (429, "overloaded"),
    Unavailable: (503, "unavailable"),
}
_CODES = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    415: "unsupported_media_type",
}


class Problem(OrchestratorError):
    """An answer other than the one that was hoped for; routes raise it."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[Wrong] = (),
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """`more`: members beside the usual ones."""
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})
        self.more = dict(more or {})
        super().__init__(detail)


class RequestIds:
    """Middleware: gives each request an id, the caller's own where it reads like one."""

    def __init__(self, app: ASGIApp) -> None:
        """Store."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Put it in the request's state and in the answer's headers."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given.decode() if _ACCEPTABLE_ID.fullmatch(given) else new_id()
        scope.setdefault("state", {})["request_id"] = request_id

        async def sending(message: Message) -> None:
            # Of a WebSocket: the answer of one that is turned away.
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                message["headers"] = [
                    *message.get("headers", ()),
                    (REQUEST_ID.lower().encode(), request_id.encode()),
                ]
            await send(message)

        await self.app(scope, receive, sending)


def install(app: FastAPI) -> None:
    """Answer whatever is raised with a problem."""
    # Starlette types handlers by Exception, not by what each is registered for.
    handlers: dict[Any, Any] = {
        OrchestratorError: _ours,
        RequestValidationError: _invalid_request,
        WebSocketRequestValidationError: _invalid_request,
        ValidationError: _unforeseen,
        HTTPException: _http,
        ClientDisconnect: _gone,
        Exception: _unforeseen,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def response(scope: Scope, problem: Problem) -> Response:
    """The problem as the answer to the request of this ASGI scope."""
    request_id = scope.get("state", {}).get("request_id")
    body = {
        "type": f"urn:aurora:problem:{problem.code}",
        "title": problem.code.replace("_", " ").capitalize(),
        "status": problem.status,
        "detail": problem.detail,
        "instance": scope["path"],
        "code": problem.code,
        "errors": problem.errors,
        "request_id": request_id,
        "retryable": problem.status in {429, 503},
        **problem.more,
    }
    return JSONResponse(body, problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def problem_of(error: OrchestratorError) -> Problem:
    """One of this package's errors as an answer; what only we need to know stays in the log."""
    if isinstance(error, Problem):
        return error
    status, code = next(
        (found for kind, found in _STATUS.items() if isinstance(error, kind)),
        (500, "internal_error"),
    )
    errors: list[Wrong] = []
    headers, detail = {}, str(error)
    match error:
        case InvalidInput():
            errors = [wrong(f"/input{pointer}", said) for pointer, said in error.problems]
        case UnknownAgent():
            errors = [wrong("/agent", str(error))]
        case Overloaded():
            headers = {"Retry-After": str(error.retry_after)}
        case Unavailable():
            # Its text names hosts and ports.
            detail = f"{error.what} is not available; try again in {error.retry_after} s"
            headers = {"Retry-After": str(error.retry_after)}
        case _ if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            detail = "a fault of ours; the log has it under this request_id"
    return Problem(status, code, detail, errors=errors, headers=headers)


def wrong(pointer: str, message: str) -> Wrong:
    """One entry of `errors`."""
    return {"pointer": pointer, "message": message}


def invalid(error: ValidationException | ValidationError, *, at: str = "") -> Problem:
    """What pydantic found, as one 422; `at` is the pointer of what it was given."""
    errors = [
        wrong(at + _pointer(each["loc"]), str(each["msg"]).removeprefix("Value error, "))
        for each in error.errors()
    ]
    listed = "; ".join(f"{each['pointer'] or '/'}: {each['message']}" for each in errors[:5])
    return Problem(422, "invalid_request", f"the request is not valid: {listed}", errors=errors)


def _pointer(location: Sequence[str | int]) -> str:
    # A pointer into the body; of the query and the path it names which of the two.
    parts = location[1:] if location[:1] == ("body",) else location
    escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in parts)
    return "".join(f"/{part}" for part in escaped)


async def _ours(connection: HTTPConnection, error: OrchestratorError) -> Response:
    return await _answered(connection, answer(connection.scope, error))


async def _answered(connection: HTTPConnection, found: Response) -> Response:
    # Nobody sends what a handler gives back for a WebSocket; it was not accepted yet.
    if isinstance(connection, WebSocket):
        await connection.send_denial_response(found)
    return found


def answer(scope: Scope, error: OrchestratorError) -> Response:
    """The answer to the request of this scope, logged where it is news to us."""
    problem = problem_of(error)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, Problem):
        request_id = scope.get("state", {}).get("request_id")
        logger.error(
            "request %s: %d, %s", request_id, problem.status, error,
            exc_info=None if isinstance(error, Unavailable) else error,
            extra={"event": "http.failed", "request_id": request_id},
        )  # fmt: skip
    return response(scope, problem)


async def _invalid_request(connection: HTTPConnection, error: ValidationException) -> Response:
    return await _answered(connection, response(connection.scope, invalid(error)))


async def _http(request: Request, error: HTTPException) -> Response:
    status = error.status_code
    code = _CODES.get(status, f"http_{status}")
    detail = {
        404: f"nothing here: {request.method} {request.url.path}; /openapi.json lists what is",
        405: f"{request.method} is not for {request.url.path}",
    }.get(status, str(error.detail))
    return response(request.scope, Problem(status, code, detail, headers=error.headers))


async def _gone(request: Request, _error: ClientDisconnect) -> Response:
    # Nobody reads this; it keeps a closed connection from being logged as a fault.
    return response(request.scope, Problem(400, "client_gone", "the request ended half way"))


async def _unforeseen(request: Request, error: Exception) -> Response:
    request_id = request.scope.get("state", {}).get("request_id")
    logger.error(
        "request %s failed: %s %s", request_id, request.method, request.url.path,
        exc_info=error, extra={"event": "http.failed", "request_id": request_id},
    )  # fmt: skip
    detail = "a fault of ours; the log has it under this request_id"
    found = response(request.scope, Problem(500, "internal_error", detail))
    # This handler answers outside every middleware of ours.
    found.headers[REQUEST_ID] = str(request_id)
    return found
