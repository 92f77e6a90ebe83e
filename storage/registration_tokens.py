"""What opens a registration: tokens with counted uses, nonces, and authentication under way."""

from __future__ import annotations

from typing import NamedTuple

from storage.database import Transaction, single_statement
from storage.text import escape

_VALID = (
    "SELECT 1 FROM registration_tokens WHERE token = ? AND (uses_allowed IS NULL OR used < uses_allowed)"
    " AND (expires IS NULL OR expires > ?)"
)
_USE = (
    "UPDATE registration_tokens SET used = used + 1 WHERE token = ?"
    " AND (uses_allowed IS NULL OR used < uses_allowed) AND (expires IS NULL OR expires > ?)"
)
_ADD = (
    "INSERT INTO registration_tokens (token, uses_allowed, expires) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
)
_PUT_NONCE = "INSERT INTO nonces (nonce, expires) VALUES (?, ?)"
_USE_NONCE = "DELETE FROM nonces WHERE nonce = ? AND expires > ?"
_BEGIN = "INSERT INTO uia_sessions (session, operation, completed, expires) VALUES (?, ?, ?, ?)"
_FIND = "SELECT operation, completed FROM uia_sessions WHERE session = ? AND expires > ?"
_COMPLETE = "UPDATE uia_sessions SET completed = ? WHERE session = ? AND completed = ?"
_END = "DELETE FROM uia_sessions WHERE session = ?"
_EXPIRED = ("DELETE FROM nonces WHERE expires <= ?", "DELETE FROM uia_sessions WHERE expires <= ?")


class UiaRow(NamedTuple):
    """Authentication under way: what it is good for, and JSON of the stages done."""

    operation: bytes
    completed: bytes


@single_statement
def is_valid(tx: Transaction, token: str, now: int) -> bool:
    """Tell whether a token lets somebody register now."""
    return tx.one(_VALID, (escape(token), now)) is not None


def use(tx: Transaction, token: str, now: int) -> bool:
    """Count a use of a token; False if it lets nobody register any more."""
    return tx.execute(_USE, (escape(token), now)) > 0


def add(tx: Transaction, token: str, uses_allowed: int | None, expires: int | None) -> bool:
    """Make a token; False if there is one of that name."""
    return tx.execute(_ADD, (escape(token), uses_allowed, expires)) > 0


def put_nonce(tx: Transaction, nonce: str, expires: int) -> None:
    """Keep a nonce."""
    tx.execute(_PUT_NONCE, (nonce, expires))


def use_nonce(tx: Transaction, nonce: str, now: int) -> bool:
    """Use a nonce up; False if it is unknown, used or expired."""
    return tx.execute(_USE_NONCE, (escape(nonce), now)) > 0


def begin_uia(tx: Transaction, session: str, row: UiaRow, expires: int) -> None:
    """Keep a new authentication."""
    tx.execute(_BEGIN, (session, *row, expires))


@single_statement
def find_uia(tx: Transaction, session: str, now: int) -> UiaRow | None:
    """Look an authentication up."""
    row = tx.one(_FIND, (escape(session), now))
    return None if row is None else UiaRow(bytes(row[0]), bytes(row[1]))


def complete_uia(tx: Transaction, session: str, before: bytes, after: bytes) -> bool:
    """Note the stages done; False if somebody else noted some meanwhile, or it is over."""
    return tx.execute(_COMPLETE, (after, escape(session), before)) > 0


def end_uia(tx: Transaction, session: str) -> bool:
    """Use an authentication up; False if somebody else has."""
    return tx.execute(_END, (escape(session),)) > 0


def drop_expired(tx: Transaction, now: int) -> int:
    """Drop nonces and authentications that have expired; tell how many."""
    return sum(tx.execute(statement, (now,)) for statement in _EXPIRED)
