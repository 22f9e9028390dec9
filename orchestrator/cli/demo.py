"""`aurora demo`: the main job on sample alerts, with a worker killed on the way."""

import asyncio
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import console
from orchestrator.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from orchestrator.parts import Parts
    from orchestrator.registry import AgentRegistry

AGENTS = "./agents"
LOG_TAIL = 20  # lines


Model = Annotated[
    str | None,
    typer.Option(help="Let a language model assess a few: local, openai:gpt-5-mini, ..."),
]


def demo(*, model: Model = None) -> None:
    """Watch it work: sample alerts in, verdicts out, and a worker killed in the middle.

    Starts Valkey and Postgres in a temporary directory, and removes everything afterwards. With
    --model, an agent then asks a model about the most severe; `local` needs no account.
    """
    # So that what is started below is stopped in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    home = Path(tempfile.mkdtemp(prefix="aurora-demo-"))
    home.chmod(0o711)  # Postgres, when we are root, runs as somebody else and passes through
    try:
        _demo(home, model)
    except BaseException:
        _show_log(home / "workers.log")
        raise
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _demo(home: Path, model: str | None) -> None:
    from orchestrator.cli.servers import embedded

    began = time.monotonic()
    registry = _agents()
    then = _last_act(model, registry) if model else None
    log = home / "workers.log"
    logging.basicConfig(filename=log, level=logging.WARNING)
    with embedded(home) as servers:
        # While the servers come up.
        from orchestrator.cli.demo_story import Story, demo_settings
        from orchestrator.cli.demo_summary import Told, print_summary
        from orchestrator.cli.demo_telling import Telling

        screen = console()
        with Telling(screen) as telling, log.open("ab") as output:
            settings = demo_settings(servers.urls(), agents=AGENTS, model=model)
            alerts = _sample()
            story = Story(settings, registry, telling=telling, output=output)

            def show(told: Told) -> None:
                telling.end()
                print_summary(screen, told)

            asyncio.run(story.run(alerts, show, then))
    print(f"  Done after {time.monotonic() - began:.1f} s; nothing is left running.\n")


def _agents() -> "AgentRegistry":
    """The agents of this folder. Raises ConfigurationError where none of them wants alerts."""
    from orchestrator.registry import load_agents

    if not Path(AGENTS).is_dir():
        raise ConfigurationError(
            f"the demo runs the agents in {AGENTS}, and there is no such folder in {Path.cwd()};"
            " go to a clone of the repository and run aurora demo there"
        )
    registry = load_agents((AGENTS,))
    if not registry.rules:
        raise ConfigurationError(
            f"{Path(AGENTS).resolve()} has no rule for alerts, such as"
            " `class Every(Rule): agent = Triage`; run aurora demo in a clone of the repository"
        )
    return registry


def _last_act(
    model: str, registry: "AgentRegistry"
) -> "Callable[[Parts], Coroutine[Any, Any, None]]":
    from orchestrator.cli.demo_model import assess, check_model

    check_model(model, registry, os.environ)
    return lambda parts: assess(console(), parts, model)


def _sample() -> list[bytes]:
    text = files("orchestrator.cli").joinpath("samples", "alerts.jsonl").read_bytes()
    return [line for line in text.splitlines() if line.strip()]


def _show_log(log: Path) -> None:
    """What the workers and services complained of, when the demo did not work out."""
    if log.exists():
        for line in log.read_text(errors="replace").splitlines()[-LOG_TAIL:]:
            print(f"    {line}", file=sys.stderr)
