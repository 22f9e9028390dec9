"""`aurora config`: what is set, and where that comes from."""

import os
import re
from typing import Any

import typer

from orchestrator.cli import opening
from orchestrator.cli.output import Format, Output, show_list

app = typer.Typer(no_args_is_help=True, help="Settings: show.")
_PASSWORD = re.compile(r"(?<=://)([^:/@]*):([^@]*)@")


@app.command("show")
def show(output: Output = Format.TABLE) -> None:
    """Show every setting with its value; passwords are masked."""
    from pydantic import SecretStr

    found = opening.settings()
    rows: list[dict[str, Any]] = []
    for name in type(found).model_fields:
        value = getattr(found, name)
        if isinstance(value, SecretStr):
            value = masked(value.get_secret_value())
        variable = f"AURORA_{name.upper()}"
        source = "default"
        if name in found.model_fields_set:
            source = "environment" if os.environ.get(variable) else "pyproject.toml or aurora dev"
        rows.append({"setting": variable, "value": value, "from": source})
    show_list(rows, output, columns=("setting", "value", "from"), nothing="")


def masked(url: str) -> str:
    """A URL without its password."""
    return _PASSWORD.sub(r"\1:***@", url)
