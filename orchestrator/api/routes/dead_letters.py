"""/api/v1/dead-letters: what was set aside; read it, say it again, or close it for good."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query

from orchestrator.api import paging
from orchestrator.api.auth import Actor, needs
from orchestrator.api.paging import Cursor, Limit, Listed, Text
from orchestrator.api.parts import Parts
from orchestrator.api.redriving import redrive
from orchestrator.api.requests import guarded
from orchestrator.api.schemas import LetterOut, LetterSummary
from orchestrator.db import letters, listing
from orchestrator.db.keys import Scope
from orchestrator.errors import DeadReason

router = guarded("/api/v1/dead-letters", "dead letters")


@router.get("", operation_id="listDeadLetters", dependencies=[needs(Scope.DEAD_READ)])
async def list_dead_letters(
    parts: Parts,
    *,
    is_open: Annotated[bool | None, Query(alias="open")] = None,
    reason: DeadReason | None = None,
    agent: Text | None = None,
    stream: Text | None = None,
    limit: Limit = paging.DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Listed[LetterSummary]:
    """Dead letters, the newest first; `open=true` leaves out what was redriven or dropped."""
    filters: dict[str, Any] = {
        "is_open": is_open, "reason": reason and reason.value, "agent": agent, "stream": stream,
    }  # fmt: skip
    after = paging.after(cursor, filters)
    page = await listing.dead_letters(parts.database, **filters, after=after, limit=limit)
    return paging.listed(page, LetterSummary.model_validate, filters)


@router.get("/{letter_id}", operation_id="readDeadLetter", dependencies=[needs(Scope.DEAD_READ)])
async def read_dead_letter(letter_id: UUID, parts: Parts) -> LetterOut:
    """One dead letter with the message as it stood on the stream."""
    found = await listing.dead_letter(parts.database, str(letter_id))
    if found is None:
        raise letters.LetterNotFound(str(letter_id))
    return LetterOut.model_validate(found)


@router.post(
    "/{letter_id}/redrive",
    operation_id="redriveDeadLetter",
    dependencies=[needs(Scope.DEAD_WRITE)],
)
async def redrive_dead_letter(letter_id: UUID, parts: Parts, actor: Actor) -> LetterOut:
    """Say the message again, a task's as a new task, and close the letter.

    409 when the message cannot be read, or the letter is closed. With Redis down a new task is
    accepted by its row; any other message waits: 503, and the letter stays open.
    """
    return LetterOut.model_validate(await redrive(parts, str(letter_id), actor=actor))


@router.post(
    "/{letter_id}/drop", operation_id="dropDeadLetter", dependencies=[needs(Scope.DEAD_WRITE)]
)
async def drop_dead_letter(letter_id: UUID, parts: Parts, actor: Actor) -> LetterOut:
    """Close the letter for good. Its row and its message stay readable."""
    return LetterOut.model_validate(await letters.drop(parts.database, str(letter_id), actor=actor))
