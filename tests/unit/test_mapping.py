"""The rule for one message: an alert, a reading within bounds, or none; hostile ones too."""

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from orchestrator.alert import Severity
from orchestrator.app import open_broker
from orchestrator.errors import ConfigurationError
from orchestrator.formats.normalise import normalise
from orchestrator.mapping import TopicMapping, load_mappings
from orchestrator.reading import (
    WINDOW,
    BadReading,
    Heard,
    Reported,
    Unremarkable,
    alert_id,
    bad_topic,
    judge,
    matching,
)
from orchestrator.settings import Settings, load_settings

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PRESSURE = {
    "name": "pump pressure",
    "topic": "plant/{site}/pump/{pump}/pressure",
    "value": "/bar",
    "device": "{site}-{pump}",
    "metric": "pressure",
    "when": "above",
    "threshold": 8.0,
    "steps": [{"threshold": 10.0, "severity": "critical"}],
}


def mapping(**fields) -> TopicMapping:
    return TopicMapping.model_validate(PRESSURE | fields)


def of(form: str, **fields) -> TopicMapping:
    given = {k: v for k, v in PRESSURE.items() if k not in {"threshold", "steps", "value"}}
    return TopicMapping.model_validate(given | {"payload": form} | fields)


def heard(payload, topic="plant/north/pump/7/pressure", **fields) -> Heard:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Heard(**{"topic": topic, "payload": raw, "received_at": NOW, "packet": 1} | fields)


def test_a_reading_beyond_its_threshold_is_an_alert():
    """In the device form, which everybody who reads alerts understands."""
    found = judge(mapping(occurred_at="/at"), heard({"bar": 9.5, "at": "2026-11-23T11:59:00Z"}))

    assert isinstance(found, Reported)
    assert found.timed
    alert = normalise(found.data, id=str(UUID(int=1)), kind="cps", received_at=NOW)
    assert (alert.host, alert.severity) == ("north-7", Severity.MEDIUM)
    assert alert.signature == "pressure above 8"
    assert alert.occurred_at == NOW - timedelta(minutes=1)
    assert alert.details["value"] == 9.5
    assert alert.details["threshold"] == 8.0


@pytest.mark.parametrize(
    ("fields", "payload", "severity"),
    [
        ({}, {"bar": 8.0}, None),
        ({}, {"bar": 8.1}, "medium"),
        ({}, {"bar": "10.5"}, "critical"),
        ({"when": "below", "steps": []}, {"bar": 7}, "medium"),
        ({"when": "below", "steps": []}, {"bar": 8}, None),
        ({"when": "below", "steps": [{"threshold": 2, "severity": "high"}]}, {"bar": 1}, "high"),
    ],
)
def test_the_severity_is_that_of_the_last_step_that_was_passed(fields, payload, severity):
    """Each limit itself is within bounds."""
    found = judge(mapping(**fields), heard(payload))
    assert (found.data["severity"] if isinstance(found, Reported) else None) == severity


@pytest.mark.parametrize(
    ("subject", "payload", "is_alert"),
    [
        (of("number", when="outside", low=1, high=3), b" 3.5\n", True),
        (of("number", when="outside", low=1, high=3), b"3", False),
        (of("text", when="equals", target="tripped"), b"tripped", True),
        (of("text", when="equals", target="tripped"), b"fine", False),
        (of("json", when="equals", target=True), b"true", True),
        (of("json", when="equals", target=True), b"false", False),
        (of("json", when="equals", target=1), b"1.0", True),
        (of("json", when="changed-to", target="open", value="/a/0"), b'{"a": ["open"]}', True),
    ],
)
def test_each_condition(subject, payload, is_alert):
    assert isinstance(judge(subject, heard(payload)), Reported) == is_alert


