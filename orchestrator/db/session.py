"""The engine and its sessions, the driver beneath them, and Postgres' errors in our words."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

import asyncpg
from sqlalchemy import PoolProxiedConnection, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.util import greenlet_spawn

from orchestrator.errors import ConfigurationError, TookTooLong, Unavailable
from orchestrator.record import Unrecordable

# A statement that takes longer holds locks that others wait for; lists and batches are far below.
STATEMENT_TIMEOUT_MS = 30_000
LOCK_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT = 5.0  # seconds
# Seconds after which a statement will not be answered any more: Postgres itself would have given it
# up by then. A network that forgot a connection says nothing, and who waits must not wait for ever.
# The driver then asks for the statement's cancellation, as long again, and drops the connection.
ANSWER_TIMEOUT = 35.0

# For what people look at: given up after 2 s, and not compiled first, which takes longer than the
# whole of a query that ends at fifty rows.
FOR_PEOPLE = {"statement_timeout": "2000", "jit": "off"}


class Database:
    """One process' door to Postgres."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        answer_timeout: float | None = ANSWER_TIMEOUT,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Store; the first statement connects. `url`: postgresql+asyncpg://...

        `settings`: of Postgres, for every connection, over the ones below.
        """
        self.url = url
        self.engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=10,
            pool_pre_ping=False,  # a dead connection shows as Unavailable, and the caller retries
            connect_args={
                "timeout": CONNECT_TIMEOUT,
                "command_timeout": answer_timeout,
                "server_settings": {
                    "application_name": "aurora",
                    "timezone": "UTC",
                    "synchronous_commit": "on",  # P1 rests on it
                    "statement_timeout": str(STATEMENT_TIMEOUT_MS),
                    "lock_timeout": str(LOCK_TIMEOUT_MS),
                    "idle_in_transaction_session_timeout": "60000",
                    **(settings or {}),
                },
            },
        )
        self.sessions: async_sessionmaker[AsyncSession] = async_sessionmaker(
            self.engine, expire_on_commit=False
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, committed at the end. Raises Unavailable."""
        async with translated(), self.engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """One ORM session in one transaction, committed at the end. Raises Unavailable."""
        async with translated(), self.sessions.begin() as session:
            yield session

    @asynccontextmanager
    async def driver(self) -> AsyncIterator[asyncpg.Connection]:
        """The driver's own connection, for one statement that commits by itself.

        Raises Unavailable; what concerns the data is raised as asyncpg has it.
        """
        async with translated(), asyncio.timeout(ANSWER_TIMEOUT):
            # Straight from the pool: what SQLAlchemy lays around it takes 30 us, a twentieth of
            # what the row of a lone submission takes Postgres.
            pooled = await self.engine.raw_connection()
            while _driver_of(pooled).is_closed():  # by a restart that the pool has not noticed
                await greenlet_spawn(pooled.invalidate)
                pooled = await self.engine.raw_connection()
            try:
                yield _driver_of(pooled)
            except BaseException as error:
                # SQLAlchemy has not seen it, and would lend a broken connection to the next one.
                if not isinstance(error, asyncpg.PostgresError) or _is_outage(error):
                    await greenlet_spawn(pooled.invalidate)
                raise
            finally:
                if pooled.is_valid:
                    pooled.close()  # waits for nothing: SQLAlchemy has begun no transaction on it

    async def ping(self) -> None:
        """Raise Unavailable unless Postgres answers."""
        async with self.transaction() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Postgres' errors in our words; what concerns the data (IntegrityError ...) stays."""
    try:
        yield
    except (InterfaceError, OperationalError, PoolTimeout, OSError, TimeoutError) as error:
        raise _in_our_words(error) from error
    except DBAPIError as error:
        if error.connection_invalidated or _is_outage(error):
            raise _in_our_words(error) from error
        raise
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # asyncpg's InterfaceError is a connection that is of no use, or a value it cannot encode.
        if _is_outage(error) or not isinstance(error, asyncpg.PostgresError | asyncpg.DataError):
            raise _in_our_words(error) from error
        raise


def _driver_of(pooled: PoolProxiedConnection) -> asyncpg.Connection:
    return cast("asyncpg.Connection", pooled.driver_connection)


def unrecordable(error: DBAPIError) -> Exception:
    """What an error of a write means: these data will never go in, or not now.

    Only what Postgres says of the data (classes 21, 22, 23, 54, and text it cannot encode) is about
    the data. A missing table or right is ours to mend, and no reason to set messages aside.
    """
    state = str(getattr(error.orig, "sqlstate", "") or "")
    said = str(error.orig or error).splitlines()[0]
    if state[:2] in {"21", "22", "23", "54"} or state == "":
        return Unrecordable(said)
    return Unavailable("Postgres", f"it refuses our statements: {said}; is the schema at head?")


def _is_outage(error: BaseException) -> bool:
    # Class 57 is operator intervention (shutdown, crash), 53 insufficient resources (disk full),
    # 08 connection exceptions, 25006 a read-only standby, 40 serialisation and deadlock; 28 is a
    # refused login and 3D a missing database, which get words of their own.
    state = str(getattr(getattr(error, "orig", error), "sqlstate", "") or "")
    return state[:2] in {"57", "53", "08", "40", "28", "3D"} or state in {"25006", "55P03"}


def _in_our_words(error: BaseException) -> Exception:
    origin = getattr(error, "orig", None) or error
    if isinstance(origin, TimeoutError):  # its cause is a cancellation, which tells nobody anything
        return Unavailable("Postgres", "no answer in time (AURORA_DATABASE_URL)")
    cause = getattr(origin, "__cause__", None) or origin
    state = str(getattr(cause, "sqlstate", "") or getattr(origin, "sqlstate", "") or "")
    if state.startswith("28"):
        return ConfigurationError(
            f"Postgres refused the login: {cause}; check user and password in AURORA_DATABASE_URL"
        )
    if state == "57014":  # query_canceled, by its statement_timeout
        return TookTooLong("Postgres", "the statement took too long and was given up")
    if state == "3D000":
        return ConfigurationError(f"{cause}; create it, or change AURORA_DATABASE_URL")
    said = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    return Unavailable("Postgres", f"{said} (AURORA_DATABASE_URL)")
