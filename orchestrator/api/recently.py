"""A value that is asked for more often than it is worth finding out."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

ValueT = TypeVar("ValueT")


class Recently(Generic[ValueT]):
    """Finds out at most once every `keep` seconds, and once for all who ask meanwhile."""

    def __init__(
        self,
        find: Callable[[], Awaitable[ValueT]],
        *,
        keep: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Store. `keep` and `clock` in seconds."""
        self._find = find
        self._keep = keep
        self._clock = clock
        self._found: tuple[float, ValueT] | None = None
        self._finding = asyncio.Lock()

    async def get(self) -> ValueT:
        """The value, at most `keep` seconds old. Raises what finding it raises."""
        async with self._finding:
            if self._found is None or self._clock() - self._found[0] >= self._keep:
                self._found = (self._clock(), await self._find())
            return self._found[1]
