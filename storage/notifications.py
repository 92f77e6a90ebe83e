"""Hear from PostgreSQL that the feed moved: one connection that listens, on a thread of its own.

A notification is a hint, never a fact: it may be lost with the connection, so every new connection counts
as one, and so does every other process that makes itself known. Nothing is read here; whoever hears reads
the feed.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable

import psycopg2
from twisted.internet.interfaces import IReactorFromThreads

from storage.feed import CHANNEL
from storage.feed_writers import GREETING, LEAVE, Writers
from storage.postgres import Connection, connect

RECONNECT_SECONDS = 1.0


class FeedNotifications:
    """Call back on the reactor whenever another writer has moved the feed."""

    def __init__(
        self, dsn: str, reactor: IReactorFromThreads, writers: Writers, moved: Callable[[], None]
    ) -> None:
        """Listen at `dsn`, and keep `writers`, who are there; what this process says is passed over."""
        self._dsn = dsn
        self._reactor = reactor
        self._writers = writers
        self._moved = moved
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="feed-notifications", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; blocks for a moment."""
        os.write(self._wake_write, b".")
        self._thread.join(timeout=10)
        os.close(self._wake_write)
        os.close(self._wake_read)

    def _run(self) -> None:
        """Listen, and connect again after a loss, until told to stop (runs on the thread)."""
        stopped = False
        while not stopped:
            try:
                stopped = self._listen()
            except psycopg2.Error:
                stopped = self._wait(None, RECONNECT_SECONDS)

    def _listen(self) -> bool:
        connection = connect(self._dsn)
        with contextlib.closing(connection):
            connection.cursor().execute(f"LISTEN {CHANNEL}")
            self._say(connection, f"{self._writers.own} {GREETING}")
            self._reactor.callFromThread(self._moved)
            self._hear(connection)
            while not self._wait(connection, None):
                connection.poll()
                self._hear(connection)
            self._say(connection, f"{self._writers.own} {LEAVE}")
        return True

    def _hear(self, connection: Connection) -> None:
        """Take in what was said; what comes while something is answered is taken in too."""
        while connection.notifies:
            payloads = [note.payload for note in connection.notifies]
            connection.notifies.clear()
            heard = [payload for payload in payloads if not self._writers.is_own(payload)]
            for answer in filter(None, map(self._writers.hear, heard)):
                self._say(connection, answer)
            if heard:
                self._reactor.callFromThread(self._moved)

    def _say(self, connection: Connection, payload: str) -> None:
        connection.cursor().execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))

    def _wait(self, connection: Connection | None, seconds: float | None) -> bool:
        """Wait for the connection to have something to say; tell whether to stop."""
        sources = [self._wake_read] if connection is None else [self._wake_read, connection.fileno()]
        ready, _, _ = select.select(sources, [], [], seconds)
        return self._wake_read in ready
