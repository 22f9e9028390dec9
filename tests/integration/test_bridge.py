"""The MQTT bridge against a real Mosquitto: what is confirmed is one alert, whatever breaks."""

import asyncio
import base64
import hashlib
import logging
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from orchestrator import mqtt
from orchestrator.app import alerts, bridge, open_broker, recorder
from orchestrator.cli import doctor
from orchestrator.embedded.ports import free_port
from orchestrator.errors import BrokerRefused, ConfigurationError, Unavailable
from orchestrator.parts import Parts
from orchestrator.streams import bridges
from tests.certificates import make
from tests.faults.lines import Lines
from tests.integration.test_spine import rows, running
from tests.plant import Plant, sorted_numbers
from tests.servers import Mosquitto, NoMosquitto
from tests.support import wait_until

MAPPING = """
[[mapping]]
name = "pressure"
topic = "{plant}/{{site}}/pressure"
value = "/bar"
occurred_at = "/at"
device = "{{site}}"
metric = "pressure"
when = "above"
threshold = 8

[[mapping]]
name = "valve"
topic = "{plant}/{{site}}/valve"
payload = "text"
device = "{{site}}"
metric = "valve"
when = "changed-to"
target = "open"
severity = "high"
"""


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory) -> Iterator[Mosquitto]:
    """One broker for this file's tests; nobody else pays for it."""
    yield from _broker(tmp_path_factory.mktemp("mosquitto"))


def _broker(home: Path, config: str = "") -> Iterator[Mosquitto]:
    try:
        found = Mosquitto(home, config=config)
    except NoMosquitto as why:
        pytest.skip(f"NOT RUN: {why}")
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture
def plant() -> str:
    """The first level of this test's topics."""
    return f"plant-{secrets.token_hex(4)}"


@pytest.fixture
def with_broker(settings, mosquitto, plant, tmp_path):
    """Settings with a broker, a mapping and a client id of this test's own."""
    file = tmp_path / "bridge.toml"
    file.write_text(MAPPING.format(plant=plant))
    return settings.model_copy(
        update={
            "mqtt_url": SecretStr(mosquitto.url),
            "mqtt_client_id": plant,
            "bridge_mappings": str(file),
        }
    )


def bridging(settings):
    return running(settings, roles=(bridge, alerts))


async def connected(streams) -> bool:
    return any(each.connected for each in await bridges.read(streams))


def said(caplog, event: str) -> bool:
    return any(getattr(each, "event", "") == event for each in caplog.records)


async def moments(database) -> list[float]:
    found = await rows(database, "SELECT extract(epoch FROM occurred_at) AS at FROM alerts")
    return [float(each["at"]) for each in found]


async def heard_last(database, number: int) -> bool:
    """Readings come in order, so whatever is not there now is lost."""
    return number in sorted_numbers(await moments(database))


async def counted(database) -> int:
    (found,) = await rows(database, "SELECT count(*) AS n FROM alerts")
    return found["n"]


async def test_a_reading_becomes_an_alert(with_broker, mosquitto, streams, database):
    """QoS 1 message -> row, in the device form; a reading within bounds is counted, no more."""
    plant = with_broker.mqtt_client_id
    async with bridging(with_broker):
        await wait_until(lambda: connected(streams), what="connected")
        with Plant(mosquitto.port, topic=f"{plant}/north/pressure") as device:
            device.readings(1, bar=7.0)
            device.readings(1, bar=9.5)
            for state in (b"open", b"open", b"closed", b"open"):
                device.say(state, topic=f"{plant}/north/valve")
            await wait_until(lambda: counted(database), what="an alert")
            await wait_until(device.all_confirmed, what="confirmed")

        async def figures():
            (found,) = await bridges.read(streams)
            return found.messages if sum(found.messages.values()) >= 6 else None

        told = await wait_until(figures, what="figures")
    found = await rows(database, "SELECT * FROM alerts ORDER BY signature")

    assert [(each["host"], each["severity"], each["signature"]) for each in found] == [
        ("north", "medium", "pressure above 8"),
        ("north", "high", "valve changed to open"),
        ("north", "high", "valve changed to open"),
    ]
    assert found[0]["source"] == "mqtt"
    assert told == {
        ("pressure", "alert"): 1, ("pressure", "unremarkable"): 1,
        ("valve", "alert"): 2, ("valve", "unremarkable"): 2,
    }  # fmt: skip


