"""/sign-in and /sign-out: a session for an API key."""

from typing import Annotated

from fastapi import Form, Request
from starlette.responses import RedirectResponse, Response

from orchestrator.api.parts import Parts
from orchestrator.dashboard.forms import inside, own_form
from orchestrator.dashboard.rendering import NAVIGATION, Shown
from orchestrator.dashboard.routing import pages
from orchestrator.dashboard.sessions import WrongSignIns, cookie_name
from orchestrator.db import keys, sessions
from orchestrator.db.keys import ApiKey

router = pages()

UNKNOWN = "This key is unknown, revoked or expired. It reads ak_…_…, in one piece."
TOO_MANY = "Too many wrong keys from your address. Wait a minute, then try again."


@router.get("/sign-in")
async def sign_in_page(request: Request, show: Shown, next: str = "/") -> Response:  # noqa: A002 - stands in the address
    """The form; whoever is signed in goes on."""
    if request.state.key is not None:
        return RedirectResponse(inside(next), 303)
    return show("sign_in.html", next=inside(next), wrong=None)


@router.post("/sign-in")
async def sign_in(
    request: Request,
    parts: Parts,
    show: Shown,
    key: Annotated[str, Form(max_length=1000)] = "",
    next: Annotated[str, Form(max_length=4000)] = "/",  # noqa: A002 - stands in the form
) -> Response:
    """Begin a session with a key, which is kept nowhere."""
    wrong: WrongSignIns = request.app.state.wrong_sign_ins
    address = request.client.host if request.client else ""
    if wrong.are_too_many(address):
        answer = show("sign_in.html", status=429, next=inside(next), wrong=TOO_MANY)
        answer.headers["Retry-After"] = "60"
        return answer
    found = await keys.verify(parts.database, key.strip())
    if found is None:
        wrong.note(address)
        return show("sign_in.html", status=403, next=inside(next), wrong=UNKNOWN)
    token = await sessions.begin(parts.database, found)
    answer = RedirectResponse(_first_page(inside(next), found), 303)
    answer.set_cookie(
        cookie_name(request.scope),
        token,
        max_age=int(sessions.GOOD_FOR.total_seconds()),
        path="/",
        secure=request.scope["scheme"] == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


@router.post("/sign-out", dependencies=[own_form])
async def sign_out(request: Request, parts: Parts) -> Response:
    """End this session; others of the same key go on."""
    await sessions.end(parts.database, request.state.session)
    request.app.state.sessions.forget(request.state.session)
    answer = RedirectResponse("/sign-in", 303)
    answer.delete_cookie(
        cookie_name(request.scope),
        path="/",
        secure=request.scope["scheme"] == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


def _first_page(wanted: str, key: ApiKey) -> str:
    """Where to go after signing in: not to a page that this key may not see."""
    places = {each.path: each for each in NAVIGATION}
    place = places.get(wanted)
    if place is None or key.allows(place.scope):
        return wanted
    return next((each.path for each in NAVIGATION if key.allows(each.scope)), wanted)
