"""Makes models of pydantic-ai by their names, with the keys and addresses of the settings."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model, infer_model
from pydantic_ai.profiles import InlineDefsJsonSchemaTransformer, ModelProfile
from pydantic_ai.providers import Provider, infer_provider_class

from orchestrator.errors import ConfigurationError
from orchestrator.model_options import LOCAL, ModelOptions

LocalModel = Callable[[], Awaitable[str]]  # starts it where none runs; gives its address

# The local model writes what a JSON schema allows, and calls no tools (docs/local-model.md).
BY_SCHEMA = ModelProfile(
    supports_tools=False,
    supports_json_schema_output=True,
    default_structured_output_mode="native",
    json_schema_transformer=InlineDefsJsonSchemaTransformer,
)


@dataclass(frozen=True, slots=True)
class Found:
    """A model, and what it is called in the record and at its provider's gate."""

    model: Model
    name: str  # "openai:gpt-5-mini", "local"
    waits: bool = True  # False: nobody limits it, and where it went away another attempt finds it


class ModelSource:
    """One per process: a model is made once, with its connections."""

    def __init__(self, options: ModelOptions, *, local: LocalModel) -> None:
        """Store. `local` is called for the model "local"."""
        self.options = options
        self._local = local
        self._made: dict[str, Found] = {}

    async def get(self, wanted: Model | str | None) -> Found:
        """The model of this name, by default AURORA_MODEL. Raises ConfigurationError."""
        wanted = wanted or self.options.model
        if wanted is None:
            raise ConfigurationError(
                "no model: name one on the pydantic-ai agent, or set AURORA_MODEL"
                " (local, openai:gpt-5-mini, ...)"
            )
        if isinstance(wanted, Model):
            return Found(wanted, wanted.model_id)
        if wanted == LOCAL:
            return self._at(await self._local())
        if wanted not in self._made:
            self._made[wanted] = self._named(wanted)
        return self._made[wanted]

    async def close(self) -> None:
        """End the connections of what it made; models that agents brought are theirs."""
        for found in self._made.values():
            # Who leaves a model as the last one closes its client, and nobody else is in it.
            async with found.model:
                pass

    def _named(self, wanted: str) -> Found:
        try:
            return Found(infer_model(wanted, self._provider), wanted)
        except (UserError, ValueError, ImportError) as error:
            raise ConfigurationError(f"model {wanted!r}: {error}") from error

    def _provider(self, name: str) -> Provider[Any]:
        made = infer_provider_class(name)
        taken = inspect.signature(made).parameters
        given: dict[str, Any] = {}
        # "openai-chat" and "openai-responses" are two doors of "openai".
        family = name.partition("-")[0]
        if (key := self.options.keys.get(name) or self.options.keys.get(family)) is not None:
            if "api_key" not in taken:
                raise ConfigurationError(
                    f"provider {name} takes no key; leave it out of AURORA_MODEL_KEYS"
                )
            given["api_key"] = key.get_secret_value()
        if url := self.options.urls.get(name) or self.options.urls.get(family):
            if "base_url" not in taken:
                raise ConfigurationError(
                    f"provider {name} has one address only; leave it out of AURORA_MODEL_URLS"
                )
            given["base_url"] = url
        return made(**given)

    def _at(self, url: str) -> Found:
        if url not in self._made:
            from pydantic_ai.models.openai import OpenAIChatModel  # noqa: PLC0415 - an extra's
            from pydantic_ai.providers.openai import OpenAIProvider  # noqa: PLC0415

            provider = OpenAIProvider(base_url=url, api_key="none-needed")
            model = OpenAIChatModel(LOCAL, provider=provider, profile=BY_SCHEMA)
            self._made[url] = Found(model, LOCAL, waits=False)
        return self._made[url]
