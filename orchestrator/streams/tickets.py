"""Single-use tickets: what a browser shows where it can send no header. Good for half a minute.

Kept in Redis, so that any replica may be the one that is asked, and as a hash alone.
"""

import hashlib
import secrets

from orchestrator.streams.connection import Streams, translated

GOOD_FOR = 30  # seconds: a page asks for one and connects at once


async def issue(streams: Streams, holder: str) -> str:
    """A new ticket of this holder, the text that is shown once. Raises Unavailable."""
    ticket = secrets.token_hex(32)
    with translated():
        await streams.commands.set(_key(streams, ticket), holder, ex=GOOD_FOR, nx=True)
    return ticket


async def redeem(streams: Streams, ticket: str) -> str | None:
    """Whose ticket it is, once; None for one that is unknown, used or too old."""
    with translated():
        holder = await streams.commands.getdel(_key(streams, ticket))
    return None if holder is None else str(holder.decode())


def _key(streams: Streams, ticket: str) -> str:
    digest = hashlib.sha256(ticket.encode("utf-8", "replace")).hexdigest()
    return f"{streams.keys.prefix}:ticket:{digest}"
