"""Real servers for the tests: by testcontainers where a Docker engine answers, else embedded.

AURORA_TEST_POSTGRES_URL names a Postgres that runs already, to make databases of one's own on: the
mutants' processes share one. AURORA_TEST_REDIS_URL names a Redis: they have theirs one after the
other, as some of them limit its memory.
"""

import contextlib
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit


@dataclass(frozen=True)
class Servers:
    """Where the servers of this test run listen, and what they are."""

    redis_url: str
    database_url: str  # of an administrator, any database
    kind: str

    def database(self, name: str) -> str:
        """The URL of another database on the same server."""
        return urlunsplit(urlsplit(self.database_url)._replace(path=f"/{name}"))


class Given(NamedTuple):
    """URLs of what runs already."""

    redis: str | None
    postgres: str | None


@contextlib.contextmanager
def start_servers(*, postgres: str | None = None) -> Iterator[Servers]:
    """Start what the tests need; AURORA_TEST_SERVERS=embedded|containers chooses by hand.

    `postgres`: the URL of one that runs already.
    """
    chosen = os.environ.get("AURORA_TEST_SERVERS")
    given = Given(
        os.environ.get("AURORA_TEST_REDIS_URL"),
        postgres or os.environ.get("AURORA_TEST_POSTGRES_URL"),
    )
    if given.redis and given.postgres:
        yield Servers(given.redis, given.postgres, kind="given")
        return
    with contextlib.ExitStack() as stack:
        found, why = None, ""
        if chosen == "containers" or (chosen is None and _docker_answers()):
            try:
                found = stack.enter_context(_containers(given))
            except Exception as error:
                # An engine that can give us no images (no registry) is as good as none.
                if chosen == "containers":
                    raise
                why = f" (a Docker engine answers, but: {str(error)[:120]})"
        yield found or stack.enter_context(_embedded(given, why))


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    asked = subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    return asked.returncode == 0


@contextlib.contextmanager
def _containers(given: Given) -> Iterator[Servers]:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    password = secrets.token_hex(8)
    postgres = (
        DockerContainer(os.environ.get("AURORA_TEST_POSTGRES_IMAGE", "postgres:15"))
        .with_env("POSTGRES_USER", "aurora")
        .with_env("POSTGRES_PASSWORD", password)
        .with_env("POSTGRES_DB", "aurora")
        .with_exposed_ports(5432)
        .with_command("postgres -c max_connections=300")
        .waiting_for(LogMessageWaitStrategy("listening on IPv4 address"))
    )
    redis = (
        DockerContainer(os.environ.get("AURORA_TEST_REDIS_IMAGE", "redis:7.0"))
        .with_exposed_ports(6379)
        .waiting_for(LogMessageWaitStrategy("Ready to accept connections"))
    )
    nothing = contextlib.nullcontext()
    with nothing if given.redis else redis, nothing if given.postgres else postgres:
        yield Servers(
            redis_url=given.redis
            or f"redis://{redis.get_container_host_ip()}:{redis.get_exposed_port(6379)}/0",
            database_url=given.postgres
            or (
                f"postgresql://aurora:{password}@{postgres.get_container_host_ip()}"
                f":{postgres.get_exposed_port(5432)}/aurora"
            ),
            kind="testcontainers",
        )


@contextlib.contextmanager
def _embedded(given: Given, why: str) -> Iterator[Servers]:
    from orchestrator.embedded.postgres import EmbeddedPostgres
    from orchestrator.embedded.valkey import EmbeddedValkey

    home = Path(tempfile.mkdtemp(prefix="aurora-tests-"))
    valkey, postgres = EmbeddedValkey(home / "valkey"), EmbeddedPostgres(home / "postgres")
    try:
        yield Servers(
            redis_url=given.redis or valkey.start(),
            database_url=given.postgres or postgres.start(),
            kind=f"embedded servers{why}",
        )
    finally:
        if not given.redis:
            valkey.stop()
        if not given.postgres:
            postgres.stop()
        shutil.rmtree(home, ignore_errors=True)


class Mosquitto:
    """A broker of one test's own: killed and started again, it keeps its address and its data."""

    def __init__(self, home: Path, *, config: str = "") -> None:
        """Store. `config`: more lines of mosquitto.conf; paths in it begin with `self.seen`."""
        from orchestrator.embedded.ports import free_port

        self.home = home
        self.port = free_port()
        self.kind = _mosquitto_kind()
        self.seen = "/aurora" if self.kind == "container" else str(home)
        self.config = config
        self._container: Any = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Without TLS and credentials."""
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, with what it had saved; returns when it listens."""
        own = 1883 if self.kind == "container" else self.port
        lines = [
            *(["user root"] if os.getuid() == 0 else []),
            "persistence true", f"persistence_location {self.seen}/",
            # Saved with each change: what a SIGKILL forgets is then milliseconds, not minutes.
            "autosave_on_changes true", "autosave_interval 1", "max_queued_messages 0",
            self.config or f"listener {own}\nallow_anonymous true",
        ]  # fmt: skip
        text = "\n".join(lines).replace("{seen}", self.seen).replace("{port}", str(own))
        (self.home / "mosquitto.conf").write_text(text + "\n")
        command = ["/usr/sbin/mosquitto", "-c", f"{self.seen}/mosquitto.conf"]
        if self.kind == "container":
            self._start_container(command)
        else:
            command[0] = shutil.which("mosquitto") or command[0]
            self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self._wait()

    def _start_container(self, command: list[str]) -> None:
        from testcontainers.core.container import DockerContainer

        if self._container is None:
            image = os.environ.get("AURORA_TEST_MOSQUITTO_IMAGE", "eclipse-mosquitto:2")
            self._container = (
                DockerContainer(image)
                .with_bind_ports(1883, self.port)
                .with_volume_mapping(str(self.home), "/aurora", "rw")
                .with_command(command)
                .with_kwargs(user=f"{os.getuid()}:{os.getgid()}")
            )
            self._container.start()
        else:
            self._container.get_wrapped_container().start()

    def kill(self) -> None:
        """SIGKILL."""
        if self._container is not None:
            self._container.get_wrapped_container().kill()
        elif self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Be gone for good."""
        if self._container is not None:
            self._container.stop()
        elif self._process is not None and self._process.poll() is None:
            self.kill()

    def _wait(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            # A container's port is open before anybody in it listens: ask for an answer.
            try:
                with self._asking() as asking:
                    asking.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x05\x00\x00")
                    if asking.recv(1):
                        return
            except ssl.SSLError:
                return  # it asks for a certificate, so it is there
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError("Mosquitto does not answer within 30 s")

    def _asking(self) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=1)
        if "certfile" not in self.config:
            return plain
        anybody = ssl.create_default_context()
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        return anybody.wrap_socket(plain)


class NoMosquitto(Exception):
    """Neither a Docker engine with the image nor a binary."""


def _mosquitto_kind() -> str:
    if os.environ.get("AURORA_TEST_SERVERS") != "embedded" and _docker_answers():
        return "container"
    if shutil.which("mosquitto") or Path("/usr/sbin/mosquitto").exists():
        return "binary"
    raise NoMosquitto("no Docker engine answers, and no `mosquitto` is installed (apt has it)")
