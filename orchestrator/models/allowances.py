"""What a provider says of its own limit on requests, heard from the headers of its responses.

pydantic-ai hands on none of them; the HTTP client under a provider's library has hooks for it.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from orchestrator.provider import Allowance

Heard = list[Allowance]

# OpenAI's and who speaks as it does: 59, and "6m0s" or "20ms". Anthropic's: 59, and a moment.
_OPENAI = ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")
_ANTHROPIC = ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}

_hearing: ContextVar[Heard | None] = ContextVar("aurora_hearing", default=None)


@contextmanager
def hearing(model: object) -> Iterator[Heard]:
    """What the responses of this model's client say meanwhile; nothing where it has no such client.

    The client is the private `_client` of OpenAI's and Anthropic's libraries, whose own interface
    shows headers only to who makes the request.
    """
    client: Any = getattr(getattr(model, "client", None), "_client", None)
    hooks = getattr(client, "event_hooks", None)
    if isinstance(hooks, dict) and _hear not in hooks.get("response", ()):
        client.event_hooks = {**hooks, "response": [*hooks.get("response", ()), _hear]}
    found: Heard = []
    token = _hearing.set(found)
    try:
        yield found
    finally:
        _hearing.reset(token)


def allowance_of(headers: Mapping[str, str], *, now: datetime) -> Allowance | None:
    """The limit on requests; None where none is said, or in no form that we know."""
    for remaining, reset in (_OPENAI, _ANTHROPIC):
        left, until = headers.get(remaining, ""), headers.get(reset, "")
        seconds = _seconds(until, now)
        if re.fullmatch(r"\d{1,9}", left) and seconds is not None:
            return Allowance(remaining=int(left), resets_after=seconds)
    return None


async def _hear(response: Any) -> None:
    heard = _hearing.get()
    found = allowance_of(response.headers, now=datetime.now(UTC))
    if heard is not None and found is not None:
        heard.append(found)


def _seconds(said: str, now: datetime) -> float | None:
    if re.fullmatch(r"\d{1,9}(\.\d+)?", said):
        return float(said)
    parts = _PART.findall(said)
    if parts and "".join(number + unit for number, unit in parts) == said:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    try:
        return max(0.0, (datetime.fromisoformat(said) - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
