"""The same scenario on a build without one of its guards: the verdict must turn red.

A checker that never failed is none.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.removal import Mutant, take_away
from tests.mutants.test_mutants import MUTANTS

OWN = {
    "nobody takes over from the dead": Mutant(
        "P5",
        "orchestrator/streams/consumer.py",
        "if found := await self._claim(free, known):",
        "if found := []:",
        "worker-kill",
    ),
    "acknowledged when it is read": Mutant(
        "P4",
        "orchestrator/services/recorder.py",
        "        self._small = 0 < len(deliveries) < SMALL\n",
        "        self._small = 0 < len(deliveries) < SMALL\n"
        "        await self.consumer.acknowledge(deliveries)\n",
        "recorder-kill",
    ),
    "acknowledged although not written": Mutant(
        "P4",
        "orchestrator/services/recorder.py",
        "                said = True\n",
        "                said = True\n                break\n",
        "postgres-cut",
    ),
    "a key that names no task": Mutant(
        "P1",
        "orchestrator/api/submitting.py",
        "            idempotency_key=body.idempotency_key,\n",
        "",
        "api-kill",
    ),
}
GUARDS = {**MUTANTS, **OWN}


def run_without(guard: str, arguments: Sequence[str]) -> int:
    """Run this program in a copy of the tree without the guard; its exit code."""
    with tempfile.TemporaryDirectory(prefix="aurora-faults-without-") as directory:
        copy = Path(directory)
        take_away(GUARDS[guard], copy)
        return subprocess.run(
            [sys.executable, "-m", "tests.faults", *arguments],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            check=False,
        ).returncode
