"""Servers and a worker whose wall clocks can be set, each by a file of its own."""

import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from orchestrator.embedded.postgres import EmbeddedPostgres
from orchestrator.embedded.tied import Command
from orchestrator.embedded.valkey import EmbeddedValkey
from tests.faults.servers import CannotRun, Servers

SOURCE = Path(__file__).with_name("clock_shim.c")
NANOSECONDS = 1_000_000_000


class Clock:
    """One process' wall clock, as far as it is off."""

    def __init__(self, path: Path, shim: Path) -> None:
        self._path = path
        self._shim = shim
        self.jump(0.0)

    def jump(self, seconds: float) -> None:
        """So far from the true time from now on."""
        mode = "r+b" if self._path.exists() else "wb"  # never truncated: it is mapped
        with self._path.open(mode) as file:
            file.write(struct.pack("=q", int(seconds * NANOSECONDS)))

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process go by it."""
        return {"LD_PRELOAD": str(self._shim), "CLOCK_SHIM": str(self._path)}

    def worn_by(self, command: Command) -> Command:
        """The same command, going by it."""
        worn = {**command.environment, **self.environment}
        if "LD_PRELOAD" in command.environment:  # an allocator
            worn["LD_PRELOAD"] += ":" + command.environment["LD_PRELOAD"]
        return replace(command, environment=worn)


class JumpyValkey(EmbeddedValkey):
    clock: Clock

    def _command(self, port: int) -> Command:
        return self.clock.worn_by(super()._command(port))


class JumpyPostgres(EmbeddedPostgres):
    clock: Clock

    def _command(self, port: int) -> Command:
        return self.clock.worn_by(super()._command(port))


class Clocked(Servers):
    """Redis' clock, Postgres' and that of `worker-0` can be jumped; the others' are true."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.seen: Counter[str] = Counter()  # jumps that showed
        shim = compiled(home)
        self.clocks = {
            name: Clock(home / f"{name}.clock", shim) for name in ("redis", "postgres", "worker-0")
        }
        self.valkey = JumpyValkey(home / "valkey")
        self.valkey.clock = self.clocks["redis"]
        self.postgres = JumpyPostgres(home / "postgres")
        self.postgres.clock = self.clocks["postgres"]

    def environment(self, who: str) -> Mapping[str, str]:
        return self.clocks[who].environment if who in self.clocks else {}


def compiled(home: Path) -> Path:
    """Raises CannotRun."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise CannotRun("setting a clock needs a C compiler (cc)")
    shim = home / "clock_shim.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", shim, SOURCE, "-ldl"], check=True)
    return shim
