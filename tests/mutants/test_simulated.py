"""Teeth of the simulation: a guard is taken away in a copy of the tree, and some seed goes red."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.faults.teeth import GUARDS
from tests.mutants.removal import take_away

pytestmark = pytest.mark.mutants

SEEDS = 20
# A guard, and the faults that it guards against, so that few seeds are enough. The owner's also
# where a group was destroyed and who owned what before is forgotten: since then it holds again.
AGAINST = {
    "no owner check": "stop destroy_group",
    "no end marker": "duplicate",
    "a second end overwrites the first": "ambiguous_commits",
    "deleted when one group has acknowledged": "kill_postgres",
    "acknowledged before the commit": "kill_recorder",
    "no reconciler": "flush",
    "a reconciler that does not wait for the recorder": "cut",
    "no lease thread": "kill_worker",
    "nobody takes over from the dead": "kill_worker",
    "acknowledged although not written": "kill_postgres",
}


def without(name: str, servers: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run seeds in a copy of the tree without the guard."""
    with tempfile.TemporaryDirectory(prefix="aurora-mutant-") as directory:
        take_away(GUARDS[name], Path(directory))
        faults = [part for each in AGAINST[name].split() for part in ("--fault", each)]
        return subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seeds", str(SEEDS), *faults],
            cwd=directory,
            env={**os.environ, **servers, "PYTHONPATH": directory},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.mark.parametrize("name", AGAINST)
def test_without_its_guard_some_seed_is_red(name, ran):
    """With it none is: test_simulation.py."""
    again = "again: python -m tests.simulation --seed"
    assert again in ran.stdout, f"{name}: survived\n{ran.stdout}{ran.stderr[-2_000:]}"
