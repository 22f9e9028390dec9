"""The reference agents: what they conclude, and that every reason can be read."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agents.enrich import (
    LONGEST_TEXT,
    MOST_INDICATORS,
    Enrich,
    EnrichInput,
    Indicator,
    Indicators,
    Kind,
    Scope,
    indicators_in,
)
from agents.report import DailyReport, Report, ReportInput
from agents.triage import Action, History, Side, Triage, Verdict, classify, judge, side_of
from orchestrator import Alert, RunContext, Severity
from orchestrator.formats.foreign import NotAnAlert
from orchestrator.formats.normalise import normalise
from orchestrator.registry import load_agents
from orchestrator.task import Task, new_id
from tests.make_sample import FILE, lines

NOW = datetime(2026, 3, 11, 6, 0, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
# On a busy machine the clock says nothing about the code.
unhurried = settings(deadline=None)


class Record:
    """What `ctx.query` asked, and the rows it is given: the first whose word is in the SQL."""

    def __init__(self, **rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    async def read(self, sql: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        self.asked.append((sql, params))
        return next((rows for word, rows in self.rows.items() if word in sql), [])


def context(record: Record | None = None, *, run_at: datetime | None = None) -> RunContext:
    async def emit(_: dict[str, Any]) -> bool:
        return True

    task = Task(task_id=new_id(), agent="any", input={}, run_at=run_at)
    return RunContext(
        task=task,
        attempt=1,
        worker="test",
        deadline=NOW + timedelta(minutes=1),
        emit=emit,
        read=(record or Record()).read,
    )


def alert(**fields: Any) -> Alert:
    given_fields: dict[str, Any] = {
        "id": new_id(),
        "source": "suricata",
        "occurred_at": NOW,
        "severity": "medium",
        "signature": "something",
    }
    return Alert.model_validate(given_fields | fields)


def alerts_of(path: Path) -> list[Alert]:
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(normalise(json.loads(line), id=new_id(), kind="network", received_at=NOW))
        except NotAnAlert:
            continue
    return found


class Remembering:
    """A record that has seen the alerts given to it so far, as Postgres would count them."""

    def __init__(self) -> None:
        self.past: list[Alert] = []

    async def read(self, _: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        same = [
            each
            for each in self.past
            if each.signature == params["signature"]
            and each.src_ip == params["origin"]
            and params["until"] - timedelta(hours=1) <= each.occurred_at <= params["until"]
        ]
        return [{"seen": len(same), "targets": len({each.dest_ip for each in same})}]


async def triage_all(alerts: list[Alert]) -> list[tuple[Alert, Verdict]]:
    record = Remembering()
    pairs = []
    for each in alerts:
        ctx = context(record)  # type: ignore[arg-type]
        pairs.append((each, await Triage().run(each, ctx)))
        record.past.append(each)
    return pairs


def test_the_agents_folder_loads():
    """The agents are found under their names, with what they declare."""
    registry = load_agents([str(ROOT / "agents")])

    assert {"triage", "enrich", "report", "device_storm"} <= set(registry.by_name)
    assert registry.rules_of(registry.get("triage"))[0].kinds == {"network", "cps"}
    assert registry.get("report").schedules[0].timezone == "Asia/Riyadh"


# Triage


async def test_an_attack_on_a_precious_machine_is_contained():
    """Class, direction, asset and repetition add up, each with a sentence of its own."""
    record = Record(alerts=[{"seen": 30, "targets": 6}])

    verdict = await Triage().run(
        alert(
            signature="Burst of ticket requests",
            category="Credential theft",
            src_ip="10.20.4.17",
            dest_ip="10.10.0.10",
        ),
        context(record),
    )

    assert (verdict.severity, verdict.action) == (Severity.CRITICAL, Action.CONTAIN)
    assert verdict.score == 100
    assert verdict.reasons == [
        '"suricata" rates "Burst of ticket requests" as medium (+35).',
        'Signature and category put it in the class "credential theft" (+30).',
        'Both ends are inside, so the perimeter is behind it: "10.20.4.17" to "10.10.0.10" (+10).',
        "It concerns the domain controller (10.10.0.10/32) (+20).",
        "The same came 30 times from there in the hour before (+10).",
        "It went to 6 different destinations in the hour before (+15).",
    ]


async def test_the_question_to_the_record_carries_values_as_parameters():
    """What an alert brought never stands in the SQL."""
    record = Record()
    hostile = "'; DROP TABLE alerts; --\x00"

    await Triage().run(alert(signature=hostile, src_ip="10.0.0.1", signature_id=7), context(record))

    [(sql, params)] = record.asked
    assert "DROP" not in sql
    assert params["signature"] == "'; DROP TABLE alerts; --�"
    assert (params["origin"], params["signature_id"], params["until"]) == ("10.0.0.1", 7, NOW)


@pytest.mark.parametrize(
    ("fields", "condition", "origin"),
    [
        ({"src_ip": "10.0.0.1"}, "src_ip = :origin", "10.0.0.1"),
        ({"host": "plc-7"}, "host = :origin", "plc-7"),
        ({"source": "gateway"}, "source = :origin", "gateway"),
    ],
)
async def test_repetition_is_counted_by_what_identifies_the_origin(
    fields: dict[str, Any], condition: str, origin: str
):
    """An address where there is one; a device's name, or the source, where there is none."""
    record = Record()

    await Triage().run(alert(**fields), context(record))

    [(sql, params)] = record.asked
    assert condition in sql
    assert params["origin"] == origin


