"""The command line: for each wrong input one clear line and its exit code; lists, run, doctor."""

import asyncio
import json
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import redis

from orchestrator.embedded.valkey import EmbeddedValkey
from orchestrator.parts import Parts
from orchestrator.task import new_id
from tests.integration.test_alert_search import store
from tests.support import wait_until

pytestmark = pytest.mark.acceptance

HEAVY = ("sqlalchemy", "redis", "fastapi", "pydantic_settings", "alembic", "uvicorn")
COMMANDS = (
    "dev demo run doctor up api worker recorder scheduler bridge alerts tasks agents schedules dead"
    " audit usage db keys config"
)
AGENT = """
from pydantic import BaseModel

from orchestrator import Agent, GiveUp


class Text(BaseModel):
    text: str


class Shout(Agent[Text, Text]):
    \"\"\"Say it louder.\"\"\"

    async def run(self, task_input, ctx):
        if task_input.text == "no":
            raise GiveUp("I will not")
        return Text(text=task_input.text.upper())
"""


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """What it said on stderr; one line, or the test fails."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("aurora: "), self.err
        return lines[0]


async def aurora(*arguments: str, cwd: Path, stdin: bytes = b"", **env: str) -> Done:
    """Run a command to its end."""
    process = await start(*arguments, cwd=cwd, **env)
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Done(process.returncode or 0, out.decode(), err.decode())


async def start(
    *arguments: str, cwd: Path, output: int = asyncio.subprocess.PIPE, **env: str
) -> asyncio.subprocess.Process:
    """Start a command, in an environment without settings but those given."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("AURORA_")}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orchestrator", *arguments, cwd=cwd, env=outside | env,
        stdin=asyncio.subprocess.PIPE, stdout=output, stderr=output,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path) -> Path:
    """A directory with one agent."""
    (tmp_path / "agents").mkdir()
    # Without it, a package `agents` anywhere on the path (this repository's) would come first.
    (tmp_path / "agents" / "__init__.py").touch()
    (tmp_path / "agents" / "shout.py").write_text(AGENT)
    return tmp_path


@pytest.fixture
def env(settings) -> dict[str, str]:
    """This test's servers."""
    return {
        "AURORA_REDIS_URL": settings.redis_url.get_secret_value(),
        "AURORA_DATABASE_URL": settings.database_url.get_secret_value(),
        "AURORA_PREFIX": settings.prefix,
    }


@pytest.fixture
async def running(folder, env) -> AsyncIterator[None]:
    """`aurora up` without the API, reading."""
    log = folder / "up.log"
    with log.open("wb") as output:
        process = await start(
            "up", "--roles", "alerts,worker,recorder", cwd=folder, output=output.fileno(), **env
        )
    try:
        await wait_until(
            lambda: "process.started" in log.read_text(), what="the roles running", timeout=30
        )
        yield
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0, log.read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def with_password(url: str, password: str) -> str:
    """The URL with another password."""
    parts = urlsplit(url)
    user = parts.username or ""
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port}"))


@pytest.fixture
def unused_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_help_loads_nothing_heavy(tmp_path):
    """`aurora --help` in under 300 ms rests on this: no servers' clients, no HTTP, no settings."""
    script = (
        "import sys, orchestrator.cli.main;"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )

    assert (await process.communicate())[0].decode().strip() == "[]"


async def test_help_names_every_command(tmp_path):
    """What the design promises is there."""
    done = await aurora("--help", cwd=tmp_path)

    assert done.code == 0
    for name in COMMANDS.split():
        assert f" {name} " in done.out


async def test_a_misspelt_setting(folder):
    """Names the nearest setting."""
    done = await aurora("agents", "list", cwd=folder, AURORA_CONCURENCY="3")

    assert done.code == 2
    assert "unknown setting AURORA_CONCURENCY; did you mean AURORA_CONCURRENCY?" in done.complaint


async def test_a_setting_of_the_wrong_kind(folder):
    """Names the variable."""
    done = await aurora("worker", cwd=folder, AURORA_CONCURRENCY="many")

    assert done.code == 2
    assert "AURORA_CONCURRENCY" in done.complaint


