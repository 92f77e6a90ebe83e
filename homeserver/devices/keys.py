"""Keys of devices: uploading, querying and claiming them, here and on other servers.

Identity keys of other servers' users are asked for when they are wanted; none are kept, so none go stale.

Source: client-server-api/modules/end_to_end_encryption.md; server-server-api.md, "End-to-End Encryption".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from attrs import Factory, define, frozen
from twisted.internet.defer import Deferred, gatherResults

from homeserver.devices.key_checks import check_device_keys, check_key
from homeserver.devices.news import DeviceChange, DeviceNews
from homeserver.events.nids import Nids
from homeserver.events.persister import Persister
from homeserver.events.write import Write
from homeserver.sync.session import Session
from homeserver.sync.suppliers import KeyCounts
from protocol.canonical_json import JsonObject
from protocol.errors import InvalidParam, MatrixError, NotFound
from protocol.identifiers import DeviceID, ServerName, UserID, server_of
from storage import device_keys
from storage.database import Database, Transaction
from storage.device_keys import FallbackKey, OneTimeKey
from storage.feed import Entry, Kind, NewEntry

MAX_ONE_TIME_KEYS: Final = 200
MAX_COUNTED: Final = 50_000


class RemoteKeys(Protocol):
    """Asks other servers for keys of their users."""

    async def query_keys(
        self, server: ServerName, device_keys: Mapping[UserID, Sequence[str]], seconds: float = 10
    ) -> JsonObject:
        """Give `device_keys`, `master_keys` and `self_signing_keys`."""
        ...

    async def claim_keys(
        self, server: ServerName, one_time_keys: Mapping[UserID, Mapping[str, str]], seconds: float = 10
    ) -> JsonObject:
        """Give `one_time_keys`."""
        ...


@frozen
class Upload:
    """What a device uploads."""

    device_keys: JsonObject | None
    one_time: Mapping[str, Any]
    fallback: Mapping[str, Any]


@define(eq=False)
class DeviceKeys:
    """The keys of devices. How many are left is kept in memory, as far as the feed is followed (`apply`)."""

    server_name: ServerName
    database: Database
    persister: Persister
    nids: Nids
    news: DeviceNews
    remote: RemoteKeys
    _counts: dict[int, dict[str, KeyCounts]] = Factory(dict)
    """By user nid and device."""
    _changes: int = 0
    """Counts forgotten so far: what was read while it moved is not kept."""

    async def upload(self, session: Session, upload: Upload) -> Mapping[str, int]:
        """Store a device's keys and give the counts of its one-time keys.

        Raises:
            BadJson: a key has a wrong form.
            InvalidParam: a key ID is held with another key, or there are too many.
        """
        identity = None
        if upload.device_keys is not None:
            identity = check_device_keys(upload.device_keys, session.user_id, session.device_id)
        one_time = [
            OneTimeKey(*check_key(key_id, key, "one_time_keys")) for key_id, key in upload.one_time.items()
        ]
        fallback = [
            FallbackKey(*check_key(key_id, key, "fallback_keys")) for key_id, key in upload.fallback.items()
        ]
        changed = await self.database.write(
            _store, session.user_nid, session.device_id, identity, one_time, fallback
        )
        if one_time or fallback:
            await self._tell_counts([session.user_nid])
        if changed:
            await self.changed(session.user_nid, session.device_id)
        return (await self.counts(session)).one_time

    async def changed(self, user_nid: int, device_id: DeviceID) -> None:
        """Tell everybody who shares a room that a local user's device is not what it was."""
        await self.persister.commit(Write(*await self.news.of(user_nid, [DeviceChange(device_id)])))

    async def remote_changed(self, user_nid: int) -> None:
        """Tell local users that the devices of another server's user changed."""
        entry = NewEntry(Kind.DEVICE_LIST, user_nid=user_nid)
        await self.persister.commit(Write(entries=(entry,)))

    async def counts(self, session: Session) -> KeyCounts:
        """Give how many one-time keys a device has left, and which fallback keys are unused."""
        user_nid, device_id = session.user_nid, session.device_id
        found = self._counts.get(user_nid, {}).get(device_id)
        if found is None:
            changes = self._changes
            found = await self.database.read(_read_counts, user_nid, device_id)
            if changes != self._changes:
                return found
            self._counts.setdefault(user_nid, {})[device_id] = found
            if len(self._counts) > MAX_COUNTED:
                del self._counts[next(iter(self._counts))]
        return found

    async def query_all(self, wanted: Mapping[UserID, Sequence[str]], seconds: float) -> JsonObject:
        """Give identity keys of users of any server; servers that did not answer are in `failures`.

        Beside those of local users stand the names of their devices.
        """
        own = {user: ids for user, ids in wanted.items() if self._is_own(user)}
        answer = await self.query(own, names=True)

        async def ask(server: ServerName) -> None:
            theirs = {user: ids for user, ids in wanted.items() if server_of(user) == server}
            found = await self.remote.query_keys(server, theirs, seconds)
            for name in ("device_keys", "master_keys", "self_signing_keys"):
                answer.setdefault(name, {}).update(found.get(name, {}))

        answer["failures"] = await self._ask_each(wanted, ask)
        return answer

    async def claim_all(self, wanted: Mapping[UserID, Mapping[str, str]], seconds: float) -> JsonObject:
        """Claim one-time keys of users of any server; servers that did not answer are in `failures`."""
        answer = await self.claim({user: by for user, by in wanted.items() if self._is_own(user)})

        async def ask(server: ServerName) -> None:
            theirs = {user: by for user, by in wanted.items() if server_of(user) == server}
            found = await self.remote.claim_keys(server, theirs, seconds)
            answer["one_time_keys"].update(found.get("one_time_keys", {}))

        answer["failures"] = await self._ask_each(wanted, ask)
        return answer

    async def query(self, wanted: Mapping[UserID, Sequence[str]], *, names: bool = False) -> JsonObject:
        """Give identity keys of local users; no device IDs: all. `names` are for local users alone."""
        nids = await self.nids.known_users(list(wanted))
        users = {nid: user for user, nid in nids.items()}
        found: dict[str, dict[str, Any]] = {}
        for row in await self.database.read(device_keys.keys_of, list(users)):
            user_id = users[row.user_nid]
            if not wanted[user_id] or row.device_id in wanted[user_id]:
                keys = json.loads(row.keys)
                if names and row.display_name:
                    keys["unsigned"] = {"device_display_name": row.display_name}
                found.setdefault(user_id, {})[row.device_id] = keys
        return {"device_keys": found, "master_keys": {}, "self_signing_keys": {}}

    async def claim(self, wanted: Mapping[UserID, Mapping[str, str]]) -> JsonObject:
        """Hand out one key for each device of local users, never the same twice."""
        found: dict[str, dict[str, Any]] = {}
        owners: set[int] = set()
        try:
            for user_id, user_nid in (await self.nids.known_users(list(wanted))).items():
                for device_id, algorithm in wanted[user_id].items():
                    if "\0" in device_id or "\0" in algorithm:
                        continue
                    key = await self.database.write(device_keys.claim, user_nid, device_id, algorithm)
                    if key is not None:
                        owners.add(user_nid)
                        named = {f"{algorithm}:{key.key_id}": json.loads(key.key)}
                        found.setdefault(user_id, {})[device_id] = named
        finally:  # what is handed out is gone, even if the rest fails
            if owners:
                await self._tell_counts(sorted(owners))
        return {"one_time_keys": found}

    def apply(self, entries: Sequence[Entry]) -> None:
        """Forget how many keys are left where that has changed. A listener of the feed."""
        for entry in entries:
            if entry.kind in (Kind.DEVICE_KEYS, Kind.DEVICE_LIST) and entry.user_nid is not None:
                self._forget(entry.user_nid)

    def _forget(self, user_nid: int) -> None:
        self._changes += 1
        self._counts.pop(user_nid, None)

    async def device_list(self, user_id: UserID) -> JsonObject:
        """Give a local user's devices with their keys, as other servers see them.

        Raises `NotFound` for a user who never had any; one whose last is gone has an empty list.
        """
        found = await self.database.read(device_keys.list_of, user_id)
        if found is None:
            raise NotFound(f"{user_id} has no devices")
        devices = [{"device_id": device_id, "keys": json.loads(keys)} for device_id, keys in found.keys]
        return {"stream_id": found.stream_id, "devices": devices}

    async def _tell_counts(self, user_nids: Sequence[int]) -> None:
        """Let every worker know that users' devices have more or fewer keys."""
        for user_nid in user_nids:
            self._forget(user_nid)  # it is so, even if nobody can be told
        entries = tuple(NewEntry(Kind.DEVICE_KEYS, user_nid=nid) for nid in user_nids)
        await self.persister.commit(Write(entries=entries))

    def _is_own(self, user_id: UserID) -> bool:
        return server_of(user_id) == self.server_name

    async def _ask_each(self, wanted: Mapping[UserID, object], ask: Any) -> JsonObject:
        """Ask all other servers at once, and give what went wrong by server."""
        failures: JsonObject = {}

        async def guarded(server: ServerName) -> None:
            try:
                await ask(server)
            except MatrixError as error:
                failures[server] = {"errcode": error.errcode, "error": error.error}

        servers = {server_of(user) for user in wanted if not self._is_own(user)}
        await gatherResults([Deferred.fromCoroutine(guarded(server)) for server in servers])
        return failures


