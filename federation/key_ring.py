"""The keys of other servers: remembered, looked up in bulk, fetched once for all who wait.

A need names a key and the time for which it must have been valid. Answers hold only what satisfies; what
cannot be had is absent, and is not asked for again for a while.

Source: server-server-api.md, "Retrieving server keys"; rooms/v5.md, "Signing key validity period".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, gatherResults

from federation.key_fetching import KeyFetcher
from federation.own_keys import OwnKeys
from homeserver.clock import Clock
from homeserver.single_flight import SingleFlight
from protocol.identifiers import KeyID, ServerName
from protocol.signing import VerifyKey
from storage.server_keys import ServerKeyStore, StoredKey

MAX_KNOWN = 10_000
"""Servers whose keys are kept in memory."""
BULK = 10
"""From so many servers on, notaries are asked before the servers themselves."""
FIRST_WAIT = 60_000
MAX_WAIT = 3_600_000
"""Milliseconds before a server that did not give a wanted key is asked again: doubling from first to max.

For a request that came from that server, the first wait holds: it may just have come back."""


@frozen(cache_hash=True)
class KeyNeed:
    """A key, and when it must have been valid (ms); None: at any time, for events of old room versions.

    `current` asks for a key in use now, as requests need; an expired one does not serve.
    """

    server: ServerName
    key_id: KeyID
    at: int | None
    current: bool = False


@frozen
class _Absent:
    """A server that did not give what was wanted: when that was, and how long to wait. Times in ms."""

    at: int
    wait: int


def satisfies(key: StoredKey, need: KeyNeed) -> bool:
    """Tell whether a key serves a need."""
    if need.current and key.expired:
        return False
    return need.at is None or need.at <= key.valid_until


@lru_cache(MAX_KNOWN)
def _verify_key(raw: bytes) -> VerifyKey:
    """Give a key as made once."""
    return VerifyKey(raw)


@define
class KeyRing:
    """All keys this server knows."""

    own: OwnKeys
    store: ServerKeyStore
    fetcher: KeyFetcher
    clock: Clock
    _known: OrderedDict[ServerName, dict[KeyID, StoredKey]] = field(factory=OrderedDict, init=False)
    _absent: OrderedDict[ServerName, _Absent] = field(factory=OrderedDict, init=False)
    _direct: SingleFlight[ServerName, bool] = field(factory=SingleFlight, init=False)

    async def find(self, needs: Collection[KeyNeed]) -> dict[KeyNeed, VerifyKey]:
        """Give the keys for as many needs as can be had; the others are absent."""
        await self._load({need.server for need in needs})
        found = self._satisfied(needs)
        if len(found) < len(needs):
            missing = self._unsatisfied(needs)
            if missing:
                await self._fetch(missing)
                found = self._satisfied(needs)
        return found

    async def stored(self, servers: Collection[ServerName]) -> Mapping[ServerName, Collection[StoredKey]]:
        """Give what is known of servers' keys, without asking anybody."""
        await self._load(servers)
        return {server: self._known[server].values() for server in servers if server in self._known}

    async def refresh(self, needs: Collection[KeyNeed]) -> None:
        """Ask servers themselves for keys that are missing or end too soon, as a notary does."""
        await self._load({need.server for need in needs})
        missing = self._unsatisfied(needs)
        servers = {need.server for need in missing}
        answered = await self._ask_directly(servers)
        self._note(servers, {need.server for need in missing if self._get(need) is None}, answered)

    def _get(self, need: KeyNeed) -> VerifyKey | None:
        """Give the key for a need from memory."""
        if need.server == self.own.server_name:
            return self.own.verify_keys().get(need.key_id)
        key = self._known.get(need.server, {}).get(need.key_id)
        if key is None or not satisfies(key, need):
            return None
        return _verify_key(key.public_key)

    def _satisfied(self, needs: Iterable[KeyNeed]) -> dict[KeyNeed, VerifyKey]:
        """Give the keys for those needs that memory serves."""
        found = ((need, self._get(need)) for need in needs)
        return {need: key for need, key in found if key is not None}

    def _unsatisfied(self, needs: Iterable[KeyNeed]) -> list[KeyNeed]:
        """Give the needs that memory does not serve and that may be asked for now."""
        now = self.clock.now_ms()
        return [need for need in needs if self._get(need) is None and self._may_ask(need, now)]

    def _may_ask(self, need: KeyNeed, now: int) -> bool:
        """Tell whether asking is allowed: never for our own keys, not while a server is known not to help."""
        if need.server == self.own.server_name:
            return False
        absent = self._absent.get(need.server)
        if absent is None:
            return True
        wait = FIRST_WAIT if need.current else absent.wait
        return absent.at + wait <= now

    async def _load(self, servers: Iterable[ServerName]) -> None:
        """Bring what the database knows of servers into memory."""
        unknown = [
            server for server in servers if server not in self._known and server != self.own.server_name
        ]
        if unknown:
            self._remember(await self.store.of_servers(unknown))

    async def _fetch(self, missing: Collection[KeyNeed]) -> None:
        """Ask servers and notaries for what is missing, in the order that is quicker."""
        servers = {need.server for need in missing}
        bulk_first = len(servers) >= BULK
        if bulk_first:
            await self._ask_notaries(missing)
        answered = await self._ask_directly({need.server for need in missing if self._get(need) is None})
        left = [need for need in missing if self._get(need) is None]
        if left and not bulk_first:
            await self._ask_notaries(left)
        self._note(servers, {need.server for need in missing if self._get(need) is None}, answered)

    async def _ask_directly(self, servers: Collection[ServerName]) -> set[ServerName]:
        """Ask servers for their own keys, each once for all who wait; give those that answered."""
        ordered = list(servers)
        outcomes = await gatherResults([Deferred.fromCoroutine(self._ask_one(server)) for server in ordered])
        return {server for server, answered in zip(ordered, outcomes, strict=True) if answered}

    async def _ask_one(self, server: ServerName) -> bool:
        return await self._direct.run(server, lambda: self._take(server))

    async def _take(self, server: ServerName) -> bool:
        keys = await self.fetcher.direct(server)
        await self._keep(keys)
        return bool(keys)

    async def _ask_notaries(self, missing: Collection[KeyNeed]) -> None:
        """Ask the notaries for all that is missing at once."""
        now = self.clock.now_ms()
        wanted: dict[ServerName, dict[KeyID, int]] = {}
        for need in missing:
            wanted.setdefault(need.server, {})[need.key_id] = need.at if need.at is not None else now
        await self._keep(await self.fetcher.from_notaries(wanted))

    async def _keep(self, keys: Collection[StoredKey]) -> None:
        """Keep fetched keys in database and memory; a known key ID never changes its key."""
        if not keys:
            return
        await self.store.keep(list(keys))
        self._remember(await self.store.of_servers(list({key.server for key in keys})))

    def _remember(self, keys: Iterable[StoredKey]) -> None:
        for key in keys:
            self._known.setdefault(key.server, {})[key.key_id] = key
            self._known.move_to_end(key.server)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def _note(
        self, asked: Collection[ServerName], failed: Collection[ServerName], answered: Collection[ServerName]
    ) -> None:
        """Remember which servers did not help: for longer each time, unless they answer but lack the key.

        So a stranger who invents key IDs cannot keep a server's next key from being learnt.
        """
        now = self.clock.now_ms()
        for server in asked:
            before = self._absent.pop(server, None)
            if server in failed:
                again = before is not None and server not in answered
                wait = min(before.wait * 2, MAX_WAIT) if before is not None and again else FIRST_WAIT
                self._absent[server] = _Absent(now, wait)
        while len(self._absent) > MAX_KNOWN:
            self._absent.popitem(last=False)
