"""What an attempt came to, as a value: the runner returns one, the dispatcher acts on it."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from orchestrator.errors import DeadReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An error as the record keeps it."""

    type: str
    message: str
    traceback: str | None = None
    details: dict[str, Any] | None = None  # of a failed model call: the budget, the raw answer

    def as_json(self) -> dict[str, Any]:
        """The `error` object of results, attempts and events."""
        found: dict[str, Any] = {"type": self.type, "message": self.message}
        if self.traceback:
            found["traceback"] = self.traceback
        return {**self.details, **found} if self.details else found


@dataclass(frozen=True, slots=True)
class Completed:
    """The agent returned; `output` is its JSON, already serialised."""

    output: bytes


@dataclass(frozen=True, slots=True)
class Retrying:
    """The attempt failed and another follows after `delay`."""

    fault: Fault
    delay: timedelta


@dataclass(frozen=True, slots=True)
class Crashed:
    """The attempt's own process died: a start that did not end. Another follows after `delay`."""

    fault: Fault
    delay: timedelta


@dataclass(frozen=True, slots=True)
class Failed:
    """The agent gave up, or its attempts are used up."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class SetAside:
    """It never validly ran, or its runs kill workers: a dead letter."""

    reason: DeadReason
    detail: str


@dataclass(frozen=True, slots=True)
class Expired:
    """Its time had passed before it began."""


@dataclass(frozen=True, slots=True)
class Postponed:
    """Not due yet: back to the delayed set until `run_at`."""


@dataclass(frozen=True, slots=True)
class HandedBack:
    """The worker stops: another worker shall begin it again at once; not counted as a crash."""


@dataclass(frozen=True, slots=True)
class Superseded:
    """Another entry of the task ended it, or another worker owns this entry: nothing to say."""

    by: str


Outcome = (
    Completed
    | Retrying
    | Crashed
    | Failed
    | SetAside
    | Expired
    | Postponed
    | HandedBack
    | Superseded
)
