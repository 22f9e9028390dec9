"""Roles in one real process, as tests/acceptance/role.py, that die at a named point when told to.

`python -m tests.faults.role worker`, settings and files by environment; `ground.py` starts it.
"""

import logging
import os
import sys
from pathlib import Path

from orchestrator.app import run_roles
from orchestrator.cli.opening import run_long
from orchestrator.settings import load_settings
from tests.faults.points import DEATHS, ORDERS, Obedience

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
obedience = Obedience(Path(os.environ[ORDERS]), Path(os.environ[DEATHS]))
for role in sys.argv[1:]:
    obedience.watch(role)
run_long(run_roles(load_settings(dict(os.environ)), sys.argv[1:]))