def test_changed_to_is_told_once_until_it_changes():
    """A state that is repeated every second is one alert."""
    subject = of("text", when="changed-to", target="open")
    assert isinstance(judge(subject, heard(b"open"), None), Reported)
    assert judge(subject, heard(b"open"), "open") == Unremarkable("open")
    assert isinstance(judge(subject, heard(b"open"), "closed"), Reported)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"bar": NaN}', "not JSON"),
        (b'{"bar": 1e999}', "beyond"),
        (b'{"bar": ' + b"9" * 4_000 + b"}", "beyond"),
        (b'{"bar": ' + b"9" * 5_000 + b"}", "out of range"),
        (b'{"bar": null}', "null where a number"),
        (b'{"bar": {"x": 1}}', "an object where a number"),
        (b'{"bar": true}', "true or false"),
        (b'{"bar": "0x1f"}', "no number"),
        (b'{"bar": "1_0"}', "no number"),
        (b'{"psi": 1}', "nothing at /bar"),
        (b"7", "nothing at /bar"),
    ],
)
def test_what_is_no_reading_is_said_to_be_none(payload, says):
    found = judge(mapping(), heard(payload))
    assert isinstance(found, BadReading)
    assert says in found.reason


def test_text_of_others_is_put_in_and_never_looked_at_again():
    """No attribute, no index, no second round: a topic is not a format string."""
    subject = mapping(message="{site} {pump}: {value}", steps=[])
    topic = "plant/{value.__class__}/pump/{threshold}{pump}%s/pressure"
    found = judge(subject, heard({"bar": 9}, topic))
    assert isinstance(found, Reported)
    assert found.data["message"] == "{value.__class__} {threshold}{pump}%s: 9"


hostile_topics = st.one_of(
    st.text(max_size=60),
    st.builds("plant/{}/pump/{}/pressure".format, st.text(max_size=30), st.text(max_size=30)),
)
hostile_payloads = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=50).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=8,
    ).map(lambda value: json.dumps({"bar": value}).encode()),
)
SUBJECTS = (
    mapping(occurred_at="/at", message="{pump} {value} {topic}"),
    of("number", when="outside", low=-1, high=1),
    of("text", when="equals", target="x"),
    of("json", when="changed-to", target=1, value="/bar"),
)


@given(topic=hostile_topics, payload=hostile_payloads, retained=st.booleans())
def test_whatever_is_heard_has_a_verdict_that_everybody_can_read(topic, payload, retained):
    """Nothing raises, and what is reported is JSON that the alert handler takes."""
    for subject in SUBJECTS:
        one = heard(payload, topic, retained=retained)
        found = judge(subject, one)
        if isinstance(found, Reported) and bad_topic(topic) is None:
            json.dumps(found.data, allow_nan=False).encode()
            again = json.loads(json.dumps(found.data))
            id_ = alert_id(subject, one, client_id="c", timed=found.timed)
            assert normalise(again, id=id_, kind="cps", received_at=NOW).id == id_


def test_a_redelivery_is_the_same_alert_and_a_later_equal_reading_another():
    """By the packet's number within a window; for a payload that says when, by itself."""

    def id_of(timed=False, **fields):
        return alert_id(mapping(), heard({"bar": 9}, **fields), client_id="c", timed=timed)

    later = NOW + timedelta(seconds=WINDOW)
    assert id_of() == id_of()
    assert id_of() != id_of(packet=2)
    assert id_of() != id_of(received_at=later)
    assert id_of(qos=0) != id_of(qos=0)
    assert id_of(timed=True) == id_of(timed=True, packet=2, received_at=later)
    assert id_of(retained=True) == id_of(retained=True, packet=2, received_at=later)
    assert id_of(timed=True) != id_of(timed=True, topic="plant/north/pump/8/pressure")


