"""Settings: where they come from, and what is said of those that are wrong."""

import traceback
import warnings
from datetime import timedelta

import pytest

from orchestrator.errors import ConfigurationError, UnknownSetting
from orchestrator.settings import Settings, load_settings
from orchestrator.task import Durability


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    """So that no pyproject.toml of ours is read, but one that says nothing."""
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)


def test_the_defaults_are_the_designs():
    """Design sections 3 and 4: lease 15 s, concurrency 100, durability database."""
    found = load_settings({})

    assert found.lease == timedelta(seconds=15)
    assert found.concurrency == 100
    assert found.durability is Durability.DATABASE
    assert found.prefix == "aurora"
    assert found.max_payload == 256 * 1024
    assert found.agents == ("./agents",)


def test_where_there_is_no_pyproject_nothing_is_said(tmp_path):
    """A warning there would stand above the output of every command."""
    (tmp_path / "pyproject.toml").unlink()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_settings({})


def test_the_environment_wins_over_pyproject(tmp_path, monkeypatch):
    """Arguments, then AURORA_*, then [tool.aurora]."""
    (tmp_path / "pyproject.toml").write_text(
        "[tool.aurora]\nconcurrency = 5\nport = 9000\nprefix = 'soc'\n"
    )
    monkeypatch.setenv("AURORA_CONCURRENCY", "7")
    monkeypatch.setenv("AURORA_PORT", "9001")

    found = load_settings({}, port=9002)

    assert (found.prefix, found.concurrency, found.port) == ("soc", 7, 9002)


@pytest.mark.parametrize("given", ["Zebra-key", '["Zebra-key"]', '{"openai": ["Zebra-key"]}'])
def test_keys_that_cannot_be_read_are_refused_and_not_shown(monkeypatch, given):
    """With the variable's name; in no line of the error or of what it came from."""
    monkeypatch.setenv("AURORA_MODEL_KEYS", given)

    with pytest.raises(ConfigurationError, match=r"(?i)model_keys") as caught:
        load_settings({})

    assert "Zebra" not in "".join(traceback.format_exception(caught.value))


def test_lists_are_separated_by_commas(monkeypatch):
    """AURORA_AGENTS=./agents, my.module"""
    monkeypatch.setenv("AURORA_AGENTS", "./agents, my.module,")

    assert load_settings({}).agents == ("./agents", "my.module")


def test_an_empty_variable_is_no_setting(monkeypatch):
    """`AURORA_PORT=` in a file of a deployment means the default."""
    monkeypatch.setenv("AURORA_PORT", "")

    assert load_settings({}).port == 8080


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("AURORA_REDIS_ULR", "AURORA_REDIS_URL"),
        ("AURORA_CONCURENCY", "AURORA_CONCURRENCY"),
        ("AURORA_DATABASEURL", "AURORA_DATABASE_URL"),
    ],
)
def test_a_misspelt_variable_is_told_with_the_nearest_name(wrong, right):
    """Rather than ignored, which would run with a default."""
    with pytest.raises(UnknownSetting, match=f"{wrong}; did you mean {right}"):
        load_settings({wrong: "1"})


@pytest.mark.parametrize(
    "name", ["AURORA_API_URL", "AURORA_API_KEY", "AURORA_TEST_SERVERS", "AURORA_DEV_TRACEBACK"]
)
def test_what_belongs_to_others_is_let_through(name):
    """Clients', the tests' and the command line's own variables are no settings."""
    load_settings({name: "1"})


def test_a_misspelt_key_in_pyproject_is_told(tmp_path):
    """The same for [tool.aurora]."""
    (tmp_path / "pyproject.toml").write_text("[tool.aurora]\nconcurency = 5\n")

    with pytest.raises(UnknownSetting, match="did you mean concurrency"):
        load_settings({})


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AURORA_CONCURRENCY", "many", "AURORA_CONCURRENCY: .*valid integer"),
        ("AURORA_CONCURRENCY", "0", "AURORA_CONCURRENCY: .*greater than or equal to 1"),
        ("AURORA_PORT", "70000", "AURORA_PORT: .*65535"),
        ("AURORA_LEASE", "0.5", "AURORA_LEASE: "),
        ("AURORA_DURABILITY", "disk", "AURORA_DURABILITY: .*'database' or 'stream'"),
        ("AURORA_PREFIX", "a:b", "AURORA_PREFIX: "),
        ("AURORA_REDIS_URL", "http://x", "AURORA_REDIS_URL starts with redis://"),
        ("AURORA_DATABASE_URL", "mysql://x", "AURORA_DATABASE_URL starts with postgresql://"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_its_variable(monkeypatch, variable, value, said):
    """One sentence that names the variable and what would have been right."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigurationError, match=said):
        load_settings({})


@pytest.mark.parametrize("variable", ["AURORA_REDIS_URL", "AURORA_DATABASE_URL"])
def test_a_password_is_in_no_message(monkeypatch, variable):
    """Neither in an error nor in what the settings show of themselves."""
    monkeypatch.setenv(variable, "http://user:s3cret@host/0")

    with pytest.raises(ConfigurationError) as caught:
        load_settings({})

    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(Settings.model_construct())


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgresql://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql+asyncpg://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
    ],
)
def test_the_driver_is_ours(given, used):
    """People write the URL that psql takes."""
    assert load_settings({}, database_url=given).async_database_url == used


def test_settings_are_frozen():
    """Read once, at an entry point; nobody changes them afterwards."""
    found = load_settings({})

    with pytest.raises(ValueError, match="frozen"):
        found.concurrency = 3  # type: ignore[misc]
