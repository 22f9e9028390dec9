"""API keys: made, verified, revoked. The API verifies; `aurora keys` makes and revokes.

A key reads `ak_<16 hex digits>_<64 hex digits>`. What stands before the second underscore is its
public id; the rest is 256 random bits, shown once and kept only as a SHA-256. That many random
bits cannot be guessed from a fast hash, so no salt and no slow one.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.models import ApiKeyRow
from orchestrator.db.recording import write_audit
from orchestrator.db.session import Database
from orchestrator.errors import ConfigurationError
from orchestrator.record import AuditEntry
from orchestrator.task import new_id

_FORM = re.compile(r"(ak_[0-9a-f]{16})_([0-9a-f]{64})")
_NOBODYS_HASH = "0" * 64
LAST_USED_EVERY = timedelta(minutes=1)  # one write a minute and key, not one a request


class Scope(StrEnum):
    """What a key may do. Nothing is allowed that is not named; `admin` stands for all."""

    TASKS_READ = "tasks:read"
    TASKS_WRITE = "tasks:write"
    AGENTS_READ = "agents:read"
    SCHEDULES_READ = "schedules:read"
    SCHEDULES_WRITE = "schedules:write"
    DEAD_READ = "dead:read"
    DEAD_WRITE = "dead:write"
    AUDIT_READ = "audit:read"
    ALERTS_READ = "alerts:read"
    ALERTS_WRITE = "alerts:write"
    ALERTS_ACKNOWLEDGE = "alerts:acknowledge"  # a sensor's key writes, and sees to nothing
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as the record knows it; never its secret."""

    id: str  # the public part, "ak_1f2e..."
    name: str
    scopes: frozenset[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None  # to the minute

    def allows(self, scope: str) -> bool:
        """True when this key may do what `scope` names."""
        return Scope.ADMIN in self.scopes or scope in self.scopes

    def is_valid(self, now: datetime) -> bool:
        """True unless it was revoked or has expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


async def create_key(
    database: Database,
    name: str,
    scopes: Collection[str],
    expires_at: datetime | None = None,
    *,
    actor: str = "cli",
) -> tuple[str, str]:
    """Make a key: (public id, the full text that is shown once).

    `expires_at` is aware. Raises ConfigurationError for a scope that does not exist, Unavailable.
    """
    known = _known_scopes(scopes)
    public_id, secret = f"ak_{secrets.token_hex(8)}", secrets.token_hex(32)
    now = datetime.now(UTC)
    async with database.session() as session:
        row = ApiKeyRow(
            id=public_id, name=name, hash=_hash(secret), scopes=known, created_at=now,
            expires_at=expires_at,
        )  # fmt: skip
        session.add(row)
        await session.flush()
        after = {"name": name, "scopes": known, "expires_at": expires_at}
        await _audit(session, "key.created", public_id, actor=actor, now=now, after=after)
    return public_id, f"{public_id}_{secret}"


async def verify(database: Database, given: str) -> ApiKey | None:
    """The key that this text is, None when it is none, revoked or expired. Raises Unavailable."""
    found = _FORM.fullmatch(given)
    if found is None:
        return None
    public_id, secret = found.groups()
    now = datetime.now(UTC)
    async with database.session() as session:
        row = await session.get(ApiKeyRow, public_id)
        # Compared also when there is no such id, so that time does not tell which ids exist.
        right = hmac.compare_digest(_hash(secret), row.hash if row else _NOBODYS_HASH)
        if row is None or not right:
            return None
        key = as_key(row)
        if not key.is_valid(now):
            return None
        if row.last_used_at is None or row.last_used_at <= now - LAST_USED_EVERY:
            await _used(session, public_id, now)
    return key


async def find(database: Database, public_id: str) -> ApiKey | None:
    """The valid key with this public id, of whoever has shown it before. Raises Unavailable."""
    async with database.session() as session:
        row = await session.get(ApiKeyRow, public_id)
        key = None if row is None else as_key(row)
    return key if key is not None and key.is_valid(datetime.now(UTC)) else None


async def revoke(database: Database, public_id: str, *, actor: str = "cli") -> bool:
    """Make a key useless, at once here and within seconds at every API process' cache.

    False when there is no such key, or it was revoked before.
    """
    now = datetime.now(UTC)
    async with database.session() as session:
        revoked = await session.scalar(
            update(ApiKeyRow)
            .where(ApiKeyRow.id == public_id, ApiKeyRow.revoked_at.is_(None))
            .values(revoked_at=now)
            .returning(ApiKeyRow.name)
        )
        if revoked is None:
            return False
        await _audit(
            session, "key.revoked", public_id, actor=actor, now=now, after={"name": revoked}
        )
    return True


async def list_keys(database: Database) -> list[ApiKey]:
    """Every key, the newest first; without secrets, which nobody has."""
    async with database.session() as session:
        rows = await session.scalars(
            select(ApiKeyRow).order_by(ApiKeyRow.created_at.desc(), ApiKeyRow.id)
        )
        return [as_key(row) for row in rows]


def as_key(row: ApiKeyRow) -> ApiKey:
    """The row as a value, without the hash."""
    return ApiKey(
        id=row.id,
        name=row.name,
        scopes=frozenset(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )


def _known_scopes(scopes: Iterable[str]) -> list[str]:
    asked = sorted(set(scopes))
    for each in asked:
        if each not in set(Scope):
            near = get_close_matches(each, list(Scope), n=1)
            hint = f"did you mean {str(near[0])!r}?" if near else f"there are {', '.join(Scope)}"
            raise ConfigurationError(f"unknown scope {each!r}; {hint}")
    if not asked:
        raise ConfigurationError(
            f"a key without scopes may do nothing; give some of {', '.join(Scope)}"
        )
    return [str(each) for each in asked]


async def _used(session: AsyncSession, public_id: str, now: datetime) -> None:
    # Again in the condition: of many API processes one writes.
    await session.execute(
        update(ApiKeyRow)
        .where(
            ApiKeyRow.id == public_id,
            or_(
                ApiKeyRow.last_used_at.is_(None),
                ApiKeyRow.last_used_at <= now - LAST_USED_EVERY,
            ),
        )
        .values(last_used_at=now)
        .execution_options(synchronize_session=False)
    )


async def _audit(
    session: AsyncSession,
    action: str,
    public_id: str,
    *,
    actor: str,
    now: datetime,
    after: dict[str, Any],
) -> None:
    entry = AuditEntry(
        id=new_id(), at=now, action=action, actor=actor, object_type="api_key",
        object_id=public_id, after=after,
    )  # fmt: skip
    await write_audit(await session.connection(), [entry])


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
