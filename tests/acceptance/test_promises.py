"""What the design promises, broken on purpose: real processes, real servers, real signals."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx2
import pytest
from pydantic_core import to_json

from orchestrator.db import listing
from orchestrator.db.keys import create_key
from orchestrator.streams.names import STREAMS
from orchestrator.task import Durability, new_id
from tests.acceptance.conftest import LEASE, System
from tests.acceptance.working_agents import (
    Block,
    BlockForever,
    BlockLater,
    Crash,
    FailOnce,
    InThread,
    Job,
    Noop,
    Stubborn,
    Wait,
)
from tests.support import wait_until

pytestmark = pytest.mark.acceptance

LONG = bool(os.environ.get("AURORA_TEST_LONG"))


async def submit(system: System, agent, jobs, durability=Durability.DATABASE) -> list[str]:
    receipts = await system.parts.submitter.submit_many(
        [agent.task(job) for job in jobs], durability=durability
    )
    return [receipt.task_id for receipt in receipts]


async def test_a_killed_workers_tasks_start_again_within_the_lease_and_two_seconds(system):
    """P5, P2: 50 running, SIGKILL, another worker alive: each re-started in time, one row each."""
    system.start("recorder")
    first = system.start("worker")
    jobs = [Job(n=n, seconds=3.0, ledger=str(system.ledger())) for n in range(50)]
    await submit(system, Wait, jobs)
    await wait_until(lambda: len(system.starts()) == 50, what="50 started")
    second = system.start("worker")
    await wait_until(lambda: _consumers(system, 2), what="both in the group")

    first.kill()
    killed = time.time()
    await system.all_ended(50)

    again = [each for each in system.starts() if each["pid"] == second.pid]
    assert len(again) == 50
    delays = sorted(each["at"] - killed for each in again)
    print(
        f"re-start after the kill: p50 {delays[25]:.2f} s, max {delays[-1]:.2f} s, lease {LEASE} s"
    )
    assert delays[-1] <= LEASE + 2.0
    assert await system.count("SELECT count(*) FROM results WHERE state = 'succeeded'") == 50
    assert await system.count("SELECT count(*) FROM tasks WHERE attempt = 2") == 50


async def test_flushall_costs_time_and_no_task(system):
    """P1: 2,000 accepted tasks, FLUSHALL in the middle: each reaches one terminal state."""
    system.start("recorder")
    system.start("worker")
    await wait_until(lambda: _consumers(system, 1), what="a worker")
    task_ids = await submit(system, Wait, [Job(n=n, seconds=0.05) for n in range(2000)])
    await wait_until(lambda: system.count("SELECT count(*) >= 200 FROM results"), what="some done")

    await system.parts.streams.commands.flushall()
    await system.all_ended(2000)

    assert await system.count("SELECT count(*) FROM results") == len(set(task_ids)) == 2000
    assert await system.count("SELECT count(*) FROM tasks WHERE state = 'succeeded'") == 2000
    assert await wait_until(
        lambda: system.count("SELECT count(*) FROM audit_events WHERE action='transport.reset'"),
        what="the loss is in the audit",
    )


async def test_tasks_that_came_while_no_worker_ran_are_all_run(system):
    """P3: 12,000 published before the first worker starts: 12,000 results, nothing trimmed away."""
    await submit(system, Noop, [Job(n=n) for n in range(12_000)], Durability.STREAM)

    system.start("worker")
    system.start("recorder")
    await system.all_ended(12_000, timeout=90)

    numbers = await system.rows("SELECT (output->>'n')::int AS n FROM results")
    assert sorted(row["n"] for row in numbers) == list(range(12_000))


async def test_an_agent_that_blocks_the_loop_is_run_once(system):
    """P5: time.sleep() for six leases in `async def run`: the lease thread keeps it; one start."""
    seconds = 60.0 if LONG else LEASE * 3
    system.start("recorder")
    system.start("worker")
    system.start("worker")
    await wait_until(lambda: _consumers(system, 2), what="two workers")

    await submit(system, Block, [Job(n=1, seconds=seconds, ledger=str(system.ledger()))])
    await system.all_ended(1, timeout=seconds + 30)

    assert len(system.starts()) == 1
    (row,) = await system.rows("SELECT state, attempt FROM results")
    assert (row["state"], row["attempt"]) == ("succeeded", 1)


async def test_a_loop_blocked_past_the_timeout_ends_its_worker_and_not_its_neighbours(system):
    """P5: the neighbours are handed back at once, the process ends, the task runs alone."""
    system.start("recorder")
    first = system.start("worker", AURORA_MAX_STARTS="1")
    ledger = str(system.ledger())
    await submit(system, Wait, [Job(n=n, seconds=30.0, ledger=ledger) for n in range(5)])
    await wait_until(lambda: len(system.starts()) == 5, what="neighbours run")
    await submit(system, BlockForever, [Job(n=99, ledger=ledger)])
    await wait_until(lambda: len(system.starts()) == 6, what="the loop is blocked")
    second = system.start("worker", AURORA_MAX_STARTS="1")

    await wait_until(lambda: first.poll() is not None, what="the worker ends", timeout=20)
    assert first.returncode == 70
    neighbours = await wait_until(
        lambda: [each for each in system.starts() if each["pid"] == second.pid and each["n"] < 90],
        what="neighbours start again",
    )
    await wait_until(
        lambda: len([e for e in system.starts() if e["pid"] == second.pid]) >= 5, what="all"
    )
    # Handed back, so it is the same attempt: not blamed for the neighbour.
    assert {each["attempt"] for each in neighbours} == {1}
    # It started once and did not end: the next start is in a process of its own, where the timeout
    # can act. So it has an end of its own, and no second worker has died.
    (end,) = await wait_until(
        lambda: system.rows("SELECT error->>'type' AS error FROM results"), what="its end",
        timeout=20,
    )  # fmt: skip
    assert end["error"] == "Timeout"
    assert second.poll() is None


async def test_a_message_that_kills_its_worker_is_set_aside_and_its_neighbours_are_done(system):
    """P6: two dead workers, a third start alone in a child, then a dead letter with the evidence.

    The five neighbours were in hand at each death. They are as suspect, and all succeed.
    """
    system.start("recorder")
    ledger = str(system.ledger())
    await submit(system, Wait, [Job(n=n, seconds=1.0, ledger=ledger) for n in range(5)])
    await submit(system, Crash, [Job(n=99, ledger=ledger)])
    for n in (1, 2):
        worker = system.start("worker")
        await wait_until(lambda n=n: len(system.starts()) == 6 * n, what=f"start {n} of each")
        await wait_until(lambda w=worker: w.poll() is not None, what="the worker dies")
    last = system.start("worker")
    await system.all_ended(6)

    assert last.poll() is None
    starts = Counter(each["n"] for each in system.starts())
    assert starts == {99: 3, **dict.fromkeys(range(5), 3)}
    assert await system.count("SELECT count(*) FROM results WHERE state = 'succeeded'") == 5
    (letter,) = await system.rows("SELECT reason, detail, agent FROM dead_letters")
    assert (letter["reason"], letter["agent"]) == ("crashed", "crash")
    assert "ended with exit code 1" in letter["detail"]
    assert str(last.pid) in letter["detail"]
    (row,) = await system.rows("SELECT state, crashes FROM tasks WHERE agent = 'crash'")
    assert (row["state"], row["crashes"]) == ("dead", 3)
    assert await system.count("SELECT count(*) FROM attempts WHERE state = 'crashed'") == 13


async def test_on_one_machine_the_dead_worker_names_the_task_that_it_died_in(system):
    """P6: one dead worker, two starts alone in a child; its neighbours were started twice."""
    locks = str(system.home / "machine")
    system.start("recorder")
    ledger = str(system.ledger())
    await submit(system, Wait, [Job(n=n, seconds=1.0, ledger=ledger) for n in range(5)])
    await submit(system, Crash, [Job(n=99, ledger=ledger)])
    first = system.start("worker", AURORA_LOCKS=locks)
    await wait_until(lambda: first.poll() is not None, what="the worker dies", timeout=20)
    second = system.start("worker", AURORA_LOCKS=locks)
    await system.all_ended(6)

    assert second.poll() is None
    starts = system.starts()
    assert Counter(each["n"] for each in starts) == {99: 3, **dict.fromkeys(range(5), 2)}
    assert second.pid not in {each["pid"] for each in starts if each["n"] == 99}
    assert {each["pid"] for each in starts if each["n"] < 90} == {first.pid, second.pid}
    assert await system.rows("SELECT reason, agent FROM dead_letters") == [
        {"reason": "crashed", "agent": "crash"}
    ]


async def test_what_a_blocked_loop_has_not_read_begins_elsewhere(system):
    """P5: it may block until its timeout; what Redis gives it meanwhile does not wait for it."""
    ledger = str(system.ledger())
    system.start("recorder")
    first = system.start("worker")
    await submit(system, BlockLater, [Job(n=0, seconds=6.0, ledger=ledger)])
    await wait_until(lambda: len(system.starts()) == 1, what="the loop is blocked")
    await submit(system, Noop, [Job(n=n, ledger=ledger) for n in range(1, 4)])
    second = system.start("worker")
    await system.all_ended(4)

    ends = await system.rows("SELECT output->>'worker' AS worker, attempt FROM results")
    assert {each["attempt"] for each in ends} == {1}
    assert sum(str(second.pid) in each["worker"] for each in ends) == 3
    assert sum(str(first.pid) in each["worker"] for each in ends) == 1


async def test_a_paused_worker_that_wakes_up_overwrites_nothing(system):
    """P2: SIGSTOP past the lease, another ends the task, SIGCONT: one result, the other's."""
    system.start("recorder")
    zombie = system.start("worker")
    await submit(system, Wait, [Job(n=1, seconds=1.0, ledger=str(system.ledger()))])
    await wait_until(lambda: len(system.starts()) == 1, what="started")
    zombie.send_signal(signal.SIGSTOP)
    second = system.start("worker")
    await system.all_ended(1)
    zombie.send_signal(signal.SIGCONT)

    await wait_until(
        lambda: system.count("SELECT count(*) FROM audit_events WHERE action='attempt.superseded'"),
        what="the zombie's end is superseded",
    )
    (row,) = await system.rows("SELECT output->>'worker' AS worker, attempt FROM results")
    assert str(second.pid) in row["worker"]
    assert row["attempt"] == 2


