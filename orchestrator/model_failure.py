"""How a model call ends an attempt: what failed, and whether trying again may help."""

from enum import StrEnum
from typing import Any

from orchestrator.errors import OrchestratorError


class FailureKind(StrEnum):
    """What stands in `error.type` of the task."""

    BUDGET_EXCEEDED = "budget_exceeded"
    NOT_CONFIGURED = "model_not_configured"
    KEY_REFUSED = "model_key_refused"
    MODEL_UNKNOWN = "model_unknown"
    QUOTA_USED_UP = "model_quota_used_up"
    CONTEXT_TOO_LONG = "context_too_long"
    REQUEST_REFUSED = "model_request_refused"  # for another reason, which the message gives
    MALFORMED_ANSWER = "malformed_answer"
    ANSWER_REFUSED = "answer_refused"
    TIMEOUT = "model_timeout"
    PROVIDER_UNAVAILABLE = "provider_unavailable"


# A wrong key is wrong again a second later; these may come out otherwise the next time.
_WORTH_RETRYING = frozenset(
    {
        FailureKind.MALFORMED_ANSWER,
        FailureKind.ANSWER_REFUSED,
        FailureKind.TIMEOUT,
        FailureKind.PROVIDER_UNAVAILABLE,
    }
)


class ModelFailed(OrchestratorError):
    """Raised out of a model call; an agent that does not catch it ends its attempt with it.

    `details` stand beside type and message in the task's `error`: small JSON values. `answer` is
    what the model said, where it said something that could not be used.
    """

    def __init__(
        self, kind: FailureKind, message: str, *, answer: str | None = None, **details: Any
    ) -> None:
        self.kind = kind
        self.answer = answer
        self.details = details if answer is None else {**details, "answer": answer}
        super().__init__(message)

    @property
    def worth_retrying(self) -> bool:
        """True where another attempt, by the agent's own policy, may come out otherwise."""
        return FailureKind(self.kind) in _WORTH_RETRYING
