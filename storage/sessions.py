"""Sessions, which access tokens name, and refresh tokens, kept as hashes alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from storage import nids
from storage.database import Row, Transaction, single_statement
from storage.rows import Rows, Statement
from storage.text import escape, unescape

SESSION_NUMBERS = "session"
KEPT_GENERATIONS = 100
"""Generations of refresh tokens whose reuse is noticed."""

_COLUMNS = "session_nid, user_nid, device_id, gen, used_gen"
_BY_NID = f"SELECT {_COLUMNS} FROM sessions WHERE session_nid = ?"
_LOCKED = f"SELECT {_COLUMNS} FROM sessions WHERE session_nid = ? FOR UPDATE"
_OF_USER = f"SELECT {_COLUMNS} FROM sessions WHERE user_nid = ?"
_INSERT = """
    INSERT INTO sessions (session_nid, user_nid, device_id, gen, used_gen, created) VALUES (?, ?, ?, 1, 1, ?)
"""
_SET_GEN = "UPDATE sessions SET gen = ? WHERE session_nid = ?"
_OF_DEVICE = f"SELECT {_COLUMNS} FROM sessions WHERE user_nid = ? AND device_id = ?"
_DELETE_OF_DEVICE = "DELETE FROM sessions WHERE user_nid = ? AND device_id = ?"
_REFRESH_BY_HASH = "SELECT session_nid, gen, expires FROM refresh_tokens WHERE hash = ?"
_PUT_REFRESH = "INSERT INTO refresh_tokens (hash, session_nid, gen, expires) VALUES (?, ?, ?, ?)"
_DROP_OLD_REFRESH = "DELETE FROM refresh_tokens WHERE session_nid = ? AND gen < ?"
_DROP_LOOSE_REFRESH = (
    "DELETE FROM refresh_tokens WHERE expires < ?"
    " OR NOT EXISTS (SELECT 1 FROM sessions AS s WHERE s.session_nid = refresh_tokens.session_nid)"
)

USE_GEN = Statement("UPDATE sessions SET used_gen = ? WHERE session_nid = ? AND used_gen < ?")
END = Statement("DELETE FROM sessions WHERE session_nid = ?")
DROP_REFRESH = Statement("DELETE FROM refresh_tokens WHERE session_nid = ?")


class SessionRow(NamedTuple):
    """A session: which device of whom, and how often its tokens were renewed."""

    session_nid: int
    user_nid: int
    device_id: str
    gen: int
    used_gen: int


class RefreshRow(NamedTuple):
    """A refresh token."""

    session_nid: int
    gen: int
    expires: int | None


def _session(row: Row | None) -> SessionRow | None:
    return None if row is None else SessionRow(row[0], row[1], unescape(row[2]), row[3], row[4])


@single_statement
def by_nid(tx: Transaction, session_nid: int) -> SessionRow | None:
    """Look a session up."""
    return _session(tx.one(_BY_NID, (session_nid,)))


def lock(tx: Transaction, session_nid: int) -> SessionRow | None:
    """Look a session up, and let nobody else change it until the transaction ends."""
    return _session(tx.one(_LOCKED, (session_nid,)))


@single_statement
def of_user(tx: Transaction, user_nid: int) -> list[SessionRow]:
    """Give all sessions of a user."""
    return [found for row in tx.all(_OF_USER, (user_nid,)) if (found := _session(row)) is not None]


def begin(
    tx: Transaction, user_nid: int, device_id: str, now: int
) -> tuple[SessionRow, Sequence[SessionRow]]:
    """Begin a session of a device, ending the one it had; give both."""
    ended = [_session(row) for row in tx.all(_OF_DEVICE, (user_nid, escape(device_id)))]
    if ended:
        tx.execute(_DELETE_OF_DEVICE, (user_nid, escape(device_id)))
    session_nid = nids.take(tx, SESSION_NUMBERS, 1)
    tx.execute(_INSERT, (session_nid, user_nid, escape(device_id), now))
    return SessionRow(session_nid, user_nid, device_id, 1, 1), [row for row in ended if row is not None]


def set_gen(tx: Transaction, session_nid: int, gen: int) -> None:
    """Begin a new generation of a session's tokens."""
    tx.execute(_SET_GEN, (gen, session_nid))


def refresh_token(tx: Transaction, token_hash: bytes) -> RefreshRow | None:
    """Look a refresh token up."""
    row = tx.one(_REFRESH_BY_HASH, (token_hash,))
    return None if row is None else RefreshRow(*row)


def put_refresh_token(tx: Transaction, token_hash: bytes, row: RefreshRow) -> None:
    """Keep a refresh token; old ones stay for a while, to be known when they come again."""
    tx.execute(_DROP_OLD_REFRESH, (row.session_nid, row.gen - KEPT_GENERATIONS))
    tx.execute(_PUT_REFRESH, (token_hash, *row))


def drop_loose_refresh_tokens(tx: Transaction, now: int) -> int:
    """Drop refresh tokens that have expired or whose session is gone; tell how many."""
    return tx.execute(_DROP_LOOSE_REFRESH, (now,))


def use_rows(session_nid: int, gen: int) -> Rows:
    """Give the row that notes the first use of a generation."""
    return Rows(USE_GEN, ((gen, session_nid, gen),))


def end_rows(session_nids: Sequence[int]) -> tuple[Rows, ...]:
    """Give the rows that end sessions."""
    named = tuple((nid,) for nid in session_nids)
    return (Rows(END, named), Rows(DROP_REFRESH, named))