async def test_sigterm_hands_back_what_does_not_finish(system):
    """A graceful stop costs no lease and no attempt."""
    system.start("recorder")
    first = system.start("worker", AURORA_GRACE="0.5")
    ledger = str(system.ledger())
    await submit(
        system, Wait, [Job(n=n, seconds=20.0 if n else 0.1, ledger=ledger) for n in range(5)]
    )
    await wait_until(lambda: len(system.starts()) == 5, what="started")
    second = system.start("worker")
    await wait_until(lambda: _consumers(system, 2), what="both in the group")

    first.terminate()
    await wait_until(lambda: first.poll() is not None, what="it ends")
    ended = time.time()
    again = await wait_until(
        lambda: (s := [e for e in system.starts() if e["pid"] == second.pid]) and len(s) == 4 and s,
        what="started by the other",
    )

    assert first.returncode == 0
    assert {each["attempt"] for each in again} == {1}
    assert max(each["at"] for each in again) - ended < LEASE + 1.0


async def test_code_that_ignores_its_cancellation_does_not_keep_the_process(system):
    """SIGTERM: everything is handed back, also what runs on, and the process ends."""
    system.start("recorder")
    worker = system.start("worker", AURORA_GRACE="0.2")
    ledger = str(system.ledger())
    await submit(system, Stubborn, [Job(n=1, ledger=ledger)])
    await submit(system, Wait, [Job(n=2, seconds=60.0, ledger=ledger)])
    await wait_until(lambda: len(system.starts()) == 2, what="both run")

    worker.terminate()
    await wait_until(lambda: worker.poll() is not None, what="it ends", timeout=30)

    pending = await system.parts.streams.commands.xpending_range(
        "aurora:agent:tasks", "orchestrator", "-", "+", 10
    )
    # Handed back: idle for a day, and not counted as a start.
    assert len(pending) == 2
    assert all(each["times_delivered"] == 0 for each in pending)
    assert all(each["time_since_delivered"] > 80_000_000 for each in pending)


