"""When to try again: a policy per agent, and the two words by which agent code decides itself."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How long to wait before the next attempt, or None to give up.

    With the defaults: about 1 s, then 2 s, then give up after the third attempt.
    """

    max_attempts: int = 3
    base: timedelta = timedelta(seconds=1)
    ceiling: timedelta = timedelta(minutes=5)
    jitter: Callable[[], float] = random.random

    def delay_after(self, attempt: int) -> timedelta | None:
        """Wait before the attempt that follows `attempt` (counted from 1), None when used up."""
        if attempt >= self.max_attempts:
            return None
        # Double each time; the cap on the exponent keeps attempt 2,000 from overflowing.
        # The random half keeps a thousand tasks that failed together from coming back together.
        backoff = min(self.base * 2.0 ** min(attempt - 1, 32), self.ceiling)
        return backoff * (0.5 + self.jitter() / 2)


class RetryLater(Exception):
    """Raised by agent code: end this attempt and try again after `after` (default: the policy's).

    It uses up an attempt; when none is left the task fails.
    """

    def __init__(self, message: str = "retry requested", *, after: timedelta | None = None) -> None:
        self.after = after
        super().__init__(message)


class GiveUp(Exception):
    """Raised by agent code: fail now, whatever attempts are left."""
