"""A thousand seeds of the real code in virtual time; a seed that fails runs again the same.

In processes of its own: what a simulated SIGKILL leaves open is open for good.
"""

import os
import subprocess
import sys

import pytest


def simulation(*arguments: str, hashed_by: str = "0") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        env={**os.environ, "PYTHONHASHSEED": hashed_by},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(900)  # a minute on two quiet cores
def test_no_seed_loses_doubles_or_overwrites_anything():
    """P1 to P7 under kills, zombies, losses, lost replies, wrong clocks and ambiguous commits."""
    ran = simulation("--seeds", "1000")

    assert ran.returncode == 0, ran.stdout + ran.stderr[-2_000:]
    assert "1000 seeds" in ran.stdout


@pytest.mark.parametrize("seed", ["3", "20", "46"])
def test_a_seed_runs_again_the_same(seed):
    """Every command that reached Redis, at its moment; also where strings hash otherwise."""
    first, again = (simulation("--seed", seed, hashed_by=each) for each in "12")

    assert "trace" in first.stdout, first.stderr[-2_000:]
    assert again.stdout == first.stdout
