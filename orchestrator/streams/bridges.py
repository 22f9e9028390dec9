"""What each MQTT bridge last said of itself, for /metrics and `aurora doctor` wherever they run."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic_core import from_json, to_json

from orchestrator.streams.connection import Streams, translated

SILENT = 15.0  # seconds after which a bridge that says nothing counts as gone
FORGOTTEN = 24 * 3600  # seconds after which nobody asks about bridges that ran no longer


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeFigures:
    """One bridge. `messages`: (mapping, outcome) -> how many since it started."""

    client_id: str
    connected: bool
    messages: Mapping[tuple[str, str], int]


async def tell(streams: Streams, figures: BridgeFigures) -> None:
    """Say how things stand. Raises Unavailable, Overloaded."""
    said = to_json(
        {
            "at": time.time(),
            "connected": figures.connected,
            "messages": [[*labels, count] for labels, count in figures.messages.items()],
        }
    )
    with translated():
        pipe = streams.commands.pipeline(transaction=False)
        pipe.hset(_key(streams), figures.client_id, said)
        pipe.expire(_key(streams), FORGOTTEN)
        await pipe.execute()


async def read(streams: Streams) -> list[BridgeFigures]:
    """Every bridge that ran within the day. Raises Unavailable."""
    with translated():
        found = await streams.commands.hgetall(_key(streams))
    now = time.time()
    figures = []
    for client_id, said in sorted(found.items()):
        each = from_json(said)
        figures.append(
            BridgeFigures(
                client_id=client_id.decode(),
                connected=bool(each["connected"]) and now - each["at"] < SILENT,
                messages={(mapping, out): count for mapping, out, count in each["messages"]},
            )
        )
    return figures


def _key(streams: Streams) -> str:
    return f"{streams.keys.prefix}:bridges"