async def test_the_doctor_looks_at_broker_and_bridge(with_broker, streams):
    """Under a name of its own, so that a bridge that runs keeps its session."""
    async with running(with_broker, roles=(bridge,)) as parts:
        await wait_until(lambda: connected(streams), what="connected")
        well = await doctor._bridge(parts)
        assert await connected(streams)
    parts = Parts(with_broker, role="doctor")
    nobody = await doctor._bridge(parts)
    await parts.close()

    assert well.startswith("2 mappings; the broker at 127.0.0.1")
    assert well.endswith("lets us in")
    assert nobody.endswith("no bridge is connected; start: aurora bridge")


async def test_what_is_said_while_the_bridge_is_away_is_there_on_its_return(
    with_broker, mosquitto, streams, database
):
    """P4: the session is the broker's to keep: 500 readings, each once."""
    plant = with_broker.mqtt_client_id
    async with bridging(with_broker):
        await wait_until(lambda: connected(streams), what="connected")
    with Plant(mosquitto.port, topic=f"{plant}/north/pressure") as device:
        device.readings(500)
        await wait_until(device.all_confirmed, what="the broker has them")
        async with bridging(with_broker):
            await wait_until(lambda: connected(streams), what="connected again")
            device.readings(1)
            await wait_until(lambda: heard_last(database, 500), what="the last", timeout=30)
    assert sorted_numbers(await moments(database)) == list(range(501))


async def test_a_broker_that_sends_more_than_fits_loses_nothing(
    with_broker, mosquitto, streams, database, monkeypatch
):
    """P8: what is not taken was not acknowledged, and comes again; Mosquitto 2.0 does send so."""
    monkeypatch.setattr(mqtt, "MOST_HELD", 100 * mqtt.EACH)
    plant = with_broker.mqtt_client_id
    async with bridging(with_broker):
        await wait_until(lambda: connected(streams), what="connected")
    with Plant(mosquitto.port, topic=f"{plant}/north/pressure") as device:
        device.readings(400)
        await wait_until(device.all_confirmed, what="the broker has them")
    async with bridging(with_broker):

        async def all_there():
            return await counted(database) >= 400

        await wait_until(all_there, what="400 alerts", timeout=40)
    assert sorted_numbers(await moments(database)) == list(range(400))


async def test_a_broker_that_is_killed_again_and_again_loses_nothing(
    with_broker, mosquitto, streams, database
):
    """Five SIGKILLs under 1,500 readings; what the devices say twice is one alert."""
    plant = with_broker.mqtt_client_id
    async with bridging(with_broker):
        await wait_until(lambda: connected(streams), what="connected")
        with Plant(mosquitto.port, topic=f"{plant}/north/pressure") as device:
            for _ in range(5):
                device.readings(300)
                died = time.monotonic()
                await asyncio.to_thread(mosquitto.kill)
                await asyncio.to_thread(mosquitto.start)
                device.say_again(died)
            await wait_until(device.all_confirmed, what="the broker has them", timeout=60)

            async def all_there():
                return len(set(await moments(database))) >= 1_500

            await wait_until(all_there, what="1,500 alerts", timeout=60)
    assert sorted_numbers(await moments(database)) == list(range(1_500))


async def test_nothing_is_acknowledged_while_redis_is_away(
    with_broker, mosquitto, streams, database, servers
):
    """P4: a bridge that ends then has lost nothing; the broker still has it all."""
    plant = with_broker.mqtt_client_id
    lines = Lines()
    await lines.start()
    target = urlsplit(servers.redis_url).port
    port = await lines.lay("redis", "redis", target)
    through = with_broker.model_copy(update={"redis_url": SecretStr(f"redis://127.0.0.1:{port}/0")})
    with Plant(mosquitto.port, topic=f"{plant}/north/pressure") as device:
        async with running(through, roles=(bridge,)):
            await wait_until(lambda: connected(streams), what="connected")
            await lines.lead("redis", free_port())
            await lines.cut_off("redis")
            device.readings(50)
            await wait_until(device.all_confirmed, what="the broker has them")
        await lines.stop()
        device.readings(1)
        async with bridging(with_broker):
            await wait_until(lambda: heard_last(database, 50), what="the last")
    assert sorted_numbers(await moments(database)) == list(range(51))