async def test_an_unknown_agent(folder, env):
    """Names the near ones."""
    done = await aurora("run", "shuot", "{}", cwd=folder, **env)

    assert done.code == 1
    assert "no agent named 'shuot'" in done.complaint
    assert "did you mean 'shout'" in done.complaint


async def test_input_that_does_not_validate(folder, env):
    """Names the field."""
    done = await aurora("run", "shout", '{"test": 1}', cwd=folder, **env)

    assert done.code == 1
    assert "/text: Field required" in done.complaint


@pytest.mark.parametrize("given", ["{text: 1}", "[1]", "3"])
async def test_input_that_is_no_json_object(folder, given):
    """Says what would have been right."""
    done = await aurora("run", "shout", given, cwd=folder)

    assert done.code == 1
    assert "JSON" in done.complaint


async def test_a_queue_that_cannot_be(folder, env):
    """Names the option."""
    done = await aurora("run", "shout", '{"text": "x"}', "--queue", "high", cwd=folder, **env)

    assert done.code == 1
    assert "--queue" in done.complaint
    assert "is a priority, not a queue" in done.complaint


@pytest.mark.parametrize("command", [["worker"], ["alerts"], ["agents", "list"]])
async def test_an_agents_folder_that_does_not_import(folder, env, command):
    """Names the file and the line."""
    (folder / "agents" / "broken.py").write_text("import os\n\nimport no_such_module\n")

    done = await aurora(*command, cwd=folder, **env)

    assert done.code == 2
    assert f"{folder / 'agents' / 'broken.py'}, line 3" in done.complaint
    assert "no_such_module" in done.complaint


async def test_a_bridge_without_a_broker(folder, env):
    """Says which settings name one, and with a broker which file is missing."""
    done = await aurora("bridge", cwd=folder, **env)
    again = await aurora("bridge", cwd=folder, AURORA_MQTT_URL="mqtt://127.0.0.1:1", **env)

    assert (done.code, again.code) == (2, 2)
    assert "AURORA_MQTT_URL" in done.complaint
    assert "bridge.toml: No such file" in again.complaint


async def test_no_agents_folder(tmp_path, env):
    """Says which setting names it."""
    done = await aurora("worker", cwd=tmp_path, **env)

    assert done.code == 2
    assert f"{tmp_path / 'agents'} does not exist" in done.complaint
    assert "AURORA_AGENTS" in done.complaint


@pytest.mark.parametrize("command", ["worker", "recorder", "alerts", "scheduler", "api"])
async def test_redis_not_reachable(folder, env, unused_port, command):
    """A server that is away is said to be away, with the setting that names it."""
    env["AURORA_REDIS_URL"] = f"redis://127.0.0.1:{unused_port}/0"

    done = await aurora(command, cwd=folder, **env)

    assert done.code == 1
    assert "Redis is not available" in done.complaint
    assert "AURORA_REDIS_URL" in done.complaint


@pytest.mark.parametrize("command", [["recorder"], ["api"], ["db", "upgrade"], ["tasks", "list"]])
async def test_postgres_not_reachable(folder, env, unused_port, command):
    """The same for Postgres."""
    env["AURORA_DATABASE_URL"] = f"postgresql://aurora:x@127.0.0.1:{unused_port}/aurora"

    done = await aurora(*command, cwd=folder, **env)

    assert done.code == 1
    assert "Postgres is not available" in done.complaint
    assert "AURORA_DATABASE_URL" in done.complaint


async def test_a_wrong_password_for_postgres(folder, env):
    """Is said, and never shown."""
    env["AURORA_DATABASE_URL"] = with_password(env["AURORA_DATABASE_URL"], "wr0ng")

    done = await aurora("recorder", cwd=folder, **env)

    assert done.code == 2
    assert "refused the login" in done.complaint
    assert "AURORA_DATABASE_URL" in done.complaint
    assert "wr0ng" not in done.err