def test_a_devices_reading_goes_to_those_who_run_the_plant():
    """Triage does not send analysts to a warm bearing."""
    verdict = judge(
        alert(kind="cps", host="plc-7", signature="pressure beyond threshold"),
        History(seen=0, targets=0),
    )

    assert verdict.action is Action.CHECK_DEVICE


def test_noise_that_repeats_makes_the_rule_quieter():
    """Much of little is the rule's fault."""
    noise = alert(signature="Malformed SNMP answer", severity="low")

    assert judge(noise, History(seen=0, targets=0)).action is Action.CLOSE
    assert judge(noise, History(seen=50, targets=1)).action is Action.TUNE_RULE


def test_one_odd_certificate_is_nothing_and_hundreds_are_a_pattern():
    """Repetition is what tells a beacon from a badly kept server."""
    odd = alert(signature="Self-signed certificate", severity="low")

    assert judge(odd, History(seen=0, targets=0)).action is Action.CLOSE
    assert judge(odd, History(seen=150, targets=1)).action is Action.INVESTIGATE


def test_a_blocked_attempt_counts_less():
    """The sensor has done something about it already."""
    tried = alert(signature="SQL injection", src_ip="198.51.100.7", dest_ip="10.10.0.80")
    blocked = tried.model_copy(update={"action": "blocked"})
    history = History(seen=0, targets=0)

    assert judge(blocked, history).score == judge(tried, history).score - 15


def test_the_client_is_who_opened_the_connection():
    """A match in the server's answer does not turn the direction round."""
    answer = alert(
        signature="beacon", src_ip="203.0.113.80", dest_ip="10.20.4.17", direction="to_client"
    )

    reasons = judge(answer, History(seen=0, targets=0)).reasons

    assert any("inside talks to the outside" in each for each in reasons)


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("10.1.2.3", Side.INSIDE),
        ("::ffff:10.1.2.3", Side.INSIDE),
        ("fd00::1", Side.INSIDE),
        ("203.0.113.7", Side.OUTSIDE),
        ("2001:db8::1", Side.OUTSIDE),
        ("not an address", Side.UNKNOWN),
        (None, Side.UNKNOWN),
    ],
)
def test_sides_are_told_apart(text: str | None, side: Side):
    """Documentation ranges are outside, though `is_private` calls them private."""
    assert side_of(text) is side


@unhurried
@given(
    given_alert=st.builds(
        alert,
        signature=st.text(),
        category=st.text(),
        severity=st.sampled_from(Severity),
        src_ip=st.none() | st.text() | st.ip_addresses().map(str),
        dest_ip=st.none() | st.text() | st.ip_addresses().map(str),
    ),
    seen=st.integers(min_value=0, max_value=10**9),
)
def test_any_alert_gets_one_verdict_that_can_be_read(given_alert: Alert, seen: int):
    """Deterministic, in range, and every reason is one printable line with its points."""
    verdict = judge(given_alert, History(seen=seen, targets=seen))

    assert verdict == judge(given_alert, History(seen=seen, targets=seen))
    assert 0 <= verdict.score <= 100
    assert all(each.isprintable() and each.endswith(").") for each in verdict.reasons)
    assert classify(given_alert).label == verdict.classification


@unhurried
@given(severities=st.tuples(st.sampled_from(Severity), st.sampled_from(Severity)))
def test_a_more_serious_alert_never_gets_a_lower_score(severities: tuple[Severity, Severity]):
    """All else equal, the sensor's word counts in one direction."""
    less, more = sorted(severities, key=lambda each: each.rank)
    history = History(seen=0, targets=0)

    assert judge(alert(severity=less), history).score <= judge(alert(severity=more), history).score