def _read_counts(tx: Transaction, user_nid: int, device_id: str) -> KeyCounts:
    return KeyCounts(
        device_keys.counts(tx, user_nid, device_id), device_keys.unused_fallback(tx, user_nid, device_id)
    )


def _store(
    tx: Transaction,
    user_nid: int,
    device_id: str,
    identity: bytes | None,
    one_time: Sequence[OneTimeKey],
    fallback: Sequence[FallbackKey],
) -> bool:
    """Store what was uploaded; tell whether the identity keys changed."""
    held = device_keys.held(tx, user_nid, device_id)
    fresh = []
    for key in one_time:
        present = held.get((key.algorithm, key.key_id))
        if present is None:
            fresh.append(key)
        elif present != key.key:
            raise InvalidParam(f"one_time_keys: {key.algorithm}:{key.key_id} is held with another key")
    if len(held) + len(fresh) > MAX_ONE_TIME_KEYS:
        raise InvalidParam(f"one_time_keys: more than {MAX_ONE_TIME_KEYS} for one device")
    device_keys.add_one_time(tx, user_nid, device_id, fresh)
    device_keys.put_fallback(tx, user_nid, device_id, fallback)
    if identity is None:
        return False
    before = {row.device_id: row.keys for row in device_keys.keys_of(tx, [user_nid])}
    if before.get(device_id) == identity:
        return False
    device_keys.put_keys(tx, user_nid, device_id, identity)
    return True