@pytest.fixture(scope="module")
def valkey(tmp_path_factory):
    """A server with a password whose configuration a test may spoil."""
    server = EmbeddedValkey(tmp_path_factory.mktemp("valkey"))
    url = server.start()
    yield url
    server.stop()


async def test_a_wrong_password_for_redis(folder, env, valkey):
    """Is said, and never shown."""
    env["AURORA_REDIS_URL"] = with_password(valkey, "wr0ng")

    done = await aurora("worker", cwd=folder, **env)

    assert done.code == 2
    assert "Redis refused the login" in done.complaint
    assert "wr0ng" not in done.err


async def test_a_server_that_evicts(folder, env, valkey):
    """Refused, with the line to type."""
    env["AURORA_REDIS_URL"] = valkey
    with redis.Redis.from_url(valkey) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            done = await aurora("worker", cwd=folder, **env)
        finally:
            client.config_set("maxmemory-policy", "noeviction")

    assert done.code == 2
    assert "CONFIG SET maxmemory-policy noeviction" in done.complaint


@pytest.fixture
async def empty_database(servers) -> AsyncIterator[str]:
    """A database without a schema."""
    name = f"t{secrets.token_hex(6)}"
    admin = await asyncpg.connect(servers.database_url)
    await admin.execute(f"CREATE DATABASE {name}")
    yield servers.database(name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.mark.parametrize(
    "command", [["recorder"], ["api"], ["tasks", "list"], ["keys", "list"], ["db", "current"]]
)
async def test_a_schema_that_is_not_at_head(folder, env, empty_database, command):
    """Says what to type; and when it was typed, all is well."""
    env["AURORA_DATABASE_URL"] = empty_database

    done = await aurora(*command, cwd=folder, **env)

    assert done.code == 2
    assert "run: aurora db upgrade" in done.complaint


async def test_upgrading_the_schema(folder, env, empty_database):
    """Twice is once, and `current` agrees."""
    env["AURORA_DATABASE_URL"] = empty_database

    first = await aurora("db", "upgrade", cwd=folder, **env)
    again = await aurora("db", "upgrade", cwd=folder, **env)
    current = await aurora("db", "current", cwd=folder, **env)

    assert (first.code, again.code, current.code) == (0, 0, 0), first.err + again.err
    assert "as before" not in first.out
    assert "as before" in again.out


@pytest.mark.parametrize("command", [["api"], ["up"]])
async def test_a_port_in_use(folder, env, command):
    """Names the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = await aurora(*command, "--port", str(port), cwd=folder, **env)

    assert done.code == 2
    assert f"127.0.0.1:{port}: the port is in use" in done.complaint


async def test_a_wrong_cron_line_and_zone(folder):
    """Each says what would have been right."""
    line = await aurora("schedules", "preview", "61 * * * *", cwd=folder)
    zone = await aurora("schedules", "preview", "* * * * *", "--timezone", "Asia/Riad", cwd=folder)

    assert (line.code, zone.code) == (2, 2)
    assert "61" in line.complaint
    assert "Asia/Riyadh" in zone.complaint


async def test_running_an_agent(folder, env, running):
    """The result on stdout, the task's id on stderr, the outcome as the exit code."""
    good = await aurora("run", "shout", '{"text": "hello"}', cwd=folder, **env)
    piped = await aurora("run", "shout", "-", cwd=folder, stdin=b'{"text": "pipe"}', **env)
    bad = await aurora("run", "shout", '{"text": "no"}', cwd=folder, **env)
    sent = await aurora("run", "shout", '{"text": "later"}', "--no-wait", cwd=folder, **env)

    assert (good.code, json.loads(good.out)) == (0, {"text": "HELLO"})
    assert (piped.code, json.loads(piped.out)) == (0, {"text": "PIPE"})
    assert bad.code == 1
    assert "I will not" in bad.err.splitlines()[-1]
    assert sent.code == 0
    assert sent.out.startswith("task ")


async def test_looking_at_what_happened(folder, env, running):
    """Lists in three formats, one task in full, its audit, and another try."""
    await aurora("run", "shout", '{"text": "hello"}', cwd=folder, **env)

    lines = await aurora("tasks", "list", "-o", "jsonl", cwd=folder, **env)
    (task,) = [json.loads(line) for line in lines.out.splitlines()]
    table = await aurora("tasks", "list", "--state", "succeeded", cwd=folder, **env)
    none = await aurora("tasks", "list", "--state", "failed", "-o", "json", cwd=folder, **env)
    shown = await aurora("tasks", "show", task["id"], "-o", "json", cwd=folder, **env)
    audit = await aurora("audit", "list", "--object", task["id"], "-o", "json", cwd=folder, **env)
    again = await aurora("tasks", "retry", task["id"], cwd=folder, **env)
    cancelled = await aurora("tasks", "cancel", task["id"], cwd=folder, **env)

    assert task["state"] == "succeeded"
    assert task["id"] in table.out
    assert json.loads(none.out) == []
    assert json.loads(shown.out)["result"]["output"] == {"text": "HELLO"}
    assert [each["action"] for each in json.loads(audit.out)] == ["task.succeeded", "task.queued"]
    assert again.code == 0
    assert cancelled.code == 1
    assert "succeeded before it could be cancelled" in cancelled.complaint


async def test_hostile_text_does_not_reach_the_terminal(folder, env, running, streams):
    r"""What an attacker wrote stands as `\x1b`, and no list is painted over."""
    said = '{"agent": "nobody", "input": {}}'
    await streams.commands.xadd(streams.keys.tasks, {"data": said, "evil": "\x1b[2J\u202egnp"})

    async def letter() -> list[dict]:
        listed = await aurora("dead", "list", "-o", "json", cwd=folder, **env)
        return json.loads(listed.out)

    (found,) = await wait_until(letter, what="the dead letter", timeout=30)
    shown = await aurora("dead", "show", found["id"], cwd=folder, **env)

    assert "\\\\x1b[2J" in shown.out or "\\u001b[2J" in shown.out or "\\x1b[2J" in shown.out
    assert "\x1b" not in shown.out
    assert "\u202e" not in shown.out


async def test_dead_letters_are_redriven_and_dropped(folder, env, running, streams):
    """A letter is closed once; what it said is a new task."""
    said = json.dumps({"agent": "shout", "input": {"text": 3}})
    await streams.commands.xadd(streams.keys.tasks, {"data": said})

    async def letters(*more: str) -> list[dict]:
        listed = await aurora("dead", "list", *more, "-o", "json", cwd=folder, **env)
        return json.loads(listed.out)

    (letter,) = await wait_until(letters, what="the dead letter", timeout=30)
    redriven = await aurora("dead", "redrive", letter["id"], cwd=folder, **env)
    twice = await aurora("dead", "redrive", letter["id"], cwd=folder, **env)
    (second,) = await wait_until(letters, what="the second dead letter", timeout=30)
    dropped = await aurora("dead", "drop", second["id"], cwd=folder, **env)

    assert redriven.code == 0
    assert twice.code == 1
    assert "was redriven by" in twice.complaint
    assert dropped.code == 0
    assert await letters() == []
    assert len(await letters("--all")) == 2


EVE_LINE = '{"event_type": "alert", "alert": {"signature": "odd %d", "severity": 1}}'


async def test_ingesting_a_file_of_alerts(folder, env, streams, database):
    """Each alert once, other events skipped; bad lines are named and stop nothing."""
    eve = folder / "eve.json"
    lines = [EVE_LINE % 1, "", EVE_LINE % 2, '{"event_type": "flow"}', "nonsense", EVE_LINE % 1]
    eve.write_text("\n".join([*lines, '{"signature": "x", "severity": "dreadful"}']))
    mixed = await aurora(
        "alerts", "ingest", str(eve), "--bad", str(folder / "bad"), cwd=folder, **env
    )
    eve.write_text("\n".join(lines[:3]))
    cps = await aurora("alerts", "ingest", str(eve), "--cps", cwd=folder, **env)

    assert mixed.code == 1
    assert mixed.out.strip().startswith("3 alerts, 2 new, 1 skipped (flow 1), 2 bad")
    assert "line 5: `data` is not JSON" in mixed.err
    assert "line 7: severity: Input should be 'info'" in mixed.err
    assert (folder / "bad").read_text().splitlines() == [
        "nonsense", '{"signature": "x", "severity": "dreadful"}',
    ]  # fmt: skip
    assert (cps.code, cps.out.strip()) == (0, "2 alerts, 2 new, 0 skipped, 0 bad")
    entries = await streams.commands.xrange(f"{streams.keys.prefix}:alerts")
    assert [fields[b"data"].decode() for _, fields in entries] == [EVE_LINE % 1, EVE_LINE % 2]
    assert await streams.commands.xlen(f"{streams.keys.prefix}:cps:alerts") == 2


async def test_validating_a_file_of_alerts(folder, env):
    """Without any server: each bad line, its field, and the counts."""
    (folder / "x.json").write_text(
        f'{EVE_LINE % 1}\n{{"signature": "x", "severity": "low", "src_port": "\\u001b[2J"}}\n'
    )
    table = await aurora("alerts", "validate", "x.json", cwd=folder)
    told = await aurora("alerts", "validate", "x.json", "-o", "json", cwd=folder)

    assert (table.code, told.code) == (1, 1)
    assert "src_port" in table.out
    assert "1 alerts, 0 skipped, 1 bad\nby kind: network 1\nby source: suricata 1" in table.out
    found = json.loads(told.out)
    assert (found["alerts"], found["sources"], found["bad"]) == (1, {"suricata": 1}, 1)
    assert [(each["line"], each["field"]) for each in found["problems"]] == [(2, "src_port")]


async def test_what_a_producer_writes_is_printed(folder):
    """As JSON, without any server; the streams under the prefix that is set."""
    schema = await aurora("alerts", "schema", cwd=folder)
    streams = await aurora("alerts", "asyncapi", cwd=folder, AURORA_PREFIX="soc")

    assert json.loads(schema.out)["required"] == ["signature", "severity"]
    assert json.loads(streams.out)["channels"]["tasks"]["address"] == "soc:agent:tasks"


async def test_alerts_are_listed_shown_and_acknowledged(folder, env, database):
    """By the person who typed it."""
    alert_id = await store(database, src_ip="192.0.2.99")

    listed = await aurora(
        "alerts", "list", "-o", "json", "--address", "192.0.2.99", cwd=folder, **env
    )
    done = await aurora("alerts", "ack", alert_id, cwd=folder, **env)
    shown = await aurora("alerts", "show", alert_id, "-o", "json", cwd=folder, **env)
    nobody = await aurora("alerts", "ack", alert_id, new_id(), cwd=folder, **env)

    assert [each["id"] for each in json.loads(listed.out)] == [alert_id]
    assert f"{alert_id} acknowledged by cli:" in done.out
    assert json.loads(shown.out)["acknowledged_by"].startswith("cli:")
    assert json.loads(shown.out)["details"] == {"dns": 1}
    assert nobody.code == 1
    assert "no alert" in nobody.complaint


async def test_keys_are_made_listed_and_revoked(folder, env, settings):
    """The key alone on stdout, so that a shell can take it; afterwards nobody has it."""
    made = await aurora("keys", "create", "bob", "-s", "tasks:write", cwd=folder, **env)
    wrong = await aurora("keys", "create", "eve", "-s", "tasks:wrtie", cwd=folder, **env)
    listed = await aurora("keys", "list", "-o", "json", cwd=folder, **env)
    key = made.out.strip()
    (row,) = json.loads(listed.out)
    revoked = await aurora("keys", "revoke", row["id"], cwd=folder, **env)
    twice = await aurora("keys", "revoke", row["id"], cwd=folder, **env)

    assert key.startswith(row["id"])
    assert key not in listed.out
    assert (row["name"], row["scopes"], row["state"]) == ("bob", ["tasks:write"], "valid")
    assert wrong.code == 2
    assert "tasks:write" in wrong.complaint
    assert (revoked.code, twice.code) == (0, 1)


async def test_schedules_are_listed_paused_and_triggered(folder, env, settings):
    """By name; what is not there is said."""
    from orchestrator import crontab
    from orchestrator.db.schedules import ScheduleStore

    parts = Parts(settings, role="test")
    line = crontab("0 6 * * *", name="daily", input={"text": "hello"})
    await ScheduleStore(parts.database).create("shout", line, actor="test")
    await parts.close()

    paused = await aurora("schedules", "pause", "daily", cwd=folder, **env)
    listed = await aurora("schedules", "list", "-o", "json", cwd=folder, **env)
    triggered = await aurora("schedules", "trigger", "daily", cwd=folder, **env)
    resumed = await aurora("schedules", "resume", "daily", cwd=folder, **env)
    preview = await aurora("schedules", "preview", "daily", "-n", "3", "-o", "json", cwd=folder,
                           **env)  # fmt: skip
    nobody = await aurora("schedules", "pause", "weekly", cwd=folder, **env)

    assert (paused.code, triggered.code, resumed.code) == (0, 0, 0), triggered.err
    assert json.loads(listed.out)[0]["state"] == "paused"
    assert len(json.loads(preview.out)) == 3
    assert nobody.code == 1
    assert "no schedule 'weekly'" in nobody.complaint


async def test_the_doctor_finds_nothing(folder, env, running, unused_port):
    """A sound system: a tick a line, exit code 0."""
    done = await aurora("doctor", cwd=folder, AURORA_PORT=str(unused_port), **env)

    assert done.code == 0, done.out
    assert "✗" not in done.out
    assert done.out.count("✓") == 10


async def test_the_doctor_finds_work_without_a_worker(folder, env):
    """Entries wait and nobody reads: says which command to type."""
    await aurora("run", "shout", '{"text": "hello"}', "--no-wait", cwd=folder, **env)

    done = await aurora("doctor", cwd=folder, **env)

    assert done.code == 1
    assert "wait for the group orchestrator and nobody reads; start: aurora worker" in done.out


async def test_the_doctor_finds_what_is_away(folder, unused_port):
    """One line a check, each with what to do."""
    (folder / "agents" / "broken.py").write_text("1 / 0\n")
    url = f"127.0.0.1:{unused_port}"

    done = await aurora(
        "doctor", cwd=folder, AURORA_REDIS_URL=f"redis://{url}",
        AURORA_DATABASE_URL=f"postgresql://a:b@{url}/c",
    )  # fmt: skip

    assert done.code == 1
    wrong = [line.split()[1] for line in done.out.splitlines() if line.startswith("✗")]
    assert wrong[:3] == ["Redis", "Postgres", "agents"]
    assert "broken.py, line 1" in done.out
    assert "aurora dev" in done.out


async def test_passwords_are_masked(folder):
    """`config show` may be pasted into a ticket."""
    done = await aurora(
        "config", "show", cwd=folder, AURORA_REDIS_URL="redis://:s3cret@somewhere/0"
    )

    assert done.code == 0
    assert "s3cret" not in done.out
    assert "redis://:***@somewhere/0" in done.out
    assert "environment" in done.out


async def test_the_stack_is_there_for_who_asks(folder):
    """AURORA_DEV_TRACEBACK=1 shows where an error came from."""
    done = await aurora("run", "shout", "[]", cwd=folder, AURORA_DEV_TRACEBACK="1")

    assert "Traceback" in done.err
    assert "NotJson" in done.err


async def test_a_reader_that_leaves_early_is_no_error(folder, env):
    """`aurora ... | head -1` says nothing on stderr."""
    script = f"{sys.executable} -m orchestrator agents show shout | head -1"
    outside = {name: value for name, value in os.environ.items() if not name.startswith("AURORA_")}

    process = await asyncio.create_subprocess_shell(
        script, cwd=folder, env=outside | env,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await process.communicate()

    assert err == b""
