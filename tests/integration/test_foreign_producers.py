"""Producers that are not Python: what docs/alerts.md shows works as it stands."""

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from orchestrator.app import alerts, recorder, worker
from orchestrator.streams.asyncapi import VERSION, asyncapi
from orchestrator.streams.names import Keys
from tests.acceptance.test_promises import xadd
from tests.integration.test_spine import Shout, rows, running
from tests.support import wait_until

PAGE = (Path(__file__).parent.parent.parent / "docs" / "alerts.md").read_text()


def block(heading: str, language: str) -> str:
    part = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", part, re.DOTALL)[0]


async def test_redis_cli_writes_alerts(settings, database, streams):
    """The page's commands, word by word, over a bare socket: rows like any other."""
    commands = block("With redis-cli", "sh").strip().splitlines()
    assert len(commands) == 2
    async with running(settings, Shout, roles=(alerts,)):
        for command in commands:
            name, *words = shlex.split(command)
            assert name == "redis-cli"
            words[1] = words[1].replace("aurora:", f"{settings.prefix}:")
            reply = await asyncio.to_thread(xadd, settings.redis_url.get_secret_value(), *words)
            assert re.fullmatch(r"\d+-\d+", reply), reply

        async def stored() -> list[dict[str, Any]]:
            found = await rows(database, "SELECT * FROM alerts ORDER BY kind")
            return found if len(found) == 2 else []

        cps, network = await wait_until(stored, what="both alerts stored")

    assert (network["signature"], network["src_ip"]) == ("ET SCAN Nmap", "192.0.2.7")
    assert (cps["host"], cps["severity"]) == ("pump-3", "high")
    assert str(cps["id"]) == "7d9f2f0e-2f58-4c7e-9d3a-6a1b2c3d4e5f"


@pytest.fixture(scope="module")
def node_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Node finds the package `redis`, with AsyncAPI's own schemas beside it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("NOT TESTED with Node: no node or no npm here")
    folder = tmp_path_factory.mktemp("node")
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--prefer-offline", "redis",
         "@asyncapi/specs"],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"NOT TESTED with Node: npm install redis said {done.stderr[-300:]}")
    return folder


def test_the_streams_document_is_by_asyncapis_own_schema(node_client):
    """What its tools read."""
    found = node_client / "node_modules/@asyncapi/specs/schemas" / f"{VERSION}-without-$id.json"
    validator = Draft7Validator(json.loads(found.read_text()))
    document = asyncapi(Keys("aurora"), version="1")

    validator.validate(document)
    assert not validator.is_valid(document | {"chanels": {}})


async def test_a_node_program_writes_an_alert_and_a_task(settings, database, streams, node_client):
    """The page's program: the alert is stored, the task is run."""
    program = block("With Node", "js").replace("aurora:", f"{settings.prefix}:")
    (node_client / "producer.mjs").write_text(program)
    async with running(settings, Shout, roles=(worker, recorder, alerts)):
        node = await asyncio.create_subprocess_exec(
            "node", "producer.mjs", cwd=node_client, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "AURORA_REDIS_URL": settings.redis_url.get_secret_value()},
        )  # fmt: skip
        _, said = await asyncio.wait_for(node.communicate(), timeout=30)
        assert node.returncode == 0, said.decode()

        async def both() -> bool:
            (found,) = await rows(
                database,
                "SELECT (SELECT count(*) FROM alerts) AS a, (SELECT count(*) FROM results) AS r",
            )
            return bool(found["a"] and found["r"])

        await wait_until(both, what="the alert stored and the task run")

    (alert,) = await rows(database, "SELECT source, severity, signature FROM alerts")
    (result,) = await rows(database, "SELECT state, output FROM results")
    assert alert == {"source": "node", "severity": "high", "signature": "SSH brute force"}
    assert result == {"state": "succeeded", "output": {"text": "HELLO FROM NODE"}}
