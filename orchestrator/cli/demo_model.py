"""The demo's last act, with `--model`: a language model says what a few of the alerts mean."""

import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from orchestrator.alert import Alert
from orchestrator.cli.demo_summary import COLOURS
from orchestrator.cli.output import harmless
from orchestrator.client import set_submitter
from orchestrator.embedded.weights import cache_directory, find_weights
from orchestrator.errors import ConfigurationError
from orchestrator.model_options import LOCAL
from orchestrator.parts import Parts
from orchestrator.registry import AgentRegistry

AGENT = "analyst"
MODELS = "pydantic_ai"
ALERTS = 3  # the most severe, of three kinds
PATIENCE = 300.0  # seconds for one of them: a model on two busy cores takes its time
CHOSEN = f"""
    SELECT * FROM (
        SELECT DISTINCT ON (a.signature) a.*, (r.output->>'score')::int AS score
        FROM results r JOIN alerts a ON a.id::text = r.output->>'alert_id'
        WHERE r.agent = 'triage' AND r.state = 'succeeded'
        ORDER BY a.signature, score DESC, a.occurred_at
    ) each ORDER BY score DESC, signature LIMIT {ALERTS}
"""  # noqa: S608 - a number of ours
SPENT = """
    SELECT count(*) AS calls, coalesce(sum(input_tokens), 0) AS read,
           coalesce(sum(cached_tokens), 0) AS cached, coalesce(sum(output_tokens), 0) AS written,
           sum(cost_usd) AS usd
    FROM model_calls
"""


def check_model(model: str, registry: AgentRegistry, environment: Mapping[str, str]) -> None:
    """Say at the start what would be missing at the end. Raises ConfigurationError."""
    if AGENT not in registry.by_name:
        raise ConfigurationError(
            f"aurora demo --model shows the agent {AGENT}, and ./agents has none of that name;"
            " run it in a clone of the repository"
        )
    if find_spec(MODELS) is None:
        extras = "models,local-model" if model == LOCAL else "models"
        raise ConfigurationError(
            f"--model {model} needs an extra: pip install 'aurora-orchestrator[{extras}]'"
        )
    if model == LOCAL:
        find_weights(None, cache_directory(environment))


async def assess(console: Console, parts: Parts, model: str) -> None:
    """Put a few alerts to the agent and print what it says. Raises TaskUnsuccessful."""
    console.print(Text(f"\n  What the model {model} says of the most severe", "bold"))
    rows = await parts.read(CHOSEN, {})
    agent = parts.registry.get(AGENT)
    set_submitter(parts.submitter)
    try:
        began = time.monotonic()
        # One after the other, so that there is something to read meanwhile.
        for row in rows:
            alert = Alert.model_validate({**row, "id": str(row["id"])})
            handle = await agent.delay(alert)
            output = await handle.get(timeout=PATIENCE, recorded=True)
            _print_assessment(console, alert, agent.output_type.dump_python(output, mode="json"))
        seconds = time.monotonic() - began
    finally:
        set_submitter(None)
    (spent,) = await parts.read(SPENT, {})
    cost = "no price is known" if spent["usd"] is None else f"{spent['usd']:.6f} USD"
    _say(
        console,
        Text(
            f"{spent['calls']} calls in {seconds:.0f} s: {spent['read']} tokens read"
            f" ({spent['cached']} of them from its cache), {spent['written']} written; {cost}",
            "dim",
        ),
    )
    if model == LOCAL:
        small = "a very small model: it shows how it is done, not how well (docs/local-model.md)"
        _say(console, Text(small, "dim"))
    console.print()


def _print_assessment(console: Console, alert: Alert, said: dict[str, Any]) -> None:
    severity = str(said["severity"])
    head = Text.assemble(
        (f"{severity:<9}", COLOURS.get(severity, "")), harmless(alert.signature), "  ",
        (f"{said['action']}, confidence {said['confidence']}", "bold"),
    )  # fmt: skip
    _say(console, head)
    _say(console, Text(f"         {harmless(said['what_happened'])}"))
    _say(console, Text(f"         by {', '.join(said['evidence'])}", "dim"))


def _say(console: Console, text: Text) -> None:
    console.print(Padding(text, (0, 4), expand=False))