async def test_nothing_is_acknowledged_while_redis_is_full(
    with_broker, mosquitto, streams, database, caplog
):
    """P8: over the limit that refuses submissions the broker keeps the messages."""
    plant = with_broker.mqtt_client_id
    caplog.set_level(logging.WARNING)
    async with bridging(with_broker) as parts:
        await wait_until(lambda: connected(streams), what="connected")
        limit, parts.room.max_backlog = parts.room.max_backlog, 0
        with Plant(mosquitto.port, topic=f"{plant}/north/pressure") as device:
            device.readings(20)
            await wait_until(
                lambda: any(
                    getattr(each, "event", "") == "bridge.waits" for each in caplog.records
                ),
                what="it waits",
            )
            assert await streams.commands.xlen(streams.keys.prefix + ":cps:alerts") == 0
            parts.room.max_backlog = limit

            async def all_there():
                return await counted(database) >= 20

            await wait_until(all_there, what="20 alerts")
    assert sorted_numbers(await moments(database)) == list(range(20))


async def test_hostile_messages_are_set_aside_and_told(with_broker, mosquitto, streams, database):
    """Each with its reason in the audit, a flood as a number; the good one comes through."""
    plant = with_broker.mqtt_client_id
    hostile = [b"", b"\xff\xfe", b"[" * 5_000, b'{"bar": "<script>"}', b"x" * 100_000]
    async with running(with_broker, roles=(bridge, alerts, recorder)):
        await wait_until(lambda: connected(streams), what="connected")
        with Plant(mosquitto.port, topic=f"{plant}/{{value.__class__}}/pressure") as device:
            for each in hostile:
                device.say(each)
            for _ in range(100):
                device.say(b"garbage")
            device.readings(1)
            await wait_until(lambda: counted(database), what="the good one")
            await wait_until(device.all_confirmed, what="confirmed")
    async with running(with_broker, roles=(recorder,)):
        sql = "SELECT * FROM audit_events WHERE action = 'mqtt.set_aside' ORDER BY at"

        async def told():
            found = await rows(database, sql)
            return found if any(each["object_type"] == "bridge" for each in found) else None

        found = await wait_until(told, what="the number of the rest")
    one_by_one = [each["detail"] for each in found if each["object_type"] == "topic"]
    rest = sum(each["detail"]["messages"] for each in found if each["object_type"] == "bridge")

    assert len(one_by_one) + rest == 105
    assert len(one_by_one) < 50
    assert "not JSON" in one_by_one[0]["reason"]
    assert "at most 65536" in one_by_one[4]["reason"]
    assert len(one_by_one[4]["payload"]) == 1_024
    (alert,) = await rows(database, "SELECT host FROM alerts")
    assert alert["host"] == "{value.__class__}"


async def test_retained_values_are_heard_once(with_broker, mosquitto, streams, database):
    """A flood at subscribing is the same alerts each time, also without a session."""
    plant = with_broker.mqtt_client_id
    with Plant(mosquitto.port, topic="") as device:
        for number in range(150):
            topic = f"{plant}/s{number}/pressure"
            device.say(b'{"bar": 9}', topic=topic, retain=True)
        await wait_until(device.all_confirmed, what="retained", timeout=30)
    for client in ("first", "second"):
        again = with_broker.model_copy(update={"mqtt_client_id": f"{plant}-{client}"})
        async with bridging(again):

            async def heard(client=client):
                found = {each.client_id: each for each in await bridges.read(streams)}
                mine = found.get(f"{plant}-{client}")
                return mine is not None and mine.messages.get(("pressure", "alert"), 0) >= 150

            await wait_until(heard, what="all heard", timeout=30)

            async def stored():
                return await streams.commands.xlen(f"{streams.keys.prefix}:cps:alerts") >= 150

            await wait_until(stored, what="published")
    async with running(with_broker, roles=(alerts,)):

        async def all_there():
            return await counted(database) >= 150

        await wait_until(all_there, what="150 alerts")
    assert await counted(database) == 150


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    """A CA, a certificate of 127.0.0.1 by it, one of another host, and a CA nobody knows."""
    home = tmp_path_factory.mktemp("certificates")
    make(home)
    return home


TLS = """listener {port}
cafile {seen}/ca.pem
certfile {seen}/server.pem
keyfile {seen}/server.key
allow_anonymous false
password_file {seen}/passwords
"""


