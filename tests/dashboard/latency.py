"""From a device's MQTT message to its row on a page that stands open in a browser."""

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from orchestrator.db import keys, schema
from orchestrator.db.session import Database
from orchestrator.embedded.ports import free_port
from orchestrator.embedded.postgres import EmbeddedPostgres
from orchestrator.embedded.valkey import EmbeddedValkey
from orchestrator.settings import Settings
from tests.dashboard.browser import WIDE, chromium
from tests.servers import Mosquitto
from tests.support import wait_until

ROOT = Path(__file__).parent.parent.parent
MAPPING = """[[mapping]]
name = "pressure"
topic = "plant/{pump}/pressure"
payload = "number"
device = "{pump}"
metric = "pressure"
when = "above"
threshold = 8
"""
# When each device's row came into the page, by the browser's clock, which is this machine's.
WATCH = """() => {
  window.seen = {};
  new MutationObserver(changes => changes.forEach(change => change.addedNodes.forEach(row => {
    const found = row.textContent.match(/reading-[0-9]+/);
    if (found && !(found[0] in window.seen)) window.seen[found[0]] = Date.now();
  }))).observe(document.querySelector("tbody[data-news]"), {childList: true});
}"""


async def measure(asked: argparse.Namespace) -> None:
    """Publish and watch; print the percentiles and, as JSON, all of it."""
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory(prefix="aurora-latency-") as directory:
        async with _system(Path(directory)) as (url, key, broker), chromium() as browser:
            page = await (await browser.new_context(viewport=WIDE)).new_page()
            await page.goto(url)
            await page.fill("#key", key)
            await page.click("button[type=submit]")
            async with page.expect_response(lambda answer: "/live/alerts" in answer.url):
                await page.goto(f"{url}/alerts")
            await page.evaluate(WATCH)
            device = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
            device.connect("127.0.0.1", broker.port)
            device.loop_start()
            said = {}
            for number in range(asked.messages):
                name = f"reading-{number}"
                said[name] = time.time()
                device.publish(f"plant/{name}/pressure", "9.5", qos=1)
                await asyncio.sleep(rng.uniform(0.05, 0.45))
            # The browser keeps 200 rows; what was seen stays noted.
            await asyncio.sleep(5)
            seen = await page.evaluate("window.seen")
            device.loop_stop()
    took = sorted(1000 * (seen[name] / 1000 - at) for name, at in said.items() if name in seen)
    figures = {
        "messages": len(said), "shown": len(took), "load": os.getloadavg()[0],
        "p50_ms": round(statistics.median(took)), "p95_ms": round(took[int(0.95 * len(took))]),
        "max_ms": round(took[-1]), "seed": asked.seed,
    }  # fmt: skip
    print(json.dumps(figures))


@asynccontextmanager
async def _system(home: Path) -> AsyncIterator[tuple[str, str, Mosquitto]]:
    """`aurora up` with a broker: where the dashboard is, a key, and the broker."""
    valkey, postgres = EmbeddedValkey(home / "valkey"), EmbeddedPostgres(home / "postgres")
    (home / "broker").mkdir(mode=0o777)
    (home / "bridge.toml").write_text(MAPPING)
    broker = Mosquitto(home / "broker")
    port = free_port()
    settings = Settings(
        redis_url=valkey.start(), database_url=postgres.start(), lease=timedelta(seconds=15)
    )
    database = Database(settings.async_database_url)
    await asyncio.to_thread(broker.start)
    await schema.upgrade(database)
    _, key = await keys.create_key(database, "who watches", ["admin"])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orchestrator", "up", "--port", str(port), "--log-level", "warning",
        cwd=ROOT,
        env={
            **os.environ,
            "AURORA_REDIS_URL": settings.redis_url.get_secret_value(),
            "AURORA_DATABASE_URL": settings.database_url.get_secret_value(),
            "AURORA_MQTT_URL": broker.url, "AURORA_BRIDGE_MAPPINGS": str(home / "bridge.toml"),
        },
    )  # fmt: skip
    try:
        await wait_until(lambda: _listens(port), what="aurora up listens", timeout=60)
        yield f"http://127.0.0.1:{port}", key, broker
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has said why it would not start
            process.terminate()
        await process.wait()
        await database.close()
        await asyncio.to_thread(broker.stop)
        valkey.stop()
        postgres.stop()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