# The sample


def test_the_sample_is_what_its_generator_makes():
    """`python tests/make_sample.py` wrote it, and nobody's editor touched it since."""
    assert FILE.read_text(encoding="ascii") == "".join(f"{line}\n" for line in lines())


def test_the_sample_is_varied_and_invented():
    """At least 240 alerts of 14 kinds, ids in the local range, addresses of nobody."""
    alerts = alerts_of(FILE)
    addresses = {each for one in alerts for each in (one.src_ip, one.dest_ip) if each}
    scopes = {each.scope for one in addresses for each in indicators_in(one, place="src_ip")}

    assert len(alerts) >= 240
    assert len({each.signature for each in alerts}) >= 14
    assert all(1_000_000 <= (each.signature_id or 0) <= 1_999_999 for each in alerts)
    assert scopes == {Scope.PRIVATE, Scope.DOCUMENTATION}


async def test_the_samples_story_stands_out():
    """Triage finds every step of the intrusion and leaves the noise alone."""
    actions: dict[str, set[Action]] = {}
    for each, verdict in await triage_all(alerts_of(FILE)):
        actions.setdefault(each.signature.split()[1], set()).add(verdict.action)

    assert all(Action.CONTAIN in actions[step] for step in ("PHISH", "C2", "CRED", "LATERAL"))
    assert actions["EXFIL"] == {Action.CONTAIN}
    assert Action.TUNE_RULE in actions["PROTO"]
    for noise in ("SCAN", "POLICY", "TLS", "PROTO"):
        assert not {Action.CONTAIN, Action.INVESTIGATE} & actions[noise]


def test_enrich_finds_something_in_every_sample_alert():
    """No alert is without an address, and none of them is worth asking others about."""
    for each in alerts_of(FILE):
        found = Enrich().run(EnrichInput(alert=each), context())

        assert {each.src_ip, each.dest_ip} <= {one.value for one in found.indicators}
        assert found.worth_asking == []


async def test_a_real_capture_goes_through():
    """Every alert of a real sensor's file gets a verdict; AURORA_TEST_EVE names the file."""
    path = os.environ.get("AURORA_TEST_EVE")
    if not path:
        pytest.skip("NOT TESTED on real alerts: set AURORA_TEST_EVE to a Suricata eve.json")

    pairs = await triage_all(alerts_of(Path(path)))

    assert pairs
    for each, _ in pairs:
        assert Enrich().run(EnrichInput(alert=each), context()).indicators
    print(Counter(str(verdict.action) for _, verdict in pairs))


# Enrich


def found_in(text: str, *, place: str = "text") -> list[tuple[Kind, str]]:
    return [(each.kind, each.value) for each in indicators_in(text, place=place)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from 192.0.2.7:8080,", [(Kind.IPV4, "192.0.2.7")]),
        ("1.2.3[.]4", [(Kind.IPV4, "1.2.3.4")]),
        ("[2001:DB8:0::1]", [(Kind.IPV6, "2001:db8::1")]),
        ("::ffff:10.0.0.1", [(Kind.IPV4, "10.0.0.1")]),
        ("see *.Bad-Name.com.", [(Kind.DOMAIN, "bad-name.com")]),
        ("evil[.]py", [(Kind.DOMAIN, "evil.py")]),
        ("evil(dot)example", [(Kind.DOMAIN, "evil.example")]),
        ("bücher.de", [(Kind.DOMAIN, "xn--bcher-kva.de")]),
        (
            "hxxps[:]//a[.]example/x?y=1.",
            [(Kind.URL, "https://a.example/x?y=1"), (Kind.DOMAIN, "a.example")],
        ),
        (
            "http://user:pw@[2001:db8::2]:80/",
            [(Kind.URL, "http://user:pw@[2001:db8::2]:80/"), (Kind.IPV6, "2001:db8::2")],
        ),
        (
            "bob[at]mail.example",
            [(Kind.EMAIL, "bob@mail.example"), (Kind.DOMAIN, "mail.example")],
        ),
        ("D41D8CD98F00B204E9800998ECF8427E", [(Kind.MD5, "d41d8cd98f00b204e9800998ecf8427e")]),
        ("a1" * 32, [(Kind.SHA256, "a1" * 32)]),
        ("System.Net.WebClient invoice.docx run.py v1.2 std::string 12:30:45 0:0", []),
        ("999.1.1.1 1.2.3.4.5 " + "0" * 40, []),
    ],
)
def test_indicators_are_found_in_text(text: str, expected: list[tuple[Kind, str]]):
    """Canonical spelling, refanged, and no files or versions among them."""
    assert found_in(text) == expected


