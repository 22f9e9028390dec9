"""When to try again: a policy per agent, and the two words by which agent code decides itself."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from orchestrator.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How long to wait before the next attempt, or None to give up.

    With the defaults: about 1 s, then 2 s, then give up after the third attempt.
    """

    max_attempts: int = 3
    base: timedelta = timedelta(seconds=1)
    ceiling: timedelta = timedelta(minutes=5)
    jitter: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        """Refuse here what would otherwise fail at the first retry. Raises ConfigurationError."""
        if type(self.max_attempts) is not int or self.max_attempts < 1:
            raise ConfigurationError(
                f"Retry: max_attempts is a whole number from 1, not {self.max_attempts!r}"
            )
        for name in ("base", "ceiling"):
            given = getattr(self, name)
            if not isinstance(given, timedelta) or given < timedelta(0):
                raise ConfigurationError(
                    f"Retry: {name} is a timedelta, such as timedelta(seconds=1), not {given!r}"
                )
        if not callable(self.jitter):
            raise ConfigurationError(
                f"Retry: jitter is a function of nothing that gives 0 to 1, not {self.jitter!r}"
            )

    def delay_after(self, attempt: int) -> timedelta | None:
        """Wait before the attempt that follows `attempt` (counted from 1), None when used up."""
        if attempt >= self.max_attempts:
            return None
        # Double each time, but never past what a float or a timedelta holds.
        # The random half keeps a thousand tasks that failed together from coming back together.
        factor = 2.0 ** min(attempt - 1, 32)
        backoff = self.base * factor if self.base < self.ceiling / factor else self.ceiling
        return backoff * (0.5 + self.jitter() / 2)


class RetryLater(Exception):
    """Raised by agent code: end this attempt and try again after `after` (default: the policy's).

    `after` in seconds where it is a number. It uses up an attempt; when none is left the task
    fails.
    """

    after: float | timedelta | None = None  # also of a class of theirs

    def __init__(
        self, message: str = "retry requested", *, after: float | timedelta | None = None
    ) -> None:
        if after is not None:
            self.after = after
        super().__init__(message)

    @property
    def delay(self) -> timedelta | None:
        """`after` as a timedelta; None leaves it to the policy. Raises what timedelta raises."""
        if self.after is None or isinstance(self.after, timedelta):
            return self.after
        return timedelta(seconds=self.after)


class GiveUp(Exception):
    """Raised by agent code: fail now, whatever attempts are left."""
