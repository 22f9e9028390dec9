"""Roles in one process as the command line runs them, held at the gate until the clock starts.

`python -m tests.benchmarks.role worker`, settings by environment.
"""

import os
import sys

from orchestrator.app import run_roles
from orchestrator.cli import logs, opening
from orchestrator.parts import Parts
from orchestrator.settings import load_settings
from tests.benchmarks.gate import at_gate


async def ready(_: Parts) -> None:
    """Everything is loaded and every server was asked."""
    await at_gate()


if __name__ == "__main__":
    logs.set_up("warning")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AURORA_TEST_")}
    opening.run_long(run_roles(load_settings(environment), sys.argv[1:], ready=ready))