@pytest.mark.parametrize(
    ("place", "text", "expected"),
    [
        ("details/tls/sni", "odd.zz1a", []),
        ("details/tls/sni", "host.intern", [(Kind.DOMAIN, "host.intern")]),
        ("details/http/hostname", "a.example:8080", [(Kind.DOMAIN, "a.example")]),
        ("details/tls/fingerprint", ":".join(["b2"] * 10 + ["7b"] * 10), Kind.SHA1),
        ("details/tls/serial", "10:D7:5A:ED:A8:F0:D7:3A", []),
        ("details/tls/ja3/hash", "c12f54a3f91dc7bafd92cb59fe009a35", Kind.JA3),
        ("details/payload_printable", "GET.com", []),
    ],
)
def test_the_field_says_how_to_read(place: str, text: str, expected: Any):
    """A host field takes any ending; a serial number is no address, a fingerprint is a hash."""
    found = found_in(text, place=place)

    if isinstance(expected, Kind):
        assert [kind for kind, _ in found] == [expected]
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("10.0.0.1", Scope.PRIVATE),
        ("100.64.0.1", Scope.SHARED),
        ("127.0.0.1", Scope.LOOPBACK),
        ("169.254.1.1", Scope.LINK_LOCAL),
        ("224.0.0.251", Scope.MULTICAST),
        ("0.0.0.0", Scope.UNSPECIFIED),  # noqa: S104 - read, not bound
        ("203.0.113.1", Scope.DOCUMENTATION),
        ("255.255.255.255", Scope.RESERVED),
        ("8.8.8.8", Scope.PUBLIC),
        ("fd00::1", Scope.PRIVATE),
        ("a.example.com", Scope.DOCUMENTATION),
        ("printer.local", Scope.LINK_LOCAL),
        ("example.com.evil.net", Scope.PUBLIC),
    ],
)
def test_addresses_and_names_are_classified(text: str, scope: Scope):
    """Only what is public is worth asking others about."""
    assert [each.scope for each in indicators_in(text)] == [scope]


def test_an_alert_is_walked_whole():
    """Its ends, its request as one URL, and whatever text its details hold, once each."""
    given_alert = alert(
        src_ip="10.0.0.1",
        dest_ip="203.0.113.80",
        details={
            "http": {"hostname": "c2.evil.net", "url": "/gate.php"},
            "flow": {"dest_ip": "203.0.113.80"},
            "notes": ["seen with 198.51.100.1", {"more": "and c2[.]evil.net"}],
        },
    )

    found = Enrich().run(EnrichInput(alert=given_alert, text="c2.evil.net again"), context())

    by_value = {each.value: each for each in found.indicators}
    assert by_value["http://c2.evil.net/gate.php"].kind is Kind.URL
    assert by_value["203.0.113.80"].places == ["dest_ip", "details/flow/dest_ip"]
    assert by_value["c2.evil.net"].defanged
    assert by_value["c2.evil.net"].count == 4
    assert found.worth_asking == ["http://c2.evil.net/gate.php", "c2.evil.net"]


def test_enrich_needs_something():
    """Neither alert nor text is a slip, and is told."""
    with pytest.raises(ValidationError, match="give an alert, a text, or both"):
        EnrichInput()


def test_a_blocklist_is_cut():
    """The answer stays small, and says that there was more."""
    text = " ".join(f"host{number}.example" for number in range(MOST_INDICATORS + 5))

    found = Enrich().run(EnrichInput(text=text), context())

    assert len(found.indicators) == MOST_INDICATORS
    assert found.truncated


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "unit",
    ["a", "a.", "a@", ",", ":", "1:", "[.]", "http://", "a-", "a.b@", "hxxp", "\ue000", "+", "f"],
)
def test_hostile_text_takes_linear_time(unit: str):
    """A quarter of a million characters of the worst kind: well under a second, not hours."""
    text = (unit * LONGEST_TEXT)[:LONGEST_TEXT]

    Enrich().run(EnrichInput(text=text), context())


@unhurried
@given(text=st.text())
def test_any_text_yields_indicators_in_canonical_spelling(text: str):
    """Nothing raises, and what was found in what was found is the same again."""
    for each in indicators_in(text):
        assert isinstance(each, Indicator)
        if each.kind in {Kind.IPV4, Kind.IPV6}:
            assert found_in(each.value) == [(each.kind, each.value)]


