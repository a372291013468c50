"""Transactions of Prefect's server on SQLite: they wait for each other, and as Prefect begins them they do not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import pytest
import sqlalchemy as sa
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.utilities.asyncutils import run_coro_as_sync
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from flows import prefect_sqlite


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(AioSqliteConfiguration, "begin_transaction", prefect_sqlite._THEIRS)
    prefect_sqlite.wait_in_turn()
    yield


@asynccontextmanager
async def _database(folder: Path) -> AsyncIterator[tuple[AioSqliteConfiguration, AsyncEngine]]:
    """A server's database in `folder`."""
    database = AioSqliteConfiguration(f"sqlite+aiosqlite:///{folder / 'server.db'}")
    engine = await database.engine()
    try:
        yield database, engine
    finally:
        await engine.dispose()


async def _read_then_write_at_once(folder: Path) -> int:
    """Two transactions that read, wait for a moment, and then write: what a poll and a heartbeat do."""
    async with _database(folder) as (database, engine):
        async with await database.session(engine) as session, database.begin_transaction(session, with_for_update=True):
            await session.execute(sa.text("CREATE TABLE polls (number INTEGER)"))

        async def poll() -> None:
            async with await database.session(engine) as session, database.begin_transaction(session):
                count = (await session.execute(sa.text("SELECT count(*) FROM polls"))).scalar_one()
                await asyncio.sleep(0.2)
                await session.execute(sa.text("INSERT INTO polls VALUES (:number)"), {"number": count})

        await asyncio.gather(poll(), poll())
        async with await database.session(engine) as session:
            return int((await session.execute(sa.text("SELECT count(DISTINCT number) FROM polls"))).scalar_one())


@pytest.mark.usefixtures("patched")
def test_transactions_wait_for_each_other(tmp_path: Path) -> None:
    assert asyncio.run(_read_then_write_at_once(tmp_path)) == 2


def test_without_it_the_second_one_fails(tmp_path: Path) -> None:
    """Where this fails, Prefect does it by itself, and flows/prefect_sqlite.py can go."""
    assert AioSqliteConfiguration.begin_transaction is prefect_sqlite._THEIRS
    with pytest.raises(OperationalError, match="database is locked"):
        asyncio.run(_read_then_write_at_once(tmp_path))


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("begun", [False, True])
def test_what_is_read_meanwhile_waits_for_nobody(tmp_path: Path, begun: bool) -> None:
    """By a plain reader, and by a transaction that is begun within a writer's: that one could only wait for itself."""
    async def look() -> int:
        async with (_database(tmp_path) as (database, engine), await database.session(engine) as writer,
                    database.begin_transaction(writer)):
            await writer.execute(sa.text("CREATE TABLE polls (number INTEGER)"))
            async with (await database.session(engine) as reader,
                        database.begin_transaction(reader) if begun else nullcontext()):
                return int((await reader.execute(sa.text("SELECT 7"))).scalar_one())

    assert asyncio.run(asyncio.wait_for(look(), 10.0)) == 7


@pytest.mark.usefixtures("patched")
def test_a_look_that_stops_the_event_loop_after_a_commit_waits_for_no_other_writer(tmp_path: Path) -> None:
    """Prefect reads an automation that it has just committed so, and the other writer cannot go on meanwhile."""
    seen: list[float] = []

    async def look() -> None:
        async with _database(tmp_path) as (database, engine), await database.session(engine) as session:
            await session.execute(sa.text("SELECT count(*) FROM polls"))

    def looks(*_: object) -> None:
        time.sleep(0.5)  # by now the other transaction has begun
        began = time.monotonic()
        run_coro_as_sync(look())
        seen.append(time.monotonic() - began)

    async def other(database: AioSqliteConfiguration, engine: AsyncEngine, begun: asyncio.Event) -> None:
        await begun.wait()
        async with await database.session(engine) as session, database.begin_transaction(session):
            await session.execute(sa.text("INSERT INTO polls VALUES (2)"))

    async def run() -> None:
        async with _database(tmp_path) as (database, engine):
            begun = asyncio.Event()
            waiting = asyncio.create_task(other(database, engine, begun))
            async with await database.session(engine) as session, database.begin_transaction(session):
                await session.execute(sa.text("CREATE TABLE polls (number INTEGER)"))
                sa.event.listen(session.sync_session, "after_commit", looks, once=True)
                begun.set()
                await asyncio.sleep(0.2)
            await waiting

    asyncio.run(run())
    assert len(seen) == 1 and seen[0] < 10.0
