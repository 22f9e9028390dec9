"""Whether the next call of a model still fits the task's budget: the rule."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from orchestrator.budget import NO_BUDGET, Budget
from orchestrator.usage import Usage

_WORDS = {
    "requests": "requests",
    "tokens": "tokens",
    "usd": "US dollars",
    "tool_calls": "tool calls",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What the next call takes at least, as far as it can be known before it."""

    tokens: int
    usd: Decimal | None = None  # None: no price is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """Which limit the next call would pass."""

    limit: str  # a field of Budget
    allowed: int | Decimal
    spent: int | Decimal
    needed: int | Decimal  # in all, the next call included

    def __str__(self) -> str:
        """For people."""
        what = _WORDS[self.limit]
        return (
            f"the budget is {self.allowed} {what}; {self.spent} are spent and the next call needs"
            f" at least {self.needed} in all"
        )

    def as_json(self) -> dict[str, Any]:
        """For the record; dollars as text."""
        return {
            name: str(value) if isinstance(value := getattr(self, name), Decimal) else value
            for name in ("limit", "allowed", "spent", "needed")
        }


def excess(budget: Budget, spent: Usage, need: Need) -> Excess | None:
    """The limit that a call which takes `need` would pass; None: it may go.

    A limit in dollars can only be kept where the price is known: the caller sees to that.
    """
    known = spent.cost_usd or Decimal(0)
    sums: list[tuple[str, int | Decimal | None, int | Decimal, int | Decimal]] = [
        ("requests", budget.requests, spent.requests, spent.requests + 1),
        ("tokens", budget.tokens, spent.tokens, spent.tokens + need.tokens),
        ("usd", budget.usd, known, known + (need.usd or Decimal(0))),
        ("tool_calls", budget.tool_calls, spent.tool_calls, spent.tool_calls),
    ]
    for name, allowed, so_far, needed in sums:
        if allowed is not None and needed > allowed:
            return Excess(limit=name, allowed=allowed, spent=so_far, needed=needed)
    return None


def budget_of(agent: Budget | None, task: Budget | None) -> Budget:
    """The stricter of both; none is no limit."""
    return (agent or NO_BUDGET).stricter(task)
