"""`aurora`: finds the command, and says every error of ours in one line.

Exit codes: 0 done, 1 it did not work out, 2 wrong before anything ran (settings, servers, usage).
"""

import os
import sys
from typing import Annotated, NoReturn

import typer

from orchestrator.cli import (
    agents,
    alerts,
    audit,
    config,
    db,
    dead,
    demo,
    dev,
    doctor,
    keys,
    roles,
    run,
    schedules,
    tasks,
    usage,
)
from orchestrator.cli.output import one_line
from orchestrator.cli.tied import tie_to_parent
from orchestrator.errors import ConfigurationError, OrchestratorError

CONFIGURATION, UNSUCCESSFUL, INTERRUPTED = 2, 1, 130
START, SERVE, LOOK, CARE = "Start here", "Processes", "Work", "Upkeep"

app = typer.Typer(
    name="aurora",
    help="Runs AI agents the way Celery runs tasks: Redis Streams in, Postgres out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo", rich_help_panel=START)(demo.demo)
app.command("dev", rich_help_panel=START)(dev.dev)
app.command("run", rich_help_panel=START)(run.run)
app.command("doctor", rich_help_panel=START)(doctor.doctor)
app.command("up", rich_help_panel=SERVE)(roles.up)
app.command("api", rich_help_panel=SERVE)(roles.api)
app.command("worker", rich_help_panel=SERVE)(roles.worker)
app.command("recorder", rich_help_panel=SERVE)(roles.recorder)
app.command("scheduler", rich_help_panel=SERVE)(roles.scheduler)
app.command("bridge", rich_help_panel=SERVE)(roles.bridge)
app.add_typer(alerts.app, name="alerts", rich_help_panel=SERVE)
app.add_typer(tasks.app, name="tasks", rich_help_panel=LOOK)
app.add_typer(agents.app, name="agents", rich_help_panel=LOOK)
app.add_typer(schedules.app, name="schedules", rich_help_panel=LOOK)
app.add_typer(dead.app, name="dead", rich_help_panel=LOOK)
app.add_typer(audit.app, name="audit", rich_help_panel=LOOK)
app.command("usage", rich_help_panel=LOOK)(usage.usage)
app.add_typer(db.app, name="db", rich_help_panel=CARE)
app.add_typer(keys.app, name="keys", rich_help_panel=CARE)
app.add_typer(config.app, name="config", rich_help_panel=CARE)


def main() -> None:
    """Run the command that the arguments name."""
    tie_to_parent()
    try:
        app()
    except OrchestratorError as error:
        if os.environ.get("AURORA_DEV_TRACEBACK") == "1":
            raise
        print(f"aurora: {one_line(error)}", file=sys.stderr)
        sys.exit(CONFIGURATION if isinstance(error, ConfigurationError) else UNSUCCESSFUL)
    except BrokenPipeError:
        _leave_quietly()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _leave_quietly() -> NoReturn:
    """Whoever read us (`head`, a pager) has seen enough."""
    # Python flushes at exit, which would complain about the same pipe once more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(UNSUCCESSFUL)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"aurora {version('aurora-orchestrator')}")
        raise typer.Exit


@app.callback()
def aurora(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print it and leave."),
    ] = False,
) -> None:
    """Take the options before the command."""
