"""Logging, set up once: sentences on a terminal, JSON lines everywhere else. Both go to stderr."""

import json
import logging
import sys
from datetime import UTC, datetime

from orchestrator.cli.output import harmless
from orchestrator.tracing.current import log_fields

# What every record has; the rest was given with `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}


class Sentences(logging.Formatter):
    """`09:12:33 recorder    text`, for people."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the stack below it where there is one."""
        at = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")  # noqa: DTZ006 - a person's clock
        who = record.name.rpartition(".")[2]
        colour = _COLOURS.get(record.levelno, "")
        text = f"\x1b[2m{at} {who:<11}\x1b[0m {colour}{harmless(record.getMessage())}\x1b[0m"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class JsonLines(logging.Formatter):
    """One JSON object a line, for whatever collects them."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level and text, then what was given with `extra`."""
        said = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        said |= log_fields()  # of whoever logs: it is formatted there and then
        said.update((key, value) for key, value in vars(record).items() if key not in _OWN)
        if record.exc_info:
            said["stack"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


def set_up(level: str = "info") -> None:
    """Send ours from `level` on, other libraries' warnings, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Sentences() if sys.stderr.isatty() else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("aurora").setLevel(level.upper())
    logging.captureWarnings(capture=True)
