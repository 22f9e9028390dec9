"""A short run of tests/faults for every commit: a fixed seed, everything judged from outside."""

import pytest

from tests.benchmarks.progress import Telling
from tests.faults.report import as_json
from tests.faults.run import run
from tests.faults.scenarios import SCENARIOS

pytestmark = pytest.mark.acceptance


async def test_a_mix_of_faults_loses_doubles_and_changes_nothing():
    """P1, P2, P4, P5: kills, at named points too, zombies, FLUSHALL, restarts, cut connections."""
    with Telling(1) as telling:
        found = await run(SCENARIOS["mix"], seed=11, tasks=300, faults=7, telling=telling)

    assert found.accepted >= 300
    assert found.good, as_json(found)
