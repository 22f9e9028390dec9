"""Sign-ins to the dashboard: a random token in a cookie, its hash here, good while its key is."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select

from orchestrator.db.keys import ApiKey, as_key
from orchestrator.db.models import ApiKeyRow, SessionRow
from orchestrator.db.recording import write_audit
from orchestrator.db.session import Database
from orchestrator.record import AuditEntry
from orchestrator.task import new_id

GOOD_FOR = timedelta(hours=12)  # a shift; after that the key is asked for again
MOST_OF_A_KEY = 50  # sign-ins at one time; whoever holds a key cannot fill the table with it


async def begin(database: Database, key: ApiKey) -> str:
    """Sign in with a key that was verified: the token for the cookie, kept nowhere else."""
    token, now = secrets.token_urlsafe(32), datetime.now(UTC)
    async with database.session() as session:
        await session.execute(delete(SessionRow).where(SessionRow.expires_at <= now))
        kept = (
            select(SessionRow.hash)
            .where(SessionRow.key_id == key.id)
            .order_by(SessionRow.expires_at.desc())
            .limit(MOST_OF_A_KEY - 1)
        )
        await session.execute(
            delete(SessionRow).where(SessionRow.key_id == key.id, SessionRow.hash.not_in(kept))
        )
        row = SessionRow(
            hash=_hash(token), key_id=key.id, created_at=now, expires_at=now + GOOD_FOR
        )
        session.add(row)
        entry = _audited("session.began", key.id, now=now)
        await write_audit(await session.connection(), [entry])
    return token


async def find(database: Database, token: str) -> ApiKey | None:
    """The key that this token was given for, None when either is no longer good."""
    now = datetime.now(UTC)
    async with database.session() as session:
        row = await session.scalar(
            select(ApiKeyRow)
            .join(SessionRow, SessionRow.key_id == ApiKeyRow.id)
            .where(SessionRow.hash == _hash(token), SessionRow.expires_at > now)
        )
    key = as_key(row) if row is not None else None
    return key if key is not None and key.is_valid(now) else None


async def end(database: Database, token: str) -> None:
    """Sign out. Twice is once."""
    now = datetime.now(UTC)
    async with database.session() as session:
        key_id = await session.scalar(
            delete(SessionRow).where(SessionRow.hash == _hash(token)).returning(SessionRow.key_id)
        )
        if key_id is not None:
            entry = _audited("session.ended", key_id, now=now)
            await write_audit(await session.connection(), [entry])


def _audited(action: str, key_id: str, *, now: datetime) -> AuditEntry:
    return AuditEntry(
        id=new_id(), at=now, action=action, actor=f"key:{key_id}", object_type="api_key",
        object_id=key_id,
    )  # fmt: skip


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
