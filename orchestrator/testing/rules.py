"""What the scripted provider refuses before its script is asked: limits, outages, keys, models.

Each rule is a value; the server asks it for a check of its own, which may count. Time is the
request's, in seconds since the server's start.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from orchestrator.testing.replies import NO_HEADERS, Disconnect, Reply, Status
from orchestrator.testing.request import Request

# What a rule says of one request: its reply, or None to let it pass, and headers either way.
Said = tuple[Reply | None, Mapping[str, str]]
Check = Callable[[Request], Said]

PASS: Said = (None, NO_HEADERS)


class Rule(Protocol):
    """Makes a check for one server; two servers with the same rule do not count together."""

    def begin(self) -> Check:
        """A check that has seen nothing yet."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """429 beyond so many requests in `per` seconds, for each key by itself.

    RateLimit(requests=60, per=60, kind="window"): at most 60 in 0 to 60 s, then 60 more at once.
    RateLimit(requests=60, per=60, kind="bucket"): 60 at once, and one more with every second.
    """

    requests: int
    per: float  # seconds
    kind: Literal["window", "bucket"] = "window"
    retry_after: bool = True  # whether a refusal says when to come back
    headers: bool = False  # whether every reply says what is left: OpenAI's x-ratelimit-*

    def __post_init__(self) -> None:
        if self.requests < 1 or not self.per > 0:
            raise ValueError(
                "a RateLimit allows at least one request in a time above zero,"
                f" not {self.requests} in {self.per} s"
            )
        if self.kind not in ("window", "bucket"):
            raise ValueError(f"a RateLimit is a 'window' or a 'bucket', not a {self.kind!r}")

    def begin(self) -> Check:
        """A check that has seen nothing yet."""
        limits: dict[str | None, _Window | _Bucket] = {}

        def check(request: Request) -> Said:
            made = _Window if self.kind == "window" else _Bucket
            limit = limits.setdefault(request.key, made(self.requests, self.per))
            passed, left, wait = limit.take(request.at)
            headers = self._headers(left, wait) if self.headers else NO_HEADERS
            if passed:
                return None, headers
            told = f"Rate limit reached for requests per {self.per:g} s. Limit: {self.requests}."
            after = wait if self.retry_after else None
            return Status(429, retry_after=after, message=told), headers

        return check

    def _headers(self, left: int, wait: float) -> Mapping[str, str]:
        return {
            "x-ratelimit-limit-requests": str(self.requests),
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-reset-requests": _duration(wait),
        }


@dataclass(frozen=True, slots=True)
class Outage:
    """Between these moments nothing is answered, by a status or by closing the connection."""

    start: float  # seconds since the server's start
    end: float
    by: int | Literal["closed"] = 503
    retry_after: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"an Outage begins before it ends, not {self.start} to {self.end} s")

    def begin(self) -> Check:
        """A check that has seen nothing yet."""
        away: Reply = (
            Disconnect()
            if isinstance(self.by, str)
            else Status(self.by, retry_after=self.retry_after)
        )
        return lambda request: (away, NO_HEADERS) if self.start <= request.at < self.end else PASS


@dataclass(frozen=True, slots=True)
class WrongKey:
    """401 for every key but these. `echo` prints the key in the refusal, as some servers do."""

    right: Collection[str] = ()
    echo: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.right, str):
            raise ValueError("WrongKey takes several right keys: WrongKey([key])")  # noqa: TRY004

    def begin(self) -> Check:
        """A check that has seen nothing yet."""

        def check(request: Request) -> Said:
            if request.secret in self.right:
                return PASS
            shown = request.secret if self.echo else f"{request.secret[:3]}***"
            told = f"Incorrect API key provided: {shown}."
            return Status(401, message=told), NO_HEADERS

        return check


@dataclass(frozen=True, slots=True)
class UnknownModel:
    """404 for every model but these."""

    known: Collection[str] = ()

    def begin(self) -> Check:
        """A check that has seen nothing yet."""

        def check(request: Request) -> Said:
            if request.model in self.known:
                return PASS
            told = f"The model `{request.model}` does not exist or you do not have access to it."
            return Status(404, message=told), NO_HEADERS

        return check


@dataclass(frozen=True, slots=True)
class ContextTooLong:
    """400 for a request of more tokens than this, as this server counts them."""

    tokens: int = 0

    def begin(self) -> Check:
        """A check that has seen nothing yet."""

        def check(request: Request) -> Said:
            if request.tokens <= self.tokens:
                return PASS
            told = (
                f"This model's maximum context length is {self.tokens} tokens. However, your"
                f" messages resulted in {request.tokens} tokens. Please reduce the length of the"
                " messages."
            )
            return Status(400, message=told, error_code="context_length_exceeded"), NO_HEADERS

        return check


class _Window:
    """So many in each stretch of time, the first of which begins with the server."""

    def __init__(self, requests: int, per: float) -> None:
        self._requests, self._per = requests, per
        self._window, self._used = 0, 0

    def take(self, now: float) -> tuple[bool, int, float]:
        """Whether one passes, how many are left, and seconds until there are all again."""
        window = int(now // self._per)
        if window != self._window:
            self._window, self._used = window, 0
        passed = self._used < self._requests
        self._used += passed
        return passed, self._requests - self._used, (window + 1) * self._per - now


class _Bucket:
    """So many at once, filled again evenly."""

    def __init__(self, requests: int, per: float) -> None:
        self._size, self._rate = requests, requests / per
        self._level, self._at = float(requests), 0.0

    def take(self, now: float) -> tuple[bool, int, float]:
        """Whether one passes, how many are left, and seconds until there is one more."""
        self._level = min(self._size, self._level + (now - self._at) * self._rate)
        self._at = now
        # A sum of many small parts may be a hair below a whole one.
        passed = self._level >= 1 - 1e-9
        self._level = max(0.0, self._level - passed)
        wait = max(0.0, 1 - self._level) / self._rate
        return passed, int(self._level), wait


def _duration(seconds: float) -> str:
    """As OpenAI writes it: "6m0s", "1.5s", "20ms"."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"
