"""A model whose every call is budgeted, waits its turn, is priced, and stands in the record."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from pydantic_ai import RunContext as ModelRunContext
from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models import ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from orchestrator.context import ModelAccess, RunClock
from orchestrator.errors import Unavailable as RedisUnavailable
from orchestrator.model_failure import FailureKind, ModelFailed
from orchestrator.models.allowances import Heard, hearing
from orchestrator.models.cleaning import cleaned, scrubber
from orchestrator.models.estimate import dollars_of, input_tokens_of
from orchestrator.models.failures import meaning, no_answer, timed_out
from orchestrator.models.source import Found
from orchestrator.provider import Answered, Limited, fingerprint
from orchestrator.spending import Need
from orchestrator.task import new_id
from orchestrator.usage import ModelCall

LONGEST_WAIT = 5.0  # seconds until the gate is asked again: it may open sooner than it said
ANSWER = 1  # token: what an answer takes at least
T = TypeVar("T")


class Metered(WrapperModel):
    """Wraps a model for one run."""

    def __init__(
        self,
        found: Found,
        access: ModelAccess,
        clock: RunClock,
        *,
        timeout: timedelta,
        patience: timedelta,
        keys: Sequence[str],
    ) -> None:
        """Store. `timeout` of one request; `patience` of this run, with its provider.

        `keys`: ours, which are said to nobody, beside the model's own.
        """
        super().__init__(found.model)
        self.name = found.name
        self.was_cut = False  # an answer may have ended early, for the budget's sake
        self._waits = found.waits
        self._access = access
        self._clock = clock
        self._timeout = timeout.total_seconds()
        self._patience = patience.total_seconds()
        self._waited = 0.0
        self._heard: dict[str, Heard] = {}  # by call
        key = getattr(getattr(found.model, "client", None), "api_key", None)
        own = key if isinstance(key, str) else ""
        self.scrub = scrubber([*keys, own])
        self._sharers = fingerprint(found.model.system, found.model.base_url, own)

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Raises ModelFailed."""

        async def send(settings: ModelSettings) -> ModelResponse:
            async with asyncio.timeout(self._timeout):
                return await self.wrapped.request(messages, settings, model_request_parameters)

        need = self._need(messages, model_settings, model_request_parameters)
        call_id, began, response = await self._admitted(need, model_settings, send)
        response = cleaned(response, self.scrub)
        await self._answered(call_id, began, response, model_request_parameters)
        return response

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: ModelRunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """A stream is spent when it ends, also when its reader leaves early. Raises ModelFailed."""

        async def send(settings: ModelSettings) -> Any:
            opened = self.wrapped.request_stream(
                messages, settings, model_request_parameters, run_context
            )
            async with asyncio.timeout(self._timeout):
                return opened, await opened.__aenter__()

        need = self._need(messages, model_settings, model_request_parameters)
        call_id, began, (opened, stream) = await self._admitted(need, model_settings, send)
        try:
            yield stream
        finally:
            await opened.__aexit__(None, None, None)
            await self._answered(call_id, began, stream.get(), model_request_parameters)

    async def _admitted(
        self,
        need: Need,
        settings: ModelSettings | None,
        send: Callable[[ModelSettings], Awaitable[T]],
    ) -> tuple[str, float, T]:
        """Wait for leave, send, and wait again where the provider says so."""
        call_id = new_id()
        while True:
            left = await self._leave(call_id, need)
            began = time.monotonic()
            try:
                with hearing(self.wrapped) as self._heard[call_id]:
                    answer = await send(self._within(settings, left, need))
            except TimeoutError as error:
                await self._access.drop(call_id)
                # It may have taken it: whoever shares the key learns nothing from our impatience.
                await self._access.tell(call_id, self._sharers, Answered())
                raise timed_out(self.name, f"not within {self._timeout:g} s") from error
            except AgentRunError as error:
                await self._access.drop(call_id)
                await self._refused(call_id, error)
            except (LookupError, TypeError, ValueError) as error:
                # The library's own, over a response that is none of its protocol.
                await self._access.drop(call_id)
                await self._access.tell(call_id, self._sharers, Answered())
                said = self.scrub(f"{type(error).__name__}: {error}")
                raise no_answer(self.name, said, raw="") from None
            except BaseException:
                await self._access.drop(call_id)
                raise
            else:
                return call_id, began, answer

    async def _leave(self, call_id: str, need: Need) -> int | None:
        while True:
            try:
                admission = await self._access.admit(call_id, self._sharers, need)
                wait = admission.wait
            except RedisUnavailable:
                wait = LONGEST_WAIT
            if wait <= 0:
                return admission.tokens_left
            await self._wait(wait)

    async def _wait(self, seconds: float) -> None:
        seconds = min(seconds, LONGEST_WAIT)
        if self._waited + seconds > self._patience:
            raise ModelFailed(
                FailureKind.PROVIDER_UNAVAILABLE,
                f"{self.name}: its provider has kept this run waiting for {self._waited:.0f} s;"
                " it limits requests or is away (AURORA_MODEL_PATIENCE, or the task's expires)",
            )
        self._waited += seconds
        self._clock.extend(seconds)
        await asyncio.sleep(seconds)

    async def _refused(self, call_id: str, error: AgentRunError) -> None:
        """Tell everybody, and return where asking again makes sense. Raises ModelFailed."""
        found = meaning(error, model=self.name, scrub=self.scrub)
        if isinstance(found, ModelFailed):
            await self._access.tell(call_id, self._sharers, Answered())
            # Not `from error`: it has the provider's own words, which a traceback would print.
            raise found from None
        await self._access.tell(call_id, self._sharers, found)
        if not self._waits and not isinstance(found, Limited):
            raise ModelFailed(
                FailureKind.PROVIDER_UNAVAILABLE, f"{self.name} is away: {self.scrub(str(error))}"
            ) from None

    async def _answered(
        self,
        call_id: str,
        began: float,
        response: ModelResponse,
        parameters: ModelRequestParameters,
    ) -> None:
        usage = response.usage
        call = ModelCall(
            id=call_id,
            model=self.name[:200],
            at=datetime.now(UTC),
            seconds=time.monotonic() - began,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cache_read_tokens,
            tool_calls=_tool_calls(response, parameters),
            cost_usd=_price(response),
        )
        await self._access.spend(call)
        heard = self._heard.pop(call_id, [])
        news = Answered(allowance=heard[-1] if heard else None)
        await self._access.tell(call_id, self._sharers, news)

    def _need(
        self,
        messages: Sequence[ModelMessage],
        settings: ModelSettings | None,
        parameters: ModelRequestParameters,
    ) -> Need:
        tokens = input_tokens_of(messages, parameters)
        answer = (settings or {}).get("max_tokens", ANSWER)
        usd = dollars_of(tokens, answer, model=self.wrapped)
        return Need(tokens=tokens + ANSWER, usd=usd)

    def _within(
        self, settings: ModelSettings | None, left: int | None, need: Need
    ) -> ModelSettings:
        # The library's own retries would pass by the gate.
        found = ModelSettings(**{**(settings or {}), "max_retries": 0})
        if left is not None:
            room = max(ANSWER, left - need.tokens + ANSWER)
            if room < found.get("max_tokens", room + 1):
                found["max_tokens"] = room
                self.was_cut = True
        return found


def _tool_calls(response: ModelResponse, parameters: ModelRequestParameters) -> int:
    """Calls of functions; an answer in the form of a call is none."""
    outputs = {each.name for each in parameters.output_tools}
    return sum(
        isinstance(part, ToolCallPart) and part.tool_name not in outputs for part in response.parts
    )


def _price(response: ModelResponse) -> Decimal | None:
    if response.usage.cost is not None:
        return round(response.usage.cost, 12)
    try:
        return round(response.cost().total_price, 12)
    except (LookupError, ValueError, AssertionError):
        return None
