"""Real servers for the tests: by testcontainers where a Docker engine answers, else embedded.

AURORA_TEST_POSTGRES_URL names a Postgres that runs already, to make databases of one's own on: the
mutants' processes share one. Each has a Redis of its own, whose memory some of them limit.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
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


@contextlib.contextmanager
def start_servers() -> Iterator[Servers]:
    """Start what the tests need; AURORA_TEST_SERVERS=embedded|containers chooses by hand."""
    chosen = os.environ.get("AURORA_TEST_SERVERS")
    with contextlib.ExitStack() as stack:
        found, why = None, ""
        if chosen == "containers" or (chosen is None and _docker_answers()):
            try:
                found = stack.enter_context(_containers())
            except Exception as error:
                # An engine that can give us no images (no registry) is as good as none.
                if chosen == "containers":
                    raise
                why = f" (a Docker engine answers, but: {str(error)[:120]})"
        yield found or stack.enter_context(_embedded(why))


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    asked = subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    return asked.returncode == 0


@contextlib.contextmanager
def _containers() -> Iterator[Servers]:
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
    given = os.environ.get("AURORA_TEST_POSTGRES_URL")
    with redis, contextlib.nullcontext() if given else postgres:
        yield Servers(
            redis_url=f"redis://{redis.get_container_host_ip()}:{redis.get_exposed_port(6379)}/0",
            database_url=given
            or (
                f"postgresql://aurora:{password}@{postgres.get_container_host_ip()}"
                f":{postgres.get_exposed_port(5432)}/aurora"
            ),
            kind="testcontainers",
        )


@contextlib.contextmanager
def _embedded(why: str) -> Iterator[Servers]:
    from orchestrator.embedded.postgres import EmbeddedPostgres
    from orchestrator.embedded.valkey import EmbeddedValkey

    home = Path(tempfile.mkdtemp(prefix="aurora-tests-"))
    valkey, postgres = EmbeddedValkey(home / "valkey"), EmbeddedPostgres(home / "postgres")
    given = os.environ.get("AURORA_TEST_POSTGRES_URL")
    try:
        yield Servers(
            redis_url=valkey.start(),
            database_url=given or postgres.start(),
            kind=f"embedded servers{why}",
        )
    finally:
        valkey.stop()
        if not given:
            postgres.stop()
        shutil.rmtree(home, ignore_errors=True)
