"""Roles in one real process: `python -m tests.acceptance.role worker`, settings by environment."""

import asyncio
import logging
import os
import sys

from orchestrator.app import run_roles
from orchestrator.settings import load_settings

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
asyncio.run(run_roles(load_settings(dict(os.environ)), sys.argv[1:]))
