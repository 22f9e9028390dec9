"""Serves the application on a socket that listens already, under our lifecycle."""

import errno
import socket
from contextlib import nullcontext

import uvicorn
from starlette.types import ASGIApp

from orchestrator.errors import ConfigurationError


class HttpServer:
    """uvicorn under our lifecycle, on a socket that listens already. Handles no signal."""

    name = "api"

    def __init__(self, application: ASGIApp, listener: socket.socket) -> None:
        """Store."""
        self.listener = listener
        self._server = uvicorn.Server(
            uvicorn.Config(
                application,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=5,
            )
        )
        # Signals are the process' business: other services run beside this one.
        self._server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]

    async def run(self) -> None:
        """Serve until stopped."""
        await self._server.serve(sockets=[self.listener])

    def stop(self) -> None:
        """Take no more connections; requests under way have five seconds."""
        self._server.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigurationError, which names the port that is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        what = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise ConfigurationError(
            f"the API cannot listen on {host}:{port}: {what};"
            " set AURORA_PORT (--port) to another one, or to 0 for any free one"
        ) from error