@unhurried
@given(address=st.ip_addresses(v=4).map(str))
def test_defanging_is_undone(address: str):
    """Written either way it is the same address, and we know that somebody suspected it."""
    [plain] = indicators_in(address)
    [defanged] = indicators_in(address.replace(".", "[.]"))

    assert defanged == plain.model_copy(update={"defanged": True})


# Report


REPORT_ROWS: dict[str, list[dict[str, Any]]] = {
    "percentile_cont": [
        {
            "agent": "triage",
            "tasks": 100,
            "succeeded": 90,
            "unsuccessful": 8,
            "cancelled": 0,
            "unfinished": 2,
            "repeated": 5,
            "median_seconds": 0.2,
            "longest_seconds": 4.0,
        }
    ],
    "GROUP BY severity": [{"label": "high", "count": 60}, {"label": "low", "count": 40}],
    "GROUP BY signature": [{"label": "AURORA C2", "count": 45}],
    "GROUP BY src_ip": [{"label": "10.20.4.17", "count": 70}],
    "->>'classification'": [
        {
            "task_id": "t",
            "alert_id": "a",
            "score": 100.0,
            "classification": "exfiltration",
            "action": "contain",
            "reason": "Because (+1).",
            "alike": 6,
        }
    ],
    "output->>'severity'": [{"label": "critical", "count": 3}, {"label": None, "count": 1}],
    "output->>'action'": [{"label": "contain", "count": 3}, {"label": "close", "count": 97}],
    "FROM dead_letters": [{"label": "aurora:alerts: malformed", "count": 1}],
}


async def test_a_day_is_summed_up():
    """Figures from the record, and the sentences to read first."""
    record = Record(**REPORT_ROWS)

    report = await Report().run(ReportInput(), context(record, run_at=NOW))

    assert (report.since, report.until) == (NOW - timedelta(days=1), NOW)
    assert (report.alerts, report.alerts_before) == (100, 100)
    assert report.verdicts_by_severity[1].label == "unknown"
    assert report.most_serious[0].score == 100
    assert report.headlines == [
        "For 3 alerts triage recommends containment.",
        "Agent triage ended 8 of 100 tasks without success (8%).",
        "Agent triage has 2 tasks not finished yet.",
        "1 message set aside, most of them on aurora:alerts: malformed.",
        (
            "100 alerts came in, after 100 in the period before;"
            " the most frequent signature made up 45% of them."
        ),
    ]


async def test_the_period_is_the_one_asked_for():
    """Half-open, and the period before is as long."""
    record = Record()
    until = NOW - timedelta(days=3)

    await Report().run(ReportInput(until=until, hours=2, top=3), context(record, run_at=NOW))

    periods = {(params["since"], params["until"]) for _, params in record.asked}
    assert periods == {
        (until - timedelta(hours=2), until),
        (until - timedelta(hours=4), until - timedelta(hours=2)),
    }


async def test_a_quiet_day_has_a_sentence_too():
    """An empty report would look like a broken one."""
    report = await Report().run(ReportInput(), context())

    assert report.headlines == ["Nothing was received and nothing ran."]


@pytest.mark.parametrize(
    ("now", "before", "words"),
    [
        (300, 100, "far more than usual"),
        (100, 300, "far fewer than usual"),
        (0, 100, "is a sensor down?"),
        (100, 0, "the first ones"),
        (100, 99, "after 99 in the period before"),
        (3, 1, "3 alerts came in, after 1"),
    ],
)
async def test_changes_in_volume_are_spoken_of(now: int, before: int, words: str):
    """A sensor that fell silent is the change that hurts most."""

    class TwoPeriods(Record):
        async def read(self, sql: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
            if "GROUP BY severity" not in sql:
                return []
            count = now if params["until"] == NOW else before
            return [{"label": "low", "count": count}] if count else []

    report = await Report().run(ReportInput(), context(TwoPeriods(), run_at=NOW))

    assert words in report.headlines[-1]


@pytest.mark.parametrize(
    ("agent", "output"),
    [(Triage, Verdict), (Enrich, Indicators), (Report, DailyReport)],
)
def test_outputs_have_a_schema(agent: Any, output: type):
    """What the API publishes about an agent can be made."""
    assert agent.output_type.json_schema()["title"] == output.__name__
    assert agent.input_type.json_schema()["type"] == "object"
