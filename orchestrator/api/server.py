"""Serves the application on a socket that listens already, under our lifecycle."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

from orchestrator.errors import ConfigurationError

# Seconds in which a peer has taken nothing of a full write buffer (64 KiB) before it is cut off.
# Without it a client that never reads would keep its connection for as long as it likes.
STALLED = 20.0
LARGEST_FRAME = 64 * 1024  # bytes that a WebSocket's client may send at once; it has little to say

# uvicorn notes each WebSocket with its query, in which a careless client may have put a key.
_quiet = logging.getLogger("aurora.websocket")
_quiet.setLevel(logging.WARNING)


class _Impatient:
    """Cuts a peer off that does not read; the rest is uvicorn's protocol beneath."""

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    _stalled: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """The write buffer is full."""
        self._stalled = self.loop.call_later(STALLED, self.transport.abort)
        super().pause_writing()  # type: ignore[misc] # uvicorn's

    def resume_writing(self) -> None:
        """The peer reads."""
        self._patient()
        super().resume_writing()  # type: ignore[misc] # uvicorn's

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._patient()
        super().connection_lost(exc)  # type: ignore[misc] # uvicorn's

    def shutdown(self) -> None:
        """Say goodbye, unless nobody listens."""
        if self._stalled is not None:
            self.transport.abort()
        else:
            super().shutdown()  # type: ignore[misc] # uvicorn's

    def _patient(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class _Http(_Impatient, AutoHTTPProtocol):  # type: ignore[misc,valid-type] # chosen at run time
    """HTTP."""


class _WebSocket(_Impatient, AutoWebSocketsProtocol):  # type: ignore[misc,valid-type] # chosen at run time
    """WebSockets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _quiet


class HttpServer:
    """uvicorn under our lifecycle, on a socket that listens already. Handles no signal."""

    name = "api"

    def __init__(
        self,
        application: ASGIApp,
        listener: socket.socket,
        *,
        stopping: Callable[[], None] = lambda: None,
    ) -> None:
        """Store. `stopping` ends the answers that would not end by themselves."""
        self.listener = listener
        self._stopping = stopping
        self._server = uvicorn.Server(
            uvicorn.Config(
                application,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=5,
                http=_Http,
                ws=_WebSocket,
                ws_max_size=LARGEST_FRAME,
                # Each message goes to many; packing it for each would cost more than sending it.
                ws_per_message_deflate=False,
            )
        )
        # Signals are the process' business: other services run beside this one.
        self._server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]

    async def run(self) -> None:
        """Serve until stopped."""
        await self._server.serve(sockets=[self.listener])

    def stop(self) -> None:
        """Take no more connections; requests under way have five seconds."""
        self._stopping()
        self._server.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigurationError, which names the port that is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        what = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise ConfigurationError(
            f"the API cannot listen on {host}:{port}: {what};"
            " set AURORA_PORT (--port) to another one, or to 0 for any free one"
        ) from error
    # Inherited by what is accepted. asyncio sets it only where it has made the listener itself, and
    # an answer in two pieces would wait 40 ms for the client's acknowledgement of the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
