"""What providers say of their limits in headers: two dialects, and strangers' text."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.models.allowances import allowance_of
from orchestrator.provider import Allowance

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [("1s", 1), ("6m0s", 360), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("1.5s", 1.5), ("59", 59)],
)
def test_as_openai_writes_it(reset, seconds):
    headers = {"x-ratelimit-remaining-requests": "59", "x-ratelimit-reset-requests": reset}
    found = allowance_of(headers, now=NOW)
    assert found is not None
    assert (found.remaining, found.resets_after) == (59, pytest.approx(seconds))


@pytest.mark.parametrize(("later", "seconds"), [(30, 30), (-30, 0)])
def test_as_anthropic_writes_it(later, seconds):
    at = (NOW + timedelta(seconds=later)).isoformat().replace("+00:00", "Z")
    headers = {
        "anthropic-ratelimit-requests-remaining": "4",
        "anthropic-ratelimit-requests-reset": at,
    }
    found = allowance_of(headers, now=NOW)
    assert found == Allowance(remaining=4, resets_after=seconds)


@given(left=st.text(), reset=st.text())
def test_what_is_in_no_known_form_says_nothing(left, reset):
    """P10: no error, whatever stands there."""
    headers = {"x-ratelimit-remaining-requests": left, "x-ratelimit-reset-requests": reset}
    found = allowance_of(headers, now=NOW)
    assert found is None or (found.remaining >= 0 and found.resets_after >= 0)


def test_half_of_it_says_nothing():
    assert allowance_of({"x-ratelimit-remaining-requests": "3"}, now=NOW) is None
    assert allowance_of({}, now=NOW) is None
