"""What several tests need: waiting for a thing to become true, and raw pieces of the wire."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any


async def wait_until(
    condition: Callable[[], Awaitable[Any] | Any], *, what: str, timeout: float = 15.0
) -> Any:
    """Poll until `condition` gives something true, and give it back; fail naming `what`."""
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        if hasattr(found, "__await__"):
            found = await found
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        await asyncio.sleep(0.02)
