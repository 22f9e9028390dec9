"""Sums of model calls, budgets, and whether the next call fits."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from pydantic import ValidationError

from orchestrator.budget import Budget
from orchestrator.provider import fingerprint
from orchestrator.spending import Need, excess
from orchestrator.task import new_id
from orchestrator.usage import ModelCall, Usage


def call(tokens_in: int = 0, tokens_out: int = 0, *, usd: str | None = None, tools: int = 0):
    return ModelCall(
        id=new_id(), model="test:one", at=datetime.now(UTC), input_tokens=tokens_in,
        output_tokens=tokens_out, tool_calls=tools, cost_usd=Decimal(usd) if usd else None,
    )  # fmt: skip


def test_a_sum_of_calls_never_takes_an_unknown_price_for_nothing():
    """Null where no price is known, and else the sum of the known with how many are missing."""
    unknown = Usage.of([call(10, 5), call(1, 1)])
    assert (unknown.cost_usd, unknown.unpriced_requests, unknown.tokens) == (None, 2, 17)
    assert unknown.as_json()["cost_usd"] is None

    some = unknown.plus(call(100, 20, usd="0.000000123", tools=2))
    assert some.as_json() == {
        "requests": 3, "input_tokens": 111, "output_tokens": 26, "cached_tokens": 0,
        "tool_calls": 2, "cost_usd": "0.000000123", "unpriced_requests": 2,
    }  # fmt: skip
    assert Usage.model_validate(some.as_json()) == some


def test_the_stricter_of_two_budgets_counts_field_by_field():
    """A producer of messages may ask for less than the agent allows, not for more."""
    agent = Budget(tokens=2_000, requests=10)
    assert agent.stricter(Budget(tokens=5_000, usd=Decimal(1))) == Budget(
        tokens=2_000, requests=10, usd=Decimal(1)
    )
    assert agent.stricter(None) == agent
    with pytest.raises(ValidationError):
        Budget(tokens=-1)
    with pytest.raises(ValidationError):
        Budget.model_validate({"token": 100})


@pytest.mark.parametrize(
    ("budget", "limit"),
    [
        (Budget(), None),
        (Budget(tokens=1_000), None),  # exactly
        (Budget(tokens=999), "tokens"),
        (Budget(requests=2), None),
        (Budget(requests=1), "requests"),
        (Budget(requests=0), "requests"),
        (Budget(tool_calls=2), None),
        (Budget(tool_calls=1), "tool_calls"),
        (Budget(usd=Decimal("0.03")), None),
        (Budget(usd=Decimal("0.029")), "usd"),
    ],
)
def test_a_call_goes_only_where_the_budget_still_holds_after_it(budget: Budget, limit: str | None):
    """One call of 600 tokens, 0.02 dollars and two tool calls is spent; the next takes 400."""
    found = excess(
        budget, Usage.of([call(500, 100, usd="0.02", tools=2)]),
        Need(tokens=400, usd=Decimal("0.01")),
    )  # fmt: skip

    assert (found and found.limit) == limit
    if found is not None:
        assert str(found.needed) in str(found)
        assert found.as_json()["limit"] == limit


def test_who_shares_a_limit_is_told_by_key_and_address_without_telling_the_key():
    """Two keys are two limits."""
    one = fingerprint("openai", None, "canary-key-1")
    assert one == fingerprint("openai", None, "canary-key-1")
    assert one != fingerprint("openai", None, "canary-key-2")
    assert one != fingerprint("openai", "http://127.0.0.1:1/v1", "canary-key-1")
    assert "canary" not in one
