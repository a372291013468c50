"""Prefect's server on an SQLite file, with transactions that wait for each other instead of failing.

    python -m flows.prefect_sqlite server start ...      # takes what `prefect` takes

Prefect 3.7 begins a transaction as a reader, also where it is going to write. SQLite refuses the change from reader to
writer at once, without waiting, if anyone has written meanwhile: "database is locked", at nearly every worker's poll.
A transaction that begins as a writer waits its turn, for up to a minute. On Postgres nothing changes. Later versions of
Prefect begin some transactions so; they do not fit vLLM's range for FastAPI.
"""

from __future__ import annotations

import runpy
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

_THEIRS = AioSqliteConfiguration.begin_transaction


def wait_in_turn() -> None:
    """From now on, transactions of a Prefect server in this process begin as writers where its database is SQLite."""
    AioSqliteConfiguration.begin_transaction = _as_writer  # type: ignore[method-assign, assignment]


def create_app() -> Any:
    """The server's application, for uvicorn's `--factory`."""
    from prefect.server.api.server import create_app as theirs

    wait_in_turn()
    return theirs()


@asynccontextmanager
async def _as_writer(configuration: AioSqliteConfiguration, session: AsyncSession, with_for_update: bool = False
                     ) -> AsyncGenerator[AsyncSessionTransaction, None]:
    outermost = SQLITE_BEGIN_MODE.get() is None
    async with _THEIRS(configuration, session, with_for_update=outermost or with_for_update) as transaction:
        if not outermost:
            yield transaction
            return
        await session.connection()  # begins here and now
        # What is begun within it could only wait for itself, and so could Prefect's look at an automation that it has
        # just committed: it stops the event loop, in which another writer may be under way. Theirs sets the mode back.
        SQLITE_BEGIN_MODE.set("DEFERRED")
        yield transaction


if __name__ == "__main__":
    wait_in_turn()
    runpy.run_module("prefect", run_name="__main__")
