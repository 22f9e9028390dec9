"""`python -m tests.analyst [--alerts N] [--capture FILE] [--json FILE]`: real alerts, a real model.

Sends alerts through triage and then through `analyst` on the local model, holds every answer to the
schema, and compares the tokens wherever one looks with the model server's own count. Starts its own
servers, its own model among them; 100 alerts take ten minutes on two quiet cores.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
from prometheus_client.parser import text_string_to_metric_families

from agents.analyst import Analyst, Assessment, Evidence
from orchestrator import Alert
from orchestrator.api.app import create_app
from orchestrator.app import alerts, api_parts, recorder, worker
from orchestrator.client import set_submitter
from orchestrator.db import schema
from orchestrator.db.keys import Scope, create_key
from orchestrator.embedded.postgres import EmbeddedPostgres
from orchestrator.embedded.valkey import EmbeddedValkey
from orchestrator.parts import Parts
from orchestrator.runtime.service import run_services
from orchestrator.settings import load_settings
from orchestrator.streams.names import ALERTS
from orchestrator.task import new_id
from tests.support import wait_until

SAMPLE = Path(__file__).parents[1] / "orchestrator" / "cli" / "samples" / "alerts.jsonl"
HOURS = 3 * 3600.0  # seconds: a bound, and no promise


@dataclass(frozen=True, slots=True)
class Tokens:
    """What somebody says was read and written."""

    input: int
    output: int
    cached: int


def chosen(capture: Path, count: int) -> list[bytes]:
    """So many alerts of a capture, spread over it."""
    lines = [line for line in capture.read_bytes().splitlines() if b'"alert"' in line]
    return [lines[index * len(lines) // count] for index in range(min(count, len(lines)))]


async def triaged(parts: Parts, raw: Sequence[bytes]) -> list[Alert]:
    """The alerts, as the record has them, each with its triage."""
    await parts.publisher.publish_alerts([(ALERTS, new_id(), each) for each in raw])

    async def done() -> bool:
        (row,) = await parts.read("SELECT count(*) AS n FROM results WHERE agent = 'triage'", {})
        return bool(row["n"] >= len(raw))

    await wait_until(done, what="every alert triaged", timeout=60)
    rows = await parts.read("SELECT * FROM alerts ORDER BY occurred_at, id", {})
    return [Alert.model_validate({**row, "id": str(row["id"])}) for row in rows]


async def assessed(found: Sequence[Alert], *, timeout: float) -> list[Assessment]:
    """Each alert's assessment, valid against its schema, once it is in the record."""
    handles = [await Analyst.delay(each) for each in found]
    results = []
    for number, (alert, handle) in enumerate(zip(found, handles, strict=True), 1):
        result = await handle.get(timeout=timeout, recorded=True)
        results.append(result)
        jsonschema.validate(result.model_dump(mode="json"), Assessment.model_json_schema())
        assert result.alert_id == alert.id
        assert set(result.evidence) <= set(Evidence)
        if number % 10 == 0:
            print(f"{number} of {len(found)} assessed", file=sys.stderr, flush=True)
    return results


async def tokens(parts: Parts) -> dict[str, Tokens]:
    """What the model's server has counted, and what each place of ours says."""
    sums = {
        "model_calls": "SELECT {} FROM model_calls",
        "results.usage": "SELECT {} FROM results r,"
        " jsonb_to_record(r.usage) AS u(input_tokens bigint, output_tokens bigint,"
        " cached_tokens bigint)",
        "usage_totals": "SELECT {} FROM usage_totals",
    }
    names = ("input_tokens", "output_tokens", "cached_tokens")
    columns = ", ".join(f"coalesce(sum({each}), 0) AS {each}" for each in names)
    found = {"the model's server": await _counted(await parts.models.local())}
    for place, sql in sums.items():
        (row,) = await parts.read(sql.format(columns), {})
        found[place] = Tokens(*(int(row[each]) for each in names))
    return found | await _told(parts)


