"""Middleware: a span for each request that changes something; there only where there is tracing."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.tracing.current import valid_traceparent
from orchestrator.tracing.spans import Tracing, failed

# Reading makes no tasks, and the dashboard reads all day.
METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
SERVER_ERROR = 500


class Traced:
    """Stands behind the check of who is asking: nobody else makes spans."""

    def __init__(self, app: ASGIApp, *, tracing: Tracing) -> None:
        """Store."""
        self.app = app
        self.tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Name the span by the route's template, which is known at the end."""
        if scope["type"] != "http" or scope["method"] not in METHODS:
            await self.app(scope, receive, send)
            return
        method = scope["method"]
        sent_by = Headers(scope=scope).get("traceparent", "")
        with self.tracing.request(
            method,
            traceparent=valid_traceparent(sent_by.encode("latin-1")),
            attributes={"http.request.method": method, "url.path": scope["path"],
                        "url.scheme": scope["scheme"]},
        ) as span:  # fmt: skip

            async def sending(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status: int = message["status"]
                    span.set_attribute("http.response.status_code", status)
                    if status >= SERVER_ERROR:
                        failed(span, str(status))
                await send(message)

            try:
                await self.app(scope, receive, sending)
            finally:
                if route := getattr(scope.get("route"), "path", None):
                    span.update_name(f"{method} {route}")
                    span.set_attribute("http.route", route)
