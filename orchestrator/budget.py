"""What a task may spend on language models, over all its attempts."""

from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Budget(BaseModel):
    """Limits of one task; None is no limit. On the agent, and per call: the stricter counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: int | None = Field(default=None, ge=0)
    tokens: int | None = Field(default=None, ge=0)  # in and out
    usd: Decimal | None = Field(default=None, ge=0)
    tool_calls: int | None = Field(default=None, ge=0)

    def stricter(self, other: "Budget | None") -> "Budget":
        """The lower limit of both, each by itself."""
        if other is None:
            return self
        return Budget(
            **{name: _lower(getattr(self, name), getattr(other, name)) for name in LIMITS}
        )


LIMITS = tuple(Budget.model_fields)
NO_BUDGET = Budget()


def _lower(one: Any, other: Any) -> Any:
    return min((each for each in (one, other) if each is not None), default=None)
