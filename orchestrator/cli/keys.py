"""`aurora keys`: who may use the HTTP API."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import opening
from orchestrator.cli.output import Format, Output, show_list
from orchestrator.errors import OrchestratorError

if TYPE_CHECKING:
    from orchestrator.parts import Parts

app = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke.")
SHOWN = ("id", "name", "state", "scopes", "created_at", "expires_at", "last_used_at")


class NoSuchKey(OrchestratorError):
    """No valid key of that id."""


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who will use it, for people to read.")],
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", "-s", help="What it may do, repeated: tasks:write, admin ..."),
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Valid for so many days.")] = None,
) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    from datetime import timedelta

    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None

    async def work(parts: "Parts") -> str:
        from orchestrator.db.keys import create_key

        _, key = await create_key(
            parts.database, name, scope or [], expires_at, actor=opening.actor()
        )
        return key

    # Alone on stdout, so that KEY=$(aurora keys create ...) works.
    print(opening.with_parts(work))


@app.command("list")
def list_keys(output: Output = Format.TABLE) -> None:
    """List every key, the newest first; without the keys themselves, which nobody has."""

    async def work(parts: "Parts") -> list[dict[str, Any]]:
        from orchestrator.db.keys import list_keys

        now = datetime.now(UTC)
        return [
            {
                "id": key.id,
                "name": key.name,
                "state": "revoked"
                if key.revoked_at
                else "valid"
                if key.is_valid(now)
                else "expired",
                "scopes": key.scopes,
                "created_at": key.created_at,
                "expires_at": key.expires_at,
                "revoked_at": key.revoked_at,
                "last_used_at": key.last_used_at,
            }
            for key in await list_keys(parts.database)
        ]

    show_list(
        opening.with_parts(work), output, columns=SHOWN, nothing="no keys; aurora keys create"
    )


@app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Its public part, ak_1f2e...")],
) -> None:
    """Make a key useless, everywhere within seconds."""

    async def work(parts: "Parts") -> bool:
        from orchestrator.db.keys import revoke

        return await revoke(parts.database, key_id, actor=opening.actor())

    if not opening.with_parts(work):
        raise NoSuchKey(f"no valid key {key_id}; aurora keys list has them")
    print(f"{key_id} is revoked")
