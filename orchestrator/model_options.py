"""Which model agents use, and how its provider is reached: the part of the settings for models."""

from datetime import timedelta

from pydantic import BaseModel, ConfigDict, SecretStr

LOCAL = "local"  # the small model of this machine, from the extra local-model


class ModelOptions(BaseModel):
    """AURORA_MODEL and what belongs to it."""

    model_config = ConfigDict(frozen=True)

    model: str | None = None  # for agents that name none: "local", "openai:gpt-5-mini", ...
    keys: dict[str, SecretStr] = {}  # by provider
    urls: dict[str, str] = {}  # by provider: where it is reached, if not at its own address
    timeout: timedelta = timedelta(minutes=2)  # of one request
    patience: timedelta = timedelta(hours=1)  # of one run, for a provider that limits or is away
