"""News of local users' devices: what a change is told by, here and to the servers that share a room.

Each change has a number of its own, taken before it is written: one whose change nobody hears of makes
other servers ask for the whole list with the next, which is what they should do then.

Source: server-server-api.md, "Device Management".
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from homeserver.clock import Clock
from homeserver.devices.outbox import queued
from homeserver.events.nids import Nids
from protocol.canonical_json import JsonObject, JsonValue, decode_own, encode
from protocol.identifiers import ServerName, UserID
from storage import device_keys, shared_rooms
from storage.database import Database
from storage.feed import Kind, NewEntry
from storage.rows import Rows


@frozen
class DeviceChange:
    """A device that is not what it was, or is gone."""

    device_id: str
    deleted: bool = False

    def content(self, user_id: UserID, stream_id: int, keys: JsonValue | None) -> JsonObject:
        """Give the content of its `m.device_list_update`; `keys` are the identity keys it has now.

        They are told with every change: other servers take what is told for all there is to know. The
        device's name is for local users alone (security: E9).
        """
        content: JsonObject = {
            "user_id": user_id,
            "device_id": self.device_id,
            "stream_id": stream_id,
            "prev_id": [stream_id - 1] if stream_id > 1 else [],
            "deleted": self.deleted,
        }
        if keys is not None and not self.deleted:
            content["keys"] = keys
        return content


@frozen(eq=False)
class DeviceNews:
    """Gives what is to be written together with changes of devices."""

    server_name: ServerName
    database: Database
    nids: Nids
    clock: Clock

    async def of(
        self, user_nid: int, changes: Sequence[DeviceChange]
    ) -> tuple[tuple[Rows, ...], tuple[NewEntry, ...]]:
        """Give the rows and entries that tell of changes of one user's devices; nothing if there are none.

        Changed keys are to be committed before.
        """
        if not changes:
            return (), ()
        rows: list[Rows] = []
        entries = [NewEntry(Kind.DEVICE_LIST, user_nid=user_nid)]
        last = await self.database.write(device_keys.next_streams, user_nid, len(changes))
        user_id = (await self.nids.user_ids([user_nid]))[user_nid]
        servers = await self.database.read(shared_rooms.servers_of_user, user_nid)
        keys = {row.device_id: row.keys for row in await self.database.read(device_keys.keys_of, [user_nid])}
        for stream_id, change in enumerate(changes, last - len(changes) + 1):
            of_device = keys.get(change.device_id)
            content = change.content(user_id, stream_id, None if of_device is None else decode_own(of_device))
            edu = encode({"edu_type": "m.device_list_update", "content": content})
            for server in servers:
                if server != self.server_name:
                    edu_rows, entry = await queued(self.nids, ServerName(server), edu, self.clock.now_ms())
                    rows.append(edu_rows)
                    entries.append(entry)
        return tuple(rows), tuple(entries)
