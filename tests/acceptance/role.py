"""Roles in one real process: `python -m tests.acceptance.role worker`, settings by environment."""

import logging
import os
import sys

from orchestrator.app import run_roles
from orchestrator.cli.opening import run_long
from orchestrator.settings import load_settings

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
run_long(run_roles(load_settings(dict(os.environ)), sys.argv[1:]))
