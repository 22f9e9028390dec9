"""What calls of language models cost: one call, and the sum of many. Values and sums only."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.task import CanonicalId, Moment

# Far above what any model reads in one call, and a sum of millions of them is a bigint still.
Count = Annotated[int, Field(ge=0, le=10**12)]
# Dollars. Providers price by the million tokens: twelve places lose nothing of a single one.
Dollars = Annotated[Decimal, Field(ge=0, le=10**9, max_digits=24, decimal_places=12)]


class ModelCall(BaseModel):
    """One call that a model has answered; `usage` of a message `usage` on the results stream."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: CanonicalId  # the record keeps each once, however often its message is read
    model: str = Field(min_length=1, max_length=200)  # "openai:gpt-5-mini"
    at: Moment  # when the answer had come
    seconds: float = Field(default=0.0, ge=0, le=10**6)
    input_tokens: Count = 0  # all of them, those of the provider's cache as well
    output_tokens: Count = 0
    cached_tokens: Count = 0  # of the input, those that came from the provider's cache
    tool_calls: Count = 0  # that the model asked for in this answer
    cost_usd: Dollars | None = None  # None: nobody knows the price; that is not zero

    @property
    def tokens(self) -> int:
        """In and out."""
        return self.input_tokens + self.output_tokens


class Usage(BaseModel):
    """The sum of calls. `cost_usd` is of those with a known price; the others are counted."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    tool_calls: int = 0
    cost_usd: Decimal | None = None  # None: no price is known of any
    unpriced_requests: int = 0

    @property
    def tokens(self) -> int:
        """In and out."""
        return self.input_tokens + self.output_tokens

    @classmethod
    def of(cls, calls: Iterable[ModelCall]) -> Self:
        """The sum of these calls."""
        found = cls()
        for call in calls:
            found = found.plus(call)
        return found

    def plus(self, call: ModelCall) -> Self:
        """This and one call more."""
        cost = self.cost_usd
        if call.cost_usd is not None:
            cost = (cost or Decimal(0)) + call.cost_usd
        return self.model_copy(
            update={
                "requests": self.requests + 1,
                "input_tokens": self.input_tokens + call.input_tokens,
                "output_tokens": self.output_tokens + call.output_tokens,
                "cached_tokens": self.cached_tokens + call.cached_tokens,
                "tool_calls": self.tool_calls + call.tool_calls,
                "cost_usd": cost,
                "unpriced_requests": self.unpriced_requests + (call.cost_usd is None),
            }
        )

    @classmethod
    def together(cls, sums: Iterable[Self]) -> Self:
        """The sum of sums, of a task's attempts say."""
        found = list(sums)
        costs = [each.cost_usd for each in found if each.cost_usd is not None]
        counts = {
            name: sum(getattr(each, name) for each in found)
            for name in cls.model_fields
            if name != "cost_usd"
        }
        return cls(**counts, cost_usd=sum(costs, Decimal(0)) if costs else None)

    def as_json(self) -> dict[str, Any]:
        """As in `results.usage`: costs are decimals in text, which no reader rounds."""
        found = self.model_dump()
        found["cost_usd"] = None if self.cost_usd is None else f"{self.cost_usd:f}"
        return found
