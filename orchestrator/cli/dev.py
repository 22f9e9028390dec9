"""`aurora dev`: everything on this machine with one command; agents reload when they change."""

import logging
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import logs, opening
from orchestrator.cli.roles import LogLevel

Data = Annotated[Path, typer.Option(help="Where the servers keep their data.")]
ApiPort = Annotated[
    int | None, typer.Option(min=0, help="Of the API; 0: any free one [AURORA_PORT, 8080].")
]


def dev(
    data_dir: Data = opening.DATA_DIR,
    port: ApiPort = None,
    log_level: LogLevel = "info",
) -> None:
    """Run everything here: embedded Valkey and Postgres, API, scheduler, recorder, a worker.

    Servers that AURORA_REDIS_URL or AURORA_DATABASE_URL name are used instead of embedded ones.
    Agents reload when a file of theirs changes.
    """
    began = time.monotonic()
    from orchestrator.cli.data_directory import DataDirectory
    from orchestrator.cli.servers import DATABASE, REDIS, embedded
    from orchestrator.settings import load_settings

    logs.set_up(log_level)
    logging.getLogger("aurora.app").setLevel(logging.WARNING)  # the banner says what runs
    given = {} if port is None else {"port": port}
    settings = load_settings(dict(os.environ), **given)
    wanted = frozenset({REDIS, DATABASE} - settings.model_fields_set)
    directory = DataDirectory(data_dir.absolute())
    with directory.held(), embedded(directory.path, wanted=wanted) as servers:
        # While the servers come up.
        from orchestrator.api.server import listen
        from orchestrator.cli.dev_session import DevSession
        from orchestrator.registry import load_agents

        with listen(settings.host, settings.port) as listener:
            registry = load_agents(settings.agents)
            _starting(wanted)
            settings = load_settings(dict(os.environ), **given, **servers.urls())
            session = DevSession(
                settings, registry, listener=listener, directory=directory, began=began
            )
            try:
                opening.run_long(session.run())
            finally:
                directory.forget_urls()


def _starting(wanted: frozenset[str]) -> None:
    if wanted and sys.stdout.isatty():
        print("starting ...", end="\r", flush=True)
