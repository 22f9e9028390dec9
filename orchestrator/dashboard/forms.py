"""Forms that only our own pages can send: the browser's word for it, and a token of the session.

Either would do; both, because browsers differ in the first and pages may leak the second.
"""

import hashlib
import hmac
from typing import Any
from urllib.parse import urlsplit

from fastapi import Depends, Request
from pydantic import BeforeValidator
from starlette.datastructures import Headers

from orchestrator.api.problems import Problem

FIELD = "csrf"


def check_same_origin(headers: Headers) -> None:
    """Raise Problem unless the browser says that a page of ours sends this.

    Browsers send Sec-Fetch-Site to https and to this machine, and Origin with every form; a page
    can set neither. Who sends neither is no browser, and has the API.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin", "")
    # The host alone: behind a proxy that ends TLS the scheme is another one here.
    host = urlsplit(origin).netloc
    if site != "same-origin" if site else not host or host != headers.get("host"):
        raise Problem(
            403,
            "cross_site",
            "this form was sent by another site, or by no browser; open the page here and use its"
            " buttons, or call the API with a key",
        )


def token_of(session: str) -> str:
    """What the forms of this session carry: made from the cookie, which no script can read."""
    return hmac.new(session.encode(), b"aurora form", hashlib.sha256).hexdigest()


async def _of_this_session(request: Request) -> None:
    given = (await request.form()).get(FIELD)
    right = token_of(request.state.session)
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), right.encode()):
        raise Problem(
            403,
            "form_expired",
            "this form belongs to an earlier sign-in; reload the page and send it again",
        )


# For the `dependencies` of every route that changes something; `site.py` refuses one without it.
own_form: Any = Depends(_of_this_session)


def _blank_is_none(value: Any) -> Any:
    return None if value == "" else value


# For filters: a form that is sent with an empty field means none.
Blank = BeforeValidator(_blank_is_none)


def inside(path: str) -> str:
    """The path where it is one of ours, else the first page: no link leads elsewhere by us."""
    ours = path.startswith("/") and path[1:2] not in {"/", "\\"} and path.isprintable()
    return path if ours else "/"
