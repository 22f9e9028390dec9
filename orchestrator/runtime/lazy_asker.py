"""Loads what asks models when the first agent asks: a second, and memory that few workers need."""

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from orchestrator.context import Asker, RunContext
from orchestrator.errors import ConfigurationError
from orchestrator.model_options import ModelOptions

# By name: it stands above this layer, and belongs to an extra that may not be installed.
ASKING = "orchestrator.models.asking"


class LazyAsker:
    """Implements `context.Asker`; one per process, a worker's or a child's."""

    def __init__(
        self,
        options: Callable[[], Awaitable[ModelOptions]],
        local: Callable[[], Awaitable[str]],
    ) -> None:
        """Store. `local` starts the model of this machine, and gives its address."""
        self._options = options
        self._local = local
        self._loading = asyncio.Lock()
        self._asker: Asker | None = None

    async def ask(
        self, ctx: RunContext, agent: Any, prompt: Any, *, deps: Any, options: Mapping[str, Any]
    ) -> Any:
        """Raises ModelFailed; ConfigurationError without the extra."""
        async with self._loading:
            if self._asker is None:
                self._asker = await self._load()
        return await self._asker.ask(ctx, agent, prompt, deps=deps, options=options)

    async def close(self) -> None:
        """End the connections, where anybody has asked."""
        if self._asker is not None:
            await self._asker.close()

    async def _load(self) -> Asker:
        try:
            module = importlib.import_module(ASKING)
        except ImportError as error:
            raise ConfigurationError(
                "agents that ask models need the extra: pip install 'aurora-orchestrator[models]'"
                f" ({error})"
            ) from error
        made: Asker = module.asker(await self._options(), local=self._local)
        return made