async def test_postgres_away_under_load_loses_nothing(system):
    """P1: Postgres killed under load: the API says 503, or the task arrives; never 202 and lost."""
    system.start("recorder")
    system.start("worker")
    url, key = await an_api(system)
    accepted: list[str] = []
    refused: Counter[int] = Counter()
    down_at = time.monotonic() + 1.5
    up_at = down_at + (10.0 if LONG else 4.0)
    is_down = False
    n = 0
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(base_url=url, headers=headers) as http:
        while (now := time.monotonic()) < up_at + 2.0:
            if down_at < now < up_at and not is_down:
                system.postgres.kill()
                is_down = True
            elif now > up_at and is_down:
                await asyncio.to_thread(system.postgres.start)
                is_down = False
            n += 1
            body = {"agent": "noop", "input": {"n": n}}
            answer = await http.post("/api/v1/tasks", json=body, timeout=20)
            if answer.status_code == 202:
                accepted.append(answer.json()["id"])
            else:
                refused[answer.status_code] += 1
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.headers["retry-after"]

    await system.all_ended(len(accepted))
    print(f"202: {len(accepted)}; refused while Postgres was away: {dict(refused)}")
    assert set(refused) == {503}
    assert await system.count(
        "SELECT count(*) FROM results WHERE task_id = ANY(CAST(:ids AS uuid[]))", ids=accepted
    ) == len(accepted)


