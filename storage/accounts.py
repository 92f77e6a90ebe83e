"""Accounts of this server: one row each, never deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from storage import nids
from storage.database import Row, Transaction, single_statement
from storage.rows import Rows, Statement
from storage.text import escape, unescape

_COLUMNS = (
    "a.user_nid, u.user_id, a.password, a.is_guest, a.is_admin, a.deactivated, a.suspended, a.locked,"
    " a.shadow_banned"
)
_FROM = "FROM users AS u JOIN accounts AS a ON a.user_nid = u.user_nid"
_BY_ID = f"SELECT {_COLUMNS} {_FROM} WHERE u.user_id = ?"
_BY_NID = f"SELECT {_COLUMNS} {_FROM} WHERE a.user_nid = ?"
_LOCK = "SELECT user_nid FROM accounts WHERE user_nid = ? FOR UPDATE"
_CREATE = (
    "INSERT INTO accounts (user_nid, password, created, is_guest, is_admin, search)"
    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_FLAGS = ("is_admin", "suspended", "locked", "shadow_banned")
_SEARCH = f"""
    SELECT u.user_id, a.user_nid {_FROM}
    WHERE a.deactivated = 0 AND a.user_nid <> ? AND a.search LIKE ? ESCAPE '!'
      AND (EXISTS (SELECT 1 FROM memberships AS mine
                   JOIN memberships AS theirs ON theirs.room_nid = mine.room_nid
                   WHERE mine.user_nid = ? AND mine.membership = 1
                     AND theirs.user_nid = a.user_nid AND theirs.membership = 1)
           OR EXISTS (SELECT 1 FROM memberships AS theirs
                      JOIN published_rooms AS p ON p.room_nid = theirs.room_nid
                      WHERE theirs.user_nid = a.user_nid AND theirs.membership = 1))
    ORDER BY u.user_id LIMIT ?
"""

SET_PASSWORD = Statement("UPDATE accounts SET password = ? WHERE user_nid = ?")
SET_SEARCH = Statement("UPDATE accounts SET search = ? WHERE user_nid = ?")
DEACTIVATE = Statement(
    "UPDATE accounts SET deactivated = 1, erased = ?, password = NULL, search = '' WHERE user_nid = ?"
)
SET_FLAG = {name: Statement(f"UPDATE accounts SET {name} = ? WHERE user_nid = ?") for name in _FLAGS}


class AccountRow(NamedTuple):
    """An account as it stands."""

    user_nid: int
    user_id: str
    password: str | None
    is_guest: bool
    is_admin: bool
    deactivated: bool
    suspended: bool
    locked: bool
    shadow_banned: bool


class NewAccount(NamedTuple):
    """An account to be made."""

    user_id: str
    password: str | None
    created: int
    is_admin: bool
    search: str


def _account(row: Row | None) -> AccountRow | None:
    if row is None:
        return None
    return AccountRow(row[0], unescape(row[1]), row[2], *(bool(flag) for flag in row[3:]))


@single_statement
def by_id(tx: Transaction, user_id: str) -> AccountRow | None:
    """Look an account up by its user ID."""
    return _account(tx.one(_BY_ID, (escape(user_id),)))


@single_statement
def by_nid(tx: Transaction, user_nid: int) -> AccountRow | None:
    """Look an account up by its user's number."""
    return _account(tx.one(_BY_NID, (user_nid,)))


def lock(tx: Transaction, user_nid: int) -> AccountRow | None:
    """Look an account up that stays as it is until the end of the transaction."""
    tx.one(_LOCK, (user_nid,))
    return by_nid(tx, user_nid)


def create(tx: Transaction, account: NewAccount) -> int | None:
    """Make an account and give its user's number; None if the name is taken."""
    user_nid = nids.intern_users(tx, (account.user_id,))[account.user_id]
    row = (user_nid, account.password, account.created, 0, int(account.is_admin), escape(account.search))
    return user_nid if tx.execute(_CREATE, row) else None


def password_rows(user_nid: int, password: str) -> Rows:
    """Give the row that sets a password's hash."""
    return Rows(SET_PASSWORD, ((password, user_nid),))


def search_rows(user_nid: int, search: str) -> Rows:
    """Give the row that sets what the user directory looks at."""
    return Rows(SET_SEARCH, ((escape(search), user_nid),))


def deactivation_rows(user_nid: int, *, erase: bool) -> Rows:
    """Give the row that ends an account for good."""
    return Rows(DEACTIVATE, ((int(erase), user_nid),))


def flag_rows(user_nid: int, flag: str, value: bool) -> Rows:
    """Give the row that sets `is_admin`, `suspended`, `locked` or `shadow_banned`."""
    return Rows(SET_FLAG[flag], ((int(value), user_nid),))


@single_statement
def search(tx: Transaction, asker_nid: int, term: str, limit: int) -> Sequence[tuple[str, int]]:
    """Find accounts that the asker may know of: those in published rooms, or in rooms with the asker."""
    pattern = "".join("!" + char if char in "!%_" else char for char in escape(term))
    return [
        (unescape(row[0]), row[1]) for row in tx.all(_SEARCH, (asker_nid, f"%{pattern}%", asker_nid, limit))
    ]
