"""The local model: an OpenAI-compatible server of llama.cpp's, one for each machine and user.

Whoever needs it first starts it and owns it: it ends with its owner, however that one ends. The
others find it through a file beside its lock. Once it is gone, the next who needs it starts it.

    lock held      the server lives, or is being started: it inherits the lock (reaper.py)
    lock free      nobody serves: whoever gets the lock does
    server.json    where it is reached, written by its owner once it answers
"""

import asyncio
import contextlib
import hashlib
import http.client
import json
import logging
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from orchestrator.embedded.errors import (
    DataDirectoryBusy,
    DataDirectoryUnusable,
    EmbeddedServerFailed,
)
from orchestrator.embedded.ports import LOOPBACK
from orchestrator.embedded.server import READY_SECONDS, EmbeddedServer
from orchestrator.embedded.state import write_private
from orchestrator.embedded.tied import Command
from orchestrator.embedded.weights import NAME, find_weights
from orchestrator.streams.neighbours import own

PROCESS = Path(__file__).with_name("llama_process.py")
ANSWER_SECONDS = 2.0  # for a question that takes a millisecond, on a machine that computes
POLL_SECONDS = 0.05
# The file of the small model says nothing about how messages are put together: it was trained on
# plain text alone, and takes the usual marks between messages for more of it.
PLAIN = "{% for message in messages %}{{ message.content }}\n\n{% endfor %}"

logger = logging.getLogger(__name__)


class LocalModel:
    """The server of this machine and user, ours or another's. Promises no answer, only a server."""

    def __init__(self, folder: Path, *, cache: Path, file: Path | None = None) -> None:
        """Store. `folder`: in memory, this user's alone; `file`: another model, a GGUF."""
        # One server for each model: two workers may be told to use different ones.
        kind = hashlib.blake2s(str(file).encode(), digest_size=4).hexdigest() if file else NAME
        self._folder = folder / kind
        self._server = EmbeddedLlama(self._folder, cache=cache, file=file)
        self._turn = asyncio.Lock()

    async def url(self) -> str:
        """Return the base URL, such as http://127.0.0.1:23456/…/v1; starts the server if none runs.

        Ask again before each request: the one who owned it may have ended since. Costs a
        fraction of a millisecond then, about 2 s where it has to be started. Raises
        LocalModelMissing, DataDirectoryUnusable and EmbeddedServerFailed.
        """
        async with self._turn:
            return await asyncio.to_thread(self._find_or_start)

    async def close(self) -> None:
        """End the server if it is ours."""
        async with self._turn:
            await asyncio.to_thread(self._server.stop)

    def _find_or_start(self) -> str:
        try:
            own(self._folder.parent)
        except OSError as error:
            raise DataDirectoryUnusable(self._folder.parent, str(error)) from error
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(DataDirectoryBusy):
                return self._server.start()
            # Somebody holds the lock: a server that runs, or its owner while it comes up.
            url = self._server.told()
            # Asked each time: the lock outlasts a server that was killed by a moment.
            if url and answers(url):
                return url
            time.sleep(POLL_SECONDS)
        raise EmbeddedServerFailed(
            "the local model",
            f"is another process' ({self._server.holder()}) and did not answer within"
            f" {READY_SECONDS:.0f} s; end that one",
            log=self._server.log,
        )


class EmbeddedLlama(EmbeddedServer):
    """llama.cpp's server on 127.0.0.1, under a path that only this user knows.

    Its requests and answers are nobody else's: whoever is on the machine reaches the port, and
    nothing behind it. `GET /metrics` beside `/v1` has the tokens that it counted itself.
    """

    title: ClassVar[str] = "The local model"
    port_taken: ClassVar[str] = "couldn't bind HTTP server socket"

    def __init__(self, state_dir: Path, *, cache: Path, file: Path | None = None) -> None:
        super().__init__(state_dir, lock_seconds=0.0)
        self._cache = cache
        self._given = file
        self._prefix = f"/{secrets.token_urlsafe(16)}"
        self._told = state_dir / "server.json"

    @property
    def log(self) -> Path:
        return self._state.log

    def start(self) -> str:
        """As EmbeddedServer's, but DataDirectoryBusy comes at once; tells the others where."""
        url = super().start()
        if self.told() != url:
            write_private(self._told, json.dumps({"url": url, "pid": self.pid}))
        return url

    def told(self) -> str | None:
        """Where the one who owns the server says that it is."""
        try:
            return str(json.loads(self._told.read_text())["url"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def holder(self) -> str:
        """Who has the lock, in words."""
        with contextlib.suppress(OSError):
            return (self._state.path / "lock").read_text(errors="replace") or "unknown"
        return "unknown"

    def _prepare(self, lock: int) -> None:  # noqa: ARG002  nothing is run beforehand
        self._told.unlink(missing_ok=True)  # of the server before
        self._weights = find_weights(self._given, self._cache)

    def _command(self, port: int) -> Command:
        spec = {
            "file": str(self._weights),
            "name": self._weights.stem if self._given else NAME,
            "port": port,
            "prefix": self._prefix,
            "template": "" if self._given else PLAIN,
        }
        return Command(
            argv=(sys.executable, "-I", str(PROCESS)),
            cwd=self._state.path,
            input=json.dumps(spec),
            # Nothing of its own is on disk, and a request may take long: no reason to wait.
            stop_signal=signal.SIGKILL,
        )

    def _is_ready(self, pid: int, port: int) -> bool:  # noqa: ARG002  the path identifies it
        return answers(self._url(port))

    def _url(self, port: int) -> str:
        return f"http://{LOOPBACK}:{port}{self._prefix}/v1"


def answers(url: str) -> bool:
    """Tell whether the server of this base URL is up, with its model loaded."""
    at = urlsplit(url)
    connection = http.client.HTTPConnection(at.netloc, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", at.path.removesuffix("/v1") + "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
