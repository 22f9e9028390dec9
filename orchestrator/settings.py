"""What can be set, with its default and meaning: AURORA_* variables, or [tool.aurora] in pyproject.

Read once, at an entry point; everybody else is handed the values. A misspelt name is an error.
"""

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from orchestrator.errors import ConfigurationError, UnknownSetting
from orchestrator.model_options import ModelOptions
from orchestrator.task import Durability

PREFIX = "AURORA_"
# Variables that start like settings and belong to the command line, to clients or to the tests.
NOT_SETTINGS = ("AURORA_API_URL", "AURORA_API_KEY", "AURORA_TEST_", "AURORA_DEV_")


def _seconds(value: Any) -> Any:
    """Take a number in a text as seconds; ISO 8601 ("PT15S") is left to pydantic."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Seconds = Annotated[timedelta, BeforeValidator(_seconds)]


class Settings(BaseSettings):
    """Every setting. Times in seconds where a number is given."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        pyproject_toml_table_header=("tool", "aurora"),
    )

    # Servers
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    database_url: SecretStr = SecretStr("postgresql://127.0.0.1:5432/aurora")
    prefix: str = Field(default="aurora", pattern=r"^(\{[A-Za-z0-9_-]+\}|[A-Za-z0-9_-]+)$")

    # Agents and the worker
    agents: Annotated[tuple[str, ...], NoDecode] = ("./agents",)
    queues: Annotated[tuple[str, ...], NoDecode] = ()  # which a worker reads; empty: its agents'
    concurrency: int = Field(default=100, ge=1, le=10_000)
    lease: Seconds = Field(default=timedelta(seconds=15), ge=timedelta(seconds=1))
    grace: Seconds = timedelta(seconds=30)  # for runs in flight after SIGTERM
    max_starts: int = Field(default=3, ge=1)  # that did not end, the last in its own process

    # In memory, of this machine and this user alone: who was killed is seen there at once
    locks: Path = Field(default_factory=lambda: Path(f"/dev/shm/aurora-{os.geteuid()}"))  # noqa: S108 - checked

    # Tasks
    durability: Durability = Durability.DATABASE
    max_payload: int = Field(default=256 * 1024, ge=1024)  # bytes of one message
    max_backlog: int = Field(default=1_000_000, ge=1)  # tasks that wait; then submitting is refused
    max_output: int = Field(default=8 * 1024 * 1024, ge=1024)  # bytes of one result
    marker_ttl: Seconds = timedelta(hours=1)  # how long Redis remembers that a task ended

    # The record
    reconcile_grace: Seconds = timedelta(seconds=3)  # before an unpublished row is looked at
    database_pool: int = Field(default=10, ge=2)

    # Models (extra `models`)
    model: str | None = Field(default=None, max_length=200)  # "local", "openai:gpt-5-mini", ...
    model_keys: dict[str, SecretStr] = Field(default_factory=dict)  # '{"openai": "..."}'
    model_file: Path | None = None  # for AURORA_MODEL=local: a GGUF file instead of the small model
    model_urls: dict[str, str] = Field(default_factory=dict)  # '{"openai": "http://..."}'
    model_timeout: Seconds = Field(default=timedelta(minutes=2), gt=timedelta(0))  # one request
    # How long a run waits in all for a provider that limits or is away.
    model_patience: Seconds = Field(default=timedelta(hours=1), ge=timedelta(0))

    # The MQTT bridge
    mqtt_url: SecretStr | None = None  # mqtt[s]://user:password@host:port; None: no bridge
    mqtt_ca: str | None = None  # a PEM file of the CAs to trust; None: the system's
    mqtt_certificate: str | None = None  # ours, PEM, for brokers that ask for one
    mqtt_key: str | None = None  # its key, where that is another file
    # The broker keeps our session under this name: the same after a restart, another per bridge.
    mqtt_client_id: str = Field(default="aurora-bridge", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    mqtt_session: Seconds = Field(  # how long the broker keeps it for us while we are away
        default=timedelta(days=7), ge=timedelta(minutes=1), le=timedelta(days=3650)
    )
    mqtt_max_payload: int = Field(default=64 * 1024, ge=16, le=1024 * 1024)  # bytes of a message
    bridge_mappings: str = "bridge.toml"

    # Traces; where they go is for OpenTelemetry's own variables to say (docs/traces.md)
    trace_content: bool = False  # models' prompts and answers in their spans

    # HTTP
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    allowed_origins: Annotated[
        tuple[str, ...], NoDecode
    ] = ()  # of pages elsewhere that may connect
    workers_health_port: int | None = None  # a worker's /livez, /readyz, /metrics; None: closed

    @field_validator("agents", "queues", "allowed_origins", mode="before")
    @classmethod
    def _comma_list(cls, value: Any) -> Any:
        """Split `AURORA_AGENTS=./agents,my.module`."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @model_validator(mode="after")
    def _known_schemes(self) -> Self:
        redis = self.redis_url.get_secret_value()
        if not redis.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("AURORA_REDIS_URL starts with redis://, rediss:// or unix://")
        if not self.database_url.get_secret_value().startswith(("postgresql", "postgres://")):
            raise ValueError("AURORA_DATABASE_URL starts with postgresql://")
        if self.mqtt_url is not None:
            mqtt = self.mqtt_url.get_secret_value()
            if not mqtt.startswith(("mqtt://", "mqtts://")):
                raise ValueError("AURORA_MQTT_URL starts with mqtt:// or mqtts:// (TLS)")
            if (self.mqtt_ca or self.mqtt_certificate) and not mqtt.startswith("mqtts://"):
                raise ValueError("AURORA_MQTT_CA and _CERTIFICATE are for TLS: mqtts://")
        if self.mqtt_key is not None and self.mqtt_certificate is None:
            raise ValueError("AURORA_MQTT_KEY needs AURORA_MQTT_CERTIFICATE beside it")
        return self

    @property
    def models(self) -> ModelOptions:
        """What concerns models."""
        return ModelOptions(
            model=self.model,
            keys=self.model_keys,
            urls=self.model_urls,
            timeout=self.model_timeout,
            patience=self.model_patience,
        )

    @property
    def async_database_url(self) -> str:
        """The database's URL with the driver that we use."""
        given = self.database_url.get_secret_value()
        scheme, rest = given.split("://", 1)
        return given if "+" in scheme else f"postgresql+asyncpg://{rest}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then pyproject.toml of the working directory."""
        del dotenv_settings, file_secret_settings
        # A directory without a pyproject.toml gives nothing, and no complaint.
        return (init_settings, env_settings, PyprojectTomlConfigSettingsSource(settings_cls))


def load_settings(environment: dict[str, str], **given: Any) -> Settings:
    """Read the settings, or raise an error that names the variable and what would be right.

    `environment` is checked for names that look like ours and are none; the values themselves
    are read by pydantic-settings.
    """
    known = tuple(f"{PREFIX}{name.upper()}" for name in Settings.model_fields)
    for name in environment:
        if name.startswith(PREFIX) and name not in known and not name.startswith(NOT_SETTINGS):
            raise UnknownSetting(name, known)
    try:
        return Settings(**given)
    except ValidationError as error:
        # Here and below not `from error`: what it was raised from has the value, maybe a key.
        raise _readable(error) from None
    except SettingsError as error:
        raise ConfigurationError(
            f"settings: {error}; it takes a JSON object, such as"
            """ AURORA_MODEL_KEYS='{"openai": "..."}'"""
        ) from None


def _readable(error: ValidationError) -> ConfigurationError:
    problems = []
    for each in error.errors(include_url=False, include_input=False):
        name = str(each["loc"][0]) if each["loc"] else ""
        if each["type"] == "extra_forbidden":
            return UnknownSetting(name, tuple(Settings.model_fields))
        shown = f"{PREFIX}{name.upper()}: " if name else ""
        problems.append(f"{shown}{each['msg']}")
    return ConfigurationError("settings: " + "; ".join(problems))
