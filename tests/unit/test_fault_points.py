"""The named points of fault runs: they exist, a process dies at one, and only there."""

import json
import signal
import subprocess
import sys
from functools import reduce
from importlib import import_module
from pathlib import Path

import pytest

from tests.faults.checks import Run, judge_run
from tests.faults.orders import Death, read_deaths
from tests.faults.points import POINTS, Order, Point

DELAY = (
    "import sys; from pathlib import Path; from tests.faults.points import Obedience;"
    "from orchestrator.retry import Retry; import tests.faults.points as points;"
    "points.POINTS = (points.Point('here', 'role', 'orchestrator.retry:Retry.delay_after'),);"
    "Obedience(Path(sys.argv[1]), Path(sys.argv[2])).watch('role');"
    "[print(Retry().delay_after(attempt), flush=True) for attempt in range(1, 4)]"
)


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_every_point_is_in_the_code(point: Point):
    """A function that was renamed would never be passed, and no run would die there."""
    module, _, path = point.target.partition(":")

    assert callable(reduce(getattr, path.split("."), import_module(module)))


@pytest.mark.parametrize(
    ("point", "code", "calls"), [("here", -signal.SIGKILL, 1), ("elsewhere", 0, 3)]
)
def test_a_process_dies_at_its_point_and_says_so_before(
    tmp_path: Path, point: str, code: int, calls: int
):
    """At the second passage, and nowhere else; what it wrote is what the checker asks for."""
    orders, deaths = tmp_path / "order", tmp_path / "deaths"
    orders.write_text(json.dumps({"number": 7, "point": point, "passage": 2}))

    ran = subprocess.run(
        [sys.executable, "-c", DELAY, orders, deaths], capture_output=True, text=True, check=False
    )

    assert (ran.returncode, len(ran.stdout.splitlines())) == (code, calls), ran.stderr
    assert [each.point for each in read_deaths(deaths).values()] == [point] * (code != 0)


@pytest.mark.parametrize(
    ("death", "code", "obeyed"),
    [
        (Death(0, "a", 10, 0.0), -signal.SIGKILL, True),
        (Death(0, "b", 10, 0.0), -signal.SIGKILL, False),  # at another point
        (Death(0, "a", 10, 0.0), 1, False),  # of something else
        (None, -signal.SIGKILL, False),  # never came by
    ],
)
def test_a_run_whose_process_did_not_die_at_its_point_proves_nothing(
    death: Death | None, code: int, *, obeyed: bool
):
    """Neither a death elsewhere nor an end of another kind counts."""
    found = judge_run(
        Run(
            asked=(), kills=[], orders=[Order(0, "a", 1)], deaths={0: death} if death else {},
            ends={10: code}, worker_deaths=0,
        )
    )  # fmt: skip

    assert found.good is obeyed
    assert found.points == ({"a": 1} if obeyed else {})
