"""Fetching keys of other servers: from the server itself, or from notaries this server trusts.

Never raises for a server that fails or lies: what cannot be proved is absent.

Source: server-server-api.md, "Retrieving server keys", "Querying Keys Through Another Server".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen
from twisted.internet.defer import DeferredSemaphore
from twisted.logger import Logger

from federation.requests import ServerRequest, ServerRequests
from homeserver.clock import Clock
from protocol.canonical_json import encode
from protocol.errors import MatrixError
from protocol.identifiers import KeyID, ServerName
from protocol.server_keys import check_notary, read_key_document
from protocol.signing import VerifyKey
from storage.server_keys import StoredKey

MAX_ASKED_AT_ONCE = 20
"""Servers asked for their keys side by side."""
MAX_NOTARY_BYTES = 8 * 1024 * 1024
NOTARY_BATCH = 100
"""Servers named in one request to a notary."""
SECONDS = 15

Wanted = Mapping[ServerName, Mapping[KeyID, int]]
"""Key IDs by server, each with the time (ms) until which it should be valid."""

log = Logger()


@frozen
class Notary:
    """A server trusted to tell others' keys, with its own keys; none: learnt from itself over TLS."""

    server: ServerName
    keys: Mapping[KeyID, VerifyKey]


@frozen
class KeyFetcher:
    """Asks for keys."""

    requests: ServerRequests
    clock: Clock
    notaries: Sequence[Notary]
    slots: DeferredSemaphore
    """Bounds the servers asked side by side; made with MAX_ASKED_AT_ONCE tokens."""

    async def direct(self, server: ServerName) -> list[StoredKey]:
        """Ask `server` for its own keys; none if it fails.

        The back-off does not hold here, since a server that comes back must be able to prove who it is; the
        key ring sees to it that a server that gave no keys is not asked again soon.
        """
        await self.slots.acquire()
        try:
            answer = await self.requests.unsigned(
                ServerRequest(server, "GET", "/_matrix/key/v2/server", seconds=SECONDS, insist=True)
            )
            return keys_in(answer, server, self.clock.now_ms())
        except MatrixError as error:
            log.debug("no keys from {server}: {error}", server=server, error=error.error)
            return []
        finally:
            self.slots.release()

    async def from_notaries(self, wanted: Wanted) -> list[StoredKey]:
        """Ask the notaries in turn for keys; give those proved."""
        found: list[StoredKey] = []
        missing = dict(wanted)
        for notary in self.notaries:
            if missing:
                answered = await self._from_notary(notary, missing)
                found += answered
                for key in answered:
                    missing.pop(key.server, None)
        return found

    async def _from_notary(self, notary: Notary, wanted: Wanted) -> list[StoredKey]:
        """Ask one notary, in batches."""
        keys = notary.keys or await self._keys_of(notary.server)
        names = [server for server in wanted if server != notary.server]
        found: list[StoredKey] = []
        for start in range(0, len(names) if keys else 0, NOTARY_BATCH):
            batch = {name: wanted[name] for name in names[start : start + NOTARY_BATCH]}
            found += await self._batch(notary.server, keys, batch)
        return found

    async def _batch(
        self, notary: ServerName, keys: Mapping[KeyID, VerifyKey], wanted: Wanted
    ) -> list[StoredKey]:
        """Send one query and read its documents, each judged alone."""
        query = {
            server: {key_id: {"minimum_valid_until_ts": time} for key_id, time in keys_of.items()}
            for server, keys_of in wanted.items()
        }
        body = encode({"server_keys": query})
        request = ServerRequest(
            notary, "POST", "/_matrix/key/v2/query", body, max_bytes=MAX_NOTARY_BYTES, seconds=2 * SECONDS
        )
        try:
            answer = await self.requests.signed(request)
        except MatrixError as error:
            log.info("no keys from the notary {notary}: {error}", notary=notary, error=error.error)
            return []
        documents = answer.get("server_keys")
        return self._proved(notary, keys, wanted, documents if isinstance(documents, list) else [])

    def _proved(
        self,
        notary: ServerName,
        keys: Mapping[KeyID, VerifyKey],
        wanted: Wanted,
        documents: Sequence[object],
    ) -> list[StoredKey]:
        """Keep the documents that were asked for, and that both the notary and the server itself signed."""
        found: list[StoredKey] = []
        for document in documents[: 10 * NOTARY_BATCH]:
            server = document.get("server_name") if isinstance(document, dict) else None
            if not isinstance(document, dict) or server not in wanted:
                continue
            try:
                check_notary(document, notary, keys)
                found += keys_in(document, ServerName(str(server)), self.clock.now_ms())
            except MatrixError as error:
                log.info("a false key document from {notary}: {error}", notary=notary, error=error.error)
        return found

    async def _keys_of(self, notary: ServerName) -> Mapping[KeyID, VerifyKey]:
        """Give the current keys of a notary whose keys are not configured."""
        return {key.key_id: VerifyKey(key.public_key) for key in await self.direct(notary) if not key.expired}


def keys_in(document: object, server: ServerName, now: int) -> list[StoredKey]:
    """Give the keys that a document of `server` states; raises BadJson or InvalidSignature."""
    proved = read_key_document(document, server, now)
    raw = encode(proved.json)
    return [
        StoredKey(server, key.key_id, bytes(key.verify_key), key.valid_until, key.expired, now, raw)
        for key in proved.keys.values()
    ]