@pytest.mark.parametrize(
    ("written", "topic", "named"),
    [
        ("plant/{site}/#", "plant/n/a/b", {"site": "n"}),
        ("plant/#", "plant", {}),
        ("plant/+/x", "plant/n/x", {}),
        ("plant/+/x", "plant/n/y", None),
        ("plant/{site}", "plant/n/m", None),
        ("plant/{site}/m", "plant/n", None),
    ],
)
def test_topics_match_as_mqtt_says(written, topic, named):
    assert matching(mapping(topic=written, device="d"), topic) == named


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"treshold": 8}, "mapping 1 ('pump pressure'): unknown treshold; did you mean threshold?"),
        ({"topic": "#"}, "begins with a wildcard"),
        ({"topic": "+/a"}, "begins with a wildcard"),
        ({"topic": "$SYS/#"}, "begins with a wildcard"),
        ({"topic": "plant/a{x}"}, "neither a word"),
        ({"topic": "plant/#/a"}, "at the end only"),
        ({"device": "{sight}"}, "device: unknown {sight}; did you mean {site}?"),
        ({"message": "{value.real}"}, "message: unknown {value.real}"),
        ({"when": "over"}, "when: Input should be 'above', 'below'"),
        ({"when": "outside", "steps": []}, "'outside' has no use for it"),
        ({"when": "equals"}, "threshold: when = 'equals' has no use for it"),
        ({"low": 1}, "has no use for it"),
        ({"steps": [{"threshold": 7, "severity": "high"}]}, "each goes further"),
        ({"steps": [{"treshold": 9, "severity": "high"}]}, "did you mean threshold?"),
        ({"severity": "hihg"}, "severity: Input should be 'info', 'low'"),
        ({"payload": "number"}, "only a payload of 'json'"),
        ({"value": "bar"}, "value: String should match"),
        ({"threshold": float("nan")}, "threshold: Input should be a finite number"),
    ],
)
def test_a_mapping_that_is_wrong_is_named_with_what_would_be_right(tmp_path, changed, says):
    """File, mapping, field: a plant's engineer finds the line."""
    file = tmp_path / "bridge.toml"
    lines = [f"{key} = {_toml(value)}" for key, value in (PRESSURE | changed).items()]
    file.write_text("[[mapping]]\n" + "\n".join(lines))

    with pytest.raises(ConfigurationError) as caught:
        load_mappings(file)

    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{file}: mapping 1")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such file"),
        ("mapping = 1", "no [[mapping]]"),
        ("[[maping]]", "unknown maping; did you mean mapping?"),
        ("[[mapping", "not TOML"),
    ],
)
def test_a_file_that_is_none_is_said_to_be_none(tmp_path, text, says):
    file = tmp_path / "bridge.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_mappings(file)
    assert says in str(caught.value)


PAGE = (Path(__file__).parent.parent.parent / "docs" / "bridge.md").read_text()


def test_the_mappings_of_the_page_do_what_it_says(tmp_path):
    """What somebody in a plant copies works, and complains as the page shows."""
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "bridge.toml"
    file.write_text(example)
    pump, tank, stop = load_mappings(file)
    reading = {"bar": 11, "time": "2026-11-23T11:59:00Z"}
    found = [
        judge(pump, heard(reading)),
        judge(tank, heard(b"10", "plant/a/tank/3/level")),
        judge(stop, heard(b"pressed", "plant/a/line/4/estop"), "released"),
    ]

    told = [(f.data["device"], f.data["severity"], f.data["message"]) for f in found]
    assert told == [
        ("north-pump-7", "high", "pressure above 10"),
        ("a-tank-3", "medium", "level outside 20 to 80"),
        ("a", "critical", "emergency stop pressed: plant/a/line/4/estop"),
    ]
    file.write_text(example.replace("threshold = 8.0", "treshold = 8.0"))
    with pytest.raises(ConfigurationError) as caught:
        load_mappings(file)
    assert str(caught.value).replace(str(tmp_path) + "/", "") in PAGE


def test_the_page_names_every_field_and_setting():
    """A new one gets its line."""
    for name in TopicMapping.model_fields:
        assert name in {"low", "high", "target", "threshold"} or f"`{name}`" in PAGE, name
    for name in Settings.model_fields:
        if name.startswith(("mqtt_", "bridge_")) and name != "mqtt_key":
            assert f"`AURORA_{name.upper()}`" in PAGE, name


def test_without_its_extra_the_bridge_says_what_to_install(monkeypatch):
    """Before anything runs."""
    monkeypatch.setitem(sys.modules, "orchestrator.mqtt", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'aurora-orchestrator\[mqtt\]'"):
        open_broker(Settings(mqtt_url=SecretStr("mqtt://127.0.0.1")))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"mqtt_url": "tcp://h"}, "starts with mqtt://"),
        ({"mqtt_url": "mqtt://h", "mqtt_ca": "ca.pem"}, "are for TLS"),
        ({"mqtt_url": "mqtts://h", "mqtt_key": "k.pem"}, "needs AURORA_MQTT_CERTIFICATE"),
        ({"mqtt_client_id": "a b"}, "AURORA_MQTT_CLIENT_ID"),
    ],
)
def test_settings_of_the_bridge_that_do_not_fit_together(fields, says):
    """Names the variable and what would be right."""
    with pytest.raises(ConfigurationError, match=says):
        load_settings({}, **fields)


def _toml(value) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}"
    return repr(value) if isinstance(value, float) else json.dumps(value)
