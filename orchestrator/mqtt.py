"""Connections to an MQTT 5 broker, whose messages are acknowledged when we say so and not before.

The bridge's only; nothing else imports paho. Its network loop runs in a thread of its own, so that
the broker hears from us however busy the process is; what it brings is handed to the event loop.
"""

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from orchestrator.errors import BrokerRefused, ConfigurationError, Unavailable
from orchestrator.reading import Heard

logger = logging.getLogger("aurora.mqtt")

# MQTT's receive maximum: what the broker may send before we acknowledge. One write to Redis holds
# them all.
IN_HAND = 100
# Not every broker keeps to it: Mosquitto 2.0.11 sends its whole queue once it has more than that.
# Beyond so many bytes nothing is taken; it was not acknowledged, so it comes again.
MOST_HELD = 32 * 1024 * 1024
EACH = 500  # bytes that a message takes beside topic and payload
LARGEST_PACKET = 1024 * 1024 + 64 * 1024  # bytes; the largest payload that can be set, and a topic
# Seconds of silence after which the broker is asked whether it lives; the library also gives a TLS
# handshake as many, which our own stop would have to wait for.
KEEPALIVE = 15
PATIENCE = 10.0  # seconds for an answer of the broker
# Waiting messages without an acknowledgement (QoS 0), which nothing else bounds.
MOST_UNPROMISED = 1_000
NO_RETRY = (  # reasons that a person has to do something about
    "Not authorized", "Bad user name or password", "Banned", "Client identifier not valid",
    "Unsupported protocol version", "Bad authentication method",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Address:
    """A broker and who we are to it."""

    host: str
    port: int
    tls: bool
    username: str | None
    password: str | None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def address_of(url: str) -> Address:
    """Of mqtt[s]://user:password@host:port. Raises ConfigurationError, never showing the URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError("AURORA_MQTT_URL: the port is no number up to 65535") from error
    if not parts.hostname or parts.path.strip("/") or parts.query:
        raise ConfigurationError("AURORA_MQTT_URL is mqtt[s]://[user:password@]host[:port]")
    tls = parts.scheme == "mqtts"
    return Address(
        host=parts.hostname,
        port=port or (8883 if tls else 1883),
        tls=tls,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


def trust(ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    """TLS 1.2 or later, certificate and host name verified. Raises ConfigurationError."""
    for name, path in (("CA", ca), ("CERTIFICATE", certificate), ("KEY", key)):
        try:
            if path is not None:
                Path(path).open("rb").close()
        except OSError as error:
            raise ConfigurationError(f"AURORA_MQTT_{name}: {path}: {error.strerror}") from error
    try:
        found = ssl.create_default_context(cafile=ca)
        found.sslsocket_class = _Shaking
        found.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            # An encrypted key would have the library ask at the terminal.
            found.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(
            f"AURORA_MQTT_CA, _CERTIFICATE, _KEY: no PEM files that fit together: {error}"
        ) from error
    return found


class _Shaking(ssl.SSLSocket):
    """Closed where its handshake fails; the library would leave that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - as it is there
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


@dataclass(frozen=True, slots=True)
class Received:
    """A message that is still the broker's to keep."""

    heard: Heard
    dup: bool
    undecodable: bool = False  # its topic is no UTF-8, and shown with escapes


class Broker:
    """Where and how to connect. Nothing is asked before `connect`."""

    def __init__(
        self,
        address: Address,
        *,
        client_id: str,
        tls: ssl.SSLContext | None,
        session: timedelta,
        clean: bool = False,
    ) -> None:
        """Store. `clean`: forget the session of this client id, for a look at the broker only."""
        self.address = address
        self.client_id = client_id
        self.tls = tls
        self.session = session
        self.clean = clean

    async def connect(self, topic_filters: Sequence[str]) -> "Connection":
        """Connect, take up the session and subscribe. Raises Unavailable, BrokerRefused."""
        connection = Connection(self, self._client())
        try:
            await connection.open(topic_filters)
        except BaseException:
            await connection.close()
            raise
        return connection

    def properties(self) -> Properties:
        """What we ask of the broker for this connection."""
        found = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        found.SessionExpiryInterval = 0 if self.clean else int(self.session.total_seconds())
        found.ReceiveMaximum = IN_HAND
        found.MaximumPacketSize = LARGEST_PACKET
        return found

    def _client(self) -> paho.Client:
        # A new one for each connection: paho keeps state of the last one that is of no use here.
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            protocol=paho.MQTTv5,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.connect_timeout = PATIENCE
        if self.address.username is not None:
            client.username_pw_set(self.address.username, self.address.password)
        if self.tls is not None:
            client.tls_set_context(self.tls)
        return client


class Connection:
    """One connection, until it is gone; then its messages are delivered again on the next."""

    def __init__(self, broker: Broker, client: paho.Client) -> None:
        """Store; `open` connects."""
        self.resumed = False  # the broker had kept our session
        self.unpromised_dropped = 0  # QoS 0, for want of room
        self._broker = broker
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[Received] = deque()
        self._news = asyncio.Event()
        self._held = 0  # bytes
        self._overflowed = False
        self._gone: str | None = None
        self._connected: asyncio.Future[tuple[ReasonCode, bool]] = self._loop.create_future()
        self._subscribed: asyncio.Future[list[ReasonCode]] = self._loop.create_future()
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message

    @property
    def gone(self) -> str | None:
        """Why nothing comes any more; None while it may."""
        return self._gone

    async def open(self, topic_filters: Sequence[str]) -> None:
        """Connect and subscribe; what a resumed session holds may arrive before."""
        where = f"the MQTT broker at {self._broker.address}"
        try:
            # The library resolves, connects and shakes hands in blocking calls.
            await asyncio.to_thread(
                self._client.connect, self._broker.address.host, self._broker.address.port,
                keepalive=KEEPALIVE, clean_start=self._broker.clean,
                properties=self._broker.properties(),
            )  # fmt: skip
            self._client.loop_start()
            async with asyncio.timeout(PATIENCE):
                code, self.resumed = await self._connected
                if code.is_failure:
                    raise _refusal(where, str(code))
                if topic_filters:
                    await self._subscribe(where, topic_filters)
        except TimeoutError as error:
            raise Unavailable(where, f"no answer within {PATIENCE:g} s") from error
        except ssl.SSLCertVerificationError as error:
            raise BrokerRefused(
                f"the certificate of {where} is not to be trusted: {error.verify_message}; check"
                " AURORA_MQTT_CA and that the URL names the host as the certificate does"
            ) from error
        except (OSError, ValueError) as error:
            raise Unavailable(where, f"{error} (AURORA_MQTT_URL)") from error

    async def _subscribe(self, where: str, topic_filters: Sequence[str]) -> None:
        # Retained values come when a subscription is new, not with every reconnection.
        wanted = [
            (each, SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB))
            for each in topic_filters
        ]
        self._client.subscribe(wanted)
        for each, code in zip(topic_filters, await self._subscribed, strict=False):
            if code.is_failure or code.value < 1:
                raise BrokerRefused(
                    f"{where} does not let us subscribe to {each!r} with QoS 1: {code}; the"
                    f" broker's access list has to allow it to client {self._broker.client_id!r}"
                )

    async def messages(self) -> list[Received]:
        """What has arrived, IN_HAND at most; none where the connection is gone, or after `wake`."""
        if not self._inbox and self._gone is None and not self._overflowed:
            self._news.clear()
            await self._news.wait()
        if not self._inbox and self._overflowed:
            self._went("it sent more than we hold; the rest comes again with the next connection")
        if self._gone is not None:
            return []
        found = [self._inbox.popleft() for _ in range(min(len(self._inbox), IN_HAND))]
        self._held -= sum(map(_size, found))
        return found

    def wake(self) -> None:
        """Let `messages` return."""
        self._news.set()

    def acknowledge(self, received: Received) -> None:
        """The broker may forget it."""
        if received.heard.qos:
            self._client.ack(received.heard.packet, received.heard.qos)

    async def close(self) -> None:
        """Leave in order; the session stays with the broker."""
        with contextlib.suppress(OSError, ValueError):
            self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    # The library calls these from its own thread.

    def _on_connect(
        self, _: paho.Client, __: Any, flags: paho.ConnectFlags, code: ReasonCode, ___: Any
    ) -> None:
        self._hand(_settle, self._connected, (code, flags.session_present))

    def _on_subscribe(
        self, _: paho.Client, __: Any, ___: int, codes: list[ReasonCode], ____: Any
    ) -> None:
        self._hand(_settle, self._subscribed, codes)

    def _on_disconnect(
        self, _: paho.Client, __: Any, ___: Any, code: ReasonCode, ____: Any
    ) -> None:
        self._hand(self._went, str(code))

    def _on_message(self, _: paho.Client, __: Any, message: paho.MQTTMessage) -> None:
        undecodable = False
        try:
            topic = message.topic
        except UnicodeDecodeError as error:
            undecodable, topic = True, error.object.decode("utf-8", "backslashreplace")
        heard = Heard(
            topic=topic,
            payload=bytes(message.payload),
            received_at=datetime.now(UTC),
            retained=message.retain,
            qos=message.qos,
            packet=message.mid,
        )
        self._hand(self._arrived, Received(heard, message.dup, undecodable))

    def _hand(self, what: Any, *given: Any) -> None:
        # A loop that is closed has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what, *given)

    # The event loop calls these.

    def _arrived(self, received: Received) -> None:
        if not received.heard.qos and len(self._inbox) >= MOST_UNPROMISED:
            self.unpromised_dropped += 1
            return
        # After the first that is not taken none is: they would overtake it.
        self._overflowed |= self._held + _size(received) > MOST_HELD
        if not self._overflowed:
            self._held += _size(received)
            self._inbox.append(received)
        self._news.set()

    def _went(self, why: str) -> None:
        self._gone = self._gone or why
        unavailable = Unavailable(f"the MQTT broker at {self._broker.address}", why)
        for waited in (self._connected, self._subscribed):
            if not waited.done():
                waited.set_exception(unavailable)
                waited.exception()  # seen: nobody may be waiting for it
        self._news.set()


def _size(received: Received) -> int:
    return EACH + len(received.heard.topic) + len(received.heard.payload)


def _settle(future: asyncio.Future[Any], found: Any) -> None:
    if not future.done():
        future.set_result(found)


def _refusal(where: str, said: str) -> BrokerRefused | Unavailable:
    if said in NO_RETRY:
        return BrokerRefused(
            f"{where} refused us: {said}; check the user and password in AURORA_MQTT_URL, and"
            " AURORA_MQTT_CLIENT_ID; the bridge speaks MQTT 5"
        )
    return Unavailable(where, said)
