"""The MQTT broker dies under readings, at times the bridge with it; each reading is there once."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator

from orchestrator.streams import bridges
from tests.faults.ground import Slot
from tests.faults.scenario import Noticed, Scenario, Scene
from tests.faults.servers import CannotRun
from tests.plant import Plant, sorted_numbers
from tests.servers import Mosquitto, NoMosquitto
from tests.support import wait_until

A_FAULT = 500  # readings said just before each death: 10,000 with the 20 of the default
BRIDGE_TOO = 0.25  # of the faults
CATCH_UP = 120.0  # seconds for the last of them to arrive
MAPPING = """[[mapping]]
name = "pressure"
topic = "plant/{site}/pressure"
value = "/bar"
occurred_at = "/at"
device = "{site}"
metric = "pressure"
when = "above"
threshold = 8
"""
MOMENTS = "SELECT extract(epoch FROM occurred_at) AS at FROM alerts WHERE source = 'mqtt'"


class MqttBroker(Scenario):
    name = "mqtt"
    breaks = "SIGKILL of the MQTT broker under 10,000 QoS 1 readings, at times of the bridge too"
    guards = ("the bridge's session ends with its connection",)
    tasks = 1_000
    faults = 20
    pause = (0.5, 1.5)
    lasts = 8.0
    workers = 1

    async def inject(self, scene: Scene) -> None:
        before, some = self._plant.confirmed, scene.rng.randrange(A_FAULT)
        self._plant.readings(A_FAULT)
        await wait_until(
            lambda: self._plant.confirmed >= before + some, what="some are confirmed", timeout=60
        )
        died = time.monotonic()
        await asyncio.to_thread(self._broker.kill)
        if scene.rng.random() < BRIDGE_TOO:
            scene.ground.kill(self._bridge)
            self._bridges_killed += 1
        await asyncio.sleep(scene.rng.uniform(0, 0.5))
        await asyncio.to_thread(self._broker.start)
        # What a killed broker had confirmed and not saved is its own loss; a device with a memory
        # says it again, and the bridge must know it for the same.
        self._said_again += self._plant.say_again(died)
        await wait_until(self._plant.all_confirmed, what="the broker has them", timeout=120)

    @contextlib.asynccontextmanager
    async def beside(self, scene: Scene) -> AsyncIterator[Noticed]:
        home = scene.ground.home / "mosquitto"
        home.mkdir()
        mappings = home / "bridge.toml"
        mappings.write_text(MAPPING)
        try:
            self._broker = Mosquitto(home)
        except NoMosquitto as why:
            raise CannotRun(str(why)) from why
        self._said_again = self._bridges_killed = 0
        noticed = Noticed()
        try:
            await asyncio.to_thread(self._broker.start)
            await scene.ground.add("alerts")
            self._bridge: Slot = await scene.ground.add(
                "bridge", AURORA_MQTT_URL=self._broker.url, AURORA_BRIDGE_MAPPINGS=str(mappings)
            )
            await wait_until(lambda: _connected(scene), what="the bridge connects", timeout=60)
            with Plant(self._broker.port, topic="plant/north/pressure") as self._plant:
                yield noticed
                await self._judge(scene, noticed)
        finally:
            await asyncio.to_thread(self._broker.stop)

    async def _judge(self, scene: Scene, noticed: Noticed) -> None:
        deadline = time.monotonic() + CATCH_UP
        expected = set(self._plant.said)
        found: list[int] = []
        while time.monotonic() < deadline and not expected <= set(found):
            found = sorted_numbers([float(row.at) for row in await scene.ground.rows(MOMENTS)])
            await asyncio.sleep(0.5)
        missing = expected - set(found)
        twice = [number for number, count in Counter(found).items() if count > 1]
        noticed.wrong = {
            "readings lost": [str(each) for each in sorted(missing)],
            "readings twice": [str(each) for each in twice],
        }
        noticed.told = {
            "readings said": len(expected),
            "said again after a death": self._said_again,
            "alerts": len(found),
            "bridges killed": self._bridges_killed,
        }


async def _connected(scene: Scene) -> bool:
    return any(each.connected for each in await bridges.read(scene.ground.parts.streams))