async def an_api(system: System) -> tuple[str, str]:
    """An API process that answers, and a key for it."""
    _, key = await create_key(system.parts.database, "test", ["admin"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    system.start("api", AURORA_PORT=str(port))
    url = f"http://127.0.0.1:{port}"

    async def ready() -> bool:
        async with httpx2.AsyncClient() as http:
            try:
                return (await http.get(f"{url}/readyz")).status_code == 200
            except httpx2.TransportError:
                return False

    await wait_until(ready, what="the API is ready")
    return url, key


async def test_redis_killed_and_started_again(system):
    """Everything waits, reconnects and goes on; nothing is lost, one result each."""
    system.start("recorder")
    system.start("worker")
    await submit(system, Wait, [Job(n=n, seconds=0.05) for n in range(500)])
    await wait_until(lambda: system.count("SELECT count(*) > 50 FROM results"), what="some done")

    system.valkey.kill()
    more = await submit(system, Noop, [Job(n=n) for n in range(20)])  # the row is what accepts
    await asyncio.to_thread(system.valkey.start)
    await system.all_ended(520)

    assert len(more) == 20
    assert await system.count("SELECT count(*) FROM results WHERE state='succeeded'") == 520


async def test_retry_thread_and_delay(system):
    """A failed attempt is followed by another; a plain def runs in a thread; countdown waits."""
    system.start("recorder")
    system.start("worker")
    await submit(system, FailOnce, [Job(n=1)])
    await submit(system, InThread, [Job(n=2, seconds=0.1)])
    later = Noop.task(Job(n=3), run_at=datetime.now(UTC).replace(microsecond=0))
    due = time.time() + 1.5
    later = later.model_copy(update={"run_at": datetime.fromtimestamp(due, UTC)})
    await system.parts.submitter.submit(later)
    (row,) = await system.rows(
        "SELECT state FROM tasks WHERE id = CAST(:id AS uuid)", id=later.task_id
    )
    assert row["state"] == "scheduled"

    await system.all_ended(3)

    attempts = await system.rows("SELECT attempt, state FROM attempts ORDER BY attempt")
    assert [(each["attempt"], each["state"]) for each in attempts][:2] == [
        (1, "retrying"),
        (2, "succeeded"),
    ]
    (row,) = await system.rows(
        "SELECT started_at FROM results WHERE task_id = CAST(:id AS uuid)", id=later.task_id
    )
    assert row["started_at"].timestamp() >= due


def xadd(url: str, *command: str) -> str:
    """One command in the plain protocol, as redis-cli or any language would send it."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
        file = connection.makefile("rwb")

        def send(*words: str) -> str:
            file.write(b"*%d\r\n" % len(words))
            for word in words:
                raw = word.encode()
                file.write(b"$%d\r\n%s\r\n" % (len(raw), raw))
            file.flush()
            line = file.readline()
            return (
                file.readline().decode().strip() if line.startswith(b"$") else line.decode().strip()
            )

        send("AUTH", parts.password or "")
        return send(*command)


async def test_three_fields_by_xadd_are_a_task_like_any_other(system):
    """Design section 2: id, timestamp, data from any language: a row in results and in tasks."""
    system.start("recorder")
    system.start("worker")
    task_id = new_id()
    xadd(
        system.settings.redis_url.get_secret_value(), "XADD", "aurora:agent:tasks", "*",
        "id", task_id, "timestamp", datetime.now(UTC).replace(tzinfo=None).isoformat(),
        "data", '{"agent": "noop", "input": {"n": 7}}',
    )  # fmt: skip

    await system.all_ended(1)

    (row,) = await system.rows("SELECT task_id::text, output->>'n' AS n FROM results")
    assert (row["task_id"], row["n"]) == (task_id, "7")
    (row,) = await system.rows("SELECT state, input FROM tasks")
    assert row["input"] == {"n": 7}


OVERSIZE = '{"agent":"noop","input":{"ledger":"' + "x" * 300_000 + '"}}'
BAD = {
    "no data": ({"id": "x"}, "malformed", "no field `data`"),
    "not json": ({"data": "{nonsense"}, "malformed", "not JSON"),
    "an array": ({"data": "[1]"}, "malformed", "an array"),
    "no agent": ({"data": "{}"}, "malformed", 'no "agent"'),
    "unknown agent": ({"data": '{"agent":"nop"}'}, "unknown_agent", "did you mean 'noop'"),
    "bad input": ({"data": '{"agent":"noop","input":{"n":"many"}}'}, "invalid_input", "/n"),
    "input no object": ({"data": '{"agent":"noop","input":3}'}, "malformed", "must be an object"),
    "too large": ({"data": OVERSIZE}, "too_large", "AURORA_MAX_PAYLOAD"),
}  # fmt: skip


async def test_bad_entries_are_set_aside_with_what_would_have_been_right(system):
    """P10: each bad entry becomes a dead letter that says why; the good ones go on."""
    system.start("recorder")
    system.start("worker")
    commands = system.parts.streams.commands
    entries = {}
    for name, (fields, _, _) in BAD.items():
        entries[name] = (await commands.xadd("aurora:agent:tasks", fields)).decode()
    good = new_id()
    data = '{"agent": "noop", "input": {"n": 1}}'
    await commands.xadd("aurora:agent:tasks", {"id": good, "timestamp": "yesterday", "data": data})
    other = '{"agent": "noop", "input": {"n": 2}}'
    await commands.xadd("aurora:agent:tasks", {"id": good, "data": data})
    conflict = (await commands.xadd("aurora:agent:tasks", {"id": good, "data": other})).decode()

    letters = await wait_until(lambda: _letters(system, len(BAD) + 1), what="each in dead_letters")
    for name, (_, reason, said) in BAD.items():
        assert letters[entries[name]]["reason"] == reason, name
        assert said in letters[entries[name]]["detail"], name
        assert letters[entries[name]]["fields"], name
    assert letters[conflict]["reason"] == "task_id_conflict"
    await wait_until(
        lambda: system.count("SELECT count(*) FROM results WHERE state='succeeded'"), what="good"
    )
    (row,) = await system.rows(
        "SELECT detail->>'said_at' AS said FROM audit_events"
        " WHERE action='task.queued' AND object_id=:id", id=good,
    )  # fmt: skip
    assert row["said"] == "yesterday"
    await wait_until(lambda: _empty(system), what="nothing left on the stream")


async def _letters(system: System, expected: int):
    rows = await system.rows("SELECT entry_id, reason, detail, fields FROM dead_letters")
    return {row["entry_id"]: row for row in rows} if len(rows) >= expected else None


async def _empty(system: System) -> bool:
    return await system.parts.streams.commands.xlen("aurora:agent:tasks") == 0


async def test_existing_components_work_unchanged_on_all_five_streams(system):
    """AuroraSOC's own publisher and consumer: naive UTC, XTRIM MAXLEN ~ 10000, own group at 0."""
    system.start("recorder")
    system.start("worker")
    system.start("alerts")
    commands = system.parts.streams.commands
    data = {
        "agent:tasks": {"agent": "noop", "input": {"n": 1}},
        "agent:results": {"task_id": new_id(), "agent": "noop", "event": "succeeded", "output": 1},
        "alerts": {"event_type": "alert", "alert": {"signature": "x", "severity": 2}},
        "cps:alerts": {"device": "pump", "metric": "rpm", "value": 9, "severity": "high"},
        "audit": {"action": "login", "actor": "someone"},
    }
    for stream in STREAMS:
        key = f"aurora:{stream.suffix}"
        await commands.xgroup_create(key, "theirs", id="0", mkstream=True)
        for _ in range(3):
            body = {**data[stream.suffix]}
            if "task_id" in body:
                body["task_id"] = new_id()
            await commands.xadd(
                key,
                {
                    "id": new_id(),
                    "timestamp": datetime.now(UTC).replace(tzinfo=None).isoformat(),
                    "data": to_json(body),
                },
            )
            await commands.xtrim(key, maxlen=10_000, approximate=True)
    await wait_until(
        lambda: system.count("SELECT count(*) >= 6 FROM results"), what="tasks and results"
    )
    await wait_until(
        lambda: system.count("SELECT count(*) >= 6 FROM alerts"), what="alerts of both kinds"
    )
    await wait_until(
        lambda: system.count("SELECT count(*) >= 3 FROM audit_events WHERE action='login'"),
        what="their audit",
    )

    for stream in STREAMS:
        key = f"aurora:{stream.suffix}"
        reply = await commands.xreadgroup("theirs", "one", {key: ">"}, count=100, block=5000)
        found = [entry_id for _, entries in reply for entry_id, _ in entries]
        # What we read and acknowledged before is still there for them.
        assert len(found) >= 3, stream.suffix
        assert await commands.xack(key, "theirs", *found) == len(found)


@pytest.mark.skipif(
    not os.environ.get("AURORA_TEST_EVE"), reason="AURORA_TEST_EVE names no Suricata EVE file"
)
async def test_every_alert_of_a_real_capture_is_triaged_and_recorded(system):
    """653 real alerts of a file: 653 triage results, 0 dead letters, each with its audit.

    Its first reader is killed while it reads; a second goes on, a third finds nothing new.
    """
    system.start("recorder")
    system.start("worker", AURORA_AGENTS="agents")
    system.start("alerts", AURORA_AGENTS="agents")
    first = await _ingesting(system)
    try:
        await wait_until(
            lambda: system.parts.streams.commands.xlen("aurora:alerts"),
            what="the first alert on its stream", timeout=60,
        )  # fmt: skip
    finally:
        with contextlib.suppress(ProcessLookupError):  # it was faster
            first.kill()
        await first.wait()

    second = await (await _ingesting(system)).communicate()
    await wait_until(
        lambda: system.count("SELECT count(*) >= 653 FROM results"),
        what="all triaged", timeout=60,
    )  # fmt: skip
    await system.all_ended(653)
    third = await (await _ingesting(system)).communicate()

    assert second[0].startswith(b"653 alerts, ")
    assert second[0].strip().endswith(b", 0 bad")
    assert third[0].startswith(b"653 alerts, 0 new, 3539 skipped (flow 1469, tls 748, smb 477")
    assert len((await listing.alerts(system.parts.database, limit=1000)).rows) == 653
    assert await system.count("SELECT count(*) FROM alerts") == 653
    assert await system.count("SELECT count(*) FROM results WHERE state='succeeded'") == 653
    assert await system.count("SELECT count(*) FROM dead_letters") == 0
    events = await system.rows(
        "SELECT object_id, action FROM audit_events WHERE object_type='task'"
    )
    assert Counter(row["action"] for row in events) >= Counter(
        {"task.queued": 653, "task.succeeded": 653}
    )


async def _ingesting(system: System) -> asyncio.subprocess.Process:
    with (system.home / "ingest.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "orchestrator", "alerts", "ingest", os.environ["AURORA_TEST_EVE"],
            env={**os.environ, **system.environment()}, stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip


async def _consumers(system: System, expected: int) -> bool:
    groups = await system.parts.streams.commands.xinfo_consumers(
        "aurora:agent:tasks", "orchestrator"
    )
    return len(groups) >= expected