@pytest.fixture(scope="module")
def secured(certificates) -> Iterator[Mosquitto]:
    """A broker that wants a password and has a certificate."""
    # As `mosquitto_passwd -H sha512` writes it.
    salt = b"twelve bytes"
    digest = hashlib.sha512(b"secret" + salt).digest()
    hashed = f"$6${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
    (certificates / "passwords").write_text(f"operator:{hashed}\n")
    yield from _broker(certificates, TLS)


@pytest.fixture
def trusted(settings, secured, certificates, tmp_path):
    """Settings with which that broker is trusted, and trusts us."""
    file = tmp_path / "bridge.toml"
    file.write_text(MAPPING.format(plant="plant"))
    return settings.model_copy(
        update={
            "mqtt_url": SecretStr(f"mqtts://operator:secret@127.0.0.1:{secured.port}"),
            "mqtt_ca": str(certificates / "ca.pem"),
            "bridge_mappings": str(file),
        }
    )


async def _look(settings) -> None:
    connection = await open_broker(settings, looking=True).connect(["plant/#"])
    await connection.close()


def _with(settings, old: str, new: str):
    url = settings.mqtt_url.get_secret_value()
    assert old in url
    return settings.model_copy(update={"mqtt_url": SecretStr(url.replace(old, new))})


async def test_tls_with_ones_own_ca_and_a_password(trusted):
    """What is right is let in."""
    await _look(trusted)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (":secret", ":wrong", "check the user and password"),
        ("operator", "nobody", "check the user and password"),
        ("127.0.0.1", "localhost", "is not to be trusted"),
    ],
)
async def test_a_wrong_login_or_host_is_refused(trusted, old, new, says):
    """Said without the password."""
    with pytest.raises(BrokerRefused, match=says) as caught:
        await _look(_with(trusted, old, new))
    assert "secret" not in str(caught.value)
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize("ca", ["other-ca.pem", None])
async def test_a_certificate_of_another_ca_is_refused(trusted, certificates, ca):
    """There is no setting that would let it pass."""
    path = str(certificates / ca) if ca else None
    with pytest.raises(BrokerRefused, match="is not to be trusted"):
        await _look(trusted.model_copy(update={"mqtt_ca": path}))


@pytest.fixture
def mutual(tmp_path) -> Iterator[Mosquitto]:
    """A broker that wants a certificate of ours."""
    make(tmp_path)
    yield from _broker(
        tmp_path,
        "listener {port}\ncafile {seen}/ca.pem\ncertfile {seen}/server.pem\n"
        "keyfile {seen}/server.key\nrequire_certificate true\nallow_anonymous true\n",
    )


async def test_a_certificate_of_ours_lets_us_in(settings, mutual):
    """Without it, or with one whose key is another's, we are not."""
    home = mutual.home
    ours = settings.model_copy(
        update={
            "mqtt_url": SecretStr(f"mqtts://127.0.0.1:{mutual.port}"),
            "mqtt_ca": str(home / "ca.pem"),
            "mqtt_certificate": str(home / "client.pem"),
            "mqtt_key": str(home / "client.key"),
        }
    )

    await _look(ours)
    with pytest.raises(Unavailable):
        await _look(ours.model_copy(update={"mqtt_certificate": None, "mqtt_key": None}))
    with pytest.raises(ConfigurationError, match="fit together"):
        await _look(ours.model_copy(update={"mqtt_key": str(home / "server.key")}))


async def test_a_login_that_is_refused_takes_nobody_down(trusted, streams, caplog):
    """The roles beside the bridge go on, and the log says what to put right."""
    caplog.set_level(logging.ERROR)
    async with running(_with(trusted, ":secret", ":wrong"), roles=(bridge, alerts)) as parts:
        await wait_until(lambda: said(caplog, "bridge.refused"), what="said")
        await parts.streams.check_server()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"mqtt_url": None}, "set AURORA_MQTT_URL"),
        ({"mqtt_url": SecretStr("mqtts://h"), "mqtt_ca": "/no/such.pem"}, "AURORA_MQTT_CA: /no"),
        ({"mqtt_url": SecretStr("mqtt://h:99999999")}, "the port is no number"),
        ({"mqtt_url": SecretStr("mqtt://")}, "host"),
    ],
)
async def test_settings_that_are_wrong_are_said_before_anything_runs(settings, fields, says):
    with pytest.raises(ConfigurationError, match=says):
        open_broker(settings.model_copy(update=fields))
