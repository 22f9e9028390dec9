"""What attackers write is text on a terminal, too: nothing of it moves a cursor or turns a line."""

import asyncio
import os
import sys
from datetime import UTC, datetime

import pytest

from tests.dashboard.hostile import PAYLOADS, rows
from tests.dashboard.seed import sow


@pytest.mark.parametrize("output", ["table", "json", "jsonl"])
async def test_no_payload_reaches_the_terminal_as_it_is(settings, database, output):
    """Two hundred payloads in every field of alerts, tasks, letters and acts, in every list."""
    await sow(database, rows(datetime.now(UTC)))
    environment = os.environ | {
        "AURORA_REDIS_URL": settings.redis_url.get_secret_value(),
        "AURORA_DATABASE_URL": settings.database_url.get_secret_value(),
        "AURORA_PREFIX": settings.prefix,
        "PYTHONIOENCODING": "utf-8",
    }
    for noun in ("alerts", "tasks", "dead", "audit"):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "orchestrator", noun, "list", "-n", "1000", "-o", output,
            env=environment, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        printed, _ = await process.communicate()
        text = printed.decode()

        assert process.returncode == 0, noun
        assert len(text.splitlines()) > 1, noun
        strange = {each for each in text if not each.isprintable() and each != "\n"}
        assert strange == set(), noun
    assert len(PAYLOADS) == 200
