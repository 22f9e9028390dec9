"""Secrets stay out of the audit trail, and what is none stays as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.redaction import REDACTED, redacted

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLXRoYXQtaXMtbG9uZw"
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)

SECRETS = {
    "our key": (f"ak_{'a1' * 8}_{'b2' * 32}", f"ak_{'a1' * 8}_{REDACTED}"),
    "a URL's password": ("redis://me:hunter2@db:6379/0", f"redis://me:{REDACTED}@db:6379/0"),
    "without a user": ("rediss://:hunter2@db", f"rediss://:{REDACTED}@db"),
    "a header": ("Authorization: Bearer abc.def-123", f"Authorization: Bearer {REDACTED}"),
    "a query": ("GET /?user=a&token=abc&x=1", f"GET /?user=a&token={REDACTED}&x=1"),
    "JSON in a text": ('{"password": "hunter2"}', f'{{"password": "{REDACTED}"}}'),
    "a private key": (f"x {PEM} y", f"x {REDACTED} y"),
    "a signed token": (f"was {JWT}", f"was {REDACTED}"),
    "a cloud's": ("AKIAIOSFODNN7EXAMPLE", REDACTED),
    "a forge's": (f"ghp_{'a' * 36}", REDACTED),
    "a model's": ("sk-proj-abcdefghijklmnopqrstuv", REDACTED),
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_known_by_its_form(name):
    """Wherever in a value it stands; what says which one it was stays."""
    text, kept = SECRETS[name]

    assert redacted({"a": [{"b": text}]}) == {"a": [{"b": kept}]}


@pytest.mark.parametrize(
    "name",
    ["password", "DB_PASSWORD", "passwd", "pwd", "apiKey", "api_key", "X-Api-Key", "client_secret",
     "access_token", "token", "Authorization", "Set-Cookie", "credentials", "private_key"],
)  # fmt: skip
def test_a_secret_is_known_by_its_fields_name(name):
    """Whatever it looks like, and whatever kind of value it is."""
    for value in ("x", 4711, ["x"], {"user": "x"}):
        assert redacted({name: value, "agent": "triage"}) == {name: REDACTED, "agent": "triage"}


@pytest.mark.parametrize(
    "value",
    [
        {"input_tokens": 1200, "agent": "triage", "key": "ak_a1a1a1a1a1a1a1a1", "token": None},
        {"said": "an api key was used at 10:00:00 by user@example.org", "url": "http://h:80/a@b"},
        {"reason": "password spraying from 192.0.2.7", "sk": "task-2024", "states": ["queued"]},
    ],
)
def test_what_is_no_secret_stays(value):
    """The very same object: nothing is copied where nothing was found."""
    assert redacted(value) is value


@given(value=json)
def test_it_changes_nothing_twice_and_keeps_the_shape(value):
    """Redacting what was redacted gives the same."""
    once = redacted(value)

    assert redacted(once) == once
    assert type(once) is type(value)


def test_what_lies_too_deep_to_look_is_left_out():
    """Better nothing than what nobody has looked at."""
    value: object = "redis://:hunter2@db"
    for _ in range(100):
        value = [{"a": value}]

    assert "hunter2" not in str(redacted(value))