async def _told(parts: Parts) -> dict[str, Tokens]:
    """What the API says, under /api/v1/usage and /metrics."""
    _, key = await create_key(parts.database, "figures", [Scope.ADMIN], actor="figures")
    transport = httpx2.ASGITransport(app=create_app(api_parts(parts)))
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://figures", headers=headers
    ) as client:
        total = (await client.get("/api/v1/usage")).raise_for_status().json()["total"]
        metrics = (await client.get("/metrics")).raise_for_status().text
    counted: Counter[str] = Counter()
    for family in text_string_to_metric_families(metrics):
        for each in family.samples:
            if each.name == "aurora_model_tokens_total":
                counted[each.labels["type"]] += int(each.value)
    return {
        "/api/v1/usage": Tokens(
            total["input_tokens"], total["output_tokens"], total["cached_tokens"]
        ),
        "/metrics": Tokens(counted["input"], counted["output"], counted["cached"]),
    }


async def _counted(url: str) -> Tokens:
    async with httpx2.AsyncClient(timeout=30) as client:
        answer = await client.get(url.removesuffix("/v1") + "/metrics")
    pairs = [line.split() for line in answer.text.splitlines() if line[:1] != "#"]
    found = {name.removeprefix("llamacpp:"): int(float(value)) for name, value in pairs}
    cached = found["prompt_tokens_cached_total"]
    return Tokens(found["prompt_tokens_total"] + cached, found["tokens_predicted_total"], cached)


async def measure(home: Path, raw: Sequence[bytes]) -> dict[str, Any]:
    """The whole run on servers of its own."""
    with EmbeddedValkey(home / "valkey") as valkey, EmbeddedPostgres(home / "postgres") as postgres:
        settings = load_settings(
            {}, redis_url=valkey.start(), database_url=postgres.start(), agents=("./agents",),
            model="local", locks=home / "locks", concurrency=8,
            # The server counts what it wrote for somebody who had given up; nobody else can.
            model_timeout=timedelta(minutes=20),
        )  # fmt: skip
        parts = Parts(settings, role="figures")
        await schema.upgrade(parts.database)
        await parts.streams.ensure_all_groups()
        groups = [await role(parts) for role in (alerts, worker, recorder)]
        stopped = asyncio.Event()
        work = asyncio.create_task(run_services(groups, stopped=stopped))
        set_submitter(parts.submitter)
        try:
            found = await triaged(parts, raw)
            began = time.monotonic()
            results = await assessed(found, timeout=HOURS)
            seconds = time.monotonic() - began
            return await _figures(parts, results, seconds)
        finally:
            set_submitter(None)
            stopped.set()
            await work
            await parts.close()


async def _figures(parts: Parts, results: list[Assessment], seconds: float) -> dict[str, Any]:
    (calls,) = await parts.read(
        "SELECT count(*) AS calls, count(DISTINCT task_id) AS tasks,"
        " percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS median FROM model_calls", {},
    )  # fmt: skip
    (agreed,) = await parts.read(
        "SELECT count(*) FILTER (WHERE r.output->>'severity' = t.output->>'severity') AS severity,"
        " count(*) FILTER (WHERE r.output->>'action' = t.output->>'action') AS action"
        " FROM results r JOIN results t ON t.agent = 'triage'"
        " AND t.output->>'alert_id' = r.output->>'alert_id' WHERE r.agent = 'analyst'", {},
    )  # fmt: skip
    return {
        "valid answers": len(results),
        "calls of the model": calls["calls"],
        "seconds": round(seconds, 1),
        "seconds a call, median": round(calls["median"], 2),
        "severities": Counter(each.severity.value for each in results),
        "actions": Counter(each.action.value for each in results),
        "the same severity as triage": agreed["severity"],
        "the same action as triage": agreed["action"],
        "tokens": {
            place: [each.input, each.output, each.cached]
            for place, each in (await tokens(parts)).items()
        },
    }


def main() -> int:
    """Print the figures; 1 where the counts differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.analyst", description=__doc__)
    parser.add_argument("--alerts", type=int, default=100)
    parser.add_argument("--capture", type=Path, help="EVE JSON lines; else AURORA_TEST_EVE")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    given = parser.parse_args()
    capture = given.capture or Path(os.environ.get("AURORA_TEST_EVE", SAMPLE))
    home = Path(tempfile.mkdtemp(prefix="aurora-analyst-"))
    home.chmod(0o711)  # Postgres, when we are root, runs as somebody else and passes through
    try:
        figures = asyncio.run(measure(home, chosen(capture, given.alerts)))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    shown = json.dumps(figures, indent=2)
    print(shown)
    if given.json:
        given.json.write_text(shown + "\n")
    return 0 if len({tuple(each) for each in figures["tokens"].values()}) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
