"""Open a database by its URL: the one place that knows which engine a URL means."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from twisted.internet.interfaces import IReactorFromThreads

from storage.database import Database, Dialect, Transaction
from storage.sqlite import open_sqlite


async def open_database(url: str, reactor: IReactorFromThreads, *, pool_size: int = 10) -> Database:
    """Open `sqlite:///relative/path`, `sqlite:////absolute/path` or `postgresql://…` and see that it answers.

    `pool_size` is the number of connections on PostgreSQL; SQLite takes a few readers and one writer.
    Raises `ValueError` for a URL or server that cannot serve, `DatabaseGone` when it does not answer.
    """
    database = _open(url, reactor, pool_size)
    try:
        encoding = await database.read(_encoding_of)
        if encoding not in {"UTF8", "UTF-8"}:
            raise ValueError(f"the database's encoding is {encoding}; it must be UTF8")
    except BaseException:
        await database.close()
        raise
    return database


def _open(url: str, reactor: IReactorFromThreads, pool_size: int) -> Database:
    parts = urlsplit(url)
    if parts.scheme == "sqlite" and not parts.netloc and len(parts.path) > 1:
        return open_sqlite(unquote(parts.path[1:]), reactor, readers=max(1, min(3, pool_size - 1)))
    if parts.scheme in {"postgresql", "postgres"}:
        from storage.postgres import open_postgres  # its driver takes 4 MB of memory

        return open_postgres(url, reactor, pool_size=pool_size)
    raise ValueError("the database URL must be sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME")


def _encoding_of(tx: Transaction) -> str:
    """Ask in which encoding the database keeps text."""
    sql = "PRAGMA encoding" if tx.dialect is Dialect.SQLITE else "SHOW server_encoding"
    row = tx.one(sql)
    return str(row[0]) if row else ""
