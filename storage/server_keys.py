"""Keys of other servers, with the documents that vouch for them."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from protocol.identifiers import KeyID, ServerName
from storage.database import Database, Transaction

_KEEP = """INSERT INTO server_keys (server, key_id, public_key, valid_until, expired, fetched, document)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (server, key_id) DO UPDATE SET
    valid_until = excluded.valid_until, expired = excluded.expired,
    fetched = excluded.fetched, document = excluded.document
WHERE server_keys.public_key = excluded.public_key
    AND server_keys.expired <= excluded.expired
    AND (server_keys.valid_until <= excluded.valid_until OR server_keys.expired < excluded.expired)"""
_OF_SERVERS = """SELECT server, key_id, public_key, valid_until, expired, fetched, document
FROM server_keys WHERE server IN ?"""


@frozen
class StoredKey:
    """One key of one server, as a document of that server states it.

    `valid_until` in milliseconds; of an `expired` key, when it was replaced. `document` is canonical JSON.
    """

    server: ServerName
    key_id: KeyID
    public_key: bytes
    valid_until: int
    expired: bool
    fetched: int
    document: bytes


@frozen
class ServerKeyStore:
    """The table of other servers' keys."""

    database: Database

    async def of_servers(self, servers: Sequence[ServerName]) -> list[StoredKey]:
        """Give all keys known of `servers`."""
        return await self.database.read(_read, servers) if servers else []

    async def keep(self, keys: Sequence[StoredKey]) -> None:
        """Keep keys; a key ID known with another key stays as it was, an expired key stays expired."""
        if keys:
            await self.database.write(_write, keys)


def _read(tx: Transaction, servers: Sequence[ServerName]) -> list[StoredKey]:
    return [
        StoredKey(server, key_id, bytes(key), valid_until, bool(expired), fetched, bytes(document))
        for server, key_id, key, valid_until, expired, fetched, document in tx.all(
            _OF_SERVERS, (list(servers),)
        )
    ]


def _write(tx: Transaction, keys: Sequence[StoredKey]) -> None:
    tx.many(
        _KEEP,
        [
            (
                key.server,
                key.key_id,
                key.public_key,
                key.valid_until,
                int(key.expired),
                key.fetched,
                key.document,
            )
            for key in keys
        ],
    )
