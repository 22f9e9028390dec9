"""What a call tells of its provider, to all who share its key: answers, a limit, absence."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What a provider says of its own limit on requests, where it does (x-ratelimit-*)."""

    remaining: int  # requests until then
    resets_after: float  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """It did the work, or refused this one request for its own sake."""

    allowance: Allowance | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """429: too many requests for this key. `retry_after` in seconds, where it said so."""

    retry_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """503, 529, or nobody there. `retry_after` in seconds, where it said so."""

    retry_after: float | None = None


@dataclass(slots=True)
class Place:
    """Where one call stands at its provider's gate. The gate writes it; one for each call."""

    number: int = 0  # in the queue; 0 before it has one
    closings: int = -1  # of the gate when it was let in


News = Answered | Limited | Unavailable


def fingerprint(provider: str, url: str | None, key: str | None) -> str:
    """Who shares a limit: one provider, one address, one key. Says nothing of the key itself."""
    told = "\x1f".join((provider, url or "", key or ""))
    return f"{provider[:40]}:{hashlib.sha256(told.encode()).hexdigest()[:16]}"
