"""/livez, /readyz, /metrics: for probes and scrapers; open, so they say nothing of the inside."""

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from orchestrator.api.metrics import CONTENT_TYPE, Metrics
from orchestrator.api.parts import ApiParts
from orchestrator.api.problems import Problem
from orchestrator.api.recently import Recently
from orchestrator.db import schema
from orchestrator.errors import OrchestratorError, SchemaNotAtHead, Unavailable
from orchestrator.runtime.room import Room
from orchestrator.streams.connection import Streams, translated
from orchestrator.streams.statistics import missing_groups

logger = logging.getLogger("aurora.api")

PATIENCE = 2.0  # seconds for one check; probes usually give up after a few
KEEP = 1.0  # seconds; anybody may ask, and asking must cost the servers little

router = APIRouter(tags=["health"])


class Check(BaseModel):
    """One thing that must be so for this process to serve."""

    name: str
    ok: bool
    said: str


class Ready(BaseModel):
    """Every check, in one order."""

    ready: bool
    checks: list[Check]


class Readiness:
    """Looks at what the API needs, at most once a second."""

    def __init__(self, parts: ApiParts) -> None:
        """Store."""
        self._parts = parts
        self._recently = Recently(self._look, keep=KEEP)

    async def get(self) -> Ready:
        """How things stand."""
        return await self._recently.get()

    async def _look(self) -> Ready:
        parts = self._parts
        gathered = await asyncio.gather(
            _check("redis", _ping(parts.streams)),
            _check("postgres", parts.database.ping()),
            _check("schema", schema.check(parts.database)),
            _check("groups", _groups(parts.streams)),
        )
        checks = list(gathered)
        if checks[0].ok and (why := await _refusal(parts.submitter.room)) is not None:
            # No reason to take this process out of service: reading goes on, and a submission
            # gets an answer of its own.
            checks.append(Check(name="room", ok=True, said=f"no new tasks for now: {why}"))
        return Ready(ready=all(each.ok for each in checks), checks=checks)


@router.get("/livez", operation_id="livez")
async def livez() -> dict[str, str]:
    """The event loop answers; nothing else is asked."""
    return {"status": "alive"}


@router.get("/readyz", operation_id="readyz")
async def readyz(request: Request) -> Ready:
    """Whether this process can serve: 503 when one check fails, with a line for each."""
    readiness: Readiness = request.app.state.readiness
    found = await readiness.get()
    if not found.ready:
        failing = ", ".join(each.name for each in found.checks if not each.ok)
        raise Problem(
            503,
            "not_ready",
            f"failing: {failing}",
            headers={"Retry-After": "5"},
            more=found.model_dump(),
        )
    return found


@router.get("/metrics", operation_id="metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    found: Metrics = request.app.state.metrics
    return Response(await found.render(), media_type=CONTENT_TYPE)


async def _check(name: str, asking: Awaitable[Any]) -> Check:
    try:
        async with asyncio.timeout(PATIENCE):
            await asking
    except TimeoutError:
        return Check(name=name, ok=False, said=f"no answer within {PATIENCE:g} s")
    except (SchemaNotAtHead, _GroupsMissing) as error:
        return Check(name=name, ok=False, said=str(error))
    except OrchestratorError as error:
        logger.warning("not ready: %s: %s", name, error, extra={"event": "readyz.failed"})
        return Check(name=name, ok=False, said="not available; the log says why")
    return Check(name=name, ok=True, said="ok")


async def _refusal(room: Room) -> str | None:
    with suppress(Unavailable, TimeoutError):
        async with asyncio.timeout(PATIENCE):
            return await room.refusal()
    return None


class _GroupsMissing(OrchestratorError):
    """Nobody has made the consumer groups, or Redis has lost them."""


async def _ping(streams: Streams) -> None:
    with translated():
        await streams.commands.ping()


async def _groups(streams: Streams) -> None:
    missing = await missing_groups(streams)
    if missing:
        raise _GroupsMissing(
            f"no group {', '.join(missing)}; a worker or recorder makes them when it starts"
        )
