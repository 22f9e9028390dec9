"""Lists longer than a page of the database, read page after page."""

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.db.listing import Page

PAGE = 500  # rows


async def rows(
    page_of: "Callable[..., Coroutine[Any, Any, Page[Any]]]",
    columns: Sequence[str],
    limit: int,
    **filters: Any,
) -> list[dict[str, Any]]:
    """Up to `limit` rows of one of db/listing.py's lists, newest first, as dicts."""
    found: list[dict[str, Any]] = []
    after = None
    while len(found) < limit:
        page = await page_of(**filters, after=after, limit=min(PAGE, limit - len(found)))
        found += [{name: getattr(row, name) for name in columns} for row in page.rows]
        after = page.next
        if after is None:
            break
    return found
