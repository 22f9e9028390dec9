"""A virtual environment for each peer, in the user's cache directory: made once, then kept."""

import asyncio
import os
import sys
from pathlib import Path

REQUIREMENTS = {
    "pgqueuer": ("pgqueuer[asyncpg]", "uvloop"),
    "taskiq": ("taskiq", "taskiq-redis", "orjson", "hiredis", "uvloop"),
}


def place(peer: str) -> Path:
    """Where it is, or would be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "aurora-benchmarks" / peer


async def python(peer: str) -> Path:
    """The peer's interpreter; installed at the first call. Raises RuntimeError with pip's words."""
    home = place(peer)
    found, complete = home / "bin" / "python", home / "complete"
    if not complete.exists():
        await _run(sys.executable, "-m", "venv", "--clear", str(home))
        await _run(
            str(found), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            *REQUIREMENTS[peer],
        )  # fmt: skip
        complete.touch()
    return found


async def version(peer: str) -> str:
    """What is installed: "pgqueuer 1.6.0"."""
    interpreter = await python(peer)
    package = "taskiq-redis" if peer == "taskiq" else peer
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return f"{package} {(await _run(str(interpreter), '-c', code)).strip()}"


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, said = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {said.decode(errors='replace')[-800:]}")
    return out.decode()
