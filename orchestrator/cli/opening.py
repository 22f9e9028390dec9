"""Opens what a command needs, settings and servers, and closes it again."""

import asyncio
import getpass
import os
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from orchestrator.parts import Parts
    from orchestrator.settings import Settings

T = TypeVar("T")

DATA_DIR = Path(".aurora")  # where `aurora dev` keeps its things unless told otherwise
# Postgres' codes for a table or column that does not exist.
_NO_SUCH = frozenset({"42P01", "42703"})


def settings(**given: Any) -> "Settings":
    """The settings; where none name the servers, those of the `aurora dev` that runs here.

    Raises ConfigurationError.
    """
    from orchestrator.cli.data_directory import DataDirectory
    from orchestrator.settings import load_settings

    wanted = {name: value for name, value in given.items() if value not in (None, ())}
    found = load_settings(dict(os.environ), **wanted)
    if found.model_fields_set & {"redis_url", "database_url"}:
        return found
    running = DataDirectory(DATA_DIR).of_running()
    if running is None:
        return found
    return load_settings(
        dict(os.environ),
        **wanted,
        redis_url=running["AURORA_REDIS_URL"],
        database_url=running["AURORA_DATABASE_URL"],
    )


def actor() -> str:
    """Who is written into the audit trail."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user without a name
        return f"cli:{os.getuid()}"


def run_long(main: Coroutine[Any, Any, T]) -> T:
    """Run a process that stays, on the faster event loop where there is one."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)


def with_parts(work: Callable[["Parts"], Awaitable[T]], found: "Settings | None" = None) -> T:
    """Run a short piece of work with the parts of a process; they are closed afterwards.

    Raises SchemaNotAtHead where a table is missing.
    """
    return asyncio.run(_with_parts(work, found or settings()))


async def _with_parts(work: Callable[["Parts"], Awaitable[T]], found: "Settings") -> T:
    from orchestrator.parts import Parts

    parts = Parts(found, role="cli")
    try:
        return await work(parts)
    except Exception as error:
        # Asked only now: looking at the schema first would cost every command half a second.
        if getattr(getattr(error, "orig", None), "sqlstate", None) in _NO_SUCH:
            from orchestrator.db import schema

            await schema.check(parts.database)
        raise
    finally:
        await parts.close()
