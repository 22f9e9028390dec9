"""A file of alerts goes on the streams once, however often it is given and wherever it stopped."""

import io
import json
import sys
from typing import Any

import pytest

from orchestrator.alert import AlertKind
from orchestrator.cli import alert_ingest
from orchestrator.cli.alert_ingest import Ingest
from orchestrator.cli.alert_lines import Tally, judge
from orchestrator.errors import Overloaded, Unavailable
from orchestrator.parts import Parts
from orchestrator.registry import AgentRegistry
from orchestrator.settings import Settings
from tests.integration.test_spine import rows
from tests.support import wait_until
from tests.unit.test_alert import DEVICE, EVE
from tests.unit.test_formats import DETECTION, SSHD

OURS = {"signature": "odd", "severity": "high"}


def file(*lines: Any) -> io.BytesIO:
    return io.BytesIO(
        b"".join(
            (each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n"
            for each in lines
        )
    )


def many(count: int) -> list[dict[str, Any]]:
    return [OURS | {"signature": f"odd {n}"} for n in range(count)]


@pytest.fixture
async def parts(settings: Settings, streams: Any):
    found = Parts(settings, role="test", registry=AgentRegistry([]))
    yield found
    await found.close()


async def ingest(parts: Parts, lines: io.BytesIO) -> Ingest:
    run = Ingest(parts, name="eve.json", bad=None)
    await run.run(lines, kind=AlertKind.NETWORK)
    return run


async def _store_all(parts: Parts, expected: int) -> None:
    """The alert handler stores what is there."""
    import asyncio

    from orchestrator.app import alerts
    from orchestrator.runtime.service import run_services

    stopped = asyncio.Event()
    handling = asyncio.create_task(run_services([await alerts(parts)], stopped=stopped))

    async def all_there() -> bool:
        (found,) = await rows(parts.database, "SELECT count(*) AS n FROM alerts")
        return bool(found["n"] >= expected)

    await wait_until(all_there, what=f"{expected} alerts stored")
    stopped.set()
    await handling


async def test_the_same_file_again_brings_nothing_new(parts: Parts):
    """What has a row is not sent; alerts of every format."""
    lines = [EVE, OURS, SSHD, DETECTION, DEVICE | {"kind": "cps"}, {"event_type": "dns"}]
    first = await ingest(parts, file(*lines))
    await _store_all(parts, 5)

    again = await ingest(parts, file(*reversed(lines)))

    assert (first.tally.alerts, first.new) == (5, 5)
    assert (again.tally.alerts, again.new) == (5, 0)
    assert again.tally.others == {"dns": 1}
    stored = await rows(parts.database, "SELECT source, kind, entry_id FROM alerts ORDER BY 1")
    assert [(each["source"], each["kind"]) for each in stored] == [
        ("Falcon", "network"), ("cps", "cps"), ("suricata", "network"), ("unknown", "network"),
        ("wazuh", "network"),
    ]  # fmt: skip
    assert all(each["entry_id"] for each in stored)


async def test_a_run_that_was_killed_goes_on(parts: Parts, monkeypatch: pytest.MonkeyPatch):
    """Redis away in the middle: the next run sends the rest, and nothing is stored twice."""
    monkeypatch.setattr(alert_ingest, "BATCH", 10)
    publish = parts.publisher.publish_alerts
    calls = 0

    async def cut_off(entries: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            await publish(entries[:4])  # half of a batch went out before the cut
            raise Unavailable("Redis", "cut")
        await publish(entries)

    monkeypatch.setattr(parts.publisher, "publish_alerts", cut_off)
    with pytest.raises(Unavailable):
        await ingest(parts, file(*many(50)))
    await _store_all(parts, 24)

    rest = await ingest(parts, file(*many(50)))
    await _store_all(parts, 50)

    assert (rest.tally.alerts, rest.new) == (50, 26)
    assert await rows(parts.database, "SELECT count(*) AS n FROM alerts") == [{"n": 50}]


async def test_it_waits_for_room(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """P8: while Redis is nearly full, and when it refuses; afterwards everything is there."""
    monkeypatch.setattr(alert_ingest, "LONGEST_WAIT", 0.0)
    shares = iter([0.9, 0.8])
    publish = parts.publisher.publish_alerts
    refusals = iter([Overloaded("out of memory", retry_after=10)])

    async def share() -> float:
        return next(shares, 0.1)

    async def full_at_first(entries: Any) -> None:
        for refusal in refusals:
            raise refusal
        await publish(entries)

    monkeypatch.setattr(parts.streams, "memory_share", share)
    monkeypatch.setattr(parts.publisher, "publish_alerts", full_at_first)

    run = await ingest(parts, file(*many(3)))

    assert run.new == 3
    assert capsys.readouterr().err.count("waiting") == 3
    assert await parts.streams.commands.xlen(f"{parts.settings.prefix}:alerts") == 3


async def test_an_alert_twice_in_a_file_is_one(parts: Parts, monkeypatch: pytest.MonkeyPatch):
    """Also far apart, and before the record knows of it."""
    monkeypatch.setattr(alert_ingest, "BATCH", 2)

    run = await ingest(parts, file(EVE, OURS, EVE, OURS, OURS))

    assert (run.tally.alerts, run.new) == (5, 2)
    assert await parts.streams.commands.xlen(f"{parts.settings.prefix}:alerts") == 2


def test_each_bad_line_is_named_and_stops_nothing():
    """Its number, the field, and what would be right."""
    lines = file(
        b"\xef\xbb\xbf" + json.dumps(OURS).encode(), b"", b"[1]", b"\xff", b'{"a": NaN}',
        b"x" * 5_000, OURS | {"severity": "dreadful", "src_port": -1}, {"event_type": "alert"},
        {}, EVE,
    )  # fmt: skip
    tally = Tally()
    for line in judge(lines, kind=AlertKind.NETWORK, limit=2_000):
        tally.add(line)

    told = {line.number: line.problems for line in tally.told}
    assert (tally.lines, tally.alerts, tally.bad) == (9, 2, 7)
    assert "an array" in told[3][0][1]
    assert "5001 bytes is over the limit of 2000" in told[6][0][1]
    assert [each[0] for each in told[7]] == ["severity", "src_port"]
    assert "'signature_id'" in told[8][0][1]
    assert "send one of" in told[9][0][1]
    assert tally.sources == {"unknown": 1, "suricata": 1}


def test_a_file_without_line_ends_is_not_held_whole():
    """Its size is known all the same."""

    class Endless(io.RawIOBase):
        left = 50_000_000

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            size = min(len(buffer), self.left)
            buffer[:size] = b"x" * size
            self.left -= size
            return size

    (line,) = judge(io.BufferedReader(Endless()), kind=AlertKind.NETWORK, limit=1_000)

    assert line.end == 50_000_000
    assert sys.getsizeof(line.data) < 2_000
