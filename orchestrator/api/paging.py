"""Pages by keyset: an opaque cursor that is good only with the filters it was made for."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, StringConstraints

from orchestrator.api.problems import Problem
from orchestrator.db.listing import After, Page

DEFAULT_LIMIT, LARGEST_LIMIT = 50, 200  # rows
ItemT = TypeVar("ItemT", bound=BaseModel)


class Listed(BaseModel, Generic[ItemT]):
    """One page. `next_cursor` is null on the last."""

    items: list[ItemT]
    next_cursor: str | None


def _aware(value: Any) -> Any:
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            return value  # pydantic says what is wrong with it
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return value


def _plausible(value: datetime) -> datetime:
    # Far years overflow when a zone is added, in Python and in Postgres.
    if not 1970 < value.year < 2200:  # noqa: PLR2004 - years
        raise ValueError("use a time between the years 1971 and 2199")
    return value.astimezone(UTC)


Moment = Annotated[AwareDatetime, BeforeValidator(_aware), AfterValidator(_plausible)]
# Postgres' text cannot hold NUL; nothing that we list has it or a line break.
Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]
Limit = Annotated[int, Query(ge=1, le=LARGEST_LIMIT, description="rows of a page")]
Cursor = Annotated[
    str | None, Query(max_length=1000, description="`next_cursor` of the page before")
]


def after(cursor: str | None, filters: Mapping[str, Any]) -> After | None:
    """Where the page begins. Raises Problem for a cursor that is none or has other filters."""
    if cursor is None:
        return None
    with _none_of_ours():
        at, row_id = _place(cursor, filters)
        return _plausible(datetime.fromisoformat(at)), str(UUID(row_id))


def after_name(cursor: str | None, filters: Mapping[str, Any]) -> str | None:
    """The same for a list in the order of names: the last name of the page before."""
    if cursor is None:
        return None
    with _none_of_ours():
        (name,) = _place(cursor, filters)
        return str(name)


def listed(
    page: Page[Any], show: Callable[[Any], ItemT], filters: Mapping[str, Any]
) -> Listed[ItemT]:
    """The page as it is answered."""
    return Listed(
        items=[show(row) for row in page.rows],
        next_cursor=None if page.next is None else cursor_of(page.next, filters),
    )


def cursor_of(place: After | tuple[str], filters: Mapping[str, Any]) -> str:
    """The cursor of the page that follows the row at `place`."""
    parts = [each.isoformat() if isinstance(each, datetime) else each for each in place]
    said = json.dumps([*parts, _fingerprint(filters)], separators=(",", ":"))
    return base64.urlsafe_b64encode(said.encode()).decode().rstrip("=")


def _place(cursor: str, filters: Mapping[str, Any]) -> list[str]:
    *place, of = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    if of != _fingerprint(filters):
        raise Problem(
            400,
            "invalid_cursor",
            "this cursor was made with other filters; send the same, or leave the cursor out",
        )
    found: list[str] = place
    return found


@contextmanager
def _none_of_ours() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, AttributeError) as error:
        raise Problem(
            400, "invalid_cursor", "this cursor is none of ours; leave it out for the first page"
        ) from error


def _fingerprint(filters: Mapping[str, Any]) -> str:
    said = json.dumps(
        {name: str(value) for name, value in filters.items() if value is not None}, sort_keys=True
    )
    return hashlib.sha256(said.encode()).hexdigest()[:16]
