"""Teeth of the simulation: a guard is taken away in a copy of the tree, and some seed goes red."""

import os
import subprocess
import sys

import pytest

from tests.faults.teeth import GUARDS
from tests.mutants.removal import take_away

pytestmark = pytest.mark.mutants

SEEDS = 20
# A guard, and the fault that it guards against, so that few seeds are enough.
AGAINST = {
    "no owner check": "stop",
    "no end marker": "duplicate",
    "a second end overwrites the first": "ambiguous_commits",
    "deleted when one group has acknowledged": "kill_postgres",
    "acknowledged before the commit": "kill_recorder",
    "no reconciler": "flush",
    "a reconciler that does not wait for the recorder": "slow_postgres",
    "no lease thread": "kill_worker",
    "nobody takes over from the dead": "kill_worker",
    "acknowledged although not written": "kill_postgres",
}


@pytest.mark.parametrize("name", AGAINST)
def test_without_its_guard_some_seed_is_red(name, tmp_path):
    """With it none is: test_simulation.py."""
    take_away(GUARDS[name], tmp_path)

    ran = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seeds", str(SEEDS), "--fault", AGAINST[name]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "again: python -m tests.simulation --seed" in ran.stdout, (
        ran.stdout + ran.stderr[-2_000:]
    )
