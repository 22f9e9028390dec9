"""What this run ran on: the machine, the versions and the commit; every report begins with it."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = (
    "aurora-orchestrator", "redis", "hiredis", "pydantic", "SQLAlchemy", "asyncpg", "uvloop",
    "fastapi", "uvicorn",
)  # fmt: skip


def describe(root: Path) -> dict[str, Any]:
    """Machine, load, versions, commit; `root` is the checkout."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "load": [round(each, 2) for each in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "commit": _git(root, "rev-parse", "--short=12", "HEAD"),
        "changed_files": len(_git(root, "status", "--short", "orchestrator").splitlines()),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _git(root: Path, *arguments: str) -> str:
    asked = subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()
