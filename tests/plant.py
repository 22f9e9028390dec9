"""A plant's devices: publishes readings with QoS 1, and again what a dead broker may have lost."""

import itertools
import json
import queue
import time
from collections.abc import Iterable
from typing import Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

FORGETS = 1.0  # seconds before its death of which a killed Mosquitto may have saved nothing


class Plant:
    """One device with a memory. Its connection is the library's, which comes back by itself."""

    def __init__(self, port: int, *, topic: str) -> None:
        self.topic = topic
        self.said: list[int] = []
        self._numbers = itertools.count()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"plant-{topic}", protocol=paho.MQTTv5
        )
        self._client.on_publish = self._on_publish
        self._client.reconnect_delay_set(0.05, 0.5)
        self._port = port
        # Filled by the library's thread: under a lock of ours it and `publish` would wait for each
        # other, since it calls us under its own.
        self._arrived: queue.SimpleQueue[tuple[int, float]] = queue.SimpleQueue()
        self._waiting: dict[int, bytes] = {}
        self._confirmed: list[tuple[float, bytes]] = []

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def readings(self, count: int, *, bar: float = 9.0) -> None:
        """So many new ones, each with its number and, by it, its time."""
        for number in itertools.islice(self._numbers, count):
            self.said.append(number)
            self.say(json.dumps({"bar": bar, "at": 1_790_000_000 + number}).encode())

    def say(self, payload: bytes, *, topic: str | None = None, retain: bool = False) -> None:
        """One message; on its way until the broker has it."""
        self._settle()
        sent = self._client.publish(topic or self.topic, payload, qos=1, retain=retain)
        self._waiting[sent.mid] = payload

    def say_again(self, since: float) -> int:
        """What was confirmed after that moment (monotonic), as a device with a memory would."""
        self._settle()
        again = [payload for at, payload in self._confirmed if at >= since - FORGETS]
        for payload in again:
            self.say(payload)
        return len(again)

    @property
    def confirmed(self) -> int:
        """How many messages the broker has taken."""
        self._settle()
        return len(self._confirmed)

    def all_confirmed(self) -> bool:
        """Whether the broker has taken everything."""
        self._settle()
        return not self._waiting

    def _on_publish(self, _: object, __: object, mid: int, ___: object, ____: object) -> None:
        self._arrived.put((mid, time.monotonic()))

    def _settle(self) -> None:
        while not self._arrived.empty():
            mid, at = self._arrived.get()
            self._confirmed.append((at, self._waiting.pop(mid)))


def sorted_numbers(moments: Iterable[float]) -> list[int]:
    """The numbers of readings, by their times."""
    return sorted(round(each) - 1_790_000_000 for each in moments)
