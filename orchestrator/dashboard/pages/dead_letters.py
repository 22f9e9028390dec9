"""/dead-letters: what was set aside, by what it died of; say it again, or close it for good.

What a group's form closes is what its reader has seen: letters that come later stay open.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Form, Path, Query
from starlette.responses import RedirectResponse, Response

from orchestrator.api import paging
from orchestrator.api.auth import Actor, needs
from orchestrator.api.paging import Cursor, Moment, Text
from orchestrator.api.parts import ApiParts, Parts
from orchestrator.api.problems import Problem
from orchestrator.api.redriving import redrive
from orchestrator.dashboard.closing import MOST_AT_ONCE, close_all
from orchestrator.dashboard.forms import Blank, own_form
from orchestrator.dashboard.reasons import REASONS, explained
from orchestrator.dashboard.rendering import Shown, address
from orchestrator.dashboard.routing import Reading, pages
from orchestrator.db import causes, letters, listing
from orchestrator.db.keys import Scope
from orchestrator.errors import DeadReason

router = pages()

PATH = "/dead-letters"
PAGE = 50  # rows
SAMPLE = 5  # letters that a confirmation shows
TYPED_ABOVE = 1000  # letters; from there on the number must be typed


class View(StrEnum):
    """What the list is of."""

    CAUSES = "causes"
    OPEN = "open"
    CLOSED = "closed"


class Act(StrEnum):
    """What becomes of letters."""

    REDRIVE = "redrive"
    DROP = "drop"


Cause = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The filters as the address has them."""

    view: View
    reason: DeadReason | None
    agent: str | None

    @property
    def query(self) -> dict[str, Any]:
        """As links say it; what is the default is left out."""
        return {"view": None if self.view is View.CAUSES else self.view.value, **self.rows}

    @property
    def rows(self) -> dict[str, Any]:
        """As the record takes it."""
        return {"reason": self.reason and self.reason.value, "agent": self.agent}


async def _wanted(
    *,
    view: Annotated[View, Query()] = View.CAUSES,
    reason: Annotated[DeadReason | None, Blank, Query()] = None,
    agent: Annotated[Text | None, Blank, Query()] = None,
) -> Wanted:
    return Wanted(view=view, reason=reason, agent=agent)


@router.get(PATH, dependencies=[needs(Scope.DEAD_READ)])
async def list_letters(
    wanted: Annotated[Wanted, Depends(_wanted)],
    reading: Reading,
    show: Shown,
    cursor: Cursor = None,
) -> Response:
    """Causes of what is open; or letters one by one."""
    common: dict[str, Any] = {
        "wanted": wanted, "query": wanted.query, "views": list(View), "explained": explained,
        "reasons": [("", "All reasons"), *((each, said.title) for each, said in REASONS.items())],
    }  # fmt: skip
    if wanted.view is View.CAUSES:
        found = await causes.causes(reading, **wanted.rows)
        return show(
            "dead_letters.html", causes=found, page=None, looked_at=causes.LOOKED_AT, **common
        )
    page = await listing.dead_letters(
        reading,
        is_open=wanted.view is View.OPEN,
        **wanted.rows,
        after=paging.after(cursor, wanted.query),
        limit=PAGE,
    )
    return show(
        "dead_letters.html",
        page=page,
        next_cursor=page.next and paging.cursor_of(page.next, wanted.query),
        is_first=cursor is None,
        **common,
    )


@router.get(PATH + "/causes/{cause}", dependencies=[needs(Scope.DEAD_READ)])
async def read_cause(
    cause: Cause,
    reading: Reading,
    show: Shown,
    *,
    did: Annotated[Act | None, Query()] = None,
    done: Annotated[int, Query(ge=0, le=MOST_AT_ONCE)] = 0,
    refused: Annotated[int, Query(ge=0, le=MOST_AT_ONCE)] = 0,
    left: Annotated[int, Query(ge=0, le=MOST_AT_ONCE)] = 0,
    cursor: Cursor = None,
) -> Response:
    """One group: its letters, and what can be done with all of them. `did`: what was just done."""
    found = (await causes.causes(reading, cause=cause)).found
    page = await listing.dead_letters(
        reading,
        is_open=True,
        cause=cause,
        after=paging.after(cursor, {"cause": cause}),
        limit=PAGE,
    )
    return show(
        "dead_cause.html",
        cause=found[0] if found else None,
        path=f"{PATH}/causes/{cause}",
        page=page,
        sample=page.rows[:SAMPLE],
        next_cursor=page.next and paging.cursor_of(page.next, {"cause": cause}),
        is_first=cursor is None,
        did=did,
        closed={"done": done, "refused": refused, "left": left},
        most=causes.LOOKED_AT,
        at_once=MOST_AT_ONCE,
        typed_above=TYPED_ABOVE,
        explained=explained,
    )


@router.post(PATH + "/causes/{cause}/{act}", dependencies=[needs(Scope.DEAD_WRITE), own_form])
async def close_cause(
    cause: Cause,
    act: Act,
    parts: Parts,
    reading: Reading,
    actor: Actor,
    *,
    until: Annotated[Moment, Form()],
    shown: Annotated[int, Form(ge=1)],
    typed: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    """Redrive or drop the open letters of a group that had come by `until`."""
    ids = await causes.letters_of(reading, cause, until=until, limit=MOST_AT_ONCE)
    if len(ids) > TYPED_ABOVE and typed.replace(",", "").strip() != str(shown):
        raise Problem(
            422,
            "not_confirmed",
            f"nothing was done: to {act.value} so many letters at once, type their number,"
            f" {shown}, into the form",
        )
    closed = await close_all(ids, _closer(parts, act, actor))
    told = {"did": act.value, "done": closed.done, "refused": closed.refused, "left": closed.left}
    return RedirectResponse(address(f"{PATH}/causes/{cause}", told), 303)


@router.get(PATH + "/{letter_id}", dependencies=[needs(Scope.DEAD_READ)])
async def read_letter(letter_id: UUID, reading: Reading, show: Shown) -> Response:
    """One letter with its message as it stood on the stream."""
    found = await listing.dead_letter(reading, str(letter_id))
    if found is None:
        raise letters.LetterNotFound(str(letter_id))
    return show("dead_letter.html", letter=found, reason=explained(found.reason), wrong=None)


@router.post(PATH + "/{letter_id}/{act}", dependencies=[needs(Scope.DEAD_WRITE), own_form])
async def close_letter(
    letter_id: UUID, act: Act, parts: Parts, reading: Reading, actor: Actor, *, show: Shown
) -> Response:
    """Redrive or drop one; where that cannot be, its page says why."""
    try:
        await _closer(parts, act, actor)(str(letter_id))
    except (Problem, letters.LetterClosed) as error:
        found = await listing.dead_letter(reading, str(letter_id))
        return show(
            "dead_letter.html", status=409, letter=found,
            reason=explained(found.reason if found else ""), wrong=str(error),
        )  # fmt: skip
    return RedirectResponse(f"{PATH}/{letter_id}", 303)


def _closer(parts: ApiParts, act: Act, actor: str) -> Any:
    """What closes one letter, with its audit event."""
    if act is Act.REDRIVE:
        return partial(redrive, parts, actor=actor)
    return partial(letters.drop, parts.database, actor=actor)
