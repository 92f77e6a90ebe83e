"""Telling other servers' keys: the documents of those servers, with our signature beside theirs.

What was signed is never written anew: a document is read back, and a signature is added to it. Servers
that do not answer are vouched for by what they last said.

Source: server-server-api.md, "Querying Keys Through Another Server"; security K6.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from attrs import frozen

from federation.key_ring import KeyNeed, KeyRing
from federation.own_keys import OwnKeys
from protocol.canonical_json import JsonObject, decode, encode
from protocol.identifiers import KeyID, ServerName
from protocol.signing import sign_json
from storage.server_keys import StoredKey

MAX_REFRESHED = 50
"""Servers asked for their keys for the sake of one request; of the others only what is known is told."""
MAX_SERVERS = 1_000
"""Servers looked up for one request."""


@frozen
class Criteria:
    """What is asked of one server: keys by ID, each with the time (ms) until which it should count.

    Without any, all keys are meant, and `until` is that time for those in use.
    """

    keys: Mapping[KeyID, int]
    until: int


Query = Mapping[ServerName, Criteria]


@frozen(eq=False)
class Notary:
    """Answers questions about servers' keys."""

    own: OwnKeys
    ring: KeyRing

    async def answer(self, query: Query, now: int) -> bytes:
        """Give the JSON of the answer; what nobody knows is absent."""
        named = dict(list(query.items())[:MAX_SERVERS])
        await self._refresh(named)
        stored = await self.ring.stored(named.keys())
        documents: dict[bytes, None] = {}
        for server, criteria in named.items():
            if server == self.own.server_name:
                documents[self.own.document(now)] = None
            for document in _documents(stored.get(server, ()), criteria.keys):
                documents[self._signed(document)] = None
        return b'{"server_keys":[%b]}' % b",".join(documents)

    async def _refresh(self, query: Query) -> None:
        """Ask servers whose known keys are missing or end too soon, not more than a few."""
        stored = await self.ring.stored(query.keys())
        needs: dict[ServerName, list[KeyNeed]] = {}
        for server, criteria in query.items():
            until = criteria.until
            current = {key.key_id: until for key in stored.get(server, ()) if not key.expired}
            wanted = criteria.keys or current or {KeyID(""): until}
            for key_id, time in wanted.items():
                if not _is_known(stored.get(server, ()), key_id, time):
                    needs.setdefault(server, []).append(KeyNeed(server, key_id, time))
        first = list(needs.values())[:MAX_REFRESHED]
        await self.ring.refresh([need for of_server in first for need in of_server])

    def _signed(self, document: bytes) -> bytes:
        """Add our signature to a document."""
        read = decode(document)
        assert isinstance(read, dict)
        signed: JsonObject = read
        for key in self.own.keys:
            signed = sign_json(signed, self.own.server_name, key)
        return encode(signed)


def _is_known(keys: Collection[StoredKey], key_id: KeyID, until: int) -> bool:
    """Tell whether nothing new is to be learnt of a key: it lives long enough, or has ended for good."""
    return any(key.key_id == key_id and (key.expired or key.valid_until >= until) for key in keys)


def _documents(keys: Collection[StoredKey], wanted: Mapping[KeyID, int]) -> list[bytes]:
    """Give the documents that state the keys wanted, or all keys if none are named."""
    return [key.document for key in keys if not wanted or key.key_id in wanted]
