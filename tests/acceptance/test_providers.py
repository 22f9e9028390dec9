"""A short run of tests/providers for every commit: a minute of three seconds, real workers."""

import pytest

from tests.providers.run import Plan, run

pytestmark = pytest.mark.acceptance


async def test_a_provider_that_limits_is_waited_for_by_all_workers_together():
    """P8: no attempt is used up, and once the pace is known next to nobody is refused."""
    found = await run(Plan(scenario="limit", minute=3, tasks=160, workers=2, answer=0.1))

    assert found.ended == {"succeeded, attempt 1": 160}
    assert found.attempts == 0
    assert found.recorded == found.counted
    assert found.late_refused <= 3
